"""All eigenvalues above c / lr in a training loop: beside the dense matrix at each step."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from probes import Monitor, ProbeWarning, ThresholdSpectrum, Trace, measure_once
from probes.checkpoints.arguments import parse_probes
from probes.context import Context
from probes.views.cells import threshold_cells
from probes.views.pictures.threshold import points, threshold_figure
from probes.views.report.charts.threshold import threshold_charts


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    X = 2.0 * torch.randn(50, 6, dtype=torch.float64)
    return model, landscape.Objective(model, nn.MSELoss(), (X, torch.randn(50, 3, dtype=torch.float64)))


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def test_each_step_has_all_of_them(trace):
    """Ragged rows that follow a falling learning rate, warm started, beside the eigenvalues of the dense Hessian."""
    model, objective = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    monitor = Monitor(objective, [ThresholdSpectrum()], trace, optimizer=optimizer, on_error="raise")
    dense, rates = [], (0.05, 1.0, 2.0, 3.0, 3.0, 10.0, 0.2)
    for step, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        monitor(step)
        dense.append(np.linalg.eigvalsh(landscape.Hessian(objective).to_dense().numpy())[::-1])
        with torch.no_grad():
            for p in model.parameters():
                p += 0.02 * torch.randn_like(p)
    found = trace["threshold-spectrum"]
    counts = []
    for i, (rate, true) in enumerate(zip(rates, dense, strict=True)):
        margin = 1e-3 * np.abs(true).max()
        values, near = found["values"][i], found["marginal"][i]
        assert found["threshold"][i] == 2.0 / rate
        assert (true > 2.0 / rate + margin).sum() <= len(values) <= (true >= 2.0 / rate - margin).sum()
        np.testing.assert_allclose(values, true[: len(values)], atol=margin)
        assert (near == (np.abs(values - 2.0 / rate) <= margin)).all()
        assert len(found["residuals"][i]) == len(near) == len(values)
        assert found["count"][i] == (values > 2.0 / rate).sum()
        counts.append(len(values))
    assert found["converged"].all()
    assert not found["more"].any()
    assert counts[0] == counts[-1] == 0
    assert counts[4] < counts[5]
    assert len(set(counts)) >= 4


def test_settings_operators_and_what_it_needs(trace):
    _, objective = problem()
    for operator, cls in (("gauss-newton", landscape.GaussNewton), ("hessian", landscape.Hessian)):
        probe = ThresholdSpectrum(1.0, lr=10.0, operator=operator, parameters="2.*", name=operator)
        row = measure_once(objective, [probe], trace, 0, on_error="raise")[operator].values
        true = np.linalg.eigvalsh(cls(objective).restrict("2.*").to_dense().numpy())[::-1]
        expected = true[true > 0.1]
        assert row["threshold"] == 0.1
        np.testing.assert_allclose(row["values"], expected, atol=1e-3 * true[0])
        assert row["count"] == len(expected) > 0
    capped = measure_once(objective, [ThresholdSpectrum(lr=20.0, k=2, name="capped")], trace, 0)["capped"].values
    assert (capped["count"], capped["more"], capped["converged"]) == (2, True, False)
    assert ThresholdSpectrum().needs == {"graph", "optimizer"}
    assert ThresholdSpectrum(lr=0.1).needs == {"graph"}
    (parsed,) = parse_probes(["threshold-spectrum:c=38,lr=0.1,k=7"], "gauss-newton")
    assert parsed == ThresholdSpectrum(38, lr=0.1, k=7, operator="gauss-newton")
    for wrong in ({"c": 0.0}, {"k": 0}, {"lr": -1.0}, {"tol": 0.0}):
        with pytest.raises(ValueError, match="is not possible"):
            ThresholdSpectrum(**wrong)
    footprint = ThresholdSpectrum(lr=0.1, k=3).footprint(Context(objective))
    assert footprint is not None
    assert footprint.vectors <= objective.size * objective.size * 8


def test_learning_rates_that_give_no_threshold(trace):
    model, objective = problem()
    layers = list(model[0].parameters()), list(model[2].parameters())
    optimizer = torch.optim.SGD([{"params": p, "lr": lr} for p, lr in zip(layers, (0.1, 0.2), strict=True)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ProbeWarning)
        measure_once(objective, [ThresholdSpectrum()], trace, 0, optimizer=optimizer)
    assert any("2 learning rates, 0.1 to 0.2: give lr=" in str(one.message) for one in caught)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    row = measure_once(objective, [ThresholdSpectrum(name="zero")], trace, 0, optimizer=optimizer)["zero"].values
    assert (row["count"], row["threshold"], row["matvecs"], row["converged"]) == (0, np.inf, 0, True)
    assert row["note"] == "the learning rate is zero: there is no threshold"


def columns():
    rows = [np.array([5.0, 4.0]), np.zeros(0), np.array([6.0, 4.5, 4.001])]
    made = np.empty(3, dtype=object), np.empty(3, dtype=object), np.empty(3, dtype=object)
    for i, row in enumerate(rows):
        made[0][i], made[1][i], made[2][i] = row, np.full(len(row), 0.1), np.abs(row - 4.0) < 0.01
    values, residuals, marginal = made
    counts = np.array([1, 0, 3])
    fields = {"values": values, "residuals": residuals, "marginal": marginal, "count": counts}
    return fields | {"step": np.array([0, 10, 20]), "threshold": np.full(3, 4.0), "more": counts == 3}


def test_what_is_drawn_and_printed_is_what_was_recorded():
    steps, values, residuals, marginal = points(columns())
    assert steps.tolist() == [0, 0, 20, 20, 20]
    assert values.tolist() == [5.0, 4.0, 6.0, 4.5, 4.001]
    assert residuals.tolist() == [0.1] * 5
    assert marginal.tolist() == [False, True, False, False, True]
    first, second = threshold_figure(columns(), {"operator": "hessian", "c": 2.0}).axes
    drawn = [np.asarray(line.get_ydata(), dtype=float).tolist() for line in first.get_lines()]
    assert [5.0, 6.0, 4.5] in drawn
    assert [4.0, 4.001] in drawn
    assert [4.0, 4.0, 4.0] in drawn
    assert np.asarray(second.get_lines()[0].get_ydata()).tolist() == [1, 0, 3]
    values_chart, counts_chart = threshold_charts(columns(), {"operator": "hessian", "c": 2.0})
    assert [one["y"] for one in values_chart.data] == [[5, 6, 4.5], [4, 4.001], [4, 4, 4]]
    assert counts_chart.data[0]["y"] == [1, 0, 3]
    assert counts_chart.remark == "at 1 step a lower bound"
    cells = [next(threshold_cells("t", {k: v[i] for k, v in columns().items()}, {"c": 2.0}))[1] for i in range(3)]
    assert cells == ["1: 5.00, 4.00 ± 0.1 (~)", "none", "at least 3: 6.00, 4.50, 4.00 ± 0.1 (~)"]


@pytest.mark.parametrize("rows", [1, 3])
def test_nothing_above_at_any_step_is_drawn_too(rows):
    empty = np.empty(rows, dtype=object)
    for i in range(rows):
        empty[i] = np.zeros(0)
    none = {"values": empty, "residuals": empty, "marginal": empty, "count": np.zeros(rows, dtype=int)}
    none |= {"step": np.arange(rows), "threshold": np.full(rows, 4.0), "more": np.zeros(rows, dtype=bool)}
    assert len(threshold_figure(none, {}).axes) == min(rows, 2)
    assert len(threshold_charts(none, {})) == min(rows, 2)
