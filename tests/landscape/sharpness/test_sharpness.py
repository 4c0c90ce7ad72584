"""Gradient noise, batch, critical and SAM sharpness and alignment against dense truths and closed forms."""

import math

import pytest
import torch
from operator_cases import CASES
from sharpness_cases import Unchanged, normal, positive, quadratic
from spectra_cases import seeded_generator
from torch import nn
from torch.nn import functional as F

from landscape import Hessian, MatrixOperator, Objective
from landscape.objective.batch import split
from landscape.sharpness import alignment, batch_sharpness, critical_sharpness, gradient_statistics, sam_sharpness
from landscape.spectra import Eigenpairs, eigsh


def made(name, **options):
    case = CASES[name]()
    return case, Objective(case.model, case.loss, case.batches, **case.options, **options)


def classifier(n=96, seed=0, dropout=0.0, norm=False):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 3)
    ).double()
    X = torch.randn(n, 4, generator=seeded_generator(seed)).double()
    return model, X, torch.randint(0, 3, (n,), generator=seeded_generator(seed + 1))


def term_gradients(objective, X, y):
    """`(terms, n)`: the gradient of every sample's own loss."""
    return torch.stack([objective.on((X[i : i + 1], y[i : i + 1])).gradient() for i in range(len(X))])


# -- the objective on other data ---------------------------------------------------------------------------------------


def test_on_other_data():
    model, X, y = classifier()
    objective = Objective(model, nn.CrossEntropyLoss(), [(X[:60], y[:60]), (X[60:], y[60:])], parameters="0.*")
    whole = objective.value()
    batch = objective.on([X[:7], y[:7]])
    assert batch.names == objective.names
    assert batch.value() == pytest.approx(F.cross_entropy(model(X[:7]), y[:7]).item())
    assert objective.value() == whole
    H = Hessian(objective)
    before = H @ torch.ones(objective.size)
    direct = Hessian(Objective(model, nn.CrossEntropyLoss(), (X[:7], y[:7]), parameters="0.*"))
    torch.testing.assert_close(Hessian(batch).to_dense(), direct.to_dense())
    torch.testing.assert_close(H @ torch.ones(objective.size), before)


# -- gradient statistics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_one_pass_gives_the_objectives_loss_and_gradient(name):
    case, objective = made(name)
    unchanged = Unchanged(case.model)
    found = gradient_statistics(objective)
    unchanged.check()
    assert found.loss == pytest.approx(objective.value(), rel=1e-12)
    torch.testing.assert_close(found.gradient, objective.gradient())
    assert found.norm == pytest.approx(float(objective.gradient().norm()))
    assert found.noise_trace >= 0
    assert (
        found.noise_scale == pytest.approx(found.noise_trace / found.norm**2) or objective.criterion.reduction == "sum"
    )
    parts = gradient_statistics(objective, parts=2)
    torch.testing.assert_close(parts.gradient, found.gradient)
    assert parts.terms == pytest.approx(found.terms)
    assert parts.batches >= 2 or parts.reason


def partitioned(objective, X, y, sizes, seed):
    order = torch.randperm(len(X), generator=seeded_generator(seed))
    return objective.on(list(zip(X[order].split(sizes), y[order].split(sizes), strict=True)))


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_noise_is_unbiased_and_its_error_honest(masked):
    """Over random partitions into ragged batches, some without any loss terms, against exact per-sample gradients."""
    model, X, y = classifier()
    if masked:
        y[torch.rand(96, generator=seeded_generator(5)) < 0.3] = -100
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    kept = y != -100
    terms = term_gradients(objective, X[kept], y[kept])
    exact = float((terms - terms.mean(0)).square().sum() / (len(terms) - 1))
    scale = exact / float(terms.mean(0).square().sum())
    sizes = (10, 10, 4, 1, 10, 5, 10, 10, 2, 10, 10, 10, 4)
    found = [gradient_statistics(partitioned(objective, X, y, sizes, seed)) for seed in range(160)]
    assert {f.terms for f in found} == {float(kept.sum())}
    traces = torch.tensor([f.noise_trace for f in found]).double()
    error = float(traces.std()) / len(found) ** 0.5
    assert abs(float(traces.mean()) - exact) < 3 * error
    inside = [abs(f.noise_trace - exact) <= 2 * f.noise_trace_stderr for f in found]
    assert sum(inside) >= 0.9 * len(found)
    assert sum(abs(f.noise_scale - scale) <= 2 * f.noise_scale_stderr for f in found) >= 0.9 * len(found)
    # nor is the error bar much too wide
    typical = float(torch.tensor([f.noise_trace_stderr for f in found]).median())
    assert typical < 1.6 * float(traces.std())
    # a loss that sums has the same noise per term, a larger gradient, and the same noise scale
    sums = Objective(model, nn.CrossEntropyLoss(reduction="sum"), (X, y))
    for seed in range(3):
        total = gradient_statistics(partitioned(sums, X, y, sizes, seed))
        assert total.terms == found[seed].terms
        assert total.norm == pytest.approx(found[seed].norm * total.terms)
        for name in ("noise_trace", "noise_trace_stderr", "noise_scale", "noise_scale_stderr"):
            assert getattr(total, name) == pytest.approx(getattr(found[seed], name))


def test_elements_and_samples_give_the_same_batch_size():
    """A batch of m samples with k squared errors each has m k terms: the noise scale counts those."""
    torch.manual_seed(0)
    X, Y = torch.randn(60, 4).double(), torch.randn(60, 5).double()
    batches = list(zip(X.split(6), Y.split(6), strict=True))
    model = nn.Linear(4, 5).double()
    elements = gradient_statistics(Objective(model, nn.MSELoss(), batches))
    samples = gradient_statistics(Objective(model, lambda o, t: (o - t).square().mean(), batches))
    assert elements.terms == 5 * samples.terms
    assert elements.noise_scale == pytest.approx(5 * samples.noise_scale)


def test_a_single_batch_is_split():
    model, X, y = classifier()
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    found = gradient_statistics(objective)
    by_hand = gradient_statistics(objective.on(list(zip(X.split(6), y.split(6), strict=True))))
    assert found.batches == 16
    assert found.passes == pytest.approx(4 / 3)
    assert by_hand.passes == 1
    assert found.noise_trace == pytest.approx(by_hand.noise_trace, rel=1e-12)
    few = gradient_statistics(objective.on((X[:3], y[:3])))
    assert few.batches == 3
    one = gradient_statistics(objective.on((X[:1], y[:1])))
    assert math.isnan(one.noise_trace)
    assert "at least two batches" in one.reason
    assert "at least two batches" in gradient_statistics(objective, parts=1).reason
    with pytest.raises(ValueError, match="parts must be at least 1"):
        gradient_statistics(objective, parts=0)


def test_coupled_samples_are_not_split():
    for options in ({"norm": True}, {"dropout": 0.5}):
        model, X, y = classifier(**options)
        objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
        unchanged = Unchanged(model)
        found = gradient_statistics(objective)
        unchanged.check()
        assert "do not add up" in found.reason
        assert math.isnan(found.noise_trace)
        assert math.isnan(found.noise_scale)
        assert found.loss == objective.value()
        torch.testing.assert_close(found.gradient, objective.gradient())


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x, scale=None, labels=None, flag=None):
        return self.linear(x if scale is None else x * scale)


def test_tuples_and_dicts_are_split():
    model = TwoInputs().double()
    _, X, y = classifier()
    scale = torch.rand(96, 1).double()
    named = {"x": X, "scale": scale, "labels": y, "flag": True}
    found = gradient_statistics(Objective(model, nn.CrossEntropyLoss(), named))
    both = gradient_statistics(Objective(model, nn.CrossEntropyLoss(), ((X, scale), y)))
    assert found.batches == both.batches == 16
    assert found.noise_trace == pytest.approx(both.noise_trace)
    shared = gradient_statistics(Objective(model, nn.CrossEntropyLoss(), ((X, torch.ones(1, 4).double()), y)))
    assert "cannot be split" in shared.reason
    pieces = split(next(iter(Objective(model, nn.CrossEntropyLoss(), named).sweep())), 40)
    assert [len(p.targets) for p in pieces] == [40, 40, 16]


def test_a_sum_without_a_count_has_a_gradient():
    model, X, y = classifier()
    y[3] = -100
    loss = lambda o, t: F.cross_entropy(o, t, ignore_index=-100, reduction="sum")  # noqa: E731
    objective = Objective(model, loss, [(X[:48], y[:48]), (X[48:], y[48:])], reduction="sum")
    found = gradient_statistics(objective)
    assert found.loss == pytest.approx(objective.value())
    torch.testing.assert_close(found.gradient, objective.gradient())
    assert "count=" in found.reason
    with pytest.raises(ValueError, match="no loss terms"):
        gradient_statistics(Objective(model, nn.CrossEntropyLoss(), (X, torch.full_like(y, -100))))


# -- batch sharpness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "tied_and_ignored", "frozen_and_unused", "squared_error_sum", "sdpa"])
def test_batch_sharpness_against_dense(name):
    case, objective = made(name)
    tops, bottoms = [], []
    for X, y in case.batches:
        if not y.is_floating_point() and bool((y == -100).all()):
            continue
        own = objective.on((X, y))
        g = own.gradient()
        tops.append(float(g @ (Hessian(own).to_dense() @ g)))
        bottoms.append(float(g @ g))
    unchanged = Unchanged(case.model)
    found = batch_sharpness(objective)
    unchanged.check()
    assert found.batches == found.products == len(tops)
    assert found.converged
    quotients = torch.tensor(tops) / torch.tensor(bottoms)
    assert found.value == pytest.approx(float(quotients.mean()), rel=1e-5)
    assert found.ratio_of_means == pytest.approx(sum(tops) / sum(bottoms), rel=1e-5)


def test_batch_sharpness_of_one_batch_is_the_rayleigh_quotient():
    A = positive(9)
    objective = quadratic(A, normal(9))
    g = objective.gradient()
    found = batch_sharpness(objective)
    assert found.value == pytest.approx(float(g @ A @ g / (g @ g)))
    assert found.value == pytest.approx(found.ratio_of_means)
    assert found.stderr == found.ratio_stderr == math.inf


def test_batch_sharpness_errors_are_honest():
    model, X, y = classifier(192)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    many = [batch_sharpness(objective, batch_size=16, generator=seeded_generator(seed)) for seed in range(100)]
    for value, stderr in (("value", "stderr"), ("ratio_of_means", "ratio_stderr")):
        values = torch.tensor([getattr(m, value) for m in many]).double()
        truth = float(values.mean())
        inside = sum(abs(getattr(m, value) - truth) <= 2 * getattr(m, stderr) for m in many)
        assert inside >= 90
    early = batch_sharpness(objective, batch_size=4, rtol=0.5, generator=seeded_generator(0))
    assert early.converged
    assert 8 <= early.batches < 48
    assert early.stderr <= 0.5 * early.value
    # a tolerance just below what the fewest batches reach is not reached by them
    fewest = batch_sharpness(objective, batch_size=4, rtol=1e3, generator=seeded_generator(0))
    assert fewest.batches == 8
    rtol = 0.9 * fewest.stderr / fewest.value
    later = batch_sharpness(objective, batch_size=4, rtol=rtol, generator=seeded_generator(0))
    assert later.batches > 8
    assert later.converged == (later.stderr <= rtol * later.value)
    assert not batch_sharpness(objective, batch_size=16, rtol=1e-6).converged


def test_batch_sharpness_splits_and_refuses():
    model, X, y = classifier(30)
    objective = Objective(model, nn.CrossEntropyLoss(), [(X[:20], y[:20]), (X[20:], y[20:])])
    found = batch_sharpness(objective, batch_size=8)
    by_hand = batch_sharpness(objective.on([(X[:8], y[:8]), (X[8:16], y[8:16]), (X[20:28], y[20:28])]))
    assert found.batches == 3
    assert found.value == pytest.approx(by_hand.value)
    for options, message in [
        ({"batch_size": 21}, "no batch of the data has 21 samples"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"rtol": 0}, "rtol must be"),
        ({"min_batches": 1}, "min_batches must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            batch_sharpness(objective, **options)
    fitted = Objective(nn.Linear(2, 1), nn.MSELoss(), (torch.zeros(4, 2), torch.zeros(4, 1)), parameters="weight")
    with fitted.at(torch.zeros(2)):
        found = batch_sharpness(fitted)
    assert math.isnan(found.value)
    assert (found.batches, found.products) == (0, 1)
    linear = Objective(nn.Linear(2, 1), lambda o, t: o.mean(), (torch.ones(4, 2), torch.zeros(4, 1)))
    assert batch_sharpness(linear).value == 0.0  # a slope without curvature


# -- critical sharpness ------------------------------------------------------------------------------------------------


def inside(found, truth, slack=1e-9):
    return found.lower * (1 - slack) <= truth <= found.upper * (1 + slack)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("rtol", [0.5, 1 / 16, 1e-4])
def test_critical_sharpness_of_a_quadratic(rtol, scale):
    A = scale * positive(9)
    objective = quadratic(A, normal(9))
    g = A @ normal(9)
    truth = float(g @ A @ g / (g @ g))
    unchanged = Unchanged(objective.model)
    found = critical_sharpness(objective, rtol=rtol)
    unchanged.check()
    assert found.converged
    assert not found.reason
    assert inside(found, truth)
    assert found.upper <= (1 + rtol) * found.lower * (1 + 1e-6)
    assert found.step == pytest.approx(2 / found.value)
    assert found.gradients == 1
    assert found.evaluations <= 8 + max(0, math.log2(1 / rtol))
    # along another direction, from known loss, from a far and from a near start
    d = torch.rand(9, dtype=torch.float64, generator=seeded_generator(1)) * g
    truth = float(d @ A @ d / (g @ d))
    for start in (1e-7, 1.0, 1e7):
        found = critical_sharpness(objective, d, start=start / scale, rtol=rtol, loss=objective.value())
        assert found.converged
        assert inside(found, truth)
        assert found.evaluations <= 12 + 2 * max(1, math.log2(1 / rtol))
    again = critical_sharpness(objective, d, start=found.step, rtol=rtol, loss=objective.value())
    assert again.converged
    assert inside(again, truth)
    assert again.evaluations == 2
    assert again.gradients == 0


def test_critical_sharpness_says_what_it_cannot_find():
    A = positive(9)
    objective = quadratic(A, normal(9))
    g = objective.gradient()
    ascent = critical_sharpness(objective, -g)
    assert (ascent.value, ascent.step, ascent.converged) == (math.inf, 0.0, False)
    assert "ascent" in ascent.reason
    flat = quadratic(0 * A, normal(9), offset=1.0)
    found = critical_sharpness(flat, g)
    assert (found.value, found.step, found.converged) == (0.0, math.inf, False)
    assert found.lower == 0.0 < found.upper
    assert "no step up to" in found.reason
    assert "the direction is zero" in critical_sharpness(flat).reason
    few = critical_sharpness(objective, start=1e9, max_evaluations=4)
    assert not few.converged
    assert few.evaluations == 4
    for options, message in [
        ({"rtol": 0}, "must be positive"),
        ({"start": -1.0}, "must be positive"),
        ({"direction": torch.ones(3)}, "shape"),
        ({"direction": torch.full((9,), math.nan)}, "finite vector"),
    ]:
        with pytest.raises(ValueError, match=message):
            critical_sharpness(objective, **options)
    with pytest.raises(FloatingPointError, match="nothing to exceed"):
        critical_sharpness(quadratic(A, math.nan * normal(9)), g)


def test_rounding_is_not_a_crossing():
    """A decrease that is smaller than the rounding of the loss is not taken for one."""
    A = positive(9).float()
    objective = quadratic(A, 1e-3 * normal(9).float(), offset=1e3)
    found = critical_sharpness(objective)
    assert not found.converged
    assert "rounding" in found.reason
    uphill = critical_sharpness(quadratic(A, normal(9).float(), offset=1e3), -(A @ normal(9).float()), start=1e-9)
    assert not uphill.converged
    assert "ascent" in uphill.reason


def test_nan_far_away_counts_as_exceeding():
    class Barrier(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))

        def forward(self, x):
            return torch.log(self.w)  # falls until it is nan

    objective = Objective(Barrier(), lambda o, _: o.sum(), (torch.zeros(1, 1), torch.zeros(1)))
    found = critical_sharpness(objective, start=1e-3)
    assert found.converged
    assert inside(found, 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision(dtype):
    A = positive(9)
    theta = normal(9)
    objective = quadratic(A.to(dtype), theta.to(dtype))
    g = A @ theta
    truth = float(g @ A @ g / (g @ g))
    found = critical_sharpness(objective)
    width = 2e-2 if dtype == torch.float32 else 0.2
    assert found.converged
    assert inside(found, truth, width)
    assert batch_sharpness(objective).value == pytest.approx(truth, rel=width)
    assert gradient_statistics(objective).norm == pytest.approx(float(g.norm()), rel=width)
    sam = sam_sharpness(objective, 0.5)
    u = 0.5 * g / g.norm()
    assert abs(sam.value - float(u @ g + u @ A @ u / 2)) < max(3 * sam.error, 1e-5)


# -- SAM sharpness -----------------------------------------------------------------------------------------------------


def test_sam_of_a_quadratic():
    A, theta = positive(9), normal(9)
    objective = quadratic(A, theta, offset=2.0)
    g = A @ theta
    unchanged = Unchanged(objective.model)
    found = sam_sharpness(objective, 0.3)
    unchanged.check()
    u = 0.3 * g / g.norm()
    assert found.value == pytest.approx(float(u @ g + u @ A @ u / 2))
    assert found.first_order == pytest.approx(0.3 * float(g.norm()))
    assert (found.evaluations, found.gradients) == (2, 1)
    assert found.loss == pytest.approx(objective.value())
    known = sam_sharpness(objective, 0.3, gradient=g, loss=objective.value())
    assert (known.value, known.evaluations, known.gradients) == (pytest.approx(found.value), 1, 0)
    T = theta.abs()
    u = 0.3 * T * T * g / (T * g).norm()
    assert sam_sharpness(objective, 0.3, adaptive=True).value == pytest.approx(float(u @ g + u @ A @ u / 2))


@pytest.mark.parametrize("adaptive", [False, True])
def test_more_steps_reach_the_worst_point_of_the_ball(adaptive):
    A, theta = positive(9, low=0.01), normal(9)
    objective = quadratic(A, theta)
    T = theta.abs() if adaptive else torch.ones(9).double()
    B, b = T[:, None] * A * T, T * (A @ theta)
    # max <b, u> + <u, B u> / 2 over |u| = rho: (m - B) u = b with m above the largest eigenvalue
    low = float(torch.linalg.eigvalsh(B)[-1])
    high = low + 100.0
    for _ in range(200):
        m = (low + high) / 2
        u = torch.linalg.solve(m * torch.eye(9).double() - B, b)
        low, high = (m, high) if float(u.norm()) > 2.0 else (low, m)
    worst = float(u @ b + u @ B @ u / 2)
    rises = [sam_sharpness(objective, 2.0, steps=steps, adaptive=adaptive).value for steps in (1, 2, 40)]
    assert rises[0] <= rises[1] <= rises[2] <= worst * (1 + 1e-9)
    assert rises[2] == pytest.approx(worst, rel=1e-3)
    assert rises[0] < 0.999 * worst


def test_the_adaptive_form_does_not_see_a_rescaling():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False)).double()
    _, X, y = classifier()
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    plain, adaptive = (sam_sharpness(objective, 0.1, adaptive=a).value for a in (False, True))
    with torch.no_grad():
        model[0].weight.mul_(5.0)
        model[2].weight.div_(5.0)
    assert sam_sharpness(objective, 0.1, adaptive=True).value == pytest.approx(adaptive)
    assert sam_sharpness(objective, 0.1).value != pytest.approx(plain, rel=0.1)


def test_sam_refuses():
    objective = quadratic(positive(9), 0 * normal(9))
    assert math.isnan(sam_sharpness(objective).value)
    for options, message in [
        ({"rho": 0.0}, "must be positive"),
        ({"steps": 0}, "must be positive"),
        ({"gradient": torch.ones(2)}, "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            sam_sharpness(objective, **options)


# -- alignment ---------------------------------------------------------------------------------------------------------


def test_alignment_with_exact_vectors():
    A, v = positive(12), normal(12, 4)
    vectors = torch.linalg.eigh(A).eigenvectors
    pairs = eigsh(MatrixOperator(A), 4, tol=1e-10, generator=seeded_generator(0))
    found = alignment(v, pairs, 3)
    exact = ((vectors.flip(1)[:, :3].T @ v) / v.norm()).square()
    torch.testing.assert_close(found.cosines, exact)
    assert found.total == pytest.approx(float(exact.sum()))
    assert found.total_bound < 1e-6
    assert float(found.bounds.max()) < 1e-6
    assert found.norm == pytest.approx(float(v.norm()))
    whole = alignment(v, eigsh(MatrixOperator(A), 12, tol=1e-10, generator=seeded_generator(0)))
    assert whole.total == pytest.approx(1.0)
    assert bool(torch.isnan(alignment(0 * v, pairs).cosines).all())


def test_alignment_bounds_hold_for_rough_pairs():
    useful = 0
    for seed in range(40):
        A = positive(30, seed, low=0.0) + torch.diag(torch.linspace(0, 3, 30).double())
        vectors = torch.linalg.eigh(A).eigenvectors.flip(1)
        v = normal(30, seed + 100)
        pairs = eigsh(MatrixOperator(A), 4, tol=0.05, generator=seeded_generator(seed))
        found = alignment(v, pairs, 3)
        exact = ((vectors[:, :3].T @ v) / v.norm()).square()
        assert bool(((found.cosines - exact).abs() <= found.bounds + 1e-9).all())
        assert abs(found.total - float(exact.sum())) <= found.total_bound + 1e-9
        useful += found.total_bound < 0.9
    assert useful > 10


def test_alignment_of_given_pairs():
    """Bounds by hand from residuals and gaps, a neighbour's residual taken off; vectors of any length."""
    values, residuals = (torch.tensor(row, dtype=torch.float64) for row in ([3.0, 2.0, 0.5], [0.1, 0.4, 0.2]))
    vectors = torch.diag(torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    pairs = Eigenpairs(values, vectors, residuals, converged=True, confirmed=True, matvecs=3, seed=0)
    found = alignment(torch.tensor([3.0, 4.0, 0.0]), pairs, 2)
    assert found.cosines.tolist() == pytest.approx([0.36, 0.64])
    assert found.bounds.tolist() == pytest.approx([0.1 / (1.0 - 0.4), 0.4 / (1.0 - 0.1)])
    assert found.total_bound == pytest.approx(0.17**0.5 / (1.5 - 0.2))


def test_alignment_refuses():
    pairs = eigsh(MatrixOperator(torch.eye(5)), 2, generator=seeded_generator(0))
    assert alignment(torch.ones(5), pairs).bounds.tolist() == [1.0, 1.0]  # equal eigenvalues have no one vector
    with pytest.raises(ValueError, match="k must be between 1 and the 2"):
        alignment(torch.ones(5), pairs, 3)
    with pytest.raises(ValueError, match="shape"):
        alignment(torch.ones(4), pairs)
