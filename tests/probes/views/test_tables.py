"""`landscape show`: each probe's value stands beside its own error, and what is no error is not shown as one."""

import pytest
import torch
from rich.console import Console
from torch import nn

from landscape import Objective
from probes import (
    Alignment,
    BatchSharpness,
    CriticalSharpness,
    Gradient,
    Monitor,
    SAMSharpness,
    Sharpness,
    Trace,
    Updates,
)
from probes.numbers import plus_minus
from probes.views.tables import steps_table


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "a.h5"
    torch.manual_seed(0)
    X, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), [(a, b) for a, b in zip(X.split(10), y.split(10), strict=True)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probes = [Sharpness(), BatchSharpness(), CriticalSharpness(), Gradient(), SAMSharpness(), Alignment(k=2), Updates()]
    with Trace.create(path, seed=0) as trace:
        monitor = Monitor(objective, probes, trace, optimizer=optimizer, on_error="raise")
        for step in range(2):
            monitor(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), y).backward()
            optimizer.step()
    return Trace.open(path)


def shown(trace):
    console = Console(width=250, color_system=None)
    with console.capture() as capture:
        console.print(steps_table(trace, width=250))
    return capture.get()


@pytest.mark.parametrize(
    ("probe", "field", "error"),
    [
        ("sharpness", "value", "residual"),
        ("batch-sharpness", "value", "stderr"),
        ("sam-sharpness", "value", "error"),
        ("gradient", "noise_scale", "noise_scale_stderr"),
        ("alignment", "total", "total_bound"),
    ],
)
def test_values_come_with_their_errors(trace, probe, field, error):
    text = shown(trace)
    for row in range(2):
        assert plus_minus(float(trace[probe][field][row]), float(trace[probe][error][row])) in text


def test_a_batch_sharpness_is_not_taken_for_a_trace(trace):
    assert "one standard error" not in shown(trace)


def test_a_first_step_has_no_update(trace):
    text = shown(trace)
    assert "nan" not in text
    assert "|update| / |weight|" in text
