"""What a probe needs of a training loop and does not get is refused before anything is measured."""

from pathlib import Path

import pytest
import torch
from attending import attending
from rich.console import Console
from torch import nn

from landscape import Objective
from probes import Alignment, CriticalSharpness, Field, Gradient, Monitor, SolverSteps, Trace, measure_once
from probes.checkpoints.run import Request, run
from probes.errors import UserError
from probes.instruments.base import Instrument
from probes.instruments.registry import PROBES
from probes.instruments.stations import Station
from solvers import CubicNewton

LOOP = {"optimizer", "batch", "previous"}
EVERY = [
    *(entry.load()() for entry in PROBES.values()),
    *(Alignment(k=2, of=of, name=of) for of in ("batch", "update")),
    CriticalSharpness(along="update", name="critical"),
    CriticalSharpness(along="update", lr=0.1, name="critical-lr"),
]


class Own:
    """A user's own probe: what the protocol asks for and nothing else."""

    def __init__(self, *needs):
        self.name, self.needs = "own", frozenset(needs)

    def fields(self, context):
        return {"value": Field()}

    def measure(self, context):
        return {"value": 1.0}


@pytest.fixture
def objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    return Objective(model, nn.CrossEntropyLoss(), (torch.randn(12, 4).double(), torch.randint(0, 2, (12,))))


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


@pytest.mark.parametrize("probe", EVERY, ids=lambda probe: probe.name)
def test_every_probe_says_what_it_needs_and_is_refused_without(objective, trace, probe):
    """Without the optimizer when the monitor is made, without the batch at its first call; else it is measured."""
    assert isinstance(probe, Instrument)
    if probe.name == "attention-entropy":
        objective = attending()
    if probe.of_all:
        probe = probe.at_stations([Station(0, objective.theta()), Station(1, objective.theta() + 0.1)])
    if "optimizer" in probe.needs:
        with pytest.raises(
            ValueError, match=rf"'{probe.name}' needs the optimizer .*Monitor\(\.\.\., optimizer=solver"
        ):
            Monitor(objective, [Gradient(name="beside"), probe], trace)
        with pytest.raises(ValueError, match="needs the optimizer"):
            measure_once(objective, [Gradient(name="beside"), probe], trace, 0)
    optimizer = CubicNewton(objective.model.parameters()) if "optimizer" in probe.needs else None
    monitor = Monitor(objective, [Gradient(name="beside"), probe], trace, optimizer=optimizer, on_error="raise")
    batch = (torch.randn(8, 4).double(), torch.tensor([0, 1, 0, 1, 0, 1, 0, 1]))
    if "batch" in probe.needs:
        with pytest.raises(ValueError, match=rf"'{probe.name}' needs the batch .*monitor\(step, batch=batch\)"):
            monitor(0)
        with pytest.raises(ValueError, match="needs the batch"):
            measure_once(objective, [Gradient(name="beside"), probe], trace, 0, optimizer=optimizer)
    assert len(trace["beside"]) == 0  # nothing was measured before the refusal
    given = {"batch": batch} if "batch" in probe.needs else {}
    assert set(monitor(0, **given)) == {"beside", probe.name}
    assert len(trace[probe.name]) == 1


@pytest.mark.parametrize("probe", EVERY, ids=lambda probe: probe.name)
def test_checkpoints_refuse_what_only_a_training_loop_has(tmp_path, probe):
    """Before the problem is built or a file is looked at."""
    request = Request([(0, Path("nowhere.pt"))], "nowhere:problem", [probe], tmp_path / "probe.h5")
    with pytest.raises(UserError) as error:
        run(request, Console(quiet=True))
    refused = bool(probe.needs & LOOP)
    assert refused == (f"the probe {probe.name!r} needs" in str(error.value)), error.value
    assert error.value.status == (2 if refused else 1)
    assert not (tmp_path / "probe.h5").exists()


def test_errors_that_are_recorded_do_not_hide_a_refusal(objective, trace):
    """A monitor that records failures and goes on still refuses what could never be measured."""
    with pytest.raises(ValueError, match="'solver' needs the optimizer"):
        Monitor(objective, [SolverSteps()], trace, on_error="record")
    monitor = Monitor(objective, [Alignment(k=2, of="batch", every=50)], trace, on_error="record")
    with pytest.raises(ValueError, match="'alignment' needs the batch"):
        monitor(7)  # it is not due yet: step 50 would be too late to say so
    assert len(trace.events) == 0


def test_a_probe_of_ones_own_is_measured_and_refused_alike(objective, trace):
    monitor = Monitor(objective, [Own()], trace, budget=0.9, on_error="raise")
    assert monitor(0)["own"].values == {"value": 1.0}  # at every step, at no known cost
    with pytest.raises(ValueError, match="'own' needs the optimizer"):
        Monitor(objective, [Own("optimizer")], trace)
    monitor = Monitor(objective, [Own("batch", "loss")], trace)
    with pytest.raises(ValueError, match="'own' needs the batch"):
        monitor(1)
    assert monitor(1, batch=(torch.zeros(1, 4).double(), torch.zeros(1, dtype=torch.long)))["own"].error is None
