"""The probe of the gradient in the dual norms of layers, against numpy and the solver's own steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape
from landscape.norms import dual_norm
from probes import Monitor, Trace, measure_once
from probes.instruments.dual_gradient import DualGradient
from probes.views.pictures.gradient import dual_gradient_figure
from solvers.first_order.scion import Scion


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
    data = (
        torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        torch.arange(24) % 3,
    )
    return model, landscape.Objective(model, nn.CrossEntropyLoss(), data), data


def row_of(objective, probe, path):
    with Trace.create(path, seed=0) as trace:
        measure_once(objective, [probe], trace, 0, on_error="raise")
        records = trace[probe.name]
        return records.row(), records.fields["dual"].labels


def test_the_probe_against_numpy(problem, tmp_path):
    model, objective, (x, y) = problem
    loss = F.cross_entropy(model(x), y)
    g = [t.numpy() for t in torch.autograd.grad(loss, list(model.parameters()))]
    probe = DualGradient(scale=3.0, layers=(("3.*ight", "sign", 7.0),), infimum=0.2)
    row, labels = row_of(objective, probe, tmp_path / "a.h5")
    nuclear = np.linalg.svd(g[0].reshape(4, 9), compute_uv=False).sum()
    expected = [
        3 * nuclear * math.sqrt(4 / 1) / 9,
        3 * math.sqrt(4) * np.linalg.norm(g[1]),
        7 * np.abs(g[2]).sum() / 16,
        3 * math.sqrt(3) * np.linalg.norm(g[3]),
    ]
    np.testing.assert_allclose(row["dual"], expected, rtol=1e-12)
    assert tuple(labels) == ("0.weight", "0.bias", "3.weight", "3.bias")
    assert row["total"] == pytest.approx(sum(expected))
    assert row["gap"] == pytest.approx(float(loss.detach()) - 0.2)
    assert row["mu"] == pytest.approx(sum(expected) / (float(loss.detach()) - 0.2))
    row, _ = row_of(objective, DualGradient(infimum=100.0), tmp_path / "b.h5")
    assert math.isnan(row["mu"])


def test_total_is_the_first_order_decrease_of_scions_step(problem):
    """(f(theta) - f(after an unconstrained step)) / lr -> total."""
    model, objective, (x, y) = problem
    total = float(sum(dual_norm(t) for t in objective.unflatten(objective.gradient()).values())) * 2.0
    optimizer = Scion(model.parameters(), 1e-6, scale=2.0, momentum=1.0, exact=True)
    before = objective.value()
    optimizer.step(lambda: F.cross_entropy(model(x), y))
    assert (before - objective.value()) / 1e-6 == pytest.approx(total, rel=1e-4)


def test_the_picture(problem, tmp_path):
    model, objective, (x, y) = problem
    optimizer = Scion(model.parameters(), 0.05)
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = Monitor(objective, [DualGradient(infimum=0.1)], trace, on_error="raise")
        for step in range(5):
            monitor(step)
            optimizer.step(lambda: F.cross_entropy(model(x), y))
        columns, settings = trace["dual-gradient"].read(), trace["dual-gradient"].settings
    left, right = dual_gradient_figure(columns, settings).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), columns["total"])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), columns["mu"])
    assert set(right.lines[1].get_ydata()) == {columns["mu"].min()}
    assert "infimum 0.1" in left.texts[0].get_text()
    unknown = columns | {"mu": np.full(5, np.nan), "gap": np.full(5, -1.0)}
    assert len(dual_gradient_figure(unknown, {}).axes[1].lines) == 1


def test_what_the_probe_refuses(problem, tmp_path):
    _, objective, _ = problem
    for settings, words in (
        ({"norm": "spectral"}, r"dual-gradient: 0.bias: norm='spectral' needs matrices"),
        ({"layers": (("head.*", "sign", 1.0),)}, "no parameter is named 'head"),
    ):
        with pytest.raises(ValueError, match=words):
            row_of(objective, DualGradient(**settings), tmp_path / f"{len(words)}.h5")
    for settings in ({"scale": 0.0}, {"infimum": math.inf}, {"layers": (("a", "sign", -1.0),)}):
        with pytest.raises(ValueError, match="is not possible"):
            DualGradient(**settings)
