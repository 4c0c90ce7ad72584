"""The critical step beside 2 / lambda_max along gradient descent on a quadratic, and with a warm-up."""

import math

import numpy as np
import pytest
import torch
from sharpness_cases import normal, positive, quadratic

from probes import CriticalSharpness, CriticalStepCurve, Monitor, Sharpness, Trace, measure_once


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def test_both_steps_along_a_warm_up(trace):
    """g^T g / g^T H g <= 1 / lambda_max on a quadratic, and the learning rate is that of the step to come."""
    A = positive(9)
    objective = quadratic(A, normal(9))
    sgd = torch.optim.SGD(objective.model.parameters(), lr=0.2)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, lambda step: min(1.0, (step + 1) / 4))
    probes = [CriticalStepCurve(tol=1e-6), CriticalSharpness(), Sharpness(tol=1e-6)]
    monitor = Monitor(objective, probes, trace, optimizer=sgd, on_error="raise")
    top, truths = float(torch.linalg.eigvalsh(A)[-1]), []
    for number in range(5):
        monitor(number)
        g = objective.gradient()
        truths.append(2 * float(g @ g / (g @ A @ g)))
        sgd.zero_grad()
        objective.model(None).backward()
        sgd.step()
        schedule.step()
    rows = trace["critical-step-curve"].read()
    assert np.all(rows["critical_lower"] <= np.array(truths) * (1 + 1e-9))
    assert np.all(np.array(truths) <= rows["critical_upper"] * (1 + 1e-9))
    assert np.all(rows["critical_upper"] <= rows["critical_lower"] * (1 + 1.01 / 16))
    np.testing.assert_allclose(rows["edge"], 2 / top, rtol=1e-5)
    assert np.all((rows["edge_lower"] <= rows["edge"]) & (rows["edge"] <= rows["edge_upper"]))
    np.testing.assert_allclose(rows["ratio"], rows["critical"] / rows["edge"])
    assert np.all(rows["ratio"] * (1 + 1 / 16) >= 1)
    np.testing.assert_allclose(rows["lr"], [0.05, 0.1, 0.15, 0.2, 0.2])
    assert rows["converged"].all()
    assert rows["evaluations"][-1] == 2 < rows["evaluations"][0]  # from the last step
    # the numbers are those of the two probes that have them apart, and the search is shared
    np.testing.assert_allclose(2 / rows["critical"], trace["critical-sharpness"]["value"])
    np.testing.assert_allclose(2 / rows["edge"], trace["sharpness"]["value"], rtol=1e-14)
    np.testing.assert_array_equal(rows["matvecs"], trace["sharpness"]["matvecs"])


def test_where_nothing_rises(trace):
    """A loss that is concave: no step along the gradient raises it, and no eigenvalue is positive."""
    objective = quadratic(-positive(9), normal(9))
    row = measure_once(objective, [CriticalStepCurve()], trace, 0, on_error="raise")["critical-step-curve"].values
    assert (row["critical"], row["critical_upper"], row["edge"], row["edge_upper"]) == (math.inf,) * 4
    assert not row["converged"]
    assert math.isnan(row["ratio"])
    assert math.isnan(row["lr"])  # no optimizer


def test_a_learning_rate_of_ones_own(trace):
    objective = quadratic(positive(9), normal(9))
    groups = [{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(objective.model.parameters())]
    several = torch.optim.SGD(groups)
    for lr, expected in ((None, math.nan), (0.3, 0.3)):
        probe = CriticalStepCurve(lr=lr, name=f"lr-{lr}")
        row = measure_once(objective, [probe], trace, 0, optimizer=several, on_error="raise")[probe.name].values
        assert row["lr"] == pytest.approx(expected, nan_ok=True)
