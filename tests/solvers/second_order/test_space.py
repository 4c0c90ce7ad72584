"""Krylov spaces that stand for the whole."""

import numpy as np
import pytest
from newton_cases import generator, network

from solvers import CubicNewton, DampedNewton, GradientNormalizedNewton, GradientRegularizedNewton, SaddleFreeNewton

KRYLOV = {
    "cubic": (lambda p: CubicNewton(p, krylov=True, tol=1e-12, generator=generator()), CubicNewton),
    "fixed": (
        lambda p: GradientRegularizedNewton(p, rule="fixed", krylov=17),
        lambda p: GradientRegularizedNewton(p, rule="fixed"),
    ),
    "adaptive": (lambda p: GradientRegularizedNewton(p, krylov=17), GradientRegularizedNewton),
    "normalised": (lambda p: GradientNormalizedNewton(p, krylov=17), GradientNormalizedNewton),
    "saddle-free": (lambda p: SaddleFreeNewton(p, krylov=17), SaddleFreeNewton),
    "damped": (lambda p: DampedNewton(p, 50.0, krylov=17), lambda p: DampedNewton(p, 50.0)),
}


@pytest.mark.parametrize("name", list(KRYLOV))
def test_a_large_krylov_space_is_the_whole(name):
    first, second = network(), network()
    solvers = KRYLOV[name][0](first.parameters), KRYLOV[name][1](second.parameters)
    for _ in range(2 if name == "damped" else 5):
        for solver, problem in zip(solvers, (first, second), strict=True):
            solver.step(problem.closure)
        np.testing.assert_allclose(first.flat(), second.flat(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: CubicNewton(p, krylov=6, generator=generator()),
        lambda p: GradientRegularizedNewton(p, rule="line-search", krylov=6),
        lambda p: GradientRegularizedNewton(p, rule="super-universal", krylov=6),
        lambda p: GradientNormalizedNewton(p, krylov=6),
        lambda p: SaddleFreeNewton(p, krylov=6),
        lambda p: SaddleFreeNewton(p, rank=3, generator=generator()),
    ],
)
def test_small_spaces_train_a_network(make):
    problem = network()
    solver = make(problem.parameters)
    first = float(problem.closure().detach())
    for _ in range(10):
        solver.step(problem.closure)
        assert solver.last.new_loss <= solver.last.loss
        assert solver.last.size <= 6
    assert solver.last.new_loss < first - 0.01
