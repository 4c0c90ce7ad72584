"""Sizes of subspaces, and that subsets are uniform."""

import math

import pytest
import torch

from solvers import Adaptive, Constant, Exponential, Linear
from solvers.second_order.subspaces import Seen, choose


def test_schedules():
    assert [Constant(3).size(100, Seen(k)) for k in (0, 9)] == [3, 3]
    assert Exponential(10, 0.1, 0.01).size(1000, Seen(500)) == pytest.approx(10 + 0.1 * math.exp(5))
    assert Exponential(10, 1.0, 1.0).size(1000, Seen(5000)) == 1000
    assert Linear(10, 0.5).size(1000, Seen(20)) == 20
    rule = Adaptive(7, c=1.0)
    assert rule.size(100, Seen(0)) == 7
    seen = Seen(3, length=1e-3, tried=2e-3, gradient=0.2, curvature=1e6, size=9)
    wanted = max(1 - 1e4 * 1e-6 / 0.04, math.sqrt(1 - 1e16 * 1e-6 / 1e12))
    assert rule.size(100, seen) == int(100 * wanted)
    assert rule.size(100, Seen(3, length=1.0, gradient=0.2, curvature=1.0, size=9)) == 1
    assert Adaptive(7, 1.0, smoothing=0.5).size(100, seen) == 0.5 * (int(100 * wanted) + 9)
    assert Adaptive(7, 1.0, length="trial").size(100, seen) == int(100 * math.sqrt(1 - 1e16 * 4e-6 / 1e12))


def test_the_first_size_by_the_rule():
    """1e4 c / ||g||^2 with ||h|| = 1; a Hessian that asks for nothing."""
    rule = Adaptive(None, 1e-3, smoothing=0.5)
    assert rule.whole
    assert not Adaptive(7).whole
    assert rule.size(100, Seen(0, gradient=5.0, curvature=1.0)) == 60
    assert rule.size(100, Seen(0, gradient=3.0, curvature=1.0)) == 1
    assert rule.size(100, Seen(3, gradient=0.0, curvature=1.0, size=8)) == 8  # nothing to go by


@pytest.mark.parametrize("bad", [{"start": 0}, {"c": 0.0}, {"smoothing": 0.0}, {"length": "shortest"}])
def test_bad_adaptive_sizes(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Adaptive(**{"start": 5, **bad})


def test_subsets_are_uniform():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(4000):
        counts[choose(10, 3, "coordinates", [10], generator)] += 1
    assert float((counts / 4000 - 0.3).abs().max()) < 4 * math.sqrt(0.21 / 4000)


@pytest.mark.parametrize("kind", ["blocks", "layers"])
def test_every_coordinate_is_chosen(kind):
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(9)
    for _ in range(600):
        chosen = choose(9, 3, kind, [2, 7], generator)
        counts[chosen] += 1
        if kind == "blocks":
            assert chosen.diff().tolist() == [1, 1]
        else:
            assert bool((chosen < 2).all()) or bool((chosen >= 2).all())
    # 7 places for a run; a tensor by its size, and then 2 of 2 or 3 of 7
    expected = [1, 2, 3, 3, 3, 3, 3, 2, 1] if kind == "blocks" else [14 / 9] * 2 + [7 / 3] * 7
    share = torch.tensor(expected) / 7
    assert bool(((counts / 600 - share).abs() < 4 * (share * (1 - share) / 600).sqrt()).all())
