"""SDE models against the solvers they model: one step's mean and covariance, and the optimizers of the package."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from solvers import SGD as SGDOptimizer
from solvers import AdamCoupled
from solvers import SignSGD as SignOptimizer
from solvers import diffusion as d
from solvers.first_order.sam import SAM


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


H = double([2.0, 0.6], [0.6, 1.0])
SIGMA = double([0.3, -0.2], [-0.2, 0.5])


def least_squares(batch_size, samples=6, n=2):
    """A finite sum whose samples have different Hessians."""
    g = generator(3)
    A = torch.randn(samples, n, generator=g, dtype=torch.float64)
    b = torch.randn(samples, generator=g, dtype=torch.float64)
    return d.FiniteSum(lambda x, a, y: 0.5 * (a @ x - y) ** 2, (A, b), n, batch_size)


def every_batch(problem):
    batches = itertools.combinations(range(problem.samples), problem.batch_size)
    return torch.tensor(list(batches))


def diffusion_covariance(sde, Y, t):
    """Cov of dY per time at one path, `(parts n, parts n)`, column by column."""
    terms = sde.terms(Y.expand(-1, sde.width, -1), t)
    columns = terms.diffuse(torch.eye(sde.width, dtype=torch.float64)).movedim(0, 1).flatten(1)
    return columns.T @ columns


# -- one step of the solver ----------------------------------------------------------------------------------------

R = 0.7
RULES = {
    "sgd": lambda p, eta: d.SGD(p, eta, weight_decay=0.3),
    "sign": lambda p, eta: d.SignSGD(p, eta, decoupled=0.4),
    "sign-coupled": lambda p, eta: d.SignSGD(p, eta, coupled=0.4),
    "rmsprop": lambda p, eta: d.RMSprop(p, eta, beta=1 - R * eta, coupled=0.2, decoupled=0.3),
    "adam": lambda p, eta: d.Adam(p, eta, betas=(1 - 3 * eta, 1 - R * eta), coupled=0.2, decoupled=0.3),
    "sam": lambda p, eta: d.SAM(p, eta, rho=0.2, draws=1024, generator=generator()),
    "usam": lambda p, eta: d.USAM(p, eta, rho=0.2),
    "dnsam": lambda p, eta: d.DNSAM(p, eta, rho=0.2),
}


def state(sde, X):
    """A state in the middle of a run: means that are not at rest."""
    rows = {"x": X, "m": 0.3 * X, "v": 0.5 + X.square()}
    return torch.stack([rows[part] for part in sde.parts])


@pytest.mark.parametrize("covariance", [SIGMA, torch.diag(SIGMA)], ids=["correlated", "independent"])
@pytest.mark.parametrize("name", list(RULES))
def test_drift_and_diffusion_are_those_of_one_step(name, covariance):
    """(E Y+ - Y) / eta and Cov(Y+) / eta over 200,000 draws, at eta = 1e-4."""
    eta, draws = 1e-4, 200_000
    problem = d.Quadratic(H, covariance)
    sde = RULES[name](problem, eta)
    Y = state(sde, double([0.4, -0.7]))
    step = 5000  # t = 0.5
    Z = problem.sample(draws, generator(1))
    after = sde.update(Y.expand(-1, draws, -1), step, lambda X: problem.stochastic(X, Z))
    moved = ((after - Y) / eta).movedim(0, 1).flatten(1)
    stderr = moved.std(0) / math.sqrt(draws)
    drift = sde.drift(Y, step * eta).flatten()
    # the terms of order eta; SAM's expectation is over 1,024 draws
    allowed = 5 * stderr + 2e-3 * (1 + drift.abs())
    assert bool(((moved.mean(0) - drift).abs() < allowed).all())
    expected = diffusion_covariance(sde, Y, step * eta)
    centred = (moved - moved.mean(0)) * math.sqrt(eta)
    products = centred[:, :, None] * centred[:, None, :]
    error = products.std(0) / math.sqrt(draws)
    assert bool(((products.mean(0) - expected).abs() < 5 * error + 2e-3 * expected.abs().max()).all())


@pytest.mark.parametrize("name", ["sgd", "sign", "sign-coupled", "sam", "usam", "dnsam"])
@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_batches_without_replacement_are_enumerated(name, batch_size):
    """Over all batches one step's mean and covariance are the SDE's, exactly: the factor (N-B)/(B(N-1)) with it."""
    problem = least_squares(batch_size)
    sde = RULES[name](problem, 0.1)
    Y = state(sde, double([0.4, -0.7]))
    batches = every_batch(problem)
    after = sde.update(Y.expand(-1, len(batches), -1), 0, lambda X: problem.stochastic(X, batches))
    moved = ((after - Y) / sde.eta)[0]
    torch.testing.assert_close(moved.mean(0), sde.drift(Y)[0, 0], rtol=1e-10, atol=1e-12)
    covariance = torch.cov(moved.T, correction=0)
    torch.testing.assert_close(diffusion_covariance(sde, Y, 0.0), sde.eta * covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("samples", "batch_size"), [(12, 4), (12, 5), (13, 6), (40, 1)])
def test_balanced_batches_use_every_sample_as_often(samples, batch_size):
    problem = least_squares(batch_size, samples)
    batches = problem.balanced(30, generator(1))
    assert len(batches) >= 30
    assert batches.shape[1] == batch_size
    assert all(len(set(row)) == batch_size for row in batches.tolist())
    assert len(set(batches.flatten().bincount(minlength=samples).tolist())) == 1


def test_a_covariance_from_some_samples_is_right_on_average():
    """Over 400 looks at 3 of 6 samples, the mean of Sigma; the gradient is exact at each."""
    exact = least_squares(2)
    problem = d.FiniteSum(exact.f, exact.data, 2, 2, sampled=3, generator=generator(1))
    X, identity = double([0.4, -0.7]), torch.eye(3, dtype=torch.float64)
    looks = [problem.law(X) for _ in range(400)]
    torch.testing.assert_close(looks[0].gradient, exact.gradient(X), rtol=1e-12, atol=1e-14)
    columns = torch.stack([torch.cat([look.root(row[None]) for row in identity]) for look in looks])
    covariances = columns.mT @ columns
    expected = diffusion_covariance(d.SGD(exact, 1.0), X[None], 0.0)
    error = covariances.std(0) / math.sqrt(400)
    assert bool(((covariances.mean(0) - expected).abs() < 4 * error).all())
    assert float(error.max()) > 0
    variances = torch.stack([look.variance()[0] for look in looks])
    torch.testing.assert_close(variances, covariances.diagonal(dim1=1, dim2=2))


def test_adaptive_rules_see_the_moments_of_a_batch():
    problem = least_squares(2)
    X = double([0.4, -0.7])
    g = problem.stochastic(X.expand(15, -1), every_batch(problem))
    law = problem.law(X)
    torch.testing.assert_close(law.gradient[0], g.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(law.variance()[0], g.var(0, correction=0), rtol=1e-12, atol=1e-14)
    sde = d.RMSprop(problem, 0.1, beta=0.9, eps=0.0)
    Y = sde.begin(X)
    torch.testing.assert_close(Y[1, 0], g.square().mean(0), rtol=1e-12, atol=1e-14)
    assert float(sde.drift(Y)[1].abs().max()) < 1e-14  # V is where it runs to
    contrast = d.RMSprop(problem, 0.1, beta=0.9, noise_dominates=True)
    torch.testing.assert_close(contrast.drift(Y)[1, 0], -g.mean(0).square(), rtol=1e-9, atol=1e-14)


def test_the_published_forms_have_no_noise_in_the_means():
    problem = d.Quadratic(H, SIGMA)
    X = double([0.4, -0.7])
    for sde in (d.RMSprop(problem, 0.1, moment_noise=False), d.Adam(problem, 0.1, moment_noise=False, lookahead=False)):
        Y = state(sde, X)
        C = diffusion_covariance(sde, Y, 0.5)
        assert float(C[-2:].abs().max()) == 0.0  # V
    assert float(C[:2].abs().max()) == 0.0  # Adam's X: only M is noisy
    eta, r1, r2 = 0.1, 1.0, 0.01
    c1, c2 = 1 - math.exp(-r1 * 0.5), 1 - math.exp(-r2 * 0.5)
    G = X @ H
    expected = -math.sqrt(c2) / c1 * (0.3 * X + eta * r1 * (G - 0.3 * X)) / (0.5 + X.square()).sqrt()
    torch.testing.assert_close(sde.drift(Y, 0.5)[0, 0], expected[0], rtol=1e-6, atol=0)


def test_adam_looks_ahead_as_the_solver_does():
    """Noise with (G + z)^2 = G^2 + Sigma: V does what it does on average, and Euler-Maruyama at dt = eta is Adam."""
    variance = double([0.3, 0.5])[0]
    problem, eta = d.Quadratic(H, variance), 0.1
    sde = d.Adam(problem, eta, betas=(0.7, 0.8), moment_noise=False)
    Y = state(sde, double([0.4, -0.7]))
    G = problem.gradient(Y[0])
    z = (G.square() + variance).sqrt() - G
    long = 10_000  # both bias corrections are 1
    terms = sde.terms(Y, long * eta)
    model = Y + eta * terms.drift + math.sqrt(eta) * terms.diffuse(z / variance.sqrt())
    solver = sde.update(Y, long, lambda X: problem.stochastic(X, z))
    torch.testing.assert_close(model, solver, rtol=1e-12, atol=1e-14)


# -- the optimizers of the package ---------------------------------------------------------------------------------


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    g = generator(1)
    return model, torch.randn(12, 3, generator=g, dtype=torch.float64), torch.randint(0, 2, (12,), generator=g)


class TorchRMSprop(torch.optim.RMSprop):
    """With our `step(closure)`: torch's own wants backward inside."""

    def step(self, closure):
        self.zero_grad()
        closure().backward()
        super().step()


SOLVERS = {
    "sgd": (lambda q, e: d.SGD(q, e, weight_decay=0.1), lambda p, e, f: SGDOptimizer(p, e, weight_decay=0.1)),
    "sign": (lambda q, e: d.SignSGD(q, e, coupled=0.1), lambda p, e, f: SignOptimizer(p, e, weight_decay=0.1)),
    "signw": (
        lambda q, e: d.SignSGD(q, e, decoupled=0.1),
        lambda p, e, f: SignOptimizer(p, e, weight_decay=0.1, decoupled=True),
    ),
    "rmsprop": (
        lambda q, e: d.RMSprop(q, e, beta=0.9, eps=1e-6, coupled=0.1),
        lambda p, e, f: TorchRMSprop(p, e, alpha=0.9, eps=1e-6, weight_decay=0.1),
    ),
    "adam": (
        lambda q, e: d.Adam(q, e, betas=(0.8, 0.95), coupled=0.1, decoupled=0.2),
        lambda p, e, f: AdamCoupled(p, e, betas=(0.8, 0.95), coupled=0.1, decoupled=0.2),
    ),
    "sam": (lambda q, e: d.SAM(q, e, rho=0.1, draws=4), lambda p, e, f: SAM(p, e, rho=0.1, variant="sam")),
    "usam": (lambda q, e: d.USAM(q, e, rho=0.1, draws=4), lambda p, e, f: SAM(p, e, rho=0.1, variant="usam")),
    "dnsam": (
        lambda q, e: d.DNSAM(q, e, rho=0.1, draws=4),
        lambda p, e, f: SAM(p, e, rho=0.1, variant="dnsam", full=f),
    ),
}


@pytest.mark.parametrize("name", list(SOLVERS))
def test_the_update_of_many_paths_is_the_optimizers(name):
    model, X, y = network()
    objective = Objective(model, F.cross_entropy, (X, y))
    problem = d.FiniteSum.of(objective, 5)
    make, optimizer = SOLVERS[name]
    eta = 0.03
    sde = make(problem, eta)
    theta = objective.theta()
    Y = sde.begin(theta.expand(2, -1))
    if name == "rmsprop":
        Y[1] = 0.0  # where torch starts
    solver = optimizer(model.parameters(), eta, lambda: F.cross_entropy(model(X), y))
    g = generator(2)
    for step in range(20):
        draws = problem.sample(2, g)
        Y = sde.update(Y, step, lambda at, draws=draws: problem.stochastic(at, draws))
        batch = draws[0]
        solver.step(lambda batch=batch: F.cross_entropy(model(X[batch]), y[batch]))
        torch.testing.assert_close(Y[0, 0], objective.theta(), rtol=1e-8, atol=1e-10)
    assert float((Y[0, 0] - Y[0, 1]).norm()) > 1e-3  # the other path had batches of its own


def test_a_network_is_a_finite_sum():
    model, X, y = network()
    objective = Objective(model, F.cross_entropy, [(X[:7], y[:7]), (X[7:], y[7:])])
    problem = d.FiniteSum.of(objective, 3, chunk=2)
    points = objective.theta() + 0.3 * torch.randn(3, objective.size, generator=generator(4), dtype=torch.float64)
    slopes, atoms = problem.sample_gradients(points), problem.atoms(points, torch.arange(12)[:, None])
    torch.testing.assert_close(atoms, slopes.movedim(1, 0), rtol=1e-12, atol=1e-14)
    V = torch.randn(12, 3, objective.size, generator=generator(5), dtype=torch.float64)
    products = problem.products(points, torch.arange(12)[:, None], V)
    for k, point in enumerate(points):
        with objective.at(point):
            value, gradient = objective.value_and_gradient()
            one = objective.on((X[4:5], y[4:5]))
            torch.testing.assert_close(slopes[k, 4], one.gradient(), rtol=1e-10, atol=1e-12)
        assert float(problem.loss(points)[k]) == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(problem.gradient(points)[k], gradient, rtol=1e-10, atol=1e-12)
        with objective.at(point + 1e-5 * V[4, k]):
            ahead = one.gradient()
        with objective.at(point - 1e-5 * V[4, k]):
            behind = one.gradient()
        torch.testing.assert_close(products[4, k], (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)


# -- SAM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [least_squares(1), least_squares(2)], ids=["B=1", "B=2"])
def test_sam_and_usam_descend_the_regularised_loss(problem):
    """Their drift is the gradient of f + rho E|g| and f + (rho / 2) E|g|^2, E over all batches."""
    batches, rho = every_batch(problem), 0.3
    x = double([0.4, -0.7])[0].requires_grad_(True)
    A, b = problem.data
    residual = A[batches] @ x - b[batches]
    g = (residual[..., None] * A[batches]).mean(1)
    f = 0.5 * ((A @ x - b) ** 2).mean()
    norms = g.norm(dim=1)
    for kind, regularised in ((d.SAM, f + rho * norms.mean()), (d.USAM, f + rho / 2 * norms.square().mean())):
        (slope,) = torch.autograd.grad(regularised, x, retain_graph=True)
        drift = kind(problem, 0.1, rho=rho).drift(x.detach()[None, None])[0, 0]
        torch.testing.assert_close(drift, -slope, rtol=1e-10, atol=1e-12)


def test_sams_diffusion_is_semidefinite_at_a_saddle():
    """At grad f = 0, H = -1, s = rho = 0.1: Sigma + rho (S + S^T) = -.0060, Cov(g + rho H g / |g|) = .0040."""
    s = rho = 0.1
    problem = d.Quadratic(double([-1.0]), double([s**2])[0])
    sde = d.SAM(problem, 1.0, rho=rho, draws=1024, generator=generator())
    mean_abs = s * math.sqrt(2 / math.pi)
    naive = s**2 - 2 * rho * mean_abs
    assert naive == pytest.approx(-0.0060, abs=5e-5)
    found = float(diffusion_covariance(sde, torch.zeros(1, 1, 1, dtype=torch.float64), 0.0))
    assert found == pytest.approx(s**2 - 2 * rho * mean_abs + rho**2, rel=5e-3)
    assert found == pytest.approx(0.0040, abs=5e-5)


def test_dnsam_and_usam_have_the_closed_forms_of_additive_noise():
    problem, rho = d.Quadratic(H, SIGMA), 0.2
    X = double([0.4, -0.7])
    G, identity = (X @ H)[0], torch.eye(2, dtype=torch.float64)
    for kind, c in ((d.USAM, 1.0), (d.DNSAM, float(G.norm()))):
        sde = kind(problem, 0.1, rho=rho)
        raised = identity + rho * H / c
        torch.testing.assert_close(sde.drift(X[None])[0, 0], -raised @ G, rtol=1e-12, atol=1e-14)
        expected = 0.1 * raised @ SIGMA @ raised
        torch.testing.assert_close(diffusion_covariance(sde, X[None], 0.0), expected, rtol=1e-10, atol=1e-14)


def test_where_the_gradient_is_zero_nothing_goes_uphill():
    problem = d.Quadratic(H, torch.zeros(2))
    nowhere = torch.zeros(1, 1, 2, dtype=torch.float64)
    for kind in (d.SAM, d.USAM, d.DNSAM):
        sde = kind(problem, 0.1, rho=0.2)
        assert torch.equal(sde.drift(nowhere).abs(), nowhere)
        assert torch.equal(sde.update(nowhere, 0, problem.gradient), nowhere)
    noisy = d.DNSAM(d.Quadratic(H, SIGMA), 0.1, rho=0.2)
    torch.testing.assert_close(diffusion_covariance(noisy, nowhere, 0.0), 0.1 * SIGMA)


def test_the_hessian_of_any_function():
    f = d.Function(lambda x: (x**4).sum() / 4 + x[0] * x[1], d.GaussianNoise(SIGMA))
    X = double([0.4, -0.7], [1.0, 2.0])
    torch.testing.assert_close(f.gradient(X), X**3 + X.flip(1))
    V = double([1.0, 2.0], [0.5, -1.0])
    expected = 3 * X.square() * V + V.flip(1)
    torch.testing.assert_close(f.product(X, V), expected)
    torch.testing.assert_close(f.products(X, torch.zeros(3, 2), torch.stack([V, 2 * V, -V]))[1], 2 * expected)


# -- bad input -----------------------------------------------------------------------------------------------------

QUADRATIC = d.Quadratic(H, SIGMA)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: d.GaussianNoise(double([1.0, 0.5], [0.2, 1.0])), "not symmetric"),
        (lambda: d.GaussianNoise(double([1.0, 2.0], [2.0, 1.0])), "eigenvalue -1"),
        (lambda: d.GaussianNoise(double([1.0, math.nan])[0]), "must be finite"),
        (lambda: d.GaussianNoise(double([1.0, -1.0])[0]), "none of them negative"),
        (lambda: d.GaussianNoise(double([1.0, math.inf], [math.inf, 1.0])), "not finite"),
        (lambda: d.GaussianNoise(torch.ones(2, 3)), "square"),
        (lambda: d.StudentNoise(torch.zeros(2), 3.0), "positive"),
        (lambda: d.StudentNoise(torch.ones(2), 0.0), "dof"),
        (lambda: d.Quadratic(torch.ones(3), SIGMA), "dimension 2"),
        (lambda: d.Quadratic(double([1.0, 0.5], [0.2, 1.0]), SIGMA), "H is not symmetric"),
        (lambda: d.SGD(QUADRATIC, 0.0), "eta"),
        (lambda: d.SGD(QUADRATIC, 0.1, weight_decay=-1.0), "weight_decay"),
        (lambda: d.RMSprop(QUADRATIC, 0.1, beta=1.0), "beta"),
        (lambda: d.Adam(QUADRATIC, 0.1, betas=(0.9, 1.0)), "betas"),
        (lambda: d.SAM(QUADRATIC, 0.1, rho=-0.1), "rho"),
        (lambda: d.Adam(QUADRATIC, 0.1).drift(torch.zeros(3, 1, 2)), "t=0"),
        (lambda: d.FiniteSum(lambda x, a: a, (torch.ones(3),), 1, 1, sampled=1), "sampled=1"),
        (lambda: least_squares(7), "batch_size=7 is not possible with 6 samples"),
        (lambda: d.FiniteSum(lambda x, a, b: a, (torch.ones(3), torch.ones(4)), 1, 1), "one row per sample"),
        (lambda: d.StudentNoise(torch.ones(2), 2.0).root(torch.ones(1, 2)), "no variance"),
        (lambda: d.StudentNoise(torch.ones(2), 4.0).squares(torch.ones(1, 2)), "moment_noise=False"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_objectives_that_are_no_mean_of_samples():
    model, X, y = network()
    with pytest.raises(ValueError, match="make it with dtype"):
        d.FiniteSum.of(Objective(nn.Linear(3, 2), F.cross_entropy, (X.float(), y)), 2)
    weighted = Objective(model, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0], dtype=torch.float64)), (X, y))
    with pytest.raises(ValueError, match="mean of the samples' losses"):
        d.FiniteSum.of(weighted, 2)
    with pytest.raises(ValueError, match="cannot take the loss apart"):
        d.FiniteSum.of(Objective(model, lambda out, target: out.sum() * float(out.sum()), (X, y)), 2)
