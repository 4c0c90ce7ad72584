"""The Gauss-Newton-Bartlett estimate against the diagonal of a dense Gauss-Newton matrix, for each cross-entropy."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import GaussNewton, Objective
from solvers.preconditioned.sampled_labels import sampled_labels

WEIGHT = torch.tensor([1.0, 0.5, 3.0], dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(positions=1):
    """Inputs, labels (some are ignored), and a small network with logits (N, 3) or (N, 3, positions)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3 * positions)).double()
    if positions > 1:
        model.append(nn.Unflatten(1, (3, positions)))
    X = torch.randn(9, 4, dtype=torch.float64, generator=generator(1))
    y = torch.randint(0, 3, (9, positions) if positions > 1 else (9,), generator=generator(2))
    y[::4] = -100
    return model, X, y


CASES = {
    "plain": (1, nn.CrossEntropyLoss(), lambda y: y.clamp_min(0)),
    "ignored": (1, nn.CrossEntropyLoss(), lambda y: y),
    "weights of classes": (1, nn.CrossEntropyLoss(weight=WEIGHT), lambda y: y),
    "smoothing": (1, nn.CrossEntropyLoss(label_smoothing=0.2), lambda y: y),
    "sum": (1, nn.CrossEntropyLoss(reduction="sum"), lambda y: y),
    "probabilities": (1, nn.CrossEntropyLoss(), lambda y: F.one_hot(y.clamp_min(0), 3).double() * 0.7 + 0.1),
    "positions": (2, nn.CrossEntropyLoss(), lambda y: y),
    "images": (4, nn.CrossEntropyLoss(weight=WEIGHT), lambda y: y),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_mean_is_the_diagonal_of_gauss_newton(case):
    positions, loss, labels = CASES[case]
    model, X, y = problem(positions)
    y = labels(y)
    leaves = list(model.parameters())
    G = GaussNewton(Objective(model, loss, (X, y))).to_dense().diag()
    found, g = [], generator(3)
    for _ in range(150):
        _, estimates = sampled_labels(loss(model(X), y), leaves, 1, g)
        found.append(torch.cat([e.reshape(-1) for e in estimates]))
    found = torch.stack(found)
    away = (found.mean(0) - G) / (found.std(0) / len(found) ** 0.5)
    assert float(away.abs().max()) < 5  # squares of sums: far from Gaussian
    assert float(away.square().mean()) < 2.5
    assert float(found.mean(0).sum() / G.sum()) == pytest.approx(1, abs=0.2)
    assert bool((found >= 0).all())


def test_what_stands_beside_and_around_the_cross_entropy_changes_nothing_but_its_scale():
    model, X, y = problem()
    leaves = list(model.parameters())
    plain = sampled_labels(F.cross_entropy(model(X), y), leaves, 1, generator(4))[1]
    penalty = lambda: sum(p.square().sum() for p in leaves)  # noqa: E731
    beside = sampled_labels(F.cross_entropy(model(X), y) / 4 + penalty(), leaves, 1, generator(4))
    for one, other in zip(plain, beside[1], strict=True):
        torch.testing.assert_close(one, 4 * other)
    expected = torch.autograd.grad(F.cross_entropy(model(X), y) / 4 + penalty(), leaves)
    for one, other in zip(beside[0], expected, strict=True):
        torch.testing.assert_close(one, other)


def test_log_softmax_and_nll_apart_and_a_second_head():
    model, X, y = problem()
    leaves = list(model.parameters())
    fused = sampled_labels(F.cross_entropy(model(X), y), leaves, 1, generator(4))[1]
    apart = sampled_labels(F.nll_loss(model(X).log_softmax(-1), y), leaves, 1, generator(4))[1]
    for one, other in zip(fused, apart, strict=True):
        torch.testing.assert_close(one, other)
    two = lambda: F.cross_entropy(model(X), y) + F.cross_entropy(-2 * model(X), y)  # noqa: E731
    both = GaussNewton(Objective(model, nn.CrossEntropyLoss(), (X, y))).to_dense().diag()
    model[-1].weight.data.mul_(-2), model[-1].bias.data.mul_(-2)
    last = GaussNewton(Objective(model, nn.CrossEntropyLoss(), (X, y))).to_dense().diag()
    model[-1].weight.data.div_(-2), model[-1].bias.data.div_(-2)
    scale = torch.ones_like(last)
    scale[-18:] = 4.0  # derivatives in the last layer of -2 W x are -2 times those in W
    mean = sum(
        torch.cat([e.reshape(-1) for e in sampled_labels(two(), leaves, 1, generator(s))[1]]) for s in range(150)
    )
    assert float((mean / 150).sum() / (both + scale * last).sum()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda z, y: z.square().mean(), "no log_softmax leads to this loss"),
        (lambda z, y: (z.log_softmax(1).exp() * z.log_softmax(1)).sum(), "not linear in the log-probabilities"),
        (lambda z, y: -F.cross_entropy(z, y), "negative weight"),
    ],
)
def test_what_is_no_cross_entropy_is_named(loss, words):
    model, X, y = problem()
    with pytest.raises(ValueError, match=words):
        sampled_labels(loss(model(X), y), list(model.parameters()), 1, generator())


def test_unused_and_sparse_parameters():
    torch.manual_seed(0)
    table, unused = nn.Embedding(6, 3, sparse=True), nn.Parameter(torch.ones(2))
    loss = F.cross_entropy(table(torch.tensor([1, 1, 4])), torch.tensor([0, 2, 1]))
    gradient, (rows, none) = sampled_labels(loss, [table.weight, unused], 2, generator())
    assert gradient[1] is None
    assert not none.any()
    assert not rows[[0, 2, 3, 5]].any()
    assert bool((rows[[1, 4]].sum(1) > 0).all())
