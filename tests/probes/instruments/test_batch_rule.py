"""The probe of the batch rule keeps what the function says, between two calls of a training loop."""

import math

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.sharpness import layer_constants
from probes import BatchRule, Monitor, Trace
from probes.views.pictures.gradient import batch_rule_figure
from solvers import Scion, batch_rule


@pytest.fixture
def objective():
    torch.manual_seed(0)
    X, y = torch.randn(40, 6, dtype=torch.float64), torch.randint(0, 3, (40,))
    data = list(zip(X.split(10), y.split(10), strict=True))
    return Objective(nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double(), nn.CrossEntropyLoss(), data)


def test_in_a_loop(objective, tmp_path):
    model, layers = objective.model, (("2.weight", "sign", 20.0),)
    batch = next(objective.sweep())
    X, y = batch.inputs, batch.targets
    groups = [
        {"params": [*model[0].parameters(), model[2].bias], "scale": 4.0},
        {"params": [model[2].weight], "norm": "sign", "scale": 20.0},
    ]
    solver = Scion(groups, 0.05, constrained=True)
    probes = [BatchRule(scale=4.0, layers=layers, budget=1e4), BatchRule(name="one-pass", scale=4.0, layers=layers)]
    kinds = [("spectral", 4.0), ("rms", 4.0), ("sign", 20.0), ("rms", 4.0)]
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = Monitor(objective, probes, trace, on_error="raise")
        for step in range(3):
            monitor(step)
            before = objective.theta()
            solver.step(lambda: nn.functional.cross_entropy(model(X), y))
        monitor(3)
        rows, one = trace["batch-rule"].read(), trace["one-pass"].read()
    expected = layer_constants(objective, kinds, before)
    for name in ("L", "batch_L", "batch_L_stderr", "rho", "sigma", "sigma_stderr", "loss", "dual", "distance"):
        assert rows[name][-1] == pytest.approx(getattr(expected, name)), name
    assert rows["mu"][-1] == pytest.approx(expected.dual / expected.loss)
    assert math.isnan(rows["L"][0])
    assert math.isnan(rows["batch"][0])
    constants = batch_rule.Constants(expected.L, expected.mu(), expected.rho, expected.sigma)
    assert rows["batch"][-1] == pytest.approx(batch_rule.best_batch(1e4, constants))
    assert rows["lr"][-1] == pytest.approx(2 / 3 * rows["batch"][-1] / 1e4)
    assert one["batch"][-1] == pytest.approx(batch_rule.best_batch(40, constants))
    panels = batch_rule_figure(rows, {}).axes
    assert [len(panel.get_legend_handles_labels()[1]) for panel in panels] == [3, 2, 2]


@pytest.mark.parametrize("options", [{"budget": 0.0}, {"budget": math.inf}, {"batches": 1}, {"layers": 3}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match="BatchRule"):
        BatchRule(**options)
