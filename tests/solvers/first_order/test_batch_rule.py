"""The batch rule: its terms and crossings, the paper's table, and its bound on a problem with known constants."""

import math

import pytest
import torch

from solvers import Scion, batch_rule
from solvers.first_order.batch_rule import Constants, Settings

CONSTANTS = Constants(L=10.0, mu=1.5, rho=40.0, sigma=3.0)


def test_the_rule_is_where_two_terms_meet():
    budget = 1e9
    noise, level, work = batch_rule.reachable(budget, batch_rule.best_batch(budget, CONSTANTS), CONSTANTS)
    assert level == pytest.approx(work, rel=1e-12)
    assert noise < level
    first = (CONSTANTS.mu * CONSTANTS.rho * CONSTANTS.sigma / CONSTANTS.L) ** 2  # the other crossing
    noise, level, work = batch_rule.reachable(budget, first, CONSTANTS)
    assert noise == pytest.approx(level, rel=1e-12)
    assert work < level
    assert batch_rule.best_batch(budget, CONSTANTS) ** 3 == pytest.approx(budget**2 * first, rel=1e-12)


def test_slopes_of_the_three_terms():
    one, two = (batch_rule.reachable(1e6, batch, CONSTANTS) for batch in (10.0, 640.0))
    assert [b / a for a, b in zip(one, two, strict=True)] == pytest.approx([0.5, 1.0, 64.0])
    longer = batch_rule.reachable(8e6, 10.0, CONSTANTS)
    assert [b / a for a, b in zip(one, longer, strict=True)] == pytest.approx([0.5, 0.5, 1 / 8])


def test_the_papers_table():
    """Table 3: from 124M to 1B parameters, tokens in proportion; printed x 4.37 and x 0.54."""
    small, large = Constants(7.2, 3.1, 62.7, 1.0), Constants(10.6, 2.9, 111.9, 1.0)
    tuned = Settings(budget=1.24e9, batch=256 * 1024, lr=3.6e-4)
    found = batch_rule.transfer(tuned, 1e10, small, large)
    assert found.batch / tuned.batch == pytest.approx(4.37, abs=0.01)
    assert found.lr / tuned.lr == pytest.approx(0.54, abs=0.005)
    direct = math.sqrt(tuned.budget / 1e10) * (2.9 / 3.1) * (111.9 / 62.7) / (10.6 / 7.2)
    assert found.lr / tuned.lr == pytest.approx(direct ** (2 / 3), rel=1e-12)  # (9)


def test_budgets():
    tuned = Settings(budget=1000, batch=8, lr=0.02, momentum=0.2)
    assert tuned.steps == 125
    there = batch_rule.transfer(tuned, 5000)
    back = batch_rule.transfer(there, 1000)
    assert (back.batch, back.lr, back.momentum) == pytest.approx((8, 0.02, 0.2))
    root = batch_rule.root_rule(tuned, 4000)
    assert (root.batch, root.lr) == pytest.approx((16, 0.01))
    first, second = batch_rule.restarted(tuned, 5000)
    assert first == tuned
    assert (second.budget, second.batch, second.lr) == pytest.approx((4000, there.batch, there.lr))


def test_the_running_mean():
    """Lemma 2: of the noise alone at first, then of noise that is averaged and of the way that the points went."""
    still, noise = Settings(100, 4, 0.0, momentum=0.25), CONSTANTS.rho * CONSTANTS.sigma / 2
    assert batch_rule.mean_error(still, CONSTANTS, 5.0, 0) == pytest.approx(1.5 * noise)
    assert batch_rule.mean_error(still, CONSTANTS, 5.0, 10**6) == pytest.approx(0.5 * noise)
    moving = batch_rule.mean_error(Settings(100, 4, 0.01, momentum=0.25), CONSTANTS, 5.0, 10**6)
    assert moving - 0.5 * noise == pytest.approx(2 * CONSTANTS.L * 0.01 * 5.0 / 0.25)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda: Constants(0.0, 1.0, 1.0, 1.0), "L"),
        (lambda: Settings(10, 20, 0.1), "batch"),
        (lambda: Settings(10, 2, 1.5), "lr"),
        (lambda: batch_rule.transfer(Settings(10, 2, 0.1), 20, CONSTANTS), "come together"),
        (lambda: batch_rule.restarted(Settings(10, 2, 0.1), 10), "budget"),
        (lambda: batch_rule.constant_then_linear(10, 0.0), "decay"),
        (lambda: batch_rule.bound(Settings(10, 1, 0.6), CONSTANTS, 1.0, 1.0), "at most 1/2, not 0.6"),
    ],
)
def test_what_is_not_possible(work, message):
    with pytest.raises(ValueError, match=message):
        work()


# -- f(x) = mean_j log(1 + exp(-x_j)) on the ball of the largest entry: f* = 0, L = 1/4, rho = sqrt(d) -----------------

D = 20
NOISE = 0.02  # of one gradient, E ||g - grad f||_2^2 = NOISE^2 * D
SOFTPLUS = Constants(L=0.25, mu=1 / (2 * math.log(2)), rho=math.sqrt(D), sigma=NOISE * math.sqrt(D))


def ended(settings: Settings, radius: float, seed: int) -> tuple[float, list[float], list[float]]:
    """f at the end, the norms of all points, and the lengths of all steps."""
    x = torch.zeros(D, dtype=torch.float64, requires_grad=True)
    source = torch.Generator().manual_seed(seed)
    solver = Scion([x], lr=settings.lr, momentum=settings.momentum, scale=radius, norm="sign", constrained=True)
    norms, lengths = [0.0], []

    def closure():
        noise = NOISE * torch.randn(D, generator=source, dtype=torch.float64)
        return torch.nn.functional.softplus(-x).mean() + noise @ x

    for _ in range(settings.steps):
        before = x.detach().clone()
        solver.step(closure)
        norms.append(float(x.detach().abs().max()))
        lengths.append(float((x.detach() - before).abs().max()))
    return float(torch.nn.functional.softplus(-x.detach()).mean()), norms, lengths


@pytest.mark.parametrize(("momentum", "steps"), [(0.03, 200), (0.1, 200), (0.5, 200), (0.1, 1000)])
def test_the_bound_and_the_ball_hold(momentum, steps):
    c, radius = 2 / 3, 30.0
    settings = Settings(budget=steps, batch=1, lr=c / steps, momentum=momentum)
    limit = batch_rule.bound(settings, SOFTPLUS, radius, math.log(2))
    for seed in range(3):
        value, norms, lengths = ended(settings, radius, seed)
        assert value <= limit
        assert max(lengths) <= 2 * settings.lr * radius * (1 + 1e-12)
        room = [radius - norm >= (1 - settings.lr) ** k * radius / 2 - 1e-9 for k, norm in enumerate(norms)]
        assert all(room)


def test_the_bound_is_of_the_noise_and_the_steps():
    """Its terms: without noise it falls like 1 / K, and with it there is a floor of the size of the noise."""
    quiet = Constants(L=0.25, mu=0.7, rho=4.0, sigma=1e-12)
    few, many = (batch_rule.bound(Settings(k, 1, 0.5 / k, 1.0), quiet, 1.0, 0.0) for k in (10_000, 80_000))
    assert few / many == pytest.approx(8, rel=1e-6)
    loud = Constants(L=0.25, mu=0.7, rho=4.0, sigma=1.0)
    k, c = 10**9, 0.5
    floor = 4 * 4.0 * math.sqrt(0.04) * math.exp(1.5 * c) / 0.7
    assert batch_rule.bound(Settings(k, 1, c / k, 0.04), loud, 1.0, 0.0) == pytest.approx(floor, rel=1e-5)
    assert batch_rule.bound(Settings(4, 1, 0.25), CONSTANTS, 1e6, 1.0) == math.inf
