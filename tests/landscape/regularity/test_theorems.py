"""The convergence bounds hold on problems whose constants are known, with SGD, SPS, DecSPS and NGN in plain numpy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from landscape.regularity import (
    ProblemConstants,
    adagrad_norm_max,
    alpha_beta,
    dec_sps,
    ngn_constant,
    ngn_decreasing,
    one_step_decrease,
    sgd_constant,
    sgd_decreasing,
    sps_max,
)
from landscape.regularity import examples as toys

L, SIGMA2, POSITIVITY2 = 3.0, 0.171178, 0.328822
LINE = np.linspace(-20, 20, 400_001)[:, None]
STARTS = 100  # independent runs, over which E is taken


@pytest.fixture(scope="module")
def line():
    return toys.two_functions()


@pytest.fixture(scope="module")
def constants(line):
    """At gap 1/2 and at gap 1, beta rounded up from the whole line's."""
    t = line.trajectory(LINE)
    return {gap: problem_constants(line, alpha_beta(t, gap).beta, gap) for gap in (0.5, 1.0)}


def problem_constants(toy, beta, gap):
    beta = beta * (1 + 1e-6)
    return ProblemConstants(beta + gap, beta, toy.smoothness, toy.sigma2, float(toy.infimum.mean()))


class Quadratics:
    """f_i = (x - a_i)^T A_i (x - a_i) / 2 + b: convex, so that alpha = 1, beta = 0; the a_i differ, or agree."""

    dimension = 4

    def __init__(self, spread, offset=0.0, seed=0):
        rng = np.random.default_rng(seed)
        self.A = np.stack([np.diag(rng.uniform(0.1, 2.0, 4)) for _ in range(8)])
        self.a = spread * rng.normal(size=(8, 4))
        self.infimum = np.full(8, offset)
        self.end = np.linalg.solve(self.A.sum(axis=0), (self.A @ self.a[..., None]).sum(axis=0)[:, 0])
        self.smoothness = float(self.A.max())
        self.minimum = float(self.values(self.end[None]).mean())
        self.sigma2 = self.minimum - offset

    def values(self, x):
        shifted = x - self.a[:, None]
        return 0.5 * np.einsum("nmi,nij,nmj->nm", shifted, self.A, shifted) + self.infimum[:, None]

    def gradients(self, x):
        return np.einsum("nij,nmj->nmi", self.A, x - self.a[:, None])

    def project(self, x):
        return np.broadcast_to(self.end, x.shape)


def simulate(toy, step, steps, start=4.0, seed=0):
    """min over k < K of the mean over runs of f(x_k) - f^*, the start's distance, and the largest met."""
    rng = np.random.default_rng(seed)
    x = np.full((STARTS, toy.dimension), start)
    distance = float(np.linalg.norm((x - toy.project(x))[0]))
    least, farthest, memory = math.inf, distance, {}
    runs = np.arange(STARTS)
    for k in range(steps):
        values = toy.values(x)
        least = min(least, float(values.mean()) - toy.minimum)
        i = rng.integers(len(values), size=STARTS)
        g = toy.gradients(x)[i, runs]
        rates = step(k, values[i, runs], toy.infimum[i], (g**2).sum(axis=1), memory)
        x = x - np.broadcast_to(rates, STARTS)[:, None] * g
        farthest = max(farthest, float(np.linalg.norm(x - toy.project(x), axis=1).max()))
    return least, distance, farthest


def constant(lr):
    return lambda k, f, low, gg, memory: lr


def decreasing(lr):
    return lambda k, f, low, gg, memory: lr / math.sqrt(k + 1)


def polyak(scale, cap):
    return lambda k, f, low, gg, memory: np.minimum((f - low) / (scale * np.maximum(gg, 1e-300)), cap)


def decreasing_polyak(scale, cap):
    def step(k, f, low, gg, memory):
        before = memory.get("c", scale) * memory.get("lr", cap)
        memory["c"] = scale * math.sqrt(k + 1)
        memory["lr"] = np.minimum((f - low) / np.maximum(gg, 1e-300), before) / memory["c"]
        return memory["lr"]

    return step


def ngn(lr, power=0.0):
    def step(k, f, low, gg, memory):
        rate = lr / (k + 1) ** power
        return rate / (1 + rate * gg / (2 * f))

    return step


# -- the two-function problem ----------------------------------------------------------------------------------------


def test_two_functions_have_the_constants_they_are_known_for(line, constants):
    assert constants[0.5].beta == pytest.approx(0.163338, abs=1e-6)
    assert constants[1.0].beta == pytest.approx(2.164732, abs=5e-6)
    assert line.sigma2 == pytest.approx(SIGMA2, abs=1e-6)
    assert constants[1.0].positivity2 == pytest.approx(POSITIVITY2, abs=1e-6)
    assert line.smoothness == L
    assert sgd_constant(constants[0.5], lr=1 / 12, distance=1.0, steps=10).neighbourhood == pytest.approx(
        0.112, abs=5e-4
    )


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01])
def test_one_step_inequality_averaged_over_both_functions(line, constants, share):
    """Exact: E over i at each x, on the whole line and along a run."""
    c = constants[0.5]
    lr = share * c.gap / (2 * L)
    x = LINE[::40]
    after = (x - lr * line.gradients(x))[..., 0]
    left = (after**2).mean(axis=0)
    excess = line.values(x).mean(axis=0) - line.minimum
    right = [
        one_step_decrease(c, lr=lr, distance=abs(float(point)), gap_to_optimum=max(0.0, float(above)))
        for point, above in zip(x[:, 0], excess, strict=True)
    ]
    assert (np.array(right) - left >= 0).all()
    # and it is no empty promise: at x* the sides differ by less than the noise term
    assert (np.array(right) - left).min() <= (2 * lr * c.beta + 2 * L * lr**2) * SIGMA2


def test_one_step_inequality_notices_a_pair_that_does_not_hold(line):
    c = ProblemConstants(3.0, 0.0, L, line.sigma2)
    lr, x = 0.001, LINE[::40]
    left = ((x - lr * line.gradients(x))[..., 0] ** 2).mean(axis=0)
    excess = np.maximum(0, line.values(x).mean(axis=0) - line.minimum)
    right = [
        one_step_decrease(c, lr=lr, distance=abs(p), gap_to_optimum=e) for p, e in zip(x[:, 0], excess, strict=True)
    ]
    assert (np.array(right) - left < 0).any()


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_bounds_on_the_two_functions(line, constants, share, steps):
    half, one = constants[0.5], constants[1.0]
    lr = share * half.gap / (2 * L)
    measured, distance, _ = simulate(line, constant(lr), steps)
    assert measured <= sgd_constant(half, lr=lr, distance=distance, steps=steps).total
    measured, distance, _ = simulate(line, decreasing(lr), steps)
    assert measured <= sgd_decreasing(half, lr=lr, distance=distance, steps=steps).total
    scale, cap = 1.5, share
    measured, distance, _ = simulate(line, polyak(scale, cap), steps)
    assert measured <= sps_max(half, scale=scale, cap=cap, distance=distance, steps=steps).total
    measured, _, farthest = simulate(line, decreasing_polyak(2.0, cap), steps)
    assert measured <= dec_sps(half, cap=cap, diameter=farthest, steps=steps, scale=2.0).total
    measured, distance, _ = simulate(line, ngn(share), steps)
    assert measured <= ngn_constant(one, lr=share, distance=distance, steps=steps).total
    measured, distance, _ = simulate(line, ngn(share, power=0.5), steps)
    assert measured <= ngn_decreasing(one, lr=share, distance=distance, steps=steps).total


def test_bound_says_something_on_the_two_functions(line, constants):
    """After many small steps the bound is below a quarter of the loss that SGD starts from, and above the measured."""
    c = constants[0.5]
    bound = sgd_constant(c, lr=0.01, distance=4.0, steps=100_000)
    start = float(line.values(np.array([[4.0]])).mean()) - line.minimum
    assert bound.total < 0.25 * start
    assert bound.neighbourhood < line.minimum / 4


# -- convex quadratics: alpha = 1, beta = 0 --------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 30, 200])
def test_bounds_on_quadratics(spread, steps):
    toy = Quadratics(spread, offset=0.2)
    c = ProblemConstants(1.0, 0.0, toy.smoothness, max(0.0, toy.sigma2), float(toy.infimum.mean()))
    top = 1 / (2 * toy.smoothness)
    for lr in (top, 0.1 * top):
        measured, distance, _ = simulate(toy, constant(lr), steps)
        assert measured <= sgd_constant(c, lr=lr, distance=distance, steps=steps).total
        measured, distance, _ = simulate(toy, decreasing(lr), steps)
        assert measured <= sgd_decreasing(c, lr=lr, distance=distance, steps=steps).total
    for cap in (0.1, 10.0):
        measured, distance, _ = simulate(toy, polyak(1.0, cap), steps)
        assert measured <= sps_max(c, scale=1.0, cap=cap, distance=distance, steps=steps).total
        measured, _, farthest = simulate(toy, decreasing_polyak(1.0, cap), steps)
        assert measured <= dec_sps(c, cap=cap, diameter=farthest, steps=steps).total
        measured, distance, _ = simulate(toy, ngn(cap), steps)
        assert measured <= ngn_constant(c, lr=cap, distance=distance, steps=steps).total
        measured, distance, _ = simulate(toy, ngn(cap, power=0.5), steps)
        assert measured <= ngn_decreasing(c, lr=cap, distance=distance, steps=steps).total


# -- the formulas ----------------------------------------------------------------------------------------------------

C = ProblemConstants(2.0, 0.5, 3.0, 0.25, 0.125)


def test_formulas_by_hand():
    """Each theorem once, written out with numbers: alpha 2, beta 1/2, L 3, sigma^2 1/4, s^2 1/8."""
    bound = sgd_constant(C, lr=0.1, distance=2.0, steps=10)
    assert bound.transient == pytest.approx(4 / (10 * 0.1 * 1.5))
    assert bound.noise == pytest.approx(2 * 3 * 0.1 / 1.5 / 4)
    assert bound.neighbourhood == pytest.approx(2 * 0.5 / 1.5 / 4)
    assert bound.total == bound.transient + bound.noise + bound.neighbourhood
    bound = sgd_decreasing(C, lr=0.1, distance=2.0, steps=16)
    assert bound.transient == pytest.approx(5 * 4 / (4 * 1.5 * 0.1 * 4))
    assert bound.noise == pytest.approx(5 * 0.1 * 3 * 0.25 / 1.5 * math.log(17) / 4)
    bound = sps_max(C, scale=0.5, cap=1.0, distance=2.0, steps=10)  # least step 1/3, c1 = .5 / (1/3 * .5) = 3
    assert bound.transient == pytest.approx(3 * 4 / 10)
    assert bound.noise == pytest.approx(2 * 2 * 3 * 1 * 0.25)
    bound = dec_sps(C, cap=0.1, diameter=2.0, steps=4)  # max(3, 1 / .2) = 5
    assert bound.transient == pytest.approx(2 * 5 * 4 * 2 / (4 * 1.5))
    assert bound.noise == pytest.approx(0.25 / 1.5 * (1 + 2**-0.5 + 3**-0.5 + 0.5) / 4)
    bound = adagrad_norm_max(C, lr=0.5, b0=2.0, largest=4.0, smallest=1.0, distance=2.0, steps=5)  # e^2 84, h 3
    assert bound.transient == pytest.approx(4 * 84**0.5 / (0.5 * 5 * 1.5))
    assert bound.noise == pytest.approx(4 * 2 * 0.25 * 84**0.5 * (3 - 2) / (1.5 * 5))
    bound = ngn_constant(C, lr=1.0, distance=2.0, steps=10)  # a = 3, c2 = 6 * .5 + 1.5 = 4.5
    assert bound.transient == pytest.approx(4 * 49 / (2 * 10 * 4.5))
    assert bound.noise == pytest.approx((3 * 3 * 2 * 4 * 0.25 + 3 * 5 * 0.125) / 4.5)
    assert bound.neighbourhood == pytest.approx(0.5 * 0.25 / 4.5)
    bound = ngn_decreasing(C, lr=1.0, distance=2.0, steps=16)
    assert bound.transient == pytest.approx(5 * 4 * 7 / 8 * 4 / 4)
    assert bound.noise == pytest.approx((15 * 3 * 28 / 2 * 2 * 0.25 + 5 * 28 * 3 * 5 / 2 * 0.125) * math.log(17) / 4)
    assert bound.neighbourhood == pytest.approx(28 / 1.5 * 0.5 * 0.25)
    assert one_step_decrease(C, lr=0.1, distance=2.0, gap_to_optimum=1.0) == pytest.approx(4 - 0.15 + (0.1 + 0.06) / 4)
    assert "neighbourhood" in str(bound)


def test_noise_vanishes_under_interpolation_and_neighbourhood_without_beta():
    exact = replace(C, sigma2=0.0, positivity2=0.0)
    for bound in every_bound(exact):
        assert bound.noise == bound.neighbourhood == 0.0
    for bound in every_bound(replace(C, alpha=1.5, beta=0.0)):
        assert bound.neighbourhood == 0.0


def every_bound(c):
    return [
        sgd_constant(c, lr=0.1, distance=2.0, steps=10),
        sgd_decreasing(c, lr=0.1, distance=2.0, steps=10),
        sps_max(c, scale=1.0, cap=1.0, distance=2.0, steps=10),
        dec_sps(c, cap=1.0, diameter=2.0, steps=10),
        adagrad_norm_max(c, lr=1.0, b0=9.0, largest=2.0, smallest=1.0, distance=2.0, steps=10),
        ngn_constant(c, lr=1.0, distance=2.0, steps=10),
        ngn_decreasing(c, lr=1.0, distance=2.0, steps=10),
    ]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ProblemConstants(1.0, 1.0, 1.0, 0.0), "alpha > beta >= 0 must hold"),
        (lambda: ProblemConstants(1.0, -0.1, 1.0, 0.0), "alpha > beta >= 0 must hold"),
        (lambda: ProblemConstants(math.inf, math.inf, 1.0, 0.0), "alpha > beta >= 0 must hold"),
        (lambda: ProblemConstants(1.0, 0.0, 0.0, 0.0), "smoothness L must be positive"),
        (lambda: ProblemConstants(1.0, 0.0, 1.0, -1.0), "sigma2 must be finite and not negative"),
        (lambda: ProblemConstants(1.0, 0.0, 1.0, 0.0, math.nan), "positivity2 must be finite"),
        (lambda: sgd_constant(C, lr=0.26, distance=1.0, steps=1), r"lr 0.26 is too large: .* = 0.25$"),
        (lambda: sgd_decreasing(C, lr=0.26, distance=1.0, steps=1), "lr 0.26 is too large"),
        (lambda: one_step_decrease(C, lr=0.26, distance=1.0, gap_to_optimum=1.0), "lr 0.26 is too large"),
        (lambda: one_step_decrease(C, lr=0.1, distance=1.0, gap_to_optimum=-1.0), "gap_to_optimum must be finite"),
        (lambda: sgd_constant(C, lr=0.0, distance=1.0, steps=1), "lr must be positive"),
        (lambda: sgd_constant(C, lr=0.1, distance=-1.0, steps=1), "distance must be finite and not negative"),
        (lambda: sgd_constant(C, lr=0.1, distance=1.0, steps=0), "steps is a whole number"),
        (lambda: sgd_constant(C, lr=0.1, distance=1.0, steps=1.5), "steps is a whole number"),
        (lambda: sps_max(C, scale=1 / 3, cap=1.0, distance=1.0, steps=1), "scale must exceed .* = 0.333333"),
        (lambda: dec_sps(C, cap=1.0, diameter=1.0, steps=1, scale=0.5), "scale must be at least .* = 0.666667"),
        (
            lambda: adagrad_norm_max(C, lr=1.0, b0=3.9, largest=1.0, smallest=1.0, distance=1.0, steps=1),
            r"b0 must be at least .* = 4,",
        ),
        (lambda: ngn_constant(replace(C, alpha=1.4), lr=1.0, distance=1.0, steps=1), "alpha >= beta \\+ 1, got"),
        (lambda: ngn_decreasing(replace(C, alpha=1.4), lr=1.0, distance=1.0, steps=1), "alpha >= beta \\+ 1, got"),
    ],
)
def test_conditions_of_the_theorems_are_checked(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
