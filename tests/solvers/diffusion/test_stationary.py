"""Stationary covariances and rates in closed form, against formulas for one dimension and simulated paths."""

import math

import pytest
import torch

from solvers import diffusion as d


def double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


H = double([2.0, 0.6], [0.6, 1.0])
SIGMA = double([0.3, -0.2], [-0.2, 0.5])  # does not commute with H
ETA, R, DECAY = 0.02, 1.0, 0.7
RULES = {
    "sgd": lambda p: d.SGD(p, 0.2, weight_decay=0.5),
    "sign": lambda p: d.SignSGD(p, ETA),
    "sign-decoupled": lambda p: d.SignSGD(p, ETA, decoupled=DECAY),
    "sign-coupled": lambda p: d.SignSGD(p, ETA, coupled=DECAY),
    "rmsprop": lambda p: d.RMSprop(p, ETA, beta=1 - R * ETA),
    "rmspropw": lambda p: d.RMSprop(p, ETA, beta=1 - R * ETA, decoupled=DECAY),
    "rmsprop-coupled": lambda p: d.RMSprop(p, ETA, beta=1 - R * ETA, coupled=DECAY),
    "adam": lambda p: d.Adam(p, ETA, betas=(1 - 2 * ETA, 1 - R * ETA)),
    "adamw": lambda p: d.Adam(p, ETA, betas=(1 - 2 * ETA, 1 - R * ETA), decoupled=DECAY),
    "adam-coupled": lambda p: d.Adam(p, ETA, betas=(1 - 2 * ETA, 1 - R * ETA), coupled=DECAY),
    "usam": lambda p: d.USAM(p, 0.1, rho=0.3),
    "sam": lambda p: d.SAM(p, 0.05, rho=0.3, draws=64, generator=generator()),
}
FAST = ["sgd", "sign-coupled", "rmspropw", "adamw", "usam"]


@pytest.mark.parametrize("theta", [0.0, DECAY])
def test_the_closed_forms_where_everything_commutes(theta):
    """Each is read off the SDE by hand: see the module for where it holds."""
    h, variance, eta = double([2.0, 0.5])[0], double([0.3, 0.7])[0], 1e-3
    s, r1 = variance.sqrt(), 5.0
    problem = d.Quadratic(h, variance)
    adam = {"betas": (1 - r1 * eta, 0.999), "eps": 0.0, "lookahead": False}
    root = math.sqrt(math.pi / 2)
    forms = {
        "sgd": (d.SGD(problem, eta, weight_decay=theta), eta * variance / (2 * (h + theta))),
        "sign": (d.SignSGD(problem, eta, decoupled=theta), eta / 2 / (h / s / root + theta)),
        "sign-coupled": (d.SignSGD(problem, eta, coupled=theta), eta / 2 * root * s / (h + theta)),
        "rmspropw": (d.RMSprop(problem, eta, eps=0.0, decoupled=theta), eta / 2 / (h / s + theta)),
        "rmsprop-coupled": (d.RMSprop(problem, eta, eps=0.0, coupled=theta), eta / 2 * s / (h + theta)),
        "adamw": (d.Adam(problem, eta, decoupled=theta, **adam), eta / 2 / (h / s + theta) * r1 / (r1 + theta)),
        "adam-coupled": (d.Adam(problem, eta, coupled=theta, **adam), eta / 2 * s / (h + theta)),
    }
    for name, (sde, expected) in forms.items():
        rtol = 0.02 if name.startswith("adam") else 1e-6  # Adam's has terms of order eta r_1
        torch.testing.assert_close(d.linearised(sde).covariance(), torch.diag(expected), rtol=rtol, atol=1e-12)
    dt = 0.3
    expected = 0.3 * variance / (2 * h - dt * h**2)
    torch.testing.assert_close(d.linearised(d.SGD(problem, 0.3)).covariance(dt), torch.diag(expected))
    torch.testing.assert_close(d.linearised(d.SGD(problem, 0.3)).rates(), h.sort().values)
    torch.testing.assert_close(d.linearised(d.SGD(problem, 0.3)).rates(dt), -(1 - dt * h.sort().values).log() / dt)


def test_noise_enters_sign_linearly_and_sgd_quadratically():
    def trace(rule, deviation):
        problem = d.Quadratic(H, deviation**2 * SIGMA)
        return float(d.linearised(rule(problem, 1e-3)).covariance().trace())

    assert trace(d.SignSGD, 2.0) / trace(d.SignSGD, 1.0) == pytest.approx(2.0, rel=1e-9)
    assert trace(d.SGD, 2.0) / trace(d.SGD, 1.0) == pytest.approx(4.0, rel=1e-9)


def simulated(name, paths, dt_over_eta=1.0, seed=0):
    """Covariance of the SDE's paths after six times the slowest relaxation, its error and the closed form."""
    sde = RULES[name](d.Quadratic(H, SIGMA))
    linear, dt = d.linearised(sde), dt_over_eta * sde.eta
    steps = math.ceil(6 / float(linear.rates().min()) / dt)
    found = d.integrate(sde, torch.zeros(2), dt, steps, paths, generator=generator(seed), every=steps)
    return *found.covariance(), linear.covariance(dt)


@pytest.mark.parametrize("name", FAST)
def test_paths_settle_at_the_closed_form(name):
    C, error, expected = simulated(name, 2000)
    assert bool(((C - expected).abs() < 3 * error).all())
    assert not bool(((C - 1.3 * expected).abs() < 3 * error).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RULES))
def test_all_rules_settle_at_the_closed_form(name):
    """8,000 paths; to leading order in eta, so that 2 percent are allowed to rules that are not linear."""
    C, error, expected = simulated(name, 2000 if name == "sam" else 8000, seed=1)
    order = 0.0 if name in ("sgd", "usam") else 0.02
    assert bool(((C - expected).abs() < 3 * error + order * expected.abs()).all())


def test_a_finite_step_changes_the_covariance():
    """SGD at eta H up to 0.5: the closed form for that step holds, that of the SDE does not."""
    C, error, expected = simulated("sgd", 8000)
    limit = d.linearised(RULES["sgd"](d.Quadratic(H, SIGMA))).covariance()
    assert bool(((C - expected).abs() < 3 * error).all())
    assert bool(((C - limit).abs() > 5 * error).any())


def test_a_student_noise_settles_where_its_density_says():
    problem = d.Quadratic(H, d.StudentNoise(double([0.5, 0.7])[0], 1.0))
    sde = d.SignSGD(problem, 0.01)
    linear = d.linearised(sde)
    slope = torch.diag(2 / math.pi / problem.noise.scale) @ H
    torch.testing.assert_close(linear.A, slope)
    steps = math.ceil(6 / float(linear.rates().min()) / 0.01)
    found = d.discrete(sde, torch.zeros(2), steps, 2000, generator=generator(), every=steps)
    C, error = found.covariance()
    assert bool(((C - linear.covariance()).abs() < 4 * error).all())  # the solver itself


def test_a_saddle_attracts_usam_where_rho_is_large():
    """A = H + rho H^2 is positive at a saddle once rho |lambda_min| > 1; SGD leaves it."""
    saddle = d.Quadratic(double([1.0, -1.0])[0], 0.01 * torch.ones(2, dtype=torch.float64))
    held, leaves = d.USAM(saddle, 0.02, rho=2.0), d.USAM(saddle, 0.02, rho=0.5)
    torch.testing.assert_close(d.linearised(held).rates(), double([1.0, 3.0])[0])
    assert float(d.linearised(leaves).rates()[0]) == pytest.approx(-0.5)
    for sde, stays in ((held, True), (leaves, False)):
        for paths in (
            d.discrete(sde, torch.zeros(2), 400, 500, generator=generator(), every=400),
            d.integrate(sde, torch.zeros(2), 0.02, 400, 500, generator=generator(), every=400),
        ):
            C, error = paths.covariance()
            rest = d.linearised(held).covariance(0.02)
            if stays:
                assert bool(((C - rest).abs() < 4 * error).all())
            else:
                assert float(C[1, 1]) > 50 * float(rest[1, 1])


def test_moments_along_the_way_are_exact():
    sde = d.SGD(d.Quadratic(H, SIGMA), 0.2)
    linear = d.linearised(sde)
    y0 = double([1.0, -2.0])[0]
    found = d.integrate(sde, y0, 0.1, 7, 20_000, generator=generator(), every=7)
    mean, S = linear.moments(y0, 0.1, 7)
    x = found.statistics["x"]
    assert bool(((x.mean[-1] - mean).abs() < 4 * x.mean_stderr[-1]).all())
    C, error = found.covariance()
    assert bool(((C - S).abs() < 4 * error).all())
    torch.testing.assert_close(mean, torch.linalg.matrix_power(torch.eye(2, dtype=torch.float64) - 0.1 * H, 7) @ y0)
    _, late = linear.moments(y0, 0.1, 2000)
    torch.testing.assert_close(late, linear.covariance(0.1))


def test_what_has_no_closed_form():
    problem = d.Quadratic(H, SIGMA)
    with pytest.raises(ValueError, match="DNSAM"):
        d.linearised(d.DNSAM(problem, 0.1, rho=0.1))
    with pytest.raises(ValueError, match="positive definite"):
        d.linearised(d.SAM(d.Quadratic(H, double([0.0, 1.0])[0]), 0.1, rho=0.1))
    with pytest.raises(ValueError, match="needs a Quadratic"):
        d.linearised(d.SGD(d.Function(lambda x: x.square().sum(), d.GaussianNoise(SIGMA)), 0.1))
    with pytest.raises(ValueError, match="does not contract"):
        d.linearised(d.SGD(d.Quadratic(-H, SIGMA), 0.1)).covariance()
    with pytest.raises(ValueError, match="does not contract"):
        d.linearised(d.SGD(problem, 0.1)).covariance(1.5)


def test_sams_noise_is_that_of_its_gradient_uphill():
    """Q / eta = Cov(g + rho H g / |g|) for g ~ N(0, Sigma): by drawing it, with a rho at which each term is seen."""
    H, Sigma, rho = double([2.0, 0.3], [0.3, 1.0]), double([1.0, 0.4], [0.4, 0.5]), 0.8
    Q = d.linearised(d.SAM(d.Quadratic(H, Sigma), 0.1, rho=rho, draws=64, generator=generator())).Q / 0.1
    g = torch.randn(400_000, 2, generator=generator(), dtype=torch.float64) @ torch.linalg.cholesky(Sigma).T
    uphill = g + rho * (g / g.norm(dim=1, keepdim=True)) @ H
    torch.testing.assert_close(Q, Q.T)
    torch.testing.assert_close(Q, torch.cov(uphill.T), rtol=0.02, atol=0.02)
