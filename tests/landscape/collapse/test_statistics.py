"""Statistics and metrics of neural collapse against a plain two-pass float64 computation and closed forms."""

import math
from itertools import permutations

import pytest
import torch
from torch import nn

from landscape.collapse import CollapseStatistics


def drawn(generator, counts, dim, *, center=0.0, spread=1.0, apart=1.0, dtype=torch.float64):
    """Features with these many samples per class, shuffled, and their labels."""
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    means = center + apart * torch.randn(len(counts), dim, generator=generator, dtype=torch.float64)
    noise = spread * torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    order = torch.randperm(len(labels), generator=generator)
    return (means[labels] + noise)[order].to(dtype), labels[order]


def collected(X, y, classes, batch=7):
    statistics = CollapseStatistics(classes, X.shape[1])
    for features, labels in zip(X.split(batch), y.split(batch), strict=True):
        statistics.update(features, labels)
    return statistics


def same(state, other):
    return all(torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])) for key, value in state.items())


def two_pass(X, y, W, b=None):
    """The definitions as they stand, class by class, with the pseudo-inverse of a D x D matrix."""
    X, W = X.double(), W.double()
    K = len(W)
    here = [k for k in range(K) if (y == k).any()]
    P = len(here)
    mu = torch.stack([X[y == k].mean(0) for k in here])
    center = mu.mean(0)
    M = mu - center
    Sigma_W = sum((X[y == k] - m).T @ (X[y == k] - m) for k, m in zip(here, mu, strict=True)) / len(X)
    Sigma_B = M.T @ M / P
    variances = [((X[y == k] - m) ** 2).sum(1).mean() for k, m in zip(here, mu, strict=True)]

    def simplex(n):
        return (torch.eye(n, dtype=torch.float64) - torch.ones(n, n, dtype=torch.float64) / n) / math.sqrt(n - 1)

    def to_simplex(A):
        return (A / A.norm() - simplex(len(A))).norm()

    def norms(A):
        return A.norm(dim=1).std() / A.norm(dim=1).mean()

    def angles(A):
        n = len(A)
        return torch.stack(
            [
                (torch.cosine_similarity(A[i], A[j], dim=0, eps=0) + 1 / (n - 1)).abs()
                for i in range(n)
                for j in range(n)
                if i != j
            ]
        ).mean()

    bias = torch.zeros(K, dtype=torch.float64) if b is None else b.double()
    nearest = torch.tensor(here)[torch.cdist(X, mu).argmin(1)]
    plain, biased = (X @ W.T).argmax(1), (X @ W.T + bias).argmax(1)
    pairs = [(i, j) for i in range(P) for j in range(P) if i != j]
    expected = {
        "nc0": W.sum(0).norm(),
        "nc0_normalized": W.sum(0).norm() / W.norm(),
        "nc1": torch.trace(Sigma_W @ torch.linalg.pinv(Sigma_B, hermitian=True, rtol=1e-11)) / P,
        "nc1_traces": torch.trace(Sigma_W) / torch.trace(Sigma_B),
        "cdnv": sum((variances[i] + variances[j]) / 2 / (mu[i] - mu[j]).square().sum() for i, j in pairs) / len(pairs),
        "nc2": to_simplex(M @ M.T),
        "nc2_norms": norms(M),
        "nc2_angles": angles(M),
        "nc2_weight": to_simplex(W @ W.T),
        "nc2_weight_norms": norms(W),
        "nc2_weight_angles": angles(W),
        "nc2_product": to_simplex(W[here] @ M.T),
        "nc3": (W[here] / W[here].norm() - M / M.norm()).norm(),
        "nc4": (plain == nearest).double().mean(),
        "nc4_bias": (biased == nearest).double().mean(),
        "accuracy": (biased == y).double().mean(),
        "nearest_accuracy": (nearest == y).double().mean(),
        "bias_collapse": (W @ center + bias).norm(),
        "bias_sum": math.nan if b is None else b.double().sum().abs(),
        "smallest_singular": torch.linalg.svdvals(W)[-1],
        "weight_norm": W.norm(),
    }
    return {name: float(value) for name, value in expected.items()}


CASES = {
    "balanced": ([20] * 5, 8),
    "unbalanced": ([1, 40, 7, 13, 2], 8),
    "missing": ([10, 0, 12, 0, 9, 3], 8),
    "first missing": ([0, 8, 9, 5], 6),
    "more classes than dimensions": ([6] * 9, 4),
    "unbalanced, more classes than dimensions": ([1, 2, 30, 4, 0, 6, 7], 3),
    "two classes": ([15, 25], 6),
    "two classes on a line": ([15, 25], 1),
    "one sample each": ([1] * 6, 5),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("with_bias", [False, True])
def test_against_two_passes(case, seed, with_bias):
    counts, dim = CASES[case]
    generator = torch.Generator().manual_seed(seed)
    X, y = drawn(generator, counts, dim)
    K = len(counts)
    W = torch.randn(K, dim, generator=generator, dtype=torch.float64)
    b = torch.randn(K, generator=generator, dtype=torch.float64) if with_bias else None
    statistics = collected(X, y, K)
    for features, labels in zip(X.split(11), y.split(11), strict=True):
        statistics.update_agreement(features, labels, W, b)
    found = statistics.metrics(W, b)
    for name, expected in two_pass(X, y, W, b).items():
        assert getattr(found, name) == pytest.approx(expected, rel=1e-10, abs=1e-12, nan_ok=True), name
    present = sum(n > 0 for n in counts)
    assert (found.classes, found.rank, found.samples) == (present, min(present - 1, dim), sum(counts))
    assert found.counts.tolist() == counts


@pytest.mark.parametrize("apart", [1.0, 1e-2])
@pytest.mark.parametrize("batch", [1, 16, 400])
def test_large_means_and_small_spreads(generator, apart, batch):
    X, y = drawn(generator, [100, 150, 80, 70], 12, center=1e3, spread=1e-2, apart=apart, dtype=torch.float32)
    W = torch.randn(4, 12, generator=generator)
    statistics = collected(X, y, 4, batch)
    mu = torch.stack([X[y == k].double().mean(0) for k in range(4)])
    R = X.double() - mu[y]
    torch.testing.assert_close(statistics.means, mu, rtol=1e-14, atol=0)
    assert (statistics.scatter - R.T @ R).norm() <= 1e-12 * (R.T @ R).norm()
    expected_traces = torch.zeros(4, dtype=torch.float64).index_add_(0, y, R.square().sum(1))
    torch.testing.assert_close(statistics.traces, expected_traces, rtol=1e-10, atol=0)
    found = statistics.metrics(W)
    for name, expected in two_pass(X, y, W).items():
        if name not in ("nc4", "nc4_bias", "accuracy", "nearest_accuracy"):
            assert getattr(found, name) == pytest.approx(expected, rel=1e-10, nan_ok=True), name
    assert found.rank == 3


def test_merged_in_any_order(generator):
    X, y = drawn(generator, [50, 3, 0, 41, 20], 6, center=100.0, spread=0.1)
    W = torch.randn(5, 6, generator=generator)
    whole = collected(X, y, 5)
    parts = [(0, 10), (10, 11), (11, 60), (60, 114)]
    for order in list(permutations(range(4)))[::3]:
        total = CollapseStatistics(5, 6)
        for i in order:
            part = collected(X[slice(*parts[i])], y[slice(*parts[i])], 5)
            before = part.state_dict()
            assert total.merge(part) is total
            assert all(
                torch.equal(torch.as_tensor(before[k]), torch.as_tensor(v)) for k, v in part.state_dict().items()
            )
        torch.testing.assert_close(total.scatter, whole.scatter, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(total.means, whole.means, rtol=1e-13, atol=0)
        assert torch.equal(total.counts, whole.counts)
        for name, value in vars(whole.metrics(W)).items():
            if isinstance(value, float):
                assert getattr(total.metrics(W), name) == pytest.approx(value, rel=1e-10, nan_ok=True), name


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_merged_features_are_as_rough_as_the_roughest(generator, order):
    X, y = drawn(generator, [9, 7, 5], 4)
    both = [collected(X, y, 3), collected(X.float(), y, 3)]
    assert both[0].rounding == torch.finfo(torch.float64).eps
    first, second = (both[i] for i in order)
    assert first.merge(second).rounding == torch.finfo(torch.float32).eps


def test_merged_with_itself_counts_twice(generator):
    X, y = drawn(generator, [9, 7, 5], 4)
    once, twice = collected(X, y, 3), collected(X, y, 3)
    twice.merge(twice)
    torch.testing.assert_close(twice.scatter, 2 * once.scatter)
    torch.testing.assert_close(twice.means, once.means)
    assert torch.equal(twice.counts, 2 * once.counts)


def test_a_state_goes_on_where_it_was_taken(generator, tmp_path):
    X, y = drawn(generator, [9, 7, 5], 4, dtype=torch.float32)
    W = torch.randn(3, 4, generator=generator)
    first = collected(X[:10], y[:10], 3)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = CollapseStatistics(3, 4)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for statistics in (first, second):
        statistics.update(X[10:], y[10:])
        statistics.update_agreement(X, y, W)
    assert str(first.metrics(W)) == str(second.metrics(W))
    assert same(first.state_dict(), second.state_dict())
    assert second.rounding == torch.finfo(torch.float32).eps


def test_several_processes_count_agreement_around_common_means(generator):
    X, y = drawn(generator, [30, 20, 10], 5)
    W = torch.randn(3, 5, generator=generator)
    alone = collected(X, y, 3)
    alone.update_agreement(X, y, W)
    total = collected(X[:25], y[:25], 3).merge(collected(X[25:], y[25:], 3))
    for part in (slice(25), slice(25, None)):
        worker = CollapseStatistics(3, 5)
        worker.load_state_dict(total.state_dict() | {"agreement": torch.zeros_like(total.agreement)})
        worker.update_agreement(X[part], y[part], W)
        total.merge_agreement(worker)
    assert torch.equal(total.agreement, alone.agreement)
    assert total.metrics(W).nc4 == alone.metrics(W).nc4


def test_agreement_is_forgotten_when_the_means_move(generator):
    X, y = drawn(generator, [9, 7], 4)
    W = torch.randn(2, 4, generator=generator)
    statistics = collected(X, y, 2)
    statistics.update_agreement(X, y, W)
    assert statistics.metrics(W).nc4 >= 0
    statistics.update(X, y)
    assert math.isnan(statistics.metrics(W).nc4)
    statistics.update_agreement(X, y, W)
    assert math.isnan(statistics.merge(collected(X, y, 2)).metrics(W).nc4)


def simplex_rows(K, dim, generator):
    """A simplex in a random orientation, `(K, dim)`."""
    Q = torch.linalg.qr(torch.randn(dim, K, generator=generator, dtype=torch.float64)).Q
    return (torch.eye(K, dtype=torch.float64) - 1 / K) @ Q.T


@pytest.mark.parametrize("K", [2, 3, 10])
def test_a_simplex_is_collapsed(generator, K):
    M = 3.0 * simplex_rows(K, 16, generator)
    offset = torch.randn(16, generator=generator, dtype=torch.float64)
    offset -= torch.linalg.pinv(M) @ (M @ offset)  # then W mu_G = 0
    X, y = (M + offset).repeat(5, 1), torch.arange(K).repeat(5)
    statistics = collected(X, y, K)
    statistics.update_agreement(X, y, 7.0 * M)
    found = statistics.metrics(7.0 * M, torch.zeros(K))
    for name in (
        "nc0",
        "nc0_normalized",
        "nc1",
        "nc1_traces",
        "cdnv",
        "nc2",
        "nc2_norms",
        "nc2_angles",
        "nc2_weight",
        "nc2_weight_norms",
        "nc2_weight_angles",
        "nc2_product",
        "nc3",
        "bias_collapse",
    ):
        assert getattr(found, name) == pytest.approx(0.0, abs=1e-12), name
    assert found.nc4 == found.nc4_bias == found.accuracy == found.nearest_accuracy == 1.0
    assert found.rank == K - 1


def test_a_random_layer_is_at_sqrt_2(generator):
    X, y = drawn(generator, [40] * 10, 512)
    found = [collected(X, y, 10).metrics(torch.randn(10, 512, generator=generator)).nc3 for _ in range(10)]
    assert sum(found) / 10 == pytest.approx(math.sqrt(2), abs=0.02)


def test_the_default_start_of_a_linear_layer(generator):
    """U(-1/sqrt(D), 1/sqrt(D)): E ||W^T 1||^2 = K / 3, the paper's baseline."""
    torch.manual_seed(0)
    X, y = drawn(generator, [4] * 10, 512, dtype=torch.float32)
    statistics = collected(X, y, 10)
    values = [statistics.metrics(nn.Linear(512, 10).weight).nc0 for _ in range(40)]
    assert sum(values) / 40 == pytest.approx(math.sqrt(10 / 3), abs=0.03)
    assert all(abs(v - 1.83) < 0.25 for v in values)


def test_small_nc2_and_nc3_need_small_nc0(generator):
    """||W^T 1|| / |W| <= sqrt(K) nc3 and ||W^T 1||^2 / |W W^T| <= K nc2_weight: Proposition 2.1 in numbers."""
    for _ in range(500):
        K, dim = (int(torch.randint(2, 9, (), generator=generator)) for _ in range(2))
        X, y = drawn(generator, [3] * K, dim)
        statistics = collected(X, y, K, 3 * K)
        mu = statistics.means
        closeness = float(torch.rand((), generator=generator))
        W = (1 - closeness) * torch.randn(K, dim, generator=generator, dtype=torch.float64) + closeness * (
            mu - mu.mean(0)
        )
        found = statistics.metrics(W)
        assert found.nc0_normalized <= math.sqrt(K) * found.nc3 * (1 + 1e-12)
        assert found.nc0**2 / float((W @ W.T).norm()) <= K * found.nc2_weight * (1 + 1e-12)


def test_printed_variants(generator):
    X, y = drawn(generator, [9, 7, 5], 4)
    W = torch.randn(3, 4, generator=generator)
    found = collected(X, y, 3).metrics(W)
    printed = found.printed
    assert printed["nc0"] == pytest.approx(found.nc0 / 4)
    assert printed["nc2"] == pytest.approx(found.nc2 / 9)
    assert printed["nc3"] == pytest.approx(found.nc3 / 12)
    assert printed["nc1"] == found.nc1
    # a fourth class without samples: what looks at the features takes the three, at the weight all four
    W = torch.randn(4, 4, generator=generator)
    found = collected(X, y, 4).metrics(W)
    printed = found.printed
    for name, factor in (("nc0", 4), ("nc2", 9), ("nc3", 12), ("nc2_weight", 16), ("nc2_product", 9)):
        assert printed[name] == pytest.approx(getattr(found, name) / factor), name


def test_directions_that_are_rounding_are_left_out(generator):
    """Features of rank 2 pushed through a float32 layer: the fourth class's third direction is noise."""
    X, y = drawn(generator, [200] * 4, 2)
    up = torch.randn(2, 32, generator=generator, dtype=torch.float64)
    wide = (X.float() @ up.float()) + 10.0
    W = torch.randn(4, 32, generator=generator)
    found = collected(wide, y, 4, 100).metrics(W)
    exact = collected(X @ up, y, 4).metrics(W)
    assert found.rank == exact.rank == 2
    assert found.nc1 == pytest.approx(exact.nc1, rel=1e-3)


def test_no_spread_between_classes():
    statistics = CollapseStatistics(2, 3)
    X, y = torch.tensor([[1.0, 0, 0], [-1, 0, 0]]).repeat(2, 1), torch.tensor([0, 0, 1, 1])
    statistics.update(X, y)
    found = statistics.metrics(torch.eye(2, 3))
    assert (found.rank, found.nc1, found.nc1_traces) == (0, math.inf, math.inf)
    assert math.isnan(found.nc2)
    dead = CollapseStatistics(2, 3)
    dead.update(0 * X, y)
    assert math.isnan(dead.metrics(torch.zeros(2, 3)).nc1)


def test_ignored_samples_and_other_shapes(generator):
    X, y = drawn(generator, [9, 7, 5], 4)
    plain = collected(X, y, 3)
    padded, labels = torch.cat([X, torch.full((3, 4), torch.nan)]), torch.cat([y, torch.full((3,), -100)])
    ignoring = CollapseStatistics(3, 4)
    ignoring.update(padded.reshape(2, 12, 4), labels.reshape(2, 12))
    torch.testing.assert_close(ignoring.scatter, plain.scatter)
    assert torch.equal(ignoring.counts, plain.counts)
    other = CollapseStatistics(3, 4, ignore_index=2)
    other.update(X, y)
    assert other.counts.tolist() == [9, 7, 0]
    other.update(X[:0], y[:0])
    assert other.counts.tolist() == [9, 7, 0]


def test_features_are_not_touched(generator):
    X, y = drawn(generator, [9, 7, 5], 4)
    X.requires_grad_(True)
    before = X.detach().clone()
    W = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    statistics = collected(X, y, 3)
    statistics.update_agreement(X, y, W)
    statistics.metrics(W)
    assert torch.equal(X, before)
    assert not statistics.scatter.requires_grad


def test_inside_inference_mode_and_outside(generator):
    X, y = drawn(generator, [9, 7, 5], 4)
    statistics = CollapseStatistics(3, 4)
    with torch.inference_mode():
        statistics.update(X[:10] * 1, y[:10] * 1)
    statistics.update(X[10:], y[10:])
    torch.testing.assert_close(statistics.scatter, collected(X, y, 3).scatter)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_precision_of_features(generator, dtype):
    X, y = drawn(generator, [9, 7, 5], 4, dtype=dtype)
    torch.testing.assert_close(collected(X, y, 3).scatter, collected(X.double(), y, 3).scatter)


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda X, y: (X, y + 1), ValueError, r"outside 0 \.\. 2"),
        (lambda X, y: (X, y - 1), ValueError, "such as -1"),
        (lambda X, y: (X.index_fill(0, torch.tensor([3]), torch.nan), y), ValueError, "not finite"),
        (lambda X, y: (X.index_fill(0, torch.tensor([3]), torch.inf), y), ValueError, "not finite"),
        (lambda X, y: (X, y.double()), TypeError, "class indices"),
        (lambda X, y: (X.long(), y), TypeError, "floating"),
        (lambda X, y: (X, y.tolist()), TypeError, "class indices.*list"),
        (lambda X, y: (X[:, :3], y), ValueError, r"\(n, 4\)"),
        (lambda X, y: (X[0], y[:1]), ValueError, r"\(n, 4\)"),
        (lambda X, y: (X, y[1:]), ValueError, "one label per feature"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(generator, change, error, says):
    X, y = drawn(generator, [9, 7, 5], 4)
    statistics = collected(X, y, 3)
    before = statistics.state_dict()
    with pytest.raises(error, match=says):
        statistics.update(*change(X, y))
    assert same(before, statistics.state_dict())


def test_what_metrics_refuses(generator):
    X, y = drawn(generator, [9, 7, 5], 4)
    statistics, W = collected(X, y, 3), torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"\(3, 4\), not \(4, 3\)"):
        statistics.metrics(W.T)
    with pytest.raises(ValueError, match=r"bias must have the shape \(3,\)"):
        statistics.metrics(W, torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        statistics.update_agreement(X, y, W[:2])
    with pytest.raises(ValueError, match="not finite"):
        statistics.metrics(W * torch.nan)
    with pytest.raises(ValueError, match="no class has samples"):
        CollapseStatistics(3, 4).metrics(W)
    with pytest.raises(ValueError, match="only class 2 has samples"):
        collected(X[y == 2], y[y == 2], 3).metrics(W)


def test_what_else_is_refused(generator):
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        CollapseStatistics(1, 4)
    with pytest.raises(TypeError, match="dim must be a whole number"):
        CollapseStatistics(2, 4.0)
    with pytest.raises(ValueError, match="cannot be added"):
        CollapseStatistics(3, 4).merge(CollapseStatistics(3, 5))
    with pytest.raises(ValueError, match="num_classes=2, not 3"):
        CollapseStatistics(3, 4).load_state_dict(CollapseStatistics(2, 4).state_dict())
    with pytest.raises(ValueError, match="shift, offsets, scatter, traces"):
        CollapseStatistics(3, 4).load_state_dict({"num_classes": 3, "dim": 4, "rounding": 0.0, "counts": 0})


def test_on_a_device_nothing_is_waited_for(generator):
    """A tensor on "meta" has no values: whatever had to look at one would raise."""
    X, y, W = torch.randn(8, 4, device="meta"), torch.zeros(8, dtype=torch.long, device="meta"), torch.randn(3, 4)
    statistics = CollapseStatistics(3, 4)
    statistics.update(X, y)
    statistics.update(X, y)
    statistics.update_agreement(X, y, W.to("meta"), torch.zeros(3, device="meta"))
    statistics.merge(CollapseStatistics(3, 4))
    assert statistics.device.type == "meta"
    with pytest.raises(ValueError, match="features are on cpu, the statistics on meta"):
        statistics.update(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))


def test_what_is_noticed_later_is_noticed(generator, monkeypatch):
    """The way of another device, run on this one."""
    X, y = drawn(generator, [30, 20, 0, 25], 5, center=100.0, spread=0.1)
    W, b = torch.randn(4, 5, generator=generator), torch.randn(4, generator=generator)
    padded = torch.cat([X, torch.full((2, 5), torch.nan)])
    labels = torch.cat([y, torch.full((2,), -100)])
    expected = two_pass(X, y, W, b)
    monkeypatch.setattr("landscape.collapse.statistics._at_once", lambda device: False)
    statistics = CollapseStatistics(4, 5)
    for pair in zip(padded.flip(0).split(9), labels.flip(0).split(9), strict=True):
        statistics.update(*pair)
    for pair in zip(padded.split(9), labels.split(9), strict=True):
        statistics.update_agreement(*pair, W, b)
    found = statistics.metrics(W, b)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-10), name
    assert found.samples == 75
    wrong = collected(X, y, 4)
    wrong.update(X[:3], torch.tensor([4, -1, 0]))
    with pytest.raises(ValueError, match=r"outside 0 \.\. 3, 2 of them"):
        CollapseStatistics(4, 5).merge(wrong).metrics(W)
    for broken in (torch.nan, torch.inf):
        late = collected(X, y, 4)
        late.update(X[:3] * broken, y[:3])
        with pytest.raises(ValueError, match="not finite"):
            late.metrics(W)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_without_a_synchronisation(generator):
    X, y = drawn(generator, [90, 70, 0, 50], 16, center=100.0, spread=0.1, dtype=torch.float32)
    W = torch.randn(4, 16, generator=generator)
    y[5] = -100
    statistics = CollapseStatistics(4, 16)
    batches = [(a.cuda(), b.cuda()) for a, b in zip(X.split(32), y.split(32), strict=True)]
    V = W.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for features, labels in batches:
            statistics.update(features, labels)
        for features, labels in batches:
            statistics.update_agreement(features, labels, V)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    found, expected = statistics.metrics(V), two_pass(X[y >= 0], y[y >= 0], W)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, nan_ok=True), name
    copy = CollapseStatistics(4, 16).merge(statistics)
    copy.update(batches[0][0], batches[0][1] + 4)
    with pytest.raises(ValueError, match=r"outside 0 \.\. 3"):
        copy.metrics(V)
    statistics.update(batches[0][0] * torch.nan, batches[0][1])
    with pytest.raises(ValueError, match="not finite"):
        statistics.metrics(V)
