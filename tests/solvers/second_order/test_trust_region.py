"""Steihaug's step against dense formulas, its exits, and the trust-region method against a plain reference."""

import math

import numpy as np
import pytest
import torch
from newton_cases import PROBLEMS, generator
from torch import nn

from landscape import LinearOperator, MatrixOperator
from solvers import TrustRegionNewton
from solvers.second_order.steihaug import steihaug


def steihaug_reference(g, H, radius, tol, most):
    """Nocedal and Wright, Algorithm 7.2, with every quantity taken from its definition."""
    z, r, d = np.zeros_like(g), g.copy(), -g
    for count in range(1, most + 1):
        step = lambda: max(np.roots([d @ d, 2 * z @ d, z @ z - radius**2]).real)  # noqa: B023, E731
        if d @ H @ d <= 0:
            return z + step() * d, "curvature", count
        alpha = (r @ r) / (d @ H @ d)
        if np.linalg.norm(z + alpha * d) >= radius:
            return z + step() * d, "boundary", count
        z = z + alpha * d
        new = r + alpha * H @ d
        if np.linalg.norm(new) <= tol * np.linalg.norm(g):
            return z, "residual", count
        d = -new + (new @ new) / (r @ r) * d
        r = new
    return z, "products", most


def problem(lowest, n=12):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = (Q * np.linspace(lowest, 4.0, n)) @ Q.T
    return rng.standard_normal(n), H


@pytest.mark.parametrize("lowest", [0.5, 0.0, -2.0])
@pytest.mark.parametrize("radius", [1e-3, 0.3, 1.0, 3.0, 50.0])
@pytest.mark.parametrize("tol", [0.5, 1e-8])
def test_the_step_and_those_in_smaller_balls(lowest, radius, tol):
    g, H = problem(lowest)
    way = steihaug(MatrixOperator(torch.tensor(H)), torch.tensor(g), radius, tol=tol, max_products=12)
    for smaller in (1.0, 0.7, 0.2, 1e-3):
        expected, end, count = steihaug_reference(g, H, smaller * radius, tol, 12)
        h, decrease, on_sphere = way.to(smaller * radius)
        np.testing.assert_allclose(h[:, 0], expected, rtol=1e-7, atol=1e-10)
        assert decrease == pytest.approx(-(g @ expected + 0.5 * expected @ H @ expected), rel=1e-9)
        assert on_sphere == (end in ("boundary", "curvature"))
        if on_sphere:
            assert float(h.norm()) == pytest.approx(smaller * radius, rel=1e-9)
        if smaller == 1.0:
            assert (way.exit, way.products) == (end, count)
    assert way.lowest >= np.linalg.eigvalsh(H)[0] - 1e-9


def test_all_exits_are_met():
    found = set()
    for lowest, radius, tol, most in (
        (0.5, 9.0, 1e-9, 99),
        (0.5, 0.1, 0.1, 99),
        (-2, 99.0, 1e-9, 99),
        (0.5, 9.0, 1e-9, 2),
    ):
        g, H = problem(lowest)
        found.add(steihaug(MatrixOperator(torch.tensor(H)), torch.tensor(g), radius, tol=tol, max_products=most).exit)
    assert found == {"residual", "boundary", "curvature", "products"}


def test_without_a_gradient_there_is_no_step():
    way = steihaug(MatrixOperator(torch.eye(3)), torch.zeros(3), 1.0, tol=0.1, max_products=3)
    assert way.to(1.0) == (None, 0.0, False)
    assert math.isnan(way.lowest)


def test_a_product_that_is_not_finite():
    class Broken(LinearOperator):
        def _matmat(self, V):
            return V * math.nan

    with pytest.raises(FloatingPointError, match="not finite"):
        steihaug(Broken(2, torch.float64, torch.device("cpu")), torch.ones(2), 1.0, tol=0.1, max_products=3)


def trust_region_reference(fgh, w, radius, largest, forcing):
    while True:
        f, g, H = fgh(w)
        size = np.linalg.norm(g)
        while True:
            h, *_ = steihaug_reference(g, H, radius, min(forcing, math.sqrt(size)), len(g))
            ratio = (f - fgh.f(w + h)) / -(g @ h + 0.5 * h @ H @ h)
            used, length = radius, np.linalg.norm(h)
            if ratio < 0.25:
                radius = length / 4
            elif ratio > 0.75 and length >= used * (1 - 1e-6):
                radius = min(2 * radius, largest)
            if ratio >= 0.05:
                break
        w = w + h
        yield w, radius


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize(("radius", "largest"), [(0.05, 1.0), (30.0, 100.0)])
def test_step_by_step(name, radius, largest):
    made = PROBLEMS[name]()
    solver = TrustRegionNewton(made.parameters, radius, largest=largest, forcing=0.3)
    path, compared = trust_region_reference(made.fgh, made.flat(), radius, largest, 0.3), 0
    for _ in range(12):
        f, g, _ = made.fgh(made.flat())
        if np.linalg.norm(g) < 1e-7:
            break
        assert float(solver.step(made.closure)) == pytest.approx(f, rel=1e-12)
        if solver.last.decrease < 1e-9:  # from here on rounding decides
            break
        w, constant = next(path)
        np.testing.assert_allclose(made.flat(), w, rtol=1e-6, atol=1e-7)
        assert solver.param_groups[0]["radius"] == pytest.approx(constant, rel=1e-6)
        compared += 1
    assert compared >= 3 or name == "quadratic"


def test_trial_points_in_smaller_balls_cost_no_product():
    x = nn.Parameter(torch.tensor([3.0, 2.0]).double())
    solver = TrustRegionNewton([x], radius=500.0)
    solver.step(lambda: (1 + x.square()).sqrt().sum())  # Newton's step is -x (1 + x^2)
    assert solver.last.tries > 1
    assert solver.last.accepted
    assert solver.last.products <= 2


@pytest.mark.parametrize("dropout", [False, True])
def test_the_hessian_of_another_batch(dropout):
    """f, g and trial points are of the batch, H of the sub-sample; buffers are marked once."""
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(4), nn.Dropout(0.3)] if dropout else []
    model = nn.Sequential(nn.Linear(3, 4), *middle, nn.Tanh(), nn.Linear(4, 2)).double()
    X, y = torch.randn(40, 3, generator=generator()).double(), torch.arange(40) % 2
    loss = lambda part: nn.functional.cross_entropy(model(X[part]), y[part])  # noqa: E731
    whole, some = slice(None), slice(0, 10)
    calls = []

    def sample():
        calls.append(1)
        return loss(some)

    solver = TrustRegionNewton(model.parameters(), radius=1e-3, forcing=1e-9)
    start = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    before = solver.step(lambda: loss(whole), hessian=sample)
    moved = torch.cat([p.detach().reshape(-1) for p in model.parameters()]) - start
    assert len(calls) == 1
    if dropout:
        assert int(model[1].num_batches_tracked) == 1
        return
    with torch.no_grad():
        for p, q in zip(model.parameters(), start.split([p.numel() for p in model.parameters()]), strict=True):
            p.copy_(q.reshape(p.shape))
    torch.set_rng_state(state)
    parameters = list(model.parameters())
    g = torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss(whole), parameters)])
    slope = torch.cat([one.reshape(-1) for one in torch.autograd.grad(loss(some), parameters, create_graph=True)])
    rows = [torch.autograd.grad(one, parameters, retain_graph=True, materialize_grads=True) for one in slope]
    H = torch.stack([torch.cat([one.reshape(-1) for one in row]) for row in rows])
    expected, *_ = steihaug_reference(g.numpy(), H.numpy(), 1e-3, 1e-9, len(g))
    np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-12)
    assert float(before) == pytest.approx(float(loss(whole).detach()))
    assert solver.last.decrease == pytest.approx(-(g.numpy() @ expected + 0.5 * expected @ H.numpy() @ expected))


def test_superlinear_at_the_end():
    made = PROBLEMS["logistic"]()
    solver = TrustRegionNewton(made.parameters)
    sizes = []
    for _ in range(30):
        solver.step(made.closure)
        sizes.append(solver.last.gradient_norm)
        if sizes[-1] < 1e-12:
            break
    assert sizes[-1] < 1e-9
    assert solver.last.lowest > 0
    assert sizes[-1] < sizes[-2] ** 1.3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"radius": 0.0}, "radius=0.0"),
        ({"radius": 2.0, "largest": 1.0}, "largest=1.0"),
        ({"forcing": 1.0}, "forcing=1.0"),
        ({"max_products": 0}, "max_products=0"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        TrustRegionNewton([nn.Parameter(torch.ones(2))], **settings)
