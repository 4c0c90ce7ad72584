"""What was found out about a model is asked once, anew when its structure changes, and does not keep it alive."""

import functools
import gc
import weakref

import pytest
import torch
from torch import nn

from landscape.objective.remembered import identity, remembered, structure


def model():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))


def test_asked_once_for_each_model_and_kind():
    asked = []
    a, b = model(), model()
    for m in (a, a, b, b):
        for kind in ("noise", "check"):
            assert remembered(m, kind, structure(m), lambda m=m, kind=kind: asked.append((m, kind)) or len(asked))
    assert asked == [(a, "noise"), (a, "check"), (b, "noise"), (b, "check")]


CHANGES = {
    "mode of one module": lambda m: m[2].eval(),
    "hook": lambda m: m[0].register_forward_hook(lambda *_: None),
    "hook before": lambda m: m[0].register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda m: m[0].register_full_backward_hook(lambda *_: None),
    "parametrization": lambda m: nn.utils.parametrizations.spectral_norm(m[0]),
    "old weight norm": lambda m: nn.utils.weight_norm(m[0]),
    "dtype": lambda m: m[0].double(),
    "frozen": lambda m: m[0].weight.requires_grad_(False),
    "switch": lambda m: setattr(m[0], "hard", True),
    "forward": lambda m: setattr(m[0], "forward", m[3].forward),
    "layer": lambda m: m.append(nn.Tanh()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_structure_sees(change):
    m = model()
    before = structure(m)
    assert structure(m) == before
    assert hash(structure(m)) == hash(before)
    change(m)
    assert structure(m) != before


def test_numbers_and_gradients_are_not_structure():
    m = model()
    before = structure(m)
    m(torch.randn(5, 3)).sum().backward()
    with torch.no_grad():
        m[0].weight.add_(1.0)
    assert structure(m) == before


def test_the_same_lambda_in_a_loop_is_one_and_what_it_closes_over_counts():
    scale = nn.Parameter(torch.ones(2))

    def made(factor, thing):
        return lambda o, y: (o - y).square().mean() * factor + thing.sum()

    assert identity(made(2.0, scale)) == identity(made(2.0, scale))
    assert identity(made(2.0, scale)) != identity(made(3.0, scale))
    assert identity(made(2.0, scale)) != identity(made(2.0, nn.Parameter(torch.ones(2))))
    assert identity(functools.partial(made, 2.0)) == identity(functools.partial(made, 2.0))
    assert identity(functools.partial(made, factor=2.0)) == identity(functools.partial(made, factor=2.0))
    assert identity(functools.partial(made, factor=2.0)) != identity(functools.partial(made, factor=3.0))
    assert identity(nn.CrossEntropyLoss()) == identity(nn.CrossEntropyLoss())
    assert identity(nn.CrossEntropyLoss()) != identity(nn.CrossEntropyLoss(label_smoothing=0.1))
    assert identity(nn.CrossEntropyLoss(weight=torch.ones(2))) != identity(nn.CrossEntropyLoss(weight=torch.ones(2)))


def test_defaults_of_a_loss_count():
    def made(factor):
        return lambda o, y, factor=factor: (o - y).square().mean() * factor

    def named(factor):
        return lambda o, y, *, factor=factor: (o - y).square().mean() * factor

    for make in (made, named):
        assert identity(make(2.0)) == identity(make(2.0))
        assert identity(make(2.0)) != identity(make(3.0))


def test_answers_do_not_keep_a_model_alive():
    m = model()
    loss = functools.partial(lambda model, o, y: o.sum() + model[0].weight.sum(), m)
    remembered(m, "check", (structure(m), identity(loss)), lambda: 1)
    gone = weakref.ref(m)
    del m, loss
    gc.collect()
    assert gone() is None
