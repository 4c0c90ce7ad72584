"""Closed forms against automatic differentiation, bounds against kappa, each refusal by its words."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import conv1d, leaky_relu

from landscape.conditioning import convolution_matrix, from_eigenvalues, leaky_relu_network, linear_network
from landscape.conditioning import inputs as inputs_module

torch64 = {"dtype": torch.float64}


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, **torch64)


def network(generator, widths):
    """Weights of variance 1 / fan-in: widths (d, m1, ..., k)."""
    return [normal(generator, b, a) / math.sqrt(a) for a, b in pairwise(widths)]


def jacobian(function, weights, X):
    """dF/dtheta, `(n * k, P)`, sample by sample."""
    shapes = [W.shape for W in weights]

    def outputs(theta):
        parts = theta.split([s.numel() for s in shapes])
        return function([p.reshape(s) for p, s in zip(parts, shapes, strict=True)], X).T.reshape(-1)

    return torch.func.jacrev(outputs)(torch.cat([W.reshape(-1) for W in weights]))


def linear(skip):
    def function(weights, X):
        for W in weights:
            X = W @ X + skip * torch.eye(*W.shape, **torch64) @ X
        return X

    return function


def gauss_newton_eigenvalues(function, weights, X):
    J = jacobian(function, weights, X)
    return torch.linalg.eigvalsh(J.T @ J / X.shape[1])


def largest_difference(eigenvalues, dense):
    """Of the non-zero eigenvalues, relative to the largest; what the dense matrix has beyond them must be zero."""
    size = min(len(eigenvalues), len(dense))
    assert dense[:-size].abs().max() <= 1e-12 * dense[-1] if len(dense) > size else True
    assert eigenvalues[:-size].abs().max() <= 1e-12 * dense[-1] if len(eigenvalues) > size else True
    return float((eigenvalues[-size:] - dense[-size:]).abs().max() / dense[-1])


@pytest.mark.parametrize("skip", [0.0, 0.7, -0.3])
@pytest.mark.parametrize(
    "widths", [(4, 6, 3), (3, 5, 6, 4), (5, 6, 6, 6, 2), (2, 4, 3, 4, 4, 3), (4, 5, 4, 5, 4, 5, 3)]
)
def test_the_closed_form_is_the_gauss_newton_matrix(widths, skip, generator):
    weights = network(generator, widths)
    X = normal(generator, widths[0], 9) * torch.logspace(0, -1, widths[0], **torch64)[:, None]
    result = linear_network(weights, X @ X.T / 9, skip=skip)
    dense = gauss_newton_eigenvalues(linear(skip), weights, X)
    assert largest_difference(result.eigenvalues, dense) <= 1e-12
    assert result.rank == widths[0] * widths[-1]
    assert result.kappa == pytest.approx(float(dense[-1] / dense[-result.rank]), rel=1e-13 * result.kappa + 1e-12)
    assert result.kappa <= result.bound <= result.loose_bound


def test_one_layer_and_white_data(generator):
    X = normal(generator, 5, 40)
    alone = linear_network([normal(generator, 3, 5)], X @ X.T / 40)
    assert alone.kappa == pytest.approx(float(torch.linalg.cond(X)) ** 2, rel=1e-10)
    assert alone.kappa == pytest.approx(alone.bound, rel=1e-10)
    weights = network(generator, (5, 7, 7, 3))
    white, given = linear_network(weights), linear_network(weights, torch.eye(5))
    assert torch.allclose(white.eigenvalues, given.eigenvalues, rtol=1e-13)
    assert linear_network(weights, 3.0 * torch.eye(5)).bound == pytest.approx(white.bound, rel=1e-12)


def test_fewer_samples_than_inputs_and_narrow_layers(generator):
    weights, X = network(generator, (6, 8, 8, 2)), normal(generator, 6, 4)
    result = linear_network(weights, X @ X.T / 4)
    dense = gauss_newton_eigenvalues(linear(0.0), weights, X)
    assert largest_difference(result.eigenvalues, dense) <= 1e-12
    assert (result.rank, result.kappa_data, result.bound) == (8, math.inf, math.inf)
    assert result.kappa == pytest.approx(float(dense[-1] / dense[-8]), rel=1e-10)
    narrow = network(generator, (4, 6, 2, 6, 3))
    result = linear_network(narrow)
    dense = gauss_newton_eigenvalues(linear(0.0), narrow, torch.eye(4, **torch64)) * 4
    assert largest_difference(result.eigenvalues, dense) <= 1e-12
    assert (result.bound, result.loose_bound, result.product_bound) == (math.inf, math.inf, math.inf)
    assert [f.left_smallest > 0 for f in result.layers] == [False, False, True, True]
    assert [f.right_smallest > 0 for f in result.layers] == [True, True, False, False]


def test_a_narrow_layer_is_known_by_its_width_where_rounding_hides_it(generator):
    large = torch.cat([1e6 * torch.ones(1, 6, **torch64), normal(generator, 1, 6)])  # its first row falls out by P
    P = torch.eye(6, **torch64) - 1 / 6
    narrow = [normal(generator, 6, 3), P, large, normal(generator, 3, 2)]
    assert float(torch.linalg.svdvals(narrow[3] @ narrow[2] @ P)[-1]) > 1e-12  # of rank 1 without rounding
    assert linear_network(narrow).layers[0].left_smallest == 0.0
    assert linear_network([W.T for W in reversed(narrow)]).layers[3].right_smallest == 0.0


def test_bounds_of_a_thousand_networks(generator):
    rng = np.random.default_rng(0)
    for trial in range(1000):
        d, k, depth = (int(x) for x in rng.integers((1, 1, 2), (5, 5, 7)))
        weights = network(generator, (d, *(int(m) for m in rng.integers(max(d, k), 8, depth - 1)), k))
        X = normal(generator, d, 3 * d)
        skip = float(rng.normal()) if trial % 3 == 0 else 0.0
        result = linear_network(weights, X @ X.T if trial % 2 else None, skip=skip)
        slack = 1 + 1e-10 + 1e-14 * result.kappa
        assert result.kappa <= result.bound * slack
        assert result.bound <= result.loose_bound * slack
        if depth == 2 and trial % 2 == 0:  # a Kronecker sum: the bound is the condition number
            assert result.kappa == pytest.approx(result.bound, rel=1e-10 + 1e-14 * result.kappa)


def test_product_bound_of_square_layers(generator):
    for trial in range(200):
        n = 2 + trial % 4
        weights = network(generator, (n,) * (3 + trial % 4))
        X = normal(generator, n, 2 * n)
        result = linear_network(weights, X @ X.T if trial % 2 else None)
        slack = 1 + 1e-10 + 1e-14 * result.kappa
        assert result.kappa <= result.bound * slack
        assert result.bound <= result.product_bound * slack < math.inf
        if len(weights) == 2:  # the factors are the layers
            assert result.product_bound == pytest.approx(result.bound, rel=1e-10)
    assert linear_network(network(generator, (3, 4, 4, 3))).product_bound == math.inf
    singular = torch.diag(torch.tensor([1.0, 0.0]))
    assert linear_network([singular, singular]).product_bound == math.inf


def test_the_singular_values_per_layer(generator):
    W1, W2, W3 = network(generator, (3, 6, 5, 4))
    layers = linear_network([W1, W2, W3]).layers
    values = torch.linalg.svdvals(W3 @ W2)
    assert (layers[0].left_largest, layers[0].left_smallest) == pytest.approx((float(values[0]), float(values[-1])))
    values = torch.linalg.svdvals(W2 @ W1)
    assert (layers[2].right_largest, layers[2].right_smallest) == pytest.approx((float(values[0]), float(values[-1])))
    assert (layers[0].right_smallest, layers[0].right_largest, layers[2].left_smallest) == (1.0, 1.0, 1.0)
    assert layers[1].left_largest == pytest.approx(float(torch.linalg.matrix_norm(W3, 2)))


def test_the_form_that_is_not_symmetric_gives_another_number(generator):
    V, W = network(generator, (5, 8, 3))
    X = normal(generator, 5, 30) * torch.logspace(0, -1.5, 5, **torch64)[:, None]
    S = X @ X.T / 30
    gamma = torch.kron(W @ W.T, torch.eye(5)) + torch.kron(torch.eye(3), V.T @ V)
    trap = torch.linalg.eigvalsh(gamma @ torch.kron(torch.eye(3, **torch64), S))
    dense = gauss_newton_eigenvalues(linear(0.0), [V, W], X)
    kappa = linear_network([V, W], S).kappa
    assert kappa == pytest.approx(float(dense[-1] / dense[-15]), rel=1e-9)
    assert abs(float(trap[-1] / trap.abs().min()) / kappa - 1) > 0.5


@pytest.mark.parametrize(
    ("depth", "kappa", "bound"), [(2, 13.6, 13.6), (3, 59.0, 66.0), (4, 163.0, 184.0), (6, 696.0, 874.0)]
)
def test_reference_values_at_initialisation(depth, kappa, bound, generator):
    """d = 49, k = 10, m = 50, white data, Kaiming: means of 3 there and of 8 here; one network deviates by 15-40 %."""
    results = [linear_network(network(generator, (49, *[50] * (depth - 1), 10))) for _ in range(8)]
    assert 0.7 * kappa < sum(r.kappa for r in results) / 8 < 1.5 * kappa
    assert 0.7 * bound < sum(r.bound for r in results) / 8 < 1.5 * bound


def test_any_kind_of_array(generator):
    weights = [W.float() for W in network(generator, (3, 5, 4))]
    kappa = linear_network(weights).kappa
    assert linear_network([torch.nn.Parameter(W) for W in weights]).kappa == kappa
    frozen = [W.numpy() for W in weights]
    frozen[0].setflags(write=False)
    assert linear_network(frozen).kappa == kappa
    assert linear_network(W for W in weights).kappa == kappa
    assert linear_network([W.tolist() for W in weights]).kappa == kappa
    assert linear_network([W.T.flip(0).T.numpy()[:, ::-1] for W in weights[:1]] + weights[1:]).kappa == kappa
    X = torch.randn(3, 10, generator=generator)
    assert linear_network(weights, X @ X.T).rank == 12


def test_a_covariance_of_single_precision_has_no_directions_made_of_rounding(generator):
    X = torch.randn(8, 3, generator=generator)
    result = linear_network([normal(generator, 10, 8), normal(generator, 2, 10)], X @ X.T)
    assert (result.rank, result.bound) == (6, math.inf)
    with pytest.raises(ValueError, match="float64"):
        linear_network([normal(generator, 2, 8)], (X @ X.T).double() - 1e-7 * torch.eye(8))


def dual_eigenvalues(V, W, X, slope):
    J = jacobian(lambda weights, X: weights[1] @ leaky_relu(weights[0] @ X, slope), [V, W], X)
    return torch.linalg.eigvalsh(J @ J.T / X.shape[1])


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.3, 1.0, -1.0, 2.0])
@pytest.mark.parametrize(("d", "m", "k", "n"), [(5, 7, 3, 4), (3, 4, 2, 6), (4, 2, 3, 3)])
def test_leaky_relu_is_the_dual_matrix(d, m, k, n, slope, generator):
    V, W, X = normal(generator, m, d), normal(generator, k, m), normal(generator, d, n)
    result = leaky_relu_network(V, W, X, slope=slope)
    dense = dual_eigenvalues(V, W, X, slope)
    assert float((result.eigenvalues - dense).abs().max() / dense[-1]) <= 1e-12
    assert result.kappa <= result.bound <= result.loose_bound
    assert list(result.estimates) == (["b1.5", "b2"] if 0 <= slope <= 1 else [])


def test_slope_one_is_linear(generator):
    V, W, X = normal(generator, 6, 4), normal(generator, 3, 6), normal(generator, 4, 9)
    relu, lin = leaky_relu_network(V, W, X, slope=1.0), linear_network([V, W], X @ X.T / 9)
    assert relu.rank == lin.rank == 12
    assert relu.kappa == pytest.approx(lin.kappa, rel=1e-9)
    assert relu.kappa_data == pytest.approx(lin.kappa_data, rel=1e-9)
    few = leaky_relu_network(V, W, X[:, :3], slope=1.0)
    assert few.kappa_data == pytest.approx(float(torch.linalg.cond(X[:, :3])) ** 2, rel=1e-9)


def test_bounds_of_a_thousand_leaky_networks(generator):
    rng = np.random.default_rng(0)
    finite = 0
    for trial in range(1000):
        d, m, k = (int(x) for x in rng.integers(1, 7, 3))
        n = int(rng.integers(1, d + 3))
        slope = float(rng.uniform(-2, 2)) if trial % 10 == 0 else float(rng.uniform(0, 1))
        result = leaky_relu_network(
            normal(generator, m, d), normal(generator, k, m), normal(generator, d, n), slope=slope
        )
        slack = 1 + 1e-10 + 1e-13 * result.kappa
        assert result.kappa <= result.bound * slack
        assert result.bound <= result.loose_bound * slack
        finite += result.bound < math.inf
    assert finite > 500


def test_an_estimate_that_is_no_bound():
    a = 0.1
    V = torch.tensor([[1.0, -1.0], [-1 / a, a]], **torch64)
    result = leaky_relu_network(V, 0.01 * torch.eye(2), torch.eye(2), slope=a)
    assert result.estimates["b2"] < 0.02 * result.kappa
    assert result.kappa == pytest.approx(1.02e6, rel=0.01)
    assert result.kappa <= result.bound * (1 + 1e-12) < math.inf
    assert "b2 (not a bound)" in str(result)


@pytest.mark.parametrize(
    ("out", "channels", "size", "length"), [(1, 1, 1, 1), (2, 3, 4, 9), (3, 2, 5, 5), (4, 1, 3, 8)]
)
def test_convolution_matrix(out, channels, size, length, generator):
    kernel, x = normal(generator, out, channels, size), normal(generator, channels, length)
    T = convolution_matrix(torch.nn.Parameter(kernel), length)
    assert T.shape == (out * (length - size + 1), channels * length)
    assert (T.dtype, T.requires_grad) == (torch.float64, False)
    assert torch.allclose(T @ x.flatten(), conv1d(x[None], kernel)[0].flatten(), atol=1e-13)


def test_convolutions_chain_to_a_linear_network(generator):
    first, second = normal(generator, 3, 1, 3), normal(generator, 2, 3, 4)
    result = linear_network([convolution_matrix(first, 6), convolution_matrix(second, 4)])
    assert result.rank == len(result.eigenvalues) == 2 * 6
    assert result.kappa <= result.bound * (1 + 1e-12) < math.inf


def test_rank_threshold_and_neighbours():
    summary = from_eigenvalues(torch.tensor([4.0, 1e-20, 2.0, 1.0, 0.5, -1e-17], **torch64))
    assert (summary.kappa, summary.rank, summary.smallest, summary.largest) == (8.0, 4, 0.5, 4.0)
    assert summary.threshold == pytest.approx(6 * 2.22e-16 * 4, rel=0.01, abs=0)
    assert summary.neighbours == {-2: 2.0, -1: 4.0, 1: pytest.approx(4e20)}
    assert summary.robust == pytest.approx(4.0 / 1.5)
    assert summary.stable_rank == pytest.approx((16 + 4 + 1 + 0.25) / 16)
    assert "rank 4 of 6" in str(summary)
    assert "at rank 3: kappa 4" in str(summary)
    cut = from_eigenvalues(summary.eigenvalues, 3.0)
    assert (cut.kappa, cut.rank, cut.neighbours[1]) == (1.0, 1, 2.0)
    assert math.isnan(cut.neighbours[-1])
    assert math.isnan(cut.neighbours[-2])
    full = from_eigenvalues(torch.tensor([1.0, 3.0]))
    assert math.isnan(full.neighbours[1])
    assert from_eigenvalues(torch.tensor([-1e-17, 3.0], **torch64)).neighbours[1] == math.inf
    assert pickle.loads(pickle.dumps(summary)).neighbours == summary.neighbours


def test_eigenvalues_that_rounding_hides_are_told_from_zeros():
    steep = torch.diag(torch.tensor([1.0, 1e-5], **torch64))
    result = linear_network([steep, steep, steep])  # kappa is 1e20
    assert (result.rank, result.kappa) == (3, pytest.approx(3.0))
    assert result.bound == pytest.approx(1e20, rel=1e-6)
    assert "not above the threshold: 1 of the eigenvalues; with them kappa is at least 1.13e+15" in str(result)
    assert "positive" not in str(linear_network([torch.eye(2)]))


def test_paper_threshold(generator):
    weights = [0.003 * W for W in network(generator, (4, 6, 5, 3))]
    result = linear_network(weights, threshold="paper")
    assert result.threshold == 1e-8 / (24 + 30 + 15)
    assert 0 < result.rank < 12  # it is absolute: small weights fall below
    assert linear_network(weights).rank == 12
    assert linear_network(weights, threshold=0.0).kappa == linear_network(weights).kappa
    leaky = leaky_relu_network(weights[0], weights[1], torch.eye(4), slope=0.1, threshold="paper")
    assert leaky.threshold == 1e-8 / (24 + 30)


def test_nothing_but_zeros(generator):
    zero = linear_network([torch.zeros(4, 3), torch.zeros(2, 4)])
    assert (zero.kappa, zero.rank, zero.smallest, zero.largest, zero.bound) == (math.inf, 0, 0.0, 0.0, math.inf)
    assert (zero.stable_rank, zero.robust, zero.neighbours[1]) == (0.0, math.inf, math.inf)
    assert "kappa inf (rank 0 of 6" in str(zero)
    weights = network(generator, (3, 4, 2))
    for empty in (
        linear_network(weights, torch.zeros(3, 3)),
        leaky_relu_network(*weights, torch.zeros(3, 5), slope=0.1),
    ):
        assert (empty.kappa, empty.rank, empty.kappa_data, empty.bound) == (math.inf, 0, math.inf, math.inf)


def bad(**changes):
    arguments = {"weights": [torch.ones(4, 3), torch.ones(2, 4)], "covariance": None, **changes}
    return lambda: linear_network(arguments.pop("weights"), arguments.pop("covariance"), **arguments)


def bad_leaky(**changes):
    arguments = {"V": torch.ones(4, 3), "W": torch.ones(2, 4), "X": torch.ones(3, 5), "slope": 0.1, **changes}
    return lambda: leaky_relu_network(**arguments)


REFUSALS = {
    "empty": (bad(weights=[]), ValueError, "weights is empty"),
    "chain": (bad(weights=[torch.ones(4, 3), torch.ones(4, 4), torch.ones(4, 2)]), ValueError, r"W2 .*\(4, 4\) and W3"),
    "dimensions": (bad(weights=[torch.ones(3)]), ValueError, "W1 must have 2 dimensions"),
    "one matrix": (bad(weights=torch.ones(3, 3)), ValueError, "W1 must have 2 dimensions"),
    "no entries": (bad(weights=[torch.ones(0, 3)]), ValueError, "W1 has no entries"),
    "nan": (bad(weights=[torch.ones(4, 3), torch.full((2, 4), math.nan)]), ValueError, "W2 .* not finite"),
    "complex": (bad(weights=[torch.ones(4, 3, dtype=torch.complex64)]), TypeError, "W1 is complex"),
    "complex numpy": (bad(weights=[np.ones((4, 3)) * 1j]), TypeError, "W1 is complex"),
    "words": (bad(weights=["W1"]), TypeError, r"W1 is no array of real numbers \(str\)"),
    "ragged": (bad(weights=[[[1.0], [1.0, 2.0]]]), TypeError, r"W1 is no array of real numbers \(list\)"),
    "overflow": (
        bad(weights=[torch.full((4, 3), 1e200, **torch64)] * 1 + [torch.ones(2, 4)]),
        FloatingPointError,
        "all",
    ),
    "covariance shape": (bad(covariance=torch.eye(4)), ValueError, r"\(4, 4\), the first layer takes 3 inputs"),
    "data for covariance": (bad(covariance=torch.ones(3, 50)), ValueError, r"it must be \(3, 3\)"),
    "not symmetric": (bad(covariance=torch.ones(3, 3).triu()), ValueError, "not symmetric: entries differ by 1"),
    "indefinite": (bad(covariance=torch.diag(torch.tensor([1.0, 1.0, -1.0]))), ValueError, "eigenvalues go from -1"),
    "negative": (bad(covariance=-torch.eye(3)), ValueError, "not positive semi-definite"),
    "covariance nan": (bad(covariance=torch.eye(3) * math.nan), ValueError, "covariance has entries"),
    "skip": (bad(skip=math.inf), ValueError, "skip must be finite"),
    "skip word": (bad(skip="1/L"), TypeError, "skip must be a number, not '1/L'"),
    "slope word": (bad_leaky(slope=None), TypeError, "slope must be a number, not None"),
    "threshold": (bad(threshold=-1.0), ValueError, "threshold must be finite and not negative"),
    "threshold word": (bad(threshold="papers"), ValueError, "'papers'"),
    "X": (bad_leaky(X=torch.ones(4, 5)), ValueError, r"X of shape \(4, 5\) must have the 3 rows"),
    "W": (bad_leaky(W=torch.ones(2, 5)), ValueError, r"W of shape \(2, 5\) must have the 4 columns"),
    "X vector": (bad_leaky(X=torch.ones(3)), ValueError, "X must have 2 dimensions"),
    "X nan": (bad_leaky(X=torch.full((3, 5), math.inf)), ValueError, "X has entries"),
    "slope": (bad_leaky(slope=math.nan), ValueError, "slope must be finite"),
    "leaky overflow": (bad_leaky(X=torch.full((3, 5), 1e200, **torch64)), FloatingPointError, "overflows"),
    "leaky threshold": (bad_leaky(threshold=math.inf), ValueError, "threshold"),
    "kernel": (lambda: convolution_matrix(torch.ones(2, 3), 9), ValueError, "kernel must have 3 dimensions"),
    "short": (lambda: convolution_matrix(torch.ones(1, 1, 4), 3), ValueError, "4 positions, the input only 3"),
    "length": (lambda: convolution_matrix(torch.ones(1, 1, 4), 9.0), TypeError, "integer"),
    "eigenvalues": (lambda: from_eigenvalues(torch.ones(0)), ValueError, "finite vector"),
    "no parameters": (lambda: from_eigenvalues(torch.ones(2), "paper"), ValueError, "how many parameters"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_is_wrong(name):
    call, error, words = REFUSALS[name]
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(inputs_module, "available_memory", lambda device: 2 * 8 * 100**2)
    weights = [torch.ones(40, 30), torch.ones(4, 40)]
    with pytest.raises(MemoryError, match=r"4 outputs and 30 inputs is 120 x 120 .* about 100 x 100 would fit"):
        linear_network(weights)
    with pytest.raises(MemoryError, match=r"26 samples and 4 outputs is 104 x 104"):
        leaky_relu_network(*weights, torch.ones(30, 26), slope=0.1)
    with pytest.raises(MemoryError, match="shorten the input"):
        convolution_matrix(torch.ones(10, 10, 1), 20)
    assert linear_network([torch.ones(4, 25)]).rank == 100
