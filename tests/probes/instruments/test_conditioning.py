"""The probe of Gauss-Newton conditioning: its records against the mathematics, in a trace, a table and a picture."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.conditioning import gauss_newton, linear_network, linear_network_of
from probes import GaussNewtonConditioning, Monitor, Trace, measure_once
from probes.context import Context
from probes.monitor.costs import UnitCosts
from probes.views.pictures.draw import plot_trace


def data(n=40, d=6, k=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, d, generator=generator).double(), torch.randint(0, k, (n,), generator=generator)


def chain(*widths):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *layers).double()


@pytest.fixture
def linear():
    return Objective(chain(6, 8, 9, 3), nn.CrossEntropyLoss(), data())


@pytest.fixture
def bent():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    return Objective(model, nn.CrossEntropyLoss(), data())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) + 0.5 * x
        return x


def measured(tmp_path, objective, probe):
    with Trace.create(tmp_path / "a.h5", seed=0) as trace:
        measure_once(objective, [probe], trace, 0, on_error="raise")
    return {name: Trace.open(tmp_path / "a.h5")[probe.name][name][0] for name in probe.fields(Context(objective))}


def test_a_linear_network_comes_with_its_bounds(tmp_path, linear):
    row = measured(tmp_path, linear, GaussNewtonConditioning())
    dense = gauss_newton(linear)
    assert row["linear"]
    assert row["kappa"] == pytest.approx(dense.kappa, rel=1e-10)
    assert row["rank"] == dense.rank == 18
    assert row["kappa"] <= row["bound"] <= row["loose_bound"] < np.inf
    np.testing.assert_allclose(row["eigenvalues"], dense.eigenvalues[-18:], rtol=1e-10)
    W = [p.detach() for p in linear.model.parameters()]
    np.testing.assert_allclose(row["left"][0], torch.linalg.svdvals(W[2] @ W[1]).numpy()[[-1, 0]])
    np.testing.assert_allclose(row["right"][2], torch.linalg.svdvals(W[1] @ W[0]).numpy()[[-1, 0]])
    assert row["left"].shape == row["right"].shape == (3, 2)


def test_other_networks_come_without(tmp_path, bent):
    row = measured(tmp_path, bent, GaussNewtonConditioning())
    exact = gauss_newton(bent)
    assert not row["linear"]
    assert row["bound"] == np.inf
    assert len(row["left"]) == 0
    assert (row["kappa"], row["rank"], row["threshold"]) == (exact.kappa, exact.rank, exact.threshold)
    assert row["size"] == 120
    np.testing.assert_array_equal(row["neighbours"], [exact.neighbours[step] for step in (-2, -1, 1)])
    np.testing.assert_array_equal(row["eigenvalues"], exact.eigenvalues)


def test_with_the_second_derivative_of_the_loss(tmp_path, linear):
    row = measured(tmp_path, linear, GaussNewtonConditioning(loss_hessian=True, name="bent"))
    assert row["kappa"] == pytest.approx(gauss_newton(linear, loss_hessian=True).kappa)
    assert not row["linear"]


def test_what_is_a_linear_network(linear, bent):
    X, y = data()
    loss = nn.CrossEntropyLoss()
    weights = [p.detach() for p in linear.model.parameters()]
    expected = linear_network(weights, X.T @ X / len(X))
    assert linear_network_of(linear).kappa == pytest.approx(expected.kappa, rel=1e-10)
    ragged = linear.on(list(zip(X.split(17), y.split(17), strict=True)))
    assert linear_network_of(ragged).kappa == pytest.approx(expected.kappa, rel=1e-10)
    for found in (
        linear_network_of(linear),
        linear_network_of(ragged),
    ):  # (1/N) of the data's, however they are batched
        assert found.largest == pytest.approx(expected.largest, rel=1e-10)
    assert linear_network_of(bent) is None
    assert linear_network_of(linear.restrict(["1.weight", "2.weight"])) is None  # a part of the parameters
    assert linear_network_of(Objective(nn.Sequential(*linear.model, nn.Tanh()), loss, (X, y))) is None
    assert linear_network_of(Objective(nn.Linear(6, 3).double(), loss, (X, y))) is None  # it has a bias
    residual = Objective(Residual().double(), nn.MSELoss(), (X, X))
    assert linear_network_of(residual) is None
    found = linear_network_of(residual, skip=0.5)
    assert found.kappa == pytest.approx(gauss_newton(residual).kappa, rel=1e-8)
    assert found.bound >= found.kappa


def test_beyond_the_budget_a_lower_bound(tmp_path, bent):
    tight = Objective(bent.model, nn.CrossEntropyLoss(), data(), memory=60_000)
    row = measured(tmp_path, tight, GaussNewtonConditioning())
    assert not row["converged"]
    assert len(row["eigenvalues"]) == 0
    assert 1 < row["kappa"] <= gauss_newton(bent).kappa


def test_its_cost_is_known_before(bent):
    context = Context(bent, generator=torch.Generator())
    assert 0 < UnitCosts().estimate(GaussNewtonConditioning(), context) < 10


def test_settings_are_checked():
    with pytest.raises(ValueError, match="paper"):
        GaussNewtonConditioning(threshold="papers")


@pytest.mark.parametrize("steps", [1, 3])
def test_in_a_loop_with_a_picture(tmp_path, linear, steps):
    optimizer = torch.optim.SGD(linear.model.parameters(), lr=0.1)
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        monitor = Monitor(linear, [GaussNewtonConditioning()], trace, on_error="raise")
        for step in range(steps):
            monitor(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(linear.model(data()[0]), data()[1]).backward()
            optimizer.step()
    pictures = plot_trace(Trace.open(tmp_path / "run.h5"), tmp_path)
    assert {p.name for p in pictures} >= {"trace-gauss-newton.png"}
