"""Influence functions against retraining without samples, and against dense matrices and gradients one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from implicit_cases import classes, minimise
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import EKFAC, KFAC, GaussNewton, Hessian, Objective
from landscape.implicit import influence


def trained(model: nn.Module, X: Tensor, y: Tensor, decay: float, kept: Tensor | None = None) -> None:
    """At the minimum of the sum over the kept samples, divided by the number of all, + decay / 2 ||theta||^2."""
    kept = torch.ones(len(y), dtype=torch.bool) if kept is None else kept

    def function(forward, v):
        return F.cross_entropy(forward(X[kept]), y[kept], reduction="sum") / len(y) + decay / 2 * v @ v

    minimise(model, function)


def losses(model: nn.Module, X: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(X), y, reduction="none")


def retrained(model: nn.Module, X: Tensor, y: Tensor, decay: float, groups: list[list[int]], test) -> Tensor:
    """The change of each test loss `(tests, groups)` by retraining from the trained parameters."""
    start = {name: t.clone() for name, t in model.state_dict().items()}
    before, columns = losses(model, *test), []
    for group in groups:
        kept = torch.ones(len(y), dtype=torch.bool)
        kept[group] = False
        trained(model, X, y, decay, kept)
        columns.append(losses(model, *test) - before)
        model.load_state_dict(start)
    return torch.stack(columns, dim=1)


def slope_and_correlation(predicted: Tensor, actual: Tensor) -> tuple[float, float]:
    """Of actual changes over predicted ones."""
    x, y = predicted.reshape(-1), actual.reshape(-1)
    return float(x @ y / (x @ x)), float(np.corrcoef(x.numpy(), y.numpy())[0, 1])


def regression(count: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    X, y = classes(count)
    model = nn.Linear(4, 3).double()
    trained(model, X, y, 0.02)
    return model, X, y


def test_logistic_regression_without_each_sample():
    """Rule: correlation above 0.99 and slope within a tenth of 1 for 160 samples. Of first order: worse for 40."""
    far = {}
    for count in (40, 160):
        model, X, y = regression(count)
        test = classes(8, seed=1)
        found = influence(Objective(model, nn.CrossEntropyLoss(), (X, y)), test, damping=0.02)
        some = list(range(0, count, count // 5))
        actual = retrained(model, X, y, 0.02, [[i] for i in some], test)
        slope, correlation = slope_and_correlation(found.scores[:, some], actual)
        if count == 160:
            assert correlation > 0.99
            assert abs(slope - 1) < 0.1
        assert found.converged
        assert found.gradient_norm < 1e-9
        far[count] = float((found.scores[:, some] - actual).norm() / actual.norm())
    assert far[160] < 0.5 * far[40]


def test_groups_of_samples():
    model, X, y = regression(60)
    test, members = classes(6, seed=1), [[0, 1, 2], [10, 20], [30, 31, 32, 33]]
    groups = torch.full((60,), -1)
    for i, group in enumerate(members):
        groups[group] = i
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    found = influence(f, test, damping=0.02, groups=groups)
    slope, correlation = slope_and_correlation(found.scores, retrained(model, X, y, 0.02, members, test))
    assert found.scores.shape == (6, 3)
    assert correlation > 0.98
    assert abs(slope - 1) < 0.2
    single = influence(f, test, damping=0.02)
    torch.testing.assert_close(found.scores[:, 1], single.scores[:, 10] + single.scores[:, 20])
    assert (found.errors[:, 1] >= single.errors[:, 10]).all()


def test_a_network_of_two_layers_without_samples():
    """Rule: correlation above 0.95 and slope within 0.2 of 1, for the Hessian at a minimum."""
    torch.manual_seed(1)
    X, y = classes(60)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    trained(model, X, y, 0.02)
    test, some = classes(6, seed=1), list(range(0, 60, 6))
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    found = influence(f, test, damping=0.02)
    actual = retrained(model, X, y, 0.02, [[i] for i in some], test)
    slope, correlation = slope_and_correlation(found.scores[:, some], actual)
    assert found.gradient_norm < 1e-8
    assert correlation > 0.95
    assert abs(slope - 1) < 0.2
    # the approximations are other matrices, of which the scores are right to theirs
    for make in (KFAC, EKFAC):
        K = make(f)
        other = influence(f, test, damping=0.02, operator=K)
        X_test = influence(f, test, damping=0.02, operator=K, per="all").scores
        torch.testing.assert_close(other.scores.mean(dim=0, keepdim=True), X_test)
        assert (other.matvecs, other.converged, float(other.residuals.max())) == (0, True, 0.0)
        assert slope_and_correlation(other.scores, found.scores)[1] > 0.5


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 3)
        self.head = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(x))).transpose(1, 2)


def tokens(count: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randint(0, 6, (count, 5), generator=g), torch.randint(0, 6, (count, 5), generator=g)
    y[torch.rand(count, 5, generator=g) < 0.3] = -100
    y[1] = -100  # a sample without a term
    return x, y


def squares(z: Tensor, t: Tensor) -> Tensor:
    """A loss of the user's own, the mean over samples."""
    return (z - t).square().sum(1).mean()


def cases():
    torch.manual_seed(0)
    X, y = classes(17)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    ragged = [(X[:8], y[:8]), (X[8:15], y[8:15]), (X[15:], y[15:])]
    yield "ragged", Objective(net, nn.CrossEntropyLoss(), ragged), classes(5, seed=1)
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5]).double())
    yield "class weights", Objective(net, weighted, ragged), classes(5, seed=1)
    summed = nn.CrossEntropyLoss(reduction="sum")
    yield "sum", Objective(net, summed, ragged, reduction="sum"), classes(5, seed=1)
    x, t = tokens(9, 0)
    yield "tokens", Objective(Tokens().double(), F.cross_entropy, [(x[:4], t[:4]), (x[4:], t[4:])]), tokens(4, 1)
    Z = torch.randn(17, 3).double()
    yield "own loss", Objective(net, squares, [(X[:9], Z[:9]), (X[9:], Z[9:])]), (X[:3], Z[:3])
    frozen = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    frozen[0].weight.requires_grad_(False)
    yield "frozen", Objective(frozen, nn.CrossEntropyLoss(), ragged), classes(5, seed=1)
    dicts = [{"x": X[:9], "labels": y[:9]}, {"x": X[9:], "labels": y[9:]}]
    forward = lambda model, inputs: {"loss": F.cross_entropy(model(inputs["x"]), inputs["labels"])}  # noqa: E731
    own = Objective(net, lambda out, labels: out["loss"], dicts, forward=forward, count=lambda out, labels: len(labels))
    yield "loss inside", own, [{"x": X[:2], "labels": y[:2]}]


CASES = {name: (f, test) for name, f, test in cases()}


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_dense_matrices_and_single_gradients(name):
    f, test = CASES[name]
    found = influence(f, test, damping=3.0, tol=1e-10)
    H = Hessian(f).to_dense() + 3.0 * torch.eye(f.size).double()
    singles = [one for inputs, targets in batches(f) for one in cut(inputs, targets)]
    counts = torch.tensor([count(f, one) for one in singles], dtype=torch.float64)
    divisor = 1.0 if f.criterion.reduction == "sum" else counts.sum()
    G = torch.stack(
        [gradient(f, one) if c else torch.zeros(f.size).double() for one, c in zip(singles, counts, strict=True)], 1
    )
    G_test = torch.stack([gradient(f, one) if count(f, one) else 0 * G[:, 0] for one in cut_all(f, test)], 1)
    factor = torch.ones(len(counts)).double() if f.criterion.reduction == "sum" else counts / divisor
    expected = (torch.linalg.solve(H, G_test).T @ G) * factor
    torch.testing.assert_close(found.scores, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))
    torch.testing.assert_close(found.weights, counts / divisor)
    assert ((found.scores - expected).abs() <= found.errors).double().mean() > 0.9
    loose = influence(f, test, damping=3.0, tol=0.05)
    assert ((loose.scores - expected).abs() <= loose.errors).double().mean() > 0.9
    torch.testing.assert_close(influence(f, test, f.on(batches(f)), damping=3.0, tol=1e-10).scores, found.scores)


def batches(f):
    return [(batch.inputs, batch.targets) for batch in f.sweep()]


def cut(inputs, targets):
    if isinstance(inputs, dict):
        return [({k: v[i : i + 1] for k, v in inputs.items()}, targets[i : i + 1]) for i in range(len(targets))]
    return [(inputs[i : i + 1], targets[i : i + 1]) for i in range(len(targets))]


def cut_all(f, test):
    return [one for inputs, targets in batches(f.on(test)) for one in cut(inputs, targets)]


def gradient(f, one):
    return f.on([one]).gradient() if count(f, one) else torch.zeros(f.size).double()


def count(f, one):
    """Loss terms of one sample, by hand."""
    targets = one[1]
    known = f.criterion.loss
    if isinstance(known, nn.CrossEntropyLoss) and known.weight is not None:
        return float(known.weight[targets].sum())
    if targets.is_floating_point():
        return 1.0
    return float((targets != -100).sum())


def test_what_is_no_minimum_is_said():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    f, test = Objective(model, nn.CrossEntropyLoss(), classes(30)), classes(4, seed=1)
    least = float(torch.linalg.eigvalsh(Hessian(f).to_dense())[0])
    assert least < -1e-3
    found = influence(f, test, damping=0.1 * -least)
    assert found.curvature is not None
    assert found.curvature >= least
    assert "is not positive definite" in str(found)
    assert math.isinf(float(found.errors.max()))
    assert found.gradient_norm > 0.01
    safe = influence(f, test, operator="gauss-newton", damping=0.01)
    assert "positive definite" not in str(safe)
    same = influence(f, test, operator=GaussNewton(f), damping=0.01)
    torch.testing.assert_close(safe.scores, same.scores)


def test_refusals():
    torch.manual_seed(0)
    X, y = classes(12)
    model = nn.Linear(4, 3).double()
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    for wrong, words in (
        ({"per": "batch"}, 'per is "sample" or "all"'),
        ({"operator": "fisher"}, "operator is"),
        ({"groups": torch.zeros(3, dtype=torch.long)}, "groups are 12 whole numbers"),
        ({"groups": torch.zeros(12)}, "groups are 12 whole numbers"),
        ({"operator": GaussNewton(f.restrict("bias"))}, "the operator has n = 3"),
        ({"train": f.restrict("bias")}, "different parameters"),
    ):
        with pytest.raises(ValueError, match=words):
            influence(f, (X, y), damping=0.1, **wrong)
    coupled = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    f = Objective(coupled, nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(TypeError, match="depend on the other samples of its batch"):
        influence(f, (X, y), operator="gauss-newton", damping=0.1, per="all")
    ratio = lambda z, t: z.square().sum() / z.abs().sum()  # noqa: E731
    with pytest.raises(TypeError, match="no sample can be taken out of it"):
        influence(Objective(model, ratio, (X, y), check=False), (X, y), damping=1.0)


def test_a_penalty_in_the_loss_is_a_damping():
    model, X, y = regression(30)
    test = Objective(model, nn.CrossEntropyLoss(), classes(3, seed=1))

    def decayed(z, t):
        return F.cross_entropy(z, t) + 0.01 * sum(p.square().sum() for p in model.parameters())

    outside = influence(Objective(model, nn.CrossEntropyLoss(), (X, y)), test, damping=0.02, tol=1e-9)
    inside = influence(Objective(model, decayed, (X, y)), test, tol=1e-9)
    torch.testing.assert_close(inside.scores, outside.scores, rtol=1e-6, atol=1e-10)
    assert inside.gradient_norm < 1e-9


def test_little_memory_takes_a_few_tests_at_a_time():
    model, X, y = regression(20)
    test, f = classes(7, seed=1), Objective(model, nn.CrossEntropyLoss(), (X, y))
    f.memory = 1 << 30
    few, many = GaussNewton(f), GaussNewton(f)
    few._memory, many._memory = 3 * 16 * f.size * 8, 1 << 30
    expected = influence(f, test, operator=many, damping=0.02)
    f.memory = 1  # one vector after the other
    found = influence(f, test, operator=few, damping=0.02)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-9)
    assert found.residuals.shape == (7,)
    assert found.scores.shape == found.errors.shape == (7, 20)


def test_nothing_is_moved():
    model, X, y = regression(20)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    influence(Objective(model, nn.CrossEntropyLoss(), (X, y)), classes(2, seed=1), damping=0.02)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
