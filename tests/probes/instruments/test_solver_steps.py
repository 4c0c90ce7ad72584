"""The probe of what a solver did: its records against `solver.last`."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from probes import Monitor, SolverSteps, Trace, measure_once
from probes.context import Context
from probes.instruments.registry import PROBES
from probes.views.pictures.draw import plot_trace
from probes.views.tables import steps_table
from solvers import SSCN, CubicNewton, SaddleFreeNewton

FIELDS = {
    "accepted",
    "loss",
    "new_loss",
    "decrease",
    "ratio",
    "M",
    "used",
    "shift",
    "size",
    "gradient_norm",
    "lowest",
    "length",
    "products",
    "tries",
    "stalled",
    "hard_case",
}


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    X, y = torch.randn(20, 3).double(), torch.randint(0, 2, (20,))
    return model, Objective(model, nn.CrossEntropyLoss(), (X, y)), lambda: F.cross_entropy(model(X), y)


@pytest.mark.parametrize(
    "make",
    [
        CubicNewton,
        lambda p: SaddleFreeNewton(p, krylov=4),
        lambda p: SSCN(p, 5, generator=torch.Generator().manual_seed(0)),
    ],
)
def test_in_a_training_loop(tmp_path, make):
    model, objective, closure = problem()
    solver = make(model.parameters())
    lasts = []
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = Monitor(objective, [SolverSteps()], trace, optimizer=solver, on_error="raise")
        for step in range(6):
            monitor(step)
            solver.step(closure)
            lasts.append(solver.last)
    trace = Trace.open(tmp_path / "run.h5")
    records = trace["solver"]
    assert set(records.fields) >= FIELDS
    assert all(math.isnan(records[name][0]) for name in FIELDS)
    for name in FIELDS - {"shift"}:
        np.testing.assert_array_equal(records[name][1:], [float(getattr(last, name)) for last in lasts[:-1]])
    assert np.isnan(records["shift"][1:]).all() == isinstance(solver, SSCN)
    steps_table(trace)
    plot_trace(trace, tmp_path)


def test_optimizers_that_do_not_say_are_refused(tmp_path):
    model, objective, _ = problem()
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        with pytest.raises(ValueError, match=r"reports its steps as \.last .*: SGD does not"):
            Monitor(objective, [SolverSteps()], trace, optimizer=torch.optim.SGD(model.parameters(), 0.1))
        with pytest.raises(ValueError, match=r"pass Monitor\(..., optimizer=solver\)"):
            measure_once(objective, [SolverSteps()], trace, 0)


def test_declaration():
    model, objective, _ = problem()
    probe = SolverSteps()
    context = Context(objective, optimizer=CubicNewton(model.parameters()))
    assert set(probe.fields(context)) == FIELDS
    assert all(field.description for field in probe.fields(context).values())
    assert probe.expected(context) == {}
    assert PROBES["solver"].load() is SolverSteps
    assert probe.settings() == {"probe": "SolverSteps"}
