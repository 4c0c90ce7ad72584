"""Each row of docs/works-with.md is so: numbers against plain torch, refusals by their words."""

import pytest
import torch
from situations import SITUATIONS
from situations.page import PATH, page
from situations.situation import differences, direction, double_backward

from landscape import Hessian


def test_the_page_is_what_the_table_says():
    assert PATH.read_text() == page(), "python -m situations.page writes it"
    assert len(SITUATIONS) >= 60
    assert len({(situation.group, situation.name) for situation in SITUATIONS}) == len(SITUATIONS)


@pytest.mark.filterwarnings("ignore:.*('mean' divides|Complex modules are a new feature)")
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: f"{situation.group}: {situation.name}")
def test_situation(situation):
    for package in situation.needs:
        pytest.importorskip(package)
    if situation.refused:
        with pytest.raises((ValueError, TypeError, RuntimeError)) as refusal:
            A = Hessian(situation.make().objective)
            A @ direction(A.objective.size, A.dtype)
        assert situation.refused in str(refusal.value)
        assert "\n" not in str(refusal.value)
        return
    case = situation.make()
    f = case.objective
    before = [p.detach().clone() for p in f.model.parameters()]
    v = direction(f.size, f.dtype)
    oracle = double_backward if situation.check == "double backward" else differences
    value, gradient, product = oracle(case, v)
    assert f.size == sum(p.numel() for p in case.leaves())
    assert f.value() == pytest.approx(value, rel=situation.tolerance)
    assert relative(f.gradient(), gradient) <= situation.tolerance
    assert product.norm() > 0
    assert relative(Hessian(f) @ v, product) <= situation.tolerance
    assert all(torch.equal(p, was) for p, was in zip(f.model.parameters(), before, strict=True))


def relative(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm())
