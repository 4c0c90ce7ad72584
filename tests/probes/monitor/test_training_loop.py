"""A monitor in a real training loop: it changes nothing, shares its passes, and goes on after a resume."""

import warnings

import pytest
import torch
from torch import nn

from landscape import Objective
from probes import (
    Alignment,
    BatchSharpness,
    CriticalSharpness,
    CurvatureTrace,
    Gradient,
    Monitor,
    SAMSharpness,
    Sharpness,
    SpectralDensity,
    Spectrum,
    Trace,
    Updates,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))

    def forward(self, x):
        return self.layers(x)


def everything():
    return [
        Spectrum(2, every=20),
        CurvatureTrace(every=50, matvecs=12),
        SpectralDensity(every=100, probes=1, steps=6),
        Sharpness(every=20),
        Gradient(every=10),
        BatchSharpness(every=50),
        CriticalSharpness(every=25),
        SAMSharpness(every=25),
        Alignment(k=2, every=40),
        Updates(every=20),
    ]


def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn(96, 8, generator=g), torch.randint(3, (96,), generator=g)


def train(path, steps, probes, budget=None):
    torch.manual_seed(0)
    X, y = data()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = [(X[i : i + 32], y[i : i + 32]) for i in range(0, 96, 32)]
    objective = Objective(model, nn.CrossEntropyLoss(), batches, mode="eval")
    with Trace.create(path, seed=0) as trace:
        monitor = Monitor(objective, probes, trace, optimizer=optimizer, budget=budget, on_error="raise")
        for step in range(steps):
            batch = torch.randint(96, (32,))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
            monitor(step, loss=loss, batch=(X[batch], y[batch]), epoch=step / 3)
    return [p.detach() for p in model.parameters()] + list(model.buffers())


def test_training_is_bit_identical_with_and_without_the_monitor(tmp_path):
    """200 steps with dropout and BatchNorm, every probe in the loop."""
    plain = train(tmp_path / "plain.h5", 200, [])
    watched = train(tmp_path / "watched.h5", 200, everything())
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    trace = Trace.open(tmp_path / "watched.h5")
    assert len(trace["gradient"]) == 20
    assert len(trace.events) == 0


def test_one_pass_serves_all_that_need_the_graph(tmp_path, monkeypatch):
    """Three batches are run once for three probes of the Hessian, and two searches for eigenpairs are one."""
    passes, evaluate = [], Objective.evaluate
    monkeypatch.setattr(
        Objective, "evaluate", lambda f, batch, *a: passes.append(batch.index) or evaluate(f, batch, *a)
    )
    X, y = data()
    model = Net().eval()
    batches = [(X[i : i + 32], y[i : i + 32]) for i in range(0, 96, 32)]
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        probes = [Spectrum(2), Spectrum(3, name="more"), CurvatureTrace(matvecs=12), SpectralDensity(probes=1, steps=5)]
        monitor = Monitor(objective, probes, trace, on_error="raise")
        monitor(0)
        assert trace["spectrum"]["matvecs"][0] == trace["more"]["matvecs"][0]
        assert (trace["spectrum"]["values"][0] == trace["more"]["values"][0][:2]).all()
        for step in (1, 2):  # what is looked at once for each model has been looked at
            passes.clear()
            monitor(step)
            assert passes == [0, 1, 2]  # and nothing was kept from one step to the next


def test_a_crash_and_an_older_checkpoint_leave_no_gap_and_no_doubled_record(tmp_path):
    path = tmp_path / "run.h5"
    train(path, 60, [Spectrum(1, every=10)])
    X, y = data()
    with Trace.resume(path) as trace:  # the records of the steps up to 59 are there; training goes on from step 35
        monitor = Monitor(Objective(Net(), nn.CrossEntropyLoss(), (X, y), mode="eval"), [Spectrum(1, every=10)], trace)
        for step in range(35, 81):
            monitor(step)
    assert Trace.open(path)["spectrum"]["step"].tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    with Trace.resume(path, step=35) as trace:
        monitor = Monitor(Objective(Net(), nn.CrossEntropyLoss(), (X, y), mode="eval"), [Spectrum(1, every=10)], trace)
        for step in range(36, 61):
            monitor(step)
    assert Trace.open(path)["spectrum"]["step"].tolist() == [0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("named", [False, True])
def test_layers_that_are_unfrozen_in_training_are_told_once(tmp_path, named):
    X, y = data()
    model = Net().eval()
    model.layers[0].requires_grad_(False)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y), parameters=names if named else None)
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = Monitor(objective, [Sharpness()], trace, on_error="raise")
        monitor(0)
        model.layers[0].requires_grad_(True)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            monitor(1)
            monitor(2)
        assert len(told) == len(trace.events) == (not named)
        if not named:
            assert "'layers.0.weight' and 1 more" in str(told[0].message)
