"""Models that are not here as a whole are refused by name."""

import warnings

import pytest
import torch
from objective_cases import network, refuses, samples
from torch import distributed, nn

from landscape import Hessian, Objective


def test_meta_and_lazy_weights_are_refused_by_name():
    model = network()
    model[4] = nn.Linear(6, 3, device="meta")
    with refuses(r"'4.weight' is on the meta device"):
        Objective(model, nn.CrossEntropyLoss(), samples())
    buffered = network()
    buffered.register_buffer("late", torch.zeros(2, device="meta"))
    with refuses(r"buffer 'late' is on the meta device"):
        Objective(buffered, nn.CrossEntropyLoss(), samples())
    lazy = nn.Sequential(nn.LazyLinear(6), nn.Tanh(), nn.Linear(6, 3))
    with refuses(r"'0.weight' is not initialised yet"):
        Objective(lazy, nn.CrossEntropyLoss(), samples())
    lazy(samples()[0])
    assert Objective(lazy, nn.CrossEntropyLoss(), samples()).value() > 0


@pytest.fixture
def one_rank(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_one_rank_is_measured_as_no_rank(one_rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor

    v = torch.ones(51)
    expected = Hessian(Objective(network(), nn.CrossEntropyLoss(), samples())) @ v
    for wrapped in (nn.parallel.DistributedDataParallel(network()), nn.DataParallel(network())):
        assert torch.equal(Hessian(Objective(wrapped, nn.CrossEntropyLoss(), samples())) @ v, expected)
    mesh = init_device_mesh("cpu", (1,))
    model = network()
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh))
    with refuses("'0.weight' is a DTensor"):
        Objective(model, nn.CrossEntropyLoss(), samples())
    sharded = network()
    fully_shard(sharded, mesh=mesh)
    torch.testing.assert_close(Hessian(Objective(sharded, nn.CrossEntropyLoss(), samples())) @ v, expected)
    with pytest.raises(TypeError, match="convert it before fully_shard"):
        Objective(sharded, nn.CrossEntropyLoss(), samples(), dtype=torch.float64)
    with pytest.raises(TypeError, match="leave process_group= out"):
        Objective(sharded, nn.CrossEntropyLoss(), samples(), process_group=None)


def test_what_is_cut_in_another_way_is_refused_by_its_name(one_rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (1,))

    def refused(model, match):
        with refuses(match):
            Objective(model, nn.CrossEntropyLoss(), samples())

    partly = network()
    fully_shard(partly[0], mesh=mesh)
    refused(partly, "'4.weight' is a plain tensor.*fully_shard on the whole model")
    meshes = network()
    fully_shard(meshes[0], mesh=init_device_mesh("cpu", (1, 1), mesh_dim_names=("replicate", "shard")))
    fully_shard(meshes, mesh=mesh)
    refused(meshes, "another mesh")
    grid = init_device_mesh("cpu", (1, 1), mesh_dim_names=("dp", "tp"))
    beside = network()
    for layer in (beside[0], beside[4]):
        for name, p in layer.named_parameters():
            setattr(layer, name, nn.Parameter(distribute_tensor(p.detach(), grid["tp"], [Replicate()])))
    fully_shard(beside, mesh=grid["dp"])
    refused(beside, "tensor parallelism")
    recurrent = nn.Sequential(nn.LSTM(6, 3), network())
    fully_shard(recurrent, mesh=mesh)
    refused(recurrent, "'0' is recurrent")
    whole = network()
    whole[0].register_buffer("cut", distribute_tensor(torch.ones(4), mesh, [Shard(0)]))
    refused(whole, "buffer '0.cut' is a DTensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of one rank and of FSDP1 itself
        flat = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    refused(flat, "FSDP1")
