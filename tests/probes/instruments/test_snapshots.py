"""Snapshots against what torch saves of the same network, bit for bit, and against distances from vectors."""

import json
from itertools import pairwise

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from probes import Monitor, Snapshots, Trace, measure_once, report
from probes.checkpoints.saved import read_state_dict
from probes.cli import main
from probes.mirrors.scalars import scalars
from probes.trace.set import TraceSet
from probes.views.pictures.snapshots import trajectory_of

DATA = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4


class Everything(nn.Module):
    """Tied, frozen and unused weights, batch norm, and buffers of many dtypes, one of them empty, one not kept."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.short = nn.Parameter(torch.randn(3, 5).bfloat16())
        self.long = nn.Parameter(torch.randn(2, dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor(1.5))
        for dtype in (torch.float16, torch.bool, torch.uint8, torch.int16, torch.complex64, torch.float8_e4m3fn):
            self.register_buffer(f"of_{str(dtype)[6:]}", torch.randn(2, 3).to(dtype))
        self.register_buffer("nan", torch.tensor([0x7FC12345, 0x7F800000], dtype=torch.int32).view(torch.float32))
        self.register_buffer("empty", torch.zeros(0, 3, dtype=torch.int8))
        self.register_buffer("passing", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.scale * self.last(self.frozen(self.norm(self.first(x))))


def network(seed=0, kind=Everything):
    torch.manual_seed(seed)
    return kind()


def small():
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))


def objective(model):
    return Objective(model, nn.CrossEntropyLoss(), DATA, mode="eval")


def bits(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def same(one, other):
    """Names, dtypes, shapes and bits."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (other[name].dtype, other[name].shape) == (value.dtype, value.shape), name
        assert bits(other[name]) == bits(value), name


def trained(path, probes, steps=21, model=None, **options):
    """A run with these probes; the state dicts that torch would save at each step."""
    model = network(0, small) if model is None else model
    optimizer, saved = torch.optim.SGD(model.parameters(), lr=0.5), {}
    with Trace.create(path, seed=0, **options) as trace:
        monitor = Monitor(objective(model), probes, trace, on_error="raise")
        for step in range(steps):
            monitor(step)
            saved[step] = {name: value.clone() for name, value in model.state_dict().items()}
            optimizer.zero_grad()
            nn.functional.cross_entropy(model.train()(DATA[0]), DATA[1]).backward()
            optimizer.step()
    return saved


def test_every_bit_comes_back_under_every_name(tmp_path):
    model = network()
    with torch.no_grad():
        model.train()(DATA[0])  # statistics that are none of the beginning
    torch.save(model.state_dict(), tmp_path / "a.pt")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with Trace.create(tmp_path / "a.h5") as trace:
        found = measure_once(objective(model), [Snapshots()], trace, step=7, on_error="raise")["snapshots"].values
    same(before, model.state_dict())
    state = read_state_dict(tmp_path / "a.h5@7")
    same(torch.load(tmp_path / "a.pt"), state)
    assert state["first.weight"].data_ptr() == state["last.weight"].data_ptr()
    own = {id(p): p for p in model.parameters()}.values()
    assert found["n"] == sum(p.numel() for p in own)
    assert found["norm"] == pytest.approx(float(sum(p.detach().double().square().sum() for p in own).sqrt()), rel=1e-12)
    kept = {value.data_ptr(): value.nbytes for value in model.state_dict().values() if value.numel()}
    assert found["bytes"] == sum(kept.values()) + 1  # the empty buffer's field has an entry


def test_what_a_viewer_sees_says_what_it_is(tmp_path):
    with Trace.create(tmp_path / "a.h5") as trace:
        measure_once(objective(network()), [Snapshots()], trace, step=0, on_error="raise")
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["probes/snapshots"]
        assert group["parameters_bfloat16"].dtype == np.uint16
        assert b"bfloat16, its bits as uint16" in group["parameters_bfloat16"].attrs["description"]
        parts = json.loads(group["parameters_float32"].attrs["parts"])
        assert [["first.weight", "last.weight"], [4, 4]] in parts
        assert group["parameters_float32"].shape == (1, sum(int(np.prod(shape)) for _, shape in parts))
        assert len(group) < 24  # a dataset for each dtype, not for each tensor


def test_in_a_loop_each_step_is_the_network_of_that_step(tmp_path):
    saved = trained(tmp_path / "run.h5", [Snapshots(every=10)])
    for step in (0, 10, 20):
        same(saved[step], read_state_dict(tmp_path / f"run.h5@{step}"))
    assert saved[10]["1.num_batches_tracked"] == 10


def test_a_resumed_trace_goes_on(tmp_path):
    path = tmp_path / "run.h5"
    saved = trained(path, [Snapshots(every=10)])
    model = network(3, small)
    with Trace.resume(path, step=10) as trace:
        measure_once(objective(model), [Snapshots(every=10)], trace, step=30, on_error="raise")
    assert Trace.open(path)["snapshots"]["step"].tolist() == [0, 10, 30]
    same(saved[10], read_state_dict(f"{path}@10"))
    same(dict(model.state_dict()), read_state_dict(f"{path}@last"))
    wider = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))
    renamed = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.BatchNorm1d(5)), nn.Linear(5, 4))
    for other in (wider, renamed):
        with Trace.resume(path) as trace, pytest.raises(ValueError, match="in this trace already with other fields"):
            measure_once(objective(other), [Snapshots(every=10)], trace, step=40)


def test_many_tensors_and_names_longer_than_an_attribute_may_be(tmp_path):
    width = 600  # times some hundred letters: more than 64 KiB
    model = nn.Sequential(*(nn.ModuleDict({"x" * 150: nn.Linear(1, 1)})["x" * 150] for _ in range(width)))
    names = nn.ModuleDict({f"{'x' * 150}{i}": part for i, part in enumerate(model)})
    names.forward = model.forward
    f = Objective(names, nn.MSELoss(), (torch.ones(1, 1), torch.ones(1, 1)), forward=lambda _, x: model(x))
    with Trace.create(tmp_path / "a.h5") as trace:
        measure_once(f, [Snapshots()], trace, step=0, on_error="raise")
    same(dict(names.state_dict()), read_state_dict(tmp_path / "a.h5@0"))


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"count": 3}

    def set_extra_state(self, state):
        pass


def test_what_cannot_be_kept_is_refused_by_name(tmp_path):
    meta = nn.Linear(1 << 14, 1 << 14, device="meta")
    huge = Objective(nn.Linear(4, 4), nn.CrossEntropyLoss(), DATA)
    huge.module = meta
    extra = objective(nn.Sequential(Extra(4, 4)))
    for f, words in ((huge, "1.0 GiB, a row of a trace less than 1 GiB: save checkpoints"), (extra, "0._extra_state")):
        with Trace.create(tmp_path / "a.h5", overwrite=True) as trace, pytest.raises(ValueError, match=words):
            Monitor(f, [Snapshots()], trace)


def test_distances_are_those_of_the_vectors(tmp_path, monkeypatch):
    saved = trained(tmp_path / "run.h5", [Snapshots(every=5)])
    parameters = dict(network(0, small).named_parameters())
    thetas = [torch.cat([saved[s][name].double().reshape(-1) for name in parameters]) for s in range(0, 21, 5)]
    with Trace.open(tmp_path / "run.h5") as trace:
        records = trace["snapshots"]
        found = trajectory_of(records.read(), records)
        monkeypatch.setattr("probes.views.pictures.snapshots._READ", 0)
        monkeypatch.setattr("probes.views.pictures.snapshots._LEAST", 3)
        few = trajectory_of(records.read(), records)
    moves = [float((b - a).norm()) for a, b in pairwise(thetas)]
    np.testing.assert_allclose(found.from_first, [float((t - thetas[0]).norm()) for t in thetas], rtol=1e-12)
    np.testing.assert_allclose(found.to_last, [float((t - thetas[-1]).norm()) for t in thetas], rtol=1e-12)
    np.testing.assert_allclose(found.length, np.cumsum([0, *moves]), rtol=1e-12)
    assert found.norm == pytest.approx(float(thetas[0].norm()))
    assert few.steps.tolist() == [0, 10, 20]
    assert few.remark == "through 3 of 5 snapshots"
    np.testing.assert_allclose(few.from_first, found.from_first[::2])


def test_no_view_reads_the_weights_or_is_as_large_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained("run.h5", [Snapshots(every=10)])
    with Trace.open("run.h5") as trace:
        records = trace["snapshots"]
        plain = {"step", "epoch", "time", "cost", "n", "bytes", "norm"}
        assert set(records.read()) == set(records.row()) == plain
        assert records.read(only=["parameters_float32"])["parameters_float32"].shape == (3, 59)
        assert [s.name for s in scalars(records.row(), records.fields)] == ["n", "bytes", "norm"]
    for form in ("csv", "json"):
        with pytest.raises(SystemExit):
            main(["export", "run.h5", "--format", form])
    told = capsys.readouterr()
    assert "snapshots: parameters_float32, buffers_float32, buffers_int64 left out" in told.err
    assert (tmp_path / "run-snapshots.csv").read_text().splitlines()[0] == "step,epoch,time,cost,n,bytes,norm"
    content = json.loads((tmp_path / "run.json").read_text())["probes"]["snapshots"]
    assert set(content["rows"][0]) == plain
    assert content["fields"]["parameters_float32"]["parts"][0] == [["0.weight"], [5, 4]]
    monkeypatch.setattr("probes.views.report.gather.import_from", lambda *_: pytest.fail("drawn for nobody"))
    report("run.h5", "run.md")
    assert "| 20 | 59 |" in (tmp_path / "run.md").read_text()
    assert len(TraceSet.open("run.h5")["snapshots"]) == 3


def test_frames_have_the_numbers_alone(tmp_path):
    pytest.importorskip("xarray")
    trained(tmp_path / "run.h5", [Snapshots(every=10)])
    records = Trace.open(tmp_path / "run.h5")["snapshots"]
    assert list(records.to_pandas()) == ["step", "epoch", "time", "cost", "n", "bytes", "norm"]
    assert set(records.to_xarray()) == {"n", "bytes", "norm"}
