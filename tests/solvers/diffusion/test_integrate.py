"""Paths of the SDE against paths of the solver: weak order, bands, and controls that must not pass."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev

from landscape import Objective
from solvers import diffusion as d

ETAS = (0.1, 0.05, 0.025, 0.0125)


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -- without chance: one dimension, expectations carried backwards in time -------------------------------------------

WIDTH, DEGREE = 2.5, 60
NODES = WIDTH * np.cos(np.pi * (np.arange(DEGREE) + 0.5) / DEGREE)
HERMITE, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)


def values_at(x):
    """The matrix that interpolates a function from its values at the nodes to points x."""
    basis = chebyshev.chebvander(np.clip(x / WIDTH, -1, 1), DEGREE - 1)
    return basis @ np.linalg.inv(chebyshev.chebvander(NODES / WIDTH, DEGREE - 1))


def gaussian_step(mean, deviation):
    """u -> E u(mean + deviation xi), on values at the nodes."""
    points = zip(HERMITE, WEIGHTS / math.sqrt(2 * math.pi), strict=True)
    return sum(weight * values_at(mean + deviation * xi) for xi, weight in points)


def sde_step(sde, dt, noise):
    drift, spread = [], []
    for x in NODES:
        terms = sde.terms(torch.full((1, sde.width, 1), x, dtype=torch.float64), 0.0)
        drift.append(float(terms.drift[0, 0, 0]))
        spread.append(float(terms.diffuse(torch.eye(sde.width, dtype=torch.float64)).norm()))
    return gaussian_step(NODES + dt * np.array(drift), math.sqrt(noise * dt) * np.array(spread))


def sgd_step(eta, h, s):
    return gaussian_step(NODES - eta * h * NODES, np.full(DEGREE, eta * s))


def sign_step(eta, h, s):
    up = np.array([0.5 * math.erfc(-h * x / s / math.sqrt(2)) for x in NODES])[:, None]  # P(g > 0)
    return up * values_at(NODES - eta) + (1 - up) * values_at(NODES + eta)


def usam_step(eta, h, s):
    raised = 1 + rho(eta) * h
    return gaussian_step(NODES - eta * raised * h * NODES, np.full(DEGREE, eta * raised * s))


def sam_step(eta, h, s):
    """x - eta (g + rho h sign(g)): the integral over the noise in two pieces, g < 0 and g > 0."""
    points, weights = np.polynomial.legendre.leggauss(40)
    total = np.zeros((DEGREE, DEGREE))
    for side in (-1.0, 1.0):
        end = np.maximum(side * h * NODES + 8 * s, 1e-9)  # of |g| on this side, beyond which there is no mass
        for point, weight in zip(points, weights, strict=True):
            g = side * end * (point + 1) / 2
            density = np.exp(-(((g - h * NODES) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
            total += (weight * end / 2 * density)[:, None] * values_at(NODES - eta * (g + rho(eta) * h * side))
    return total


def rho(eta):
    return 0.5 * math.sqrt(eta)


def moments(step, steps, x0=0.8):
    """Mean and variance after so many steps from x0."""
    row = values_at(np.array([x0])) @ np.linalg.matrix_power(step, steps)
    first, second = float((row @ NODES)[0]), float((row @ NODES**2)[0])
    return first, second - first**2


EXACT = {
    "sgd": (d.SGD, sgd_step),
    "sign": (d.SignSGD, sign_step),
    "usam": (lambda p, e: d.USAM(p, e, rho=rho(e)), usam_step),
    "sam": (lambda p, e: d.SAM(p, e, rho=rho(e), draws=512, generator=generator()), sam_step),
}


@pytest.mark.parametrize("name", ["sgd", "sign", "usam", pytest.param("sam", marks=pytest.mark.slow)])
def test_weak_order_one_without_chance(name):
    """The mean's error falls as eta, and the variance ratio goes to 1; with a wrong diffusion it does not.

    E x^2 alone would not tell: it converges at order one without any diffusion too.
    """
    rule, solver = EXACT[name]
    h, s, T = 1.0, 0.5, 1.0
    problem = d.Quadratic(double([h]), double([s**2])[0])
    errors, ratios, square_without = [], {1.0: [], 0.0: [], 2.0: []}, []
    for eta in ETAS:
        mean, variance = moments(solver(eta, h, s), round(T / eta))
        for noise, found in ratios.items():
            sde_mean, sde_variance = moments(sde_step(rule(problem, eta), eta / 10, noise), round(10 * T / eta))
            found.append(variance / sde_variance if sde_variance > 1e-6 * variance else math.inf)
            if noise == 1.0:
                errors.append(mean - sde_mean)
            elif noise == 0.0:
                square_without.append(variance + mean**2 - sde_variance - sde_mean**2)
    assert d.weak_order(ETAS, errors) == pytest.approx(1.0, abs=0.1)
    off = [abs(r - 1) for r in ratios[1.0]]
    assert off[-1] < 0.03
    assert d.weak_order(ETAS, off) > 0.8
    assert all(r > 10 for r in ratios[0.0])
    assert all(r < 0.7 for r in ratios[2.0])
    assert d.weak_order(ETAS, square_without) > 0.75


# -- by simulation -------------------------------------------------------------------------------------------------

QUADRATIC = d.Quadratic(double([2.0, 0.6], [0.6, 1.0]), double([0.3, -0.2], [-0.2, 0.5]))
DIAGONAL = d.Quadratic(double([2.0, 1.0])[0], double([0.3, 0.5])[0])
RULES = {
    "sgd": lambda p, e: d.SGD(p, e),
    "sign": lambda p, e: d.SignSGD(p, e, decoupled=0.3),
    "rmspropw": lambda p, e: d.RMSprop(p, e, beta=1 - e, decoupled=0.3),
    "rmsprop-coupled": lambda p, e: d.RMSprop(p, e, beta=1 - e, coupled=0.3),
    "adamw": lambda p, e: d.Adam(p, e, betas=(1 - 3 * e, 1 - e), decoupled=0.3),
    "adam": lambda p, e: d.Adam(p, e, betas=(1 - 3 * e, 1 - e)),
    "sam": lambda p, e: d.SAM(p, e, rho=rho(e), draws=64, generator=generator()),
    "usam": lambda p, e: d.USAM(p, e, rho=rho(e)),
    "dnsam": lambda p, e: d.DNSAM(p, e, rho=rho(e)),
}
X0 = double([1.0, -1.0])[0]


def versus(sde, paths, *, T=1.0, noise=1.0, x0=X0, seed=0, finer=10):
    """The solver's paths against those of its SDE at dt = eta / finer, at T."""
    n = round(T / sde.eta)
    solver = d.discrete(sde, x0, n, paths, generator=generator(seed), every=n)
    start = sde.start(torch.as_tensor(x0).expand(2, -1), generator())[1]
    left = round(finer * (T - start) / sde.eta)
    return d.compare(
        solver,
        d.integrate(sde, x0, sde.eta / finer, left, paths, generator=generator(seed + 1), every=left, noise=noise),
    )


def agree(comparison, eta, size=1.0):
    """Means within 3 standard errors + eta size / 2, variance ratios within 3 + 3 eta."""
    x = comparison.statistics["x"]
    means = bool((x.mean[-1].abs() < 3 * x.mean_stderr[-1] + eta * size / 2).all())
    return means and bool(((x.ratio[-1] - 1).abs() < 3 * x.ratio_stderr[-1] + 3 * eta).all())


@pytest.mark.parametrize("name", ["sgd", "sign", "rmspropw", "adamw", "usam", "dnsam"])
def test_paths_agree_and_the_controls_do_not(name):
    eta = 0.05
    sde = RULES[name](DIAGONAL, eta)
    assert agree(versus(sde, 2000), eta)
    for noise in (0.0, 2.0):
        assert not agree(versus(sde, 2000, noise=noise), eta)


@pytest.mark.slow
@pytest.mark.parametrize("problem", [QUADRATIC, DIAGONAL], ids=["correlated", "independent"])
@pytest.mark.parametrize("name", list(RULES))
def test_the_variance_ratio_tends_to_one(name, problem):
    paths = 1000 if name == "sam" else 8000
    size = 3.0 if name == "dnsam" else 1.0  # its diffusion has no bound near the minimum: stay away from there
    for eta, controls in ((0.1, ()), (0.025, (0.0, 2.0))):
        sde = RULES[name](problem, eta)
        assert agree(versus(sde, paths, x0=size * X0), eta, size)
        for noise in controls:
            assert not agree(versus(sde, paths, x0=size * X0, noise=noise), eta, size)


def test_the_published_adaptive_sdes_have_too_wide_a_band():
    """The ratio of variances away from rest does not tend to 1 unless V carries noise."""
    eta = 0.025
    for with_noise, without in (
        (d.RMSprop(DIAGONAL, eta, beta=1 - eta), d.RMSprop(DIAGONAL, eta, beta=1 - eta, moment_noise=False)),
        (
            d.Adam(DIAGONAL, eta, betas=(1 - 5 * eta, 1 - eta)),
            d.Adam(DIAGONAL, eta, betas=(1 - 5 * eta, 1 - eta), moment_noise=False),
        ),
    ):
        wide = versus(without, 2000).statistics["x"]
        right = versus(with_noise, 2000).statistics["x"]
        assert bool(((right.ratio[-1] - 1).abs() < 3 * right.ratio_stderr[-1] + 3 * eta).all())
        assert bool((wide.ratio[-1] < 1 - 4 * wide.ratio_stderr[-1]).all())  # of the solver to the SDE


def test_the_square_of_the_gradient_belongs_in_the_second_moment():
    """Where the gradient is not small against the noise, an SDE whose V forgets it (arXiv 2205.10287) moves too far."""
    eta, start = 0.05, double([3.0, -3.0])[0]
    right = d.RMSprop(DIAGONAL, eta, beta=1 - eta)
    wrong = d.RMSprop(DIAGONAL, eta, beta=1 - eta, noise_dominates=True)
    assert agree(versus(right, 2000, x0=start), eta)
    found = versus(wrong, 2000, x0=start).statistics["x"]
    assert float(found.z[-1].abs().min()) > 20
    assert not agree(versus(wrong, 2000, x0=start), eta)


def test_with_gaussian_noise_a_step_of_eta_is_sgd_itself():
    """So that a comparison of SGD with Euler-Maruyama at dt = eta would say nothing."""
    sde = d.SGD(QUADRATIC, 0.1, weight_decay=0.2)
    Y, xi = X0.expand(1, 5, -1), torch.randn(5, 2, generator=generator(), dtype=torch.float64)
    model = Y + sde.eta * sde.drift(Y) + math.sqrt(sde.eta) * sde.diffusion(Y, xi)
    solver = sde.update(Y, 0, lambda X: QUADRATIC.stochastic(X, -QUADRATIC.noise.root(xi)))
    torch.testing.assert_close(model, solver, rtol=1e-14, atol=1e-15)


def test_phases_of_sign_descent():
    problem = d.Quadratic(double([1.0]), double([0.01])[0])
    sde = d.SignSGD(problem, 0.01)
    X = double([3.0], [0.17], [0.05], [0.0])
    assert sde.phases(X).flatten().tolist() == [1, 2, 3, 3]
    Y = double([0.95], [1.05], [1.45], [1.55])  # |grad f| / sqrt(2 variance), at the limits 1 and 3/2
    assert sde.phases(Y * math.sqrt(2 * 0.01)).flatten().tolist() == [3, 2, 2, 1]
    drift = sde.drift(X[None])[0]
    assert float(drift[0]) == pytest.approx(-1.0, abs=1e-12)  # -sign(grad f)
    s = X / 0.1
    assert float(drift[2]) == pytest.approx(-math.sqrt(2 / math.pi) * float(s[2]), rel=0.05)
    # phase 1: every path goes the same straight way, until |x| = 3/2 sqrt(2) s
    found = d.discrete(sde, double([3.0])[0], 200, 10, generator=generator())
    assert float(found.statistics["x"].mean[-1]) == pytest.approx(1.0, abs=1e-9)
    model = d.integrate(sde, double([3.0])[0], 0.01, 200, 10, generator=generator())
    assert float(model.statistics["x"].mean[-1]) == pytest.approx(1.0, abs=1e-9)


def test_a_network_trained_on_batches():
    """Signs and SGD on a small network: the SDE's loss is the solver's, and moves."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)).double()
    g = generator(1)
    X = torch.randn(16, 2, generator=g, dtype=torch.float64)
    objective = Objective(model, torch.nn.functional.mse_loss, (X, X.prod(1, keepdim=True)))
    problem = d.FiniteSum.of(objective, 2)
    for sde in (d.SGD(problem, 0.05), d.SignSGD(problem, 0.01, draws=128)):
        found = versus(sde, 200, T=8 * sde.eta, x0=objective.theta(), finer=3).statistics["loss"]
        assert abs(float(found.z[-1])) < 4
        assert abs(float(found.ratio[-1]) - 1) < 3 * float(found.ratio_stderr[-1]) + 0.2
        assert float(found.mean_stderr[-1]) > 0
    start = objective.value()
    paths = d.integrate(d.SGD(problem, 0.05), objective.theta(), 0.05, 20, 50, generator=generator())
    assert float(paths.statistics["loss"].mean[0]) == pytest.approx(start, rel=1e-12)
    assert float(paths.statistics["loss"].mean[-1]) < start


# -- what is recorded ----------------------------------------------------------------------------------------------


def test_statistics_of_paths():
    sde = d.SGD(QUADRATIC, 0.1)
    paths = d.integrate(
        sde, X0, 0.05, 6, 500, generator=generator(), every=2, trajectory=True, statistics={"first": lambda X: X[:, 0]}
    )
    assert paths.times.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert paths.trajectory.shape == (4, 500, 2)
    assert torch.equal(paths.trajectory[-1], paths.final[0])
    last = paths.trajectory[-1]
    loss = 0.5 * torch.einsum("pi,ij,pj->p", last, QUADRATIC.H, last)
    torch.testing.assert_close(paths.statistics["loss"].mean[-1], loss.mean())
    torch.testing.assert_close(paths.statistics["gradient_norm"].mean[-1], (last @ QUADRATIC.H).norm(dim=1).mean())
    torch.testing.assert_close(paths.statistics["square"].mean[-1], last.square().mean(0))
    torch.testing.assert_close(paths.statistics["first"].variance[-1], last[:, 0].var())
    low, high = np.quantile(loss.numpy(), [0.05, 0.95])
    assert float(paths.statistics["loss"].low[-1]) == pytest.approx(low)
    assert float(paths.statistics["loss"].high[-1]) == pytest.approx(high)
    C, error = paths.covariance()
    torch.testing.assert_close(C, torch.cov(last.T))
    # of Gaussian entries the variance has the standard error v sqrt(2 / paths)
    torch.testing.assert_close(
        error.diagonal() / C.diagonal(), torch.full((2,), math.sqrt(2 / 500)).double(), rtol=0.2, atol=0
    )
    again = d.integrate(sde, X0, 0.05, 6, 500, generator=generator(), every=2)
    assert torch.equal(again.final, paths.final)
    assert again.trajectory is None
    assert again.seed == paths.seed == 0


def test_stated_errors_cover_what_happens():
    """Over 120 pairs of runs with the same law, z has variance about 1, and so has the ratio in its errors."""
    z, ratio = [], []
    for seed in range(120):
        sde = d.SGD(DIAGONAL, 0.1)
        a = d.integrate(sde, X0, 0.1, 3, 200, generator=generator(2 * seed), every=3)
        b = d.integrate(sde, X0, 0.1, 3, 200, generator=generator(2 * seed + 1), every=3)
        x = d.compare(a, b).statistics["x"]
        z.append(x.z[-1])
        ratio.append((x.ratio[-1] - 1) / x.ratio_stderr[-1])
    for values in (torch.stack(z), torch.stack(ratio)):
        assert float(values.var()) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": 0.0}, "dt"),
        ({"steps": 0}, "steps"),
        ({"paths": 1}, "paths"),
        ({"every": 0}, "every"),
        ({"noise": -1.0}, "noise"),
        ({"x0": torch.zeros(3)}, r"x0 has shape \(3,\)"),
        ({"start": (torch.zeros(2, 3, 2), 0.1)}, r"start from has shape \(2, 3, 2\): it must be \(1, 3, 2\)"),
        ({"start": (torch.zeros(1, 3, 2), -0.1)}, "time"),
    ],
)
def test_bad_runs(change, message):
    with pytest.raises(ValueError, match=message):
        d.integrate(d.SGD(QUADRATIC, 0.1), **{"x0": X0, "dt": 0.1, "steps": 2, "paths": 3, **change})


def test_paths_go_on_from_a_state():
    """Adam's steps depend on their number: made in two parts they are those of one run, of solver and SDE."""
    sde = d.Adam(QUADRATIC, 0.1, betas=(0.9, 0.95))
    rng = generator()
    whole = d.discrete(sde, X0, 6, 5, generator=generator())
    first = d.discrete(sde, X0, 2, 5, generator=rng)
    rest = d.discrete(sde, X0, 4, 5, generator=rng, start=(first.final, 0.2))
    assert torch.equal(rest.final, whole.final)
    torch.testing.assert_close(rest.times, whole.times[2:])
    rng = generator()
    whole = d.integrate(sde, X0, 0.05, 6, 5, generator=generator())
    first = d.integrate(sde, X0, 0.05, 2, 5, generator=rng)
    rest = d.integrate(sde, X0, 0.05, 4, 5, generator=rng, start=(first.final, float(first.times[-1])))
    torch.testing.assert_close(rest.final, whole.final, rtol=1e-12, atol=0)
    torch.testing.assert_close(rest.times, whole.times[2:])


def test_bad_comparisons():
    sde = d.SGD(QUADRATIC, 0.1)
    a = d.integrate(sde, double([1.0, 1.0], [0.0, 1.0], [1.0, 0.0]), 0.1, 2, 3, every=2)
    b = d.Paths(a.times + 0.05, a.statistics, a.final, None, 0)
    with pytest.raises(ValueError, match="different times"):
        d.compare(a, b)
    with pytest.raises(ValueError, match="two errors or more"):
        d.weak_order([0.1], [0.2])


def test_noise_multiplies_the_covariance():
    """One Euler step from one point: the variance is noise dt eta Sigma."""
    sde = d.SGD(d.Quadratic(double([1.0]), double([0.5])[0]), 0.1)
    variance = {}
    for noise in (1.0, 2.0):
        paths = d.integrate(sde, double([3.0])[0], 0.05, 1, 20_000, generator=generator(), noise=noise)
        variance[noise] = float(paths.covariance()[0])
    assert variance[2.0] == pytest.approx(2 * variance[1.0], rel=1e-9)  # the same numbers were drawn
    assert variance[1.0] == pytest.approx(0.05 * 0.1 * 0.5, rel=0.05)


def test_a_second_moment_below_zero_is_reflected():
    sde = d.RMSprop(DIAGONAL, 0.1, beta=0.9)
    Y = torch.stack([double([1.0, 2.0]), double([-0.25, 0.5])])
    assert sde.repair(Y).tolist() == [[[1.0, 2.0]], [[0.25, 0.5]]]
