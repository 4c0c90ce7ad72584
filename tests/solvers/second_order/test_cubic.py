"""The cubic sub-problem: optimality conditions over many orders of magnitude, hard cases, and the Krylov form."""

import math

import pytest
import torch
from newton_cases import generator

from landscape import MatrixOperator
from solvers.second_order.cubic import solve_cubic
from solvers.second_order.cubic_krylov import solve_cubic_krylov


def model(h, g, H, M):
    return float(g @ h + 0.5 * h @ (H @ h) + M / 6 * h.norm() ** 3)


def uniform(generator, low, high):
    return float(torch.empty(1, dtype=torch.float64).uniform_(low, high, generator=generator))


def random_case(generator, nearly_hard):
    n = int(torch.randint(1, 31, (1,), generator=generator))
    H = torch.randn(n, n, generator=generator, dtype=torch.float64)
    H = 0.5 * (H + H.T)
    H *= 10 ** uniform(generator, -6, 6) / float(torch.linalg.matrix_norm(H, 2))
    g = torch.randn(n, generator=generator, dtype=torch.float64)
    g *= 10 ** uniform(generator, -12, 6) / float(g.norm())
    if nearly_hard:
        U = torch.linalg.eigh(H).eigenvectors
        c = U.T @ g
        c[0] *= 10 ** uniform(generator, -16, 0)
        g = U @ c
    return g, H, 10 ** uniform(generator, -6, 6)


def check_optimality(g, H, M):
    step = solve_cubic(g, H, M)
    h, lam, norm = step.h, step.multiplier, float(step.h.norm())
    size = float(torch.linalg.matrix_norm(H, 2))
    scale = float(g.norm()) + size * norm + lam * norm
    assert float((g + H @ h + lam * h).norm()) <= 1e-12 * scale
    assert lam == pytest.approx(0.5 * M * norm, rel=1e-10)
    assert float(torch.linalg.eigvalsh(H)[0]) + lam >= -1e-12 * size
    assert step.decrease >= 0
    assert step.residual <= 1e-12
    return step


def sweep(cases, seed):
    generator = torch.Generator().manual_seed(seed)
    for case in range(cases):
        check_optimality(*random_case(generator, nearly_hard=case % 4 == 0))


def test_two_thousand_random_and_nearly_hard_cases():
    sweep(2_000, 0)


@pytest.mark.slow
def test_twenty_thousand_random_and_nearly_hard_cases():
    sweep(20_000, 1)


def test_no_other_point_is_lower():
    generator = torch.Generator().manual_seed(2)
    for _ in range(50):
        n = int(torch.randint(1, 6, (1,), generator=generator))
        H = torch.randn(n, n, generator=generator, dtype=torch.float64)
        H, g = H + H.T, torch.randn(n, generator=generator, dtype=torch.float64)
        step = solve_cubic(g, H, 1.5)
        assert -step.decrease == pytest.approx(model(step.h, g, H, 1.5), rel=1e-12)
        radius = 3 * float(step.h.norm())
        for _ in range(200):
            other = torch.randn(n, generator=generator, dtype=torch.float64)
            other *= radius * uniform(generator, 0, 1) / float(other.norm())
            assert model(other, g, H, 1.5) >= -step.decrease - 1e-12


def test_a_saddle_with_no_gradient():
    H = torch.diag(torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64))
    step = check_optimality(torch.zeros(3, dtype=torch.float64), H, 0.5)
    assert step.hard_case
    assert float(step.h.norm()) == pytest.approx(2 * 2.0 / 0.5)
    assert step.decrease == pytest.approx((2 / 3) * 2.0**3 / 0.5**2)
    assert step.lowest == -2.0


def test_the_hard_case():
    """g orthogonal to the lowest eigenspace, which here has two dimensions."""
    H = torch.diag(torch.tensor([-2.0, -2.0, 5.0, 7.0], dtype=torch.float64))
    g = torch.tensor([0.0, 0.0, 1.0, -1.0], dtype=torch.float64)
    step = check_optimality(g, H, 1.0)
    assert step.hard_case
    assert float(step.h.norm()) == pytest.approx(4.0)
    far = check_optimality(1e3 * g, H, 1.0)  # g alone makes the step long enough
    assert not far.hard_case


def test_nothing_to_do():
    H = torch.eye(3, dtype=torch.float64)
    for matrix in (H, 0.0 * H, torch.diag(torch.tensor([0.0, 1.0, 2.0]).double())):
        step = solve_cubic(torch.zeros(3, dtype=torch.float64), matrix, 1.0)
        assert float(step.h.norm()) == 0.0
        assert step.decrease == 0.0
        assert not step.hard_case


def test_no_curvature_at_all():
    g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    step = check_optimality(g, torch.zeros(2, 2, dtype=torch.float64), 2.0)
    torch.testing.assert_close(step.h, -g / 5 * math.sqrt(2 * 5 / 2.0))


def test_single_precision_in_and_out():
    g, H = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.5], [0.5, -3.0]])
    step = solve_cubic(g, H, 1.0)
    assert step.h.dtype == torch.float32
    torch.testing.assert_close(step.h.double(), solve_cubic(g.double(), H.double(), 1.0).h, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("g", "H", "M", "words"),
    [
        (torch.ones(2), torch.eye(3), 1.0, r"g must be \(n,\) and H \(n, n\)"),
        (torch.ones(2), torch.eye(2), 0.0, "M must be positive"),
        (torch.ones(2), torch.eye(2), math.inf, "M must be positive"),
        (torch.tensor([1.0, math.nan]), torch.eye(2), 1.0, "not finite"),
    ],
)
def test_bad_input(g, H, M, words):
    with pytest.raises(ValueError, match=words):
        solve_cubic(g, H, M)


# -- Krylov ----------------------------------------------------------------------------------------------------------


def spectrum_case(values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    U = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return U, (U * values) @ U.T


VALUES = {
    "decaying": torch.cat([torch.tensor([-2.0, -0.5]), torch.logspace(-4, 1, 118)]).double(),
    "indefinite": torch.linspace(-1, 3, 120).double(),
    "positive": torch.linspace(0.1, 4, 120).double(),
}


@pytest.mark.parametrize("name", list(VALUES))
@pytest.mark.parametrize("M", [1e-2, 1.0, 1e2])
def test_krylov_finds_the_same(name, M):
    values = VALUES[name].sort().values
    U, H = spectrum_case(values)
    g = U @ torch.randn(120, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = solve_cubic(g, H, M)
    step = solve_cubic_krylov(g, MatrixOperator(H), M, tol=1e-8, generator=torch.Generator().manual_seed(2))
    assert step.converged
    assert step.products <= 120
    h, lam = step.h, step.multiplier
    true = float((g + H @ h + lam * h).norm()) / max(float(g.norm()), lam * float(h.norm()))
    assert true <= 2e-8
    assert step.residual == pytest.approx(true, rel=0.2, abs=1e-13)
    assert step.decrease == pytest.approx(exact.decrease, rel=1e-6)


def test_the_hard_case_is_seen_from_a_random_start():
    values = torch.cat([torch.tensor([-3.0]), torch.linspace(0.5, 4, 79)]).double()
    U, H = spectrum_case(values)
    c = torch.randn(80, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    c[0] = 0.0
    g = U @ c
    exact = solve_cubic(g, H, 0.5)
    step = solve_cubic_krylov(g, MatrixOperator(H), 0.5, tol=1e-6, generator=torch.Generator().manual_seed(4))
    assert step.converged
    assert step.lowest == pytest.approx(-3.0, rel=1e-3)
    assert step.decrease == pytest.approx(exact.decrease, rel=1e-3)


def test_a_saddle_without_gradient_is_left():
    values = torch.cat([torch.tensor([-3.0]), torch.linspace(0.5, 4, 79)]).double()
    _, H = spectrum_case(values)
    step = solve_cubic_krylov(
        torch.zeros(80).double(), MatrixOperator(H), 0.5, generator=torch.Generator().manual_seed(4)
    )
    assert step.decrease == pytest.approx((2 / 3) * 27 / 0.25, rel=1e-3)


def test_a_limit_gives_what_there_is():
    U, H = spectrum_case(VALUES["positive"])
    g = U.sum(1)
    step = solve_cubic_krylov(g, MatrixOperator(H), 1e-3, tol=1e-10, max_products=5)
    assert not step.converged
    assert step.products == 5
    assert step.decrease == pytest.approx(-model(step.h, g, H, 1e-3), rel=1e-10)


def test_single_precision_operators():
    _, H = spectrum_case(VALUES["indefinite"])
    g = torch.randn(120, generator=torch.Generator().manual_seed(1))
    step = solve_cubic_krylov(g, MatrixOperator(H.float()), 1.0, tol=1e-12, generator=torch.Generator().manual_seed(2))
    assert step.h.dtype == torch.float32
    assert step.decrease == pytest.approx(solve_cubic(g.double(), H, 1.0).decrease, rel=1e-4)


@pytest.mark.parametrize("hidden", [1, 3])
@pytest.mark.parametrize("kind", ["wigner", "tail", "positive"])
@pytest.mark.parametrize("share", [0.3, 1.0, 3.0])
def test_what_converged_is_the_minimum(kind, hidden, share):
    """g orthogonal to the lowest eigenvectors, in spectra with and without a gap: right, or converged=False."""
    n, claimed = 90, 0
    for seed in range(4):
        draw = generator(seed)
        values = {
            "wigner": torch.randn(n, generator=draw).double(),
            "tail": torch.cat([-torch.logspace(-5, -1, 5), torch.logspace(-6, 2, n - 5)]).double(),
            "positive": torch.logspace(-4, 1, n).double(),
        }[kind]
        U, H = spectrum_case(values.sort().values, seed)
        c = torch.randn(n, generator=draw).double()
        c[:hidden] = 0.0
        M = 10.0 ** float(4 * torch.rand(1, generator=draw) - 2)
        limit = int(share * n)
        step = solve_cubic_krylov(U @ c, MatrixOperator(H), M, max_products=limit, generator=generator(1))
        exact = solve_cubic(U @ c, H, M)
        assert step.products <= limit
        if step.converged:
            claimed += 1
            assert step.decrease >= (1 - 2e-3) * exact.decrease
    assert claimed == 4 or share < 1.0


def test_a_search_beside_g_that_is_cut_short_is_not_converged():
    values = torch.linspace(-1, 3, 120).double()
    U, H = spectrum_case(values)
    c = torch.randn(120, generator=generator(1)).double()
    c[0] = 0.0
    short, full = (
        solve_cubic_krylov(U @ c, MatrixOperator(H), 1.0, max_look=look, generator=generator(2)) for look in (3, None)
    )
    assert not short.converged
    assert full.converged
    assert short.products < full.products


def test_a_gradient_that_sees_all_costs_little_more_than_its_own_space():
    """Where lam is far above the curvature that could be hidden, a short random chain proves that nothing is."""
    values = torch.linspace(1, 4, 400).double()
    _, H = spectrum_case(values)
    g = torch.randn(400, generator=generator(1)).double()
    step = solve_cubic_krylov(g, MatrixOperator(H), 1.0, generator=generator(2))
    own = solve_cubic_krylov(g, MatrixOperator(H), 1.0, max_look=0, generator=generator(2))
    assert step.converged
    assert not own.converged
    assert step.products <= own.products + 15
