"""Models that are not here as a whole are refused by name."""

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


def test_one_rank_is_measured_and_sharded_parameters_are_refused(one_rank):
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
    with refuses("sharded over ranks"):
        Objective(sharded, nn.CrossEntropyLoss(), samples())
