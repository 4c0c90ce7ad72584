"""Linear systems: residuals that are what they say, on spectra that are hard in one way each."""

import numpy as np
import pytest
import scipy.sparse.linalg as scipy
import torch
from torch import nn

from landscape import GaussNewton, Hessian, LinearOperator, MatrixOperator, Objective
from landscape.spectra import solve

N = 120
SPECTRA = {
    "easy": np.linspace(1, 10, N),
    "condition 1e6": np.geomspace(1e-6, 1, N),
    "clustered": np.repeat([1e-2, 1.0, 2.0], N // 3),
    "outliers": np.r_[np.full(N - 10, 1e-3), np.geomspace(1, 100, 10)],
    "indefinite": np.r_[np.linspace(-5, -0.5, 30), np.linspace(0.5, 10, N - 30)],
    "one negative": np.r_[-1e-3, np.linspace(0.1, 1, N - 1)],
    "negative": -np.linspace(1, 10, N),
}
DEFINITE = ("easy", "condition 1e6", "clustered", "outliers")


def matrix(values, seed=0):
    g = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(len(values), len(values), generator=g, dtype=torch.float64)).Q
    M = (Q * torch.as_tensor(values).double()) @ Q.T
    return (M + M.T) / 2


def right_hand_side(n=N, k=None, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*((n,) if k is None else (n, k)), generator=g, dtype=torch.float64)


def truth(M, x, b, damping=0.0):
    M, x, b = M.double(), x.double(), b.double()
    return (M @ x + damping * x - b).norm(dim=0) / b.norm(dim=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("method", ["auto", "minres"])
def test_the_residual_is_what_it_says(name, dtype, method):
    M = matrix(SPECTRA[name]).to(dtype)
    b = (M.double() @ right_hand_side()).to(dtype)
    found = solve(MatrixOperator(M), b, method=method)
    true = float(truth(M, found.x, b))
    assert found.x.dtype == dtype
    # one rounding is the size of the error; sums of n terms have a few
    assert abs(true - found.residual) <= 8 * found.error
    if found.converged:
        assert true <= 1e-6 * (1 + 1e-3)
    if dtype == torch.float64 and name != "condition 1e6":
        assert found.converged
    definite = name in DEFINITE
    assert found.indefinite == (not definite)
    assert found.method == ("cg" if definite and method == "auto" and found.converged else found.method)
    quotient = float(found.direction @ M @ found.direction / (found.direction @ found.direction))
    rounding = 16 * torch.finfo(dtype).eps * np.abs(SPECTRA[name]).max()
    assert found.curvature == pytest.approx(quotient, rel=1e-6, abs=rounding)
    assert found.curvature >= SPECTRA[name].min() - rounding


def test_float32_at_a_large_condition_does_not_claim_what_scipy_claims():
    M, b = matrix(SPECTRA["condition 1e6"]).float(), right_hand_side().float()
    y, info = scipy.cg(M.numpy(), b.numpy(), rtol=1e-6, maxiter=100 * N)
    assert info == 0
    assert float(truth(M, torch.as_tensor(y), b)) > 1e-3
    found = solve(MatrixOperator(M), b, max_matvecs=20 * N)
    assert not found.converged
    assert abs(float(truth(M, found.x, b)) - found.residual) < 8 * found.error
    assert "not converged" in str(found)


@pytest.mark.parametrize("name", SPECTRA)
def test_products_are_those_of_scipy(name):
    """For the same true residual, where CG is possible beside CG, else beside MINRES."""
    M, b = matrix(SPECTRA[name]), matrix(SPECTRA[name]) @ right_hand_side()
    found = solve(MatrixOperator(M), b, max_matvecs=10 * N)
    iterates = []
    algorithm = scipy.cg if name in DEFINITE else scipy.minres

    class Reached(Exception):
        pass

    def look(x):
        iterates.append(1)
        if float(truth(M, torch.as_tensor(x), b)) <= max(found.residual, 1e-13):
            raise Reached

    with pytest.raises(Reached):
        algorithm(M.numpy(), b.numpy(), rtol=1e-15, maxiter=100 * N, callback=look)
    assert found.matvecs <= 1.1 * len(iterates) + 2  # the check, and the curvature of a direction


def test_singular_systems():
    M = matrix(np.r_[np.zeros(40), np.linspace(0.5, 2, N - 40)])
    b = M @ right_hand_side()
    found = solve(MatrixOperator(M), b)
    assert found.converged
    assert float(truth(M, found.x, b)) <= 1e-6
    b = right_hand_side()
    found = solve(MatrixOperator(M), b)
    least = torch.linalg.lstsq(M, b, driver="gelsd").solution
    assert not found.converged
    assert found.residual == pytest.approx(float(truth(M, least, b)), rel=1e-6)
    assert found.matvecs < 60
    nothing = solve(MatrixOperator(torch.zeros(4, 4)), torch.ones(4))
    assert (nothing.residual, nothing.converged) == (1.0, False)


def test_a_block_is_its_columns():
    M = matrix(SPECTRA["outliers"])
    B = right_hand_side(k=4) * torch.tensor([1.0, 1e-6, 0.0, 1e6], dtype=torch.float64)
    found = solve(MatrixOperator(M), B, damping=0.1)
    assert found.converged
    assert found.x[:, 2].abs().max() == 0
    products = 0
    expected = torch.linalg.solve(M + 0.1 * torch.eye(N).double(), B)
    for i in (0, 1, 3):
        torch.testing.assert_close(found.x[:, i], expected[:, i], rtol=0, atol=2e-5 * float(expected[:, i].norm()))
        alone = solve(MatrixOperator(M), B[:, i], damping=0.1)
        torch.testing.assert_close(found.residual[i], truth(M, found.x[:, i], B[:, i], 0.1), rtol=1e-6, atol=1e-14)
        products += alone.matvecs
    assert found.matvecs == products


@pytest.mark.parametrize("method", ["auto", "cg", "minres"])
@pytest.mark.parametrize("preconditioner", [None, torch.linspace(1.0, 3.0, N)])
def test_columns_that_have_converged_cost_no_more_products(method, preconditioner):
    """Columns in few eigenvectors converge in as many steps, whatever the others need."""
    M = (
        matrix(np.geomspace(1e-2, 1, N))
        if preconditioner is None
        else torch.diag(torch.as_tensor(np.geomspace(1e-2, 1, N)))
    )
    V = torch.linalg.eigh(M).eigenvectors
    B = torch.stack([V[:, 3], V[:, [5, 60]].sum(dim=1), right_hand_side(), V[:, -1], torch.zeros(N).double()], dim=1)
    A = MatrixOperator(M)
    told = []
    options = {"method": method, "preconditioner": preconditioner}
    found = solve(A, B, callback=lambda made, *_: told.append(made), **options)
    alone = [solve(A, b, **options) for b in B.T]
    assert found.converged
    assert found.converged_columns.tolist() == [True] * 5
    assert abs(found.matvecs - sum(one.matvecs for one in alone)) <= 5
    longest = max(one.matvecs for one in alone)
    assert found.matvecs < 3 * longest  # of five columns
    for i, one in enumerate(alone):
        torch.testing.assert_close(found.x[:, i], one.x, rtol=1e-6, atol=1e-6 * float(one.x.norm()))
    assert told == sorted(told)
    assert told[-1] - told[-2] == 1  # one column is left


def test_each_column_says_whether_it_has_converged():
    M = matrix(np.r_[np.zeros(20), np.geomspace(1e-3, 2, N - 20)])
    inside = M @ right_hand_side()
    B = torch.stack([right_hand_side(seed=2), inside, torch.linalg.eigh(M).eigenvectors[:, -1]], dim=1)
    found = solve(MatrixOperator(M), B)
    assert not found.converged
    assert found.converged_columns.tolist() == [False, True, True]
    assert (found.residual <= 1e-6).tolist() == [False, True, True]
    alone = solve(MatrixOperator(M), B[:, 0])
    assert alone.converged_columns.tolist() == [False]
    torch.testing.assert_close(found.residual[0], torch.tensor(alone.residual).double(), rtol=1e-4, atol=0)
    capped = solve(MatrixOperator(M), B, max_matvecs=20)
    assert capped.matvecs <= 20
    assert capped.converged_columns.tolist() == [False, False, True]


@pytest.mark.parametrize("method", ["auto", "minres"])
def test_preconditioners(method):
    d = torch.logspace(-3, 3, N, dtype=torch.float64)
    M, b = torch.diag(d) + 1e-3 * matrix(np.linspace(0.1, 1, N)), right_hand_side()
    bare = solve(MatrixOperator(M), b, method=method, max_matvecs=4 * N)
    for given in (d, MatrixOperator(torch.diag(1 / d))):
        found = solve(MatrixOperator(M), b, method=method, preconditioner=given)
        assert found.converged
        assert found.matvecs < 15 < bare.matvecs
        assert float(truth(M, found.x, b)) == pytest.approx(found.residual, rel=1e-3)
    damped = solve(MatrixOperator(M), b, damping=1.0, preconditioner=d, method=method)
    torch.testing.assert_close(damped.x, torch.linalg.solve(M + torch.eye(N).double(), b), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="the preconditioner is not positive definite"):
        solve(MatrixOperator(M), b, preconditioner=MatrixOperator(-torch.eye(N).double()))
    with pytest.raises(ValueError, match="give a damping"):
        solve(MatrixOperator(M), b, preconditioner=torch.zeros(N))
    with pytest.raises(ValueError, match=r"a diagonal has the shape of a vector"):
        solve(MatrixOperator(M), b, preconditioner=torch.ones(N + 1))


def test_damping_and_what_is_said_of_too_little():
    M, b = matrix(np.linspace(-1, 5, N)), right_hand_side()
    for damping in (0.0, 0.5):
        found = solve(MatrixOperator(M), b, damping=damping)
        assert found.converged
        assert found.method == "minres"
        assert -1.0 <= found.curvature < -damping
        assert f"only a damping above {-found.curvature:.3g} could make it so" in str(found)
        stopped = solve(MatrixOperator(M), b, damping=damping, method="cg")
        assert not stopped.converged
        assert stopped.matvecs < found.matvecs / 4
        assert stopped.residual <= 1.0
    found = solve(MatrixOperator(M), b, damping=1.5)
    assert (found.method, found.converged, found.indefinite) == ("cg", True, False)
    assert "not positive definite" not in str(found)


def test_where_it_begins_and_stops():
    M, b = matrix(SPECTRA["easy"]), right_hand_side()
    x = torch.linalg.solve(M, b)
    assert solve(MatrixOperator(M), b, x0=x).matvecs == 1
    near, far = solve(MatrixOperator(M), b, x0=x + 1e-4), solve(MatrixOperator(M), b)
    assert near.converged
    assert near.matvecs < far.matvecs
    seen = []
    stopped = solve(MatrixOperator(M), b, callback=lambda *told: seen.append(told) or len(seen) == 3)
    assert not stopped.converged
    assert stopped.residual < 1
    assert stopped.residual == pytest.approx(float(truth(M, stopped.x, b)), rel=1e-9)
    assert [made for made, _, _ in seen] == [1, 2, 3]
    assert seen[0][2].name == "residual"
    capped = solve(MatrixOperator(M), b, max_matvecs=8)
    assert capped.matvecs <= 8
    assert 0 < capped.residual < 1
    zero = solve(MatrixOperator(M), torch.zeros(N))
    assert (zero.residual, zero.converged, zero.matvecs, zero.curvature) == (0.0, True, 0, None)


class Noisy(LinearOperator):
    """A matrix whose products err."""

    def __init__(self, M, noise):
        super().__init__(len(M), torch.float64, torch.device("cpu"), noise=noise)
        self.M, self.g, self.size = M, torch.Generator().manual_seed(0), noise

    def _matmat(self, V):
        exact = self.M @ V
        wrong = torch.randn(exact.shape, generator=self.g, dtype=torch.float64)
        return exact + self.size * float(torch.linalg.matrix_norm(self.M, 2)) * V.norm() * wrong / wrong.norm()


def test_noise_of_products_is_in_the_error():
    M, b = matrix(np.geomspace(0.1, 10, N)), right_hand_side()
    found = solve(Noisy(M, 1e-5), b, tol=1e-6)
    assert not found.converged
    assert abs(float(truth(M, found.x, b)) - found.residual) <= 3 * found.error
    assert f"known to {found.error:.1g} only" in str(found)
    rough = solve(Noisy(M, 1e-5), b, tol=1e-2)
    assert rough.converged
    assert float(truth(M, rough.x, b)) <= 1e-2


def test_newton_steps_of_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    f = Objective(model, nn.CrossEntropyLoss(), (torch.randn(40, 5).double(), torch.randint(0, 3, (40,))))
    g = f.gradient()
    for A in (GaussNewton(f), Hessian(f)):
        found = solve(A, -g, damping=1e-2, tol=1e-8)
        dense = A.to_dense()
        expected = torch.linalg.solve(dense + 1e-2 * torch.eye(f.size).double(), -g)
        assert found.converged
        torch.testing.assert_close(found.x, expected, rtol=1e-5, atol=1e-6 * float(expected.norm()))
        assert found.curvature >= float(torch.linalg.eigvalsh(dense)[0]) - 1e-9
        assert found.checked is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tol": 0.0}, "tol is positive"),
        ({"method": "gmres"}, "method"),
        ({"x0": torch.zeros(3)}, "a vector for this operator has shape"),
        ({"x0": torch.zeros(N, 2)}, "x0 has shape"),
        ({"preconditioner": MatrixOperator(torch.eye(3))}, r"the preconditioner has shape \(3, 3\)"),
    ],
)
def test_bad_input_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        solve(MatrixOperator(matrix(SPECTRA["easy"])), right_hand_side(), **options)


def test_numbers_that_are_not_finite_are_refused():
    A, b = MatrixOperator(matrix(SPECTRA["easy"])), right_hand_side()
    with pytest.raises(ValueError, match="b has entries that are not finite"):
        solve(A, b * torch.inf)
    with pytest.raises(FloatingPointError, match="not finite"):
        solve(MatrixOperator(torch.full((4, 4), 1e38)), torch.full((4,), 1e38))
