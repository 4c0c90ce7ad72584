"""What the papers promise of NGN (arXiv 2407.04358, 2410.12455, 2508.15071), and what its solver does there."""

import math

import numpy as np
import pytest
import torch

from landscape.regularity.examples import grid, two_functions
from landscape.regularity.theorems import ProblemConstants, ngn_constant
from solvers.first_order.ngn import NGN


def ngn_m(f_and_g, x, c, beta, steps, target):
    """NGN-M in floats: (steps to f < target, or None, and the last point)."""
    before = x
    for k in range(steps):
        f, g = f_and_g(x)
        if f < target:
            return k, x
        gamma = c / (1 + c / (2 * f) * sum(d * d for d in g))
        after = [a - (1 - beta) * gamma * d + beta * (a - o) for a, d, o in zip(x, g, before, strict=True)]
        before, x = x, after
    return None, x


def solver_m(f_and_g, x, c, beta, steps, target):
    """The same by the solver."""
    p = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    solver = NGN([p], c, momentum=beta)
    p.grad = torch.empty_like(p)
    for k in range(steps):
        f, g = f_and_g(p.tolist())
        if f < target:
            return k, p.tolist()
        p.grad.copy_(torch.tensor(g))
        solver.step(loss=f)
    return None, p.tolist()


def rosenbrock(at):
    x, y = at
    return (x - 1) ** 2 + 100 * (y - x * x) ** 2, (2 * (x - 1) - 400 * x * (y - x * x), 200 * (y - x * x))


def quartic(at):
    (x,) = at
    return x**2 + x**4, (2 * x + 4 * x**3,)


GRID = [10 ** (k / 2) for k in range(-6, 5)]


def test_rosenbrock_for_every_step_size():
    """By the rule in floats; c = 1e-3 needs most steps, and no count above c = .1 means anything (it is chaotic)."""
    counts = [ngn_m(rosenbrock, [-1.2, 1.0], c, 0.9, 50_000, 1e-15)[0] for c in GRID]
    assert None not in counts
    assert 35_000 < counts[0] < 50_000


@pytest.mark.parametrize(
    "c", [pytest.param(c, marks=() if c in (GRID[3], GRID[-1]) else pytest.mark.slow) for c in GRID]
)
def test_rosenbrock_by_the_solver(c):
    count, _ = solver_m(rosenbrock, [-1.2, 1.0], c, 0.9, 50_000, 1e-15)
    assert count is not None
    if c <= GRID[3]:
        assert count == ngn_m(rosenbrock, [-1.2, 1.0], c, 0.9, 50_000, 1e-15)[0]


@pytest.mark.parametrize("c", [0.5, 1.0, 10.0, 100.0, 1e4])
@pytest.mark.parametrize("beta", [9 / 25, 0.6, 0.9])
def test_a_quartic_for_every_large_step_size(c, beta):
    """x^2 + x^4, arXiv 2508.15071 Theorem E.5: every c >= 1/2 with momentum of at least 9/25."""
    for start in (0.3, 2.0, 50.0):
        count, _ = ngn_m(quartic, [start], c, beta, 3000, 1e-15)
        assert count is not None
        if start == 2.0:
            assert solver_m(quartic, [start], c, beta, 3000, 1e-15)[0] == count


def test_with_momentum_large_steps_beat_the_heavy_ball():
    """The paper's picture: the heavy ball's best lr is near 1e-2, NGN-M's best c is large and needs fewer steps."""

    def heavy_ball(lr):
        p = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
        solver = torch.optim.SGD([p], lr, momentum=0.9, dampening=0.9)
        for k in range(5000):
            f, (g,) = quartic([float(p.detach())])
            if f < 1e-15 or not f < 1e10:
                return k if f < 1e-15 else math.inf
            p.grad = torch.tensor([g], dtype=torch.float64)
            solver.step()
        return math.inf

    balls = {lr: heavy_ball(lr) for lr in (1e-3, 1e-2, 1e-1, 1.0, 10.0)}
    counts = {c: ngn_m(quartic, [4.0], c, 0.9, 5000, 1e-15)[0] for c in (1.0, 10.0, 100.0)}
    assert balls[10.0] == math.inf
    assert min(counts.values()) < min(balls.values())


@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0, 10.0, 1e4])
def test_the_step_size_is_between_its_bounds(c):
    """[c / (1 + c L), c] for f_i >= 0 that are L-smooth, on a least-squares problem with noise (arXiv 2407.04358)."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    for row in range(8):
        L = float(A[row] @ A[row])
        p = torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_()
        solver = NGN([p], c)
        solver.step(lambda row=row, p=p: 0.5 * (A[row] @ p - 0.3).square())
        assert c / (1 + c * L) * (1 - 1e-12) <= c * solver.last.shrink <= c


@pytest.mark.parametrize("c", [1e-2, 1.0, 1e2, 1e8])
def test_no_step_size_diverges_on_a_quadratic_with_value_0(c):
    """The distance to the minimiser never grows: gamma <= 2 f / |g|^2 there."""
    scales = torch.logspace(-2, 2, 10, dtype=torch.float64)
    p = torch.ones(10, dtype=torch.float64, requires_grad=True)
    solver, distances = NGN([p], c), [math.sqrt(10)]
    for _ in range(300):
        solver.step(lambda: 0.5 * (scales * p.square()).sum())
        distances.append(float(p.detach().norm()))
    assert np.all(np.diff(distances) <= 0)
    assert distances[-1] < 0.95 * distances[0]


@pytest.mark.parametrize("lr", [0.02, 0.1, 1.0])
def test_the_bound_under_the_alpha_beta_condition(lr):
    """arXiv 2410.12455, Theorem 3, on two functions that are not convex: the mean loss of 500 runs stays below."""
    problem, start, steps = two_functions(), 4.0, 200
    gap, beta = 1.0, 2.164732
    trajectory = problem.trajectory(grid(-6.0, 6.0, 2001, 1))
    inequality = trajectory.inner - (beta + gap) * (trajectory.loss - trajectory.final_loss)
    assert np.all(inequality + beta * (trajectory.loss - trajectory.infimum) >= -1e-9)
    constants = ProblemConstants(beta + gap, beta, problem.smoothness, problem.sigma2, float(problem.infimum.mean()))

    choices = np.random.default_rng(0).integers(0, 2, (steps, 500))
    x = np.full(500, start)
    p = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    solver, least = NGN([p], lr), math.inf
    for k, i in enumerate(choices):
        each, run = problem.values(x[:, None]), np.arange(500)
        least = min(least, float(each.mean()) - problem.minimum)
        f, g = each[i, run], problem.gradients(x[:, None])[i, run, 0]
        p.grad = torch.tensor([problem.gradients(p.detach().numpy()[None])[i[0], 0, 0]])
        solver.step(loss=problem.values(p.detach().numpy()[None])[i[0], 0])
        x = x - lr / (1 + lr / (2 * f) * g**2) * g
        bound = ngn_constant(constants, lr=lr, distance=start, steps=k + 1).total
        assert least <= bound
    assert x[0] == pytest.approx(float(p.detach()), abs=1e-12)
    assert bound > 0.37  # beta sigma^2: what no number of steps takes away from the bound
