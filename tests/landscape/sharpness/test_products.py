"""Gradients, and Hessians times gradients, of two sets: against linear regression, where both are known."""

import math

import pytest
import torch
from operator_cases import CASES
from sharpness_cases import Unchanged
from spectra_cases import seeded_generator
from torch import nn

from landscape import Objective
from landscape.sharpness import gradient_products


def regression(X, y):
    model = nn.Linear(X.shape[1], 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linspace(-1.0, 1.0, X.shape[1]))
    return Objective(model, nn.MSELoss(), (X, y))


def products(f, X, y):
    """g = 2 X^T (X w - y) / m and H g, H = 2 X^T X / m."""
    w, m = f.theta()[:, None], len(X)
    g = 2 * X.T @ (X @ w - y) / m
    return g[:, 0], (2 * X.T @ X @ g / m)[:, 0]


def sampled(seed, n, turn=0.0):
    """Samples of one of two domains: features with unequal scales, turned by an angle, and noisy targets."""
    g = seeded_generator(seed)
    X = torch.randn(n, 3, generator=g).double() * torch.tensor([1.0, 2.0, 0.5]).double()
    c, s = math.cos(turn), math.sin(turn)
    X = X @ torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]).double()
    return X, X.sum(1, keepdim=True) + torch.randn(n, 1, generator=g).double()


def test_parts_that_are_all_alike_give_the_closed_form():
    """Copies of one sample: every part of a set has the set's own gradient and product."""
    X, y = sampled(0, 2)
    first, second = (torch.cat([X[i : i + 1]] * 24) for i in range(2))
    f = regression(first, y[0].expand(24, 1))
    unchanged = Unchanged(f.model)
    # batches of unequal sizes are dealt out as well
    other = f.on(list(zip(second.split([5, 1, 18]), y[1].expand(24, 1).split([5, 1, 18]), strict=True)))
    found = gradient_products(f, other, parts=6)
    unchanged.check()
    (g, p), (h, q) = (products(f, X[i : i + 1], y[i : i + 1]) for i in range(2))
    assert found.cosine == pytest.approx(float(g @ h / (g.norm() * h.norm())))
    assert found.distance == pytest.approx(float((p - q).norm() / (p.norm() + q.norm())))
    assert found.cosine_within == pytest.approx(1.0)
    assert found.distance_within == pytest.approx(0.0, abs=1e-14)
    assert found.excess == pytest.approx(found.distance)
    assert max(found.cosine_stderr, found.distance_stderr, found.excess_stderr) < 1e-14
    assert (found.parts, found.samples, found.matvecs) == (6, 4, 12)


def by_hand(f, first, second, m, draws=400):
    """The means over many pairs of fresh samples of size m."""
    rows = []
    for i in range(draws):
        (g, p), (h, q) = (products(f, *sampled(7000 + 2 * i + j, m, turn)) for j, turn in enumerate((first, second)))
        rows.append([float(g @ h / (g.norm() * h.norm())), float((p - q).norm() / (p.norm() + q.norm()))])
    return torch.tensor(rows).mean(0)


def test_the_errors_are_honest_and_so_is_the_zero_level():
    """Over fresh data: across and within lie around the means of samples of the parts' size, as far as they say."""
    m, turn, runs = 10, 0.6, 40
    f = regression(*sampled(0, 80))
    across, within = by_hand(f, 0.0, turn, m), (by_hand(f, 0.0, 0.0, m) + by_hand(f, turn, turn, m)) / 2
    truth = {"cosine": across[0], "cosine_within": within[0], "distance": across[1], "distance_within": within[1]}
    truth["excess"] = across[1] - within[1]
    inside = dict.fromkeys(truth, 0)
    for run in range(runs):
        first, second = f.on(sampled(100 + 2 * run, 80)), f.on(sampled(101 + 2 * run, 97, turn))
        found = gradient_products(first, second, generator=seeded_generator(run))
        assert found.samples == m
        for name, value in truth.items():
            inside[name] += abs(getattr(found, name) - value) <= 2 * getattr(found, f"{name}_stderr")
    assert min(inside.values()) >= 0.85 * runs, inside
    assert truth["excess"] > 0.05
    assert truth["distance_within"] > 0.1  # noise alone: without it the distance says nothing


def test_one_set_has_no_excess():
    f = regression(*sampled(0, 160))
    halves = f.on(sampled(1, 160))
    found = [gradient_products(f, halves, generator=seeded_generator(seed)) for seed in range(20)]
    assert sum(abs(one.excess) <= 2 * one.excess_stderr for one in found) >= 17
    assert gradient_products(f, halves, generator=seeded_generator(3)) == found[3]
    halved = gradient_products(f, halves, parts=2)
    assert halved.samples == 80
    assert halved.excess_stderr == math.inf


@pytest.mark.parametrize("name", sorted(CASES))
def test_on_every_case(name):
    """Ragged batches, masks, dicts, tied and frozen parameters: numbers in their range, and nothing is touched."""
    case = CASES[name]()
    f = Objective(case.model, case.loss, case.batches, **case.options)
    unchanged = Unchanged(case.model)
    found = gradient_products(f, f.on(case.batches), parts=2, generator=seeded_generator(0))
    unchanged.check()
    assert -1 <= found.cosine <= 1
    assert 0 <= found.distance <= 1
    assert 0 <= found.distance_within <= 1


def test_what_makes_no_sense_is_refused():
    f = regression(*sampled(0, 20))
    for parts in (0, 3):
        with pytest.raises(ValueError, match="even number"):
            gradient_products(f, f, parts=parts)
    with pytest.raises(ValueError, match="8 parts of 6 samples"):
        gradient_products(f, f.on(sampled(1, 6)))
    with pytest.raises(ValueError, match="different parameters"):
        gradient_products(f, regression(*sampled(0, 20)))
