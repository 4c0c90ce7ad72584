"""Whatever a model moves in its forward or backward pass is put back, and f is one function."""

import contextlib
import copy
import functools
import gc
import pickle
import time
import weakref

import pytest
import torch
from moving_models import MODELS, Around, CacheOutOfSight, Segments, batches, built, everything_of, loss_of
from objective_cases import refuses
from torch import nn

from landscape import EmpiricalFisher, FiniteDifferenceHessian, GaussNewton, Hessian, Objective, TangentKernel
from landscape.collapse import measure

MEASURED = {
    "value": lambda o: o.value(),
    "gradient": lambda o: o.gradient(),
    "gram": lambda o: TangentKernel(o).gram(),
    "collapse": lambda o: measure(o, head="net.2"),
    **{
        kind.__name__: lambda o, kind=kind: (A := kind(o)) @ torch.ones(A.shape[0], dtype=torch.float64)
        for kind in (Hessian, GaussNewton, EmpiricalFisher, TangentKernel, FiniteDifferenceHessian)
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_no_mark_is_left_whatever_is_measured(name):
    model = built(MODELS[name])
    before = everything_of(model)
    o = Objective(model, nn.CrossEntropyLoss(), batches(), check=False)
    for label, measured in MEASURED.items():
        measured(o)
        assert everything_of(model) == before, label
    if name != "BackwardHook":  # torch cannot copy a module with a hook that is its own method
        assert pickle.dumps(copy.deepcopy(model).state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_f_is_one_function_and_its_derivatives_are_its_own(name):
    o = Objective(built(MODELS[name]), nn.CrossEntropyLoss(), batches(), check=False)
    assert o.value() == o.value()
    theta, step = o.theta(), 1e-5
    v = torch.randn(o.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(where, what):
        with o.at(where):
            return what()

    slope = (at(theta + step * v, o.value) - at(theta - step * v, o.value)) / (2 * step)
    assert float(o.gradient() @ v) == pytest.approx(slope, rel=1e-6)
    bend = (at(theta + step * v, o.gradient) - at(theta - step * v, o.gradient)) / (2 * step)
    H = Hessian(o)
    for _ in range(2):  # a kept graph gives the same again
        torch.testing.assert_close(H @ v, bend, rtol=1e-6, atol=1e-8)


def test_the_first_value_is_what_the_model_itself_gives():
    for name in ("OwnGenerator", "OwnGenerators", "Counter", "CountingBuffer", "History", "Cache", "CacheOutOfSight"):
        model, twin = built(MODELS[name]), built(MODELS[name])
        (X, y), _ = batches()
        assert Objective(model, nn.CrossEntropyLoss(), (X, y)).value() == loss_of(twin, X, y), name


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_no_number(reentrant):
    plain, segments = built(lambda: Segments(None)), built(lambda: Segments(reentrant))
    for kind in (Hessian, GaussNewton):
        operators = [kind(Objective(m, nn.CrossEntropyLoss(), batches(), check=False)) for m in (plain, segments)]
        V = operators[0].random(3, "normal", torch.Generator().manual_seed(0))
        expected, found = (A @ V for A in operators)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


FEATURES = {}


def test_features_that_hooks_record_are_the_users_own():
    kept = []
    model = built(Around)
    model.net[1].register_forward_hook(lambda module, inputs, output: FEATURES.update(last=output))
    model.net[1].register_forward_hook(lambda module, inputs, output: kept.append(output))
    X, _ = batches()[0]
    model(X)
    mine, alive = FEATURES["last"], weakref.ref(FEATURES["last"])
    o = Objective(model, nn.CrossEntropyLoss(), batches(), check=False)
    o.gradient(), Hessian(o) @ torch.ones(o.size).double()
    assert FEATURES["last"] is mine
    assert [one is mine for one in kept] == [True]
    FEATURES.clear(), kept.clear()
    del mine
    gc.collect()
    assert alive() is None  # nor does the objective hold it


class Clock(Around):
    def moved(self, x):
        return x + 1e-3 * (time.perf_counter_ns() % 1000)


class FreshGenerator(Around):
    def moved(self, x):
        generator = torch.Generator()
        generator.seed()
        return x + torch.randn(x.shape, generator=generator, dtype=x.dtype)


class FaintGenerator(FreshGenerator):
    def moved(self, x):
        return x + 1e-10 * (super().moved(x) - x)


CALLS = [0]


class GlobalCounter(Around):
    def moved(self, x):
        CALLS[0] += 1
        return x * CALLS[0]


TURN = [False]


class GlobalTurn(Around):
    def moved(self, x):
        TURN[0] = not TURN[0]
        return -x if TURN[0] else x


class NewParameter(Around):
    def moved(self, x):
        self.net[0].weight = nn.Parameter(self.net[0].weight.detach().clone())
        return x


class NewModule(Around):
    def moved(self, x):
        if not hasattr(self, "late"):
            self.late = nn.Linear(4, 4).to(x)
        return self.late(x)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (Clock, "Clock gives other outputs each time"),
        (FaintGenerator, "FaintGenerator gives other outputs each time"),
        (FreshGenerator, "FreshGenerator gives other outputs each time"),
        (GlobalCounter, "GlobalCounter gives other outputs each time"),
        (GlobalTurn, "GlobalTurn gives other outputs each time"),
        (lambda: nn.Sequential(nn.Linear(4, 4), Clock()), r"'1' \(Clock\) gives other outputs"),
        (NewParameter, "parameter 'net.0.weight' in the forward pass"),
        (NewModule, "module 'late' in the forward pass"),
    ],
    ids=["clock", "faint", "generator", "counter", "turn", "by name", "parameter", "module"],
)
def test_what_is_not_one_function_is_refused_by_name(make, match):
    model = built(make)
    before = everything_of(model)
    o = Objective(model, nn.CrossEntropyLoss(), batches())
    for measured in MEASURED.values():
        with refuses(match, ValueError):
            measured(o)
    assert everything_of(model) == before


class _Restless(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        generator = torch.Generator()
        generator.seed()
        return g * (1 + 1e-3 * torch.randn((), generator=generator, dtype=g.dtype))


class Restless(Around):
    def forward(self, x):
        return _Restless.apply(self.net(x))


def test_a_gradient_that_is_another_one_each_time_is_refused():
    o = Objective(built(Restless), nn.CrossEntropyLoss(), batches(), check=False)
    assert o.value() == o.value()
    with refuses("the gradient is another one each time", ValueError):
        o.gradient()


def test_what_the_user_changes_between_measurements_stays():
    model, twin = built(CacheOutOfSight), built(CacheOutOfSight)
    X, y = batches()[0]
    o = Objective(model, nn.CrossEntropyLoss(), (X, y), check=False)
    o.value(), o.gradient()
    for m in (model, twin):
        m.held[0].mul_(2)
        m.mean += 1
    before = everything_of(model)
    assert o.value() == loss_of(twin, X, y)
    assert everything_of(model) == before


def test_what_a_partial_carries_is_put_back():
    level = torch.zeros((), dtype=torch.float64)

    def raised(model, x, level):
        level.add_(0.1)
        return model(x * (1 + level))

    forward = functools.partial(raised, level=level)
    o = Objective(built(Around), nn.CrossEntropyLoss(), batches(), forward=forward, check=False)
    assert o.value() == o.value()
    o.gradient()
    assert float(level) == 0.0


@pytest.mark.parametrize("fails", [False, True])
def test_checkpointing_is_torchs_own_afterwards(fails):
    library = torch.utils.checkpoint
    before = library.CheckpointFunction, library._checkpoint_without_reentrant_generator

    def loss(o, y):
        if fails:
            raise ZeroDivisionError
        return nn.functional.cross_entropy(o, y)

    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        Objective(built(Segments), loss, batches(), check=False).gradient()
    assert (library.CheckpointFunction, library._checkpoint_without_reentrant_generator) == before


def test_a_module_that_was_made_by_a_first_pass_is_measured():
    model = built(NewModule)
    model(batches()[0][0])
    assert Objective(model, nn.CrossEntropyLoss(), batches()).size == 51 + 20
    Objective(model, nn.CrossEntropyLoss(), batches()).gradient()


class Clamped(Around):
    def moved(self, x):
        self.net[0].weight.data.clamp_(-0.2, 0.2)
        return x


class Normalised(Around):
    def moved(self, x):
        with torch.no_grad():
            self.net[0].weight.div_(self.net[0].weight.norm())
        return x


class MaxNorm(Around):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, max_norm=0.5)

    def moved(self, x):
        return self.embedding((x[:, 0] * 10).long() % 7)


@pytest.mark.parametrize("make", [Clamped, Normalised, MaxNorm])
def test_weights_that_forward_rewrites_are_put_back_and_not_differentiated(make):
    model, twin = built(make), built(make)
    before = everything_of(model)
    X, y = batches()[0]
    o = Objective(model, nn.CrossEntropyLoss(), (X, y), check=False)
    assert o.value() == loss_of(twin, X, y)
    for measured in (o.gradient, lambda: Hessian(o) @ torch.ones(o.size), lambda: FiniteDifferenceHessian(o).noise):
        with refuses("other values in the forward pass", RuntimeError):
            measured()
    assert everything_of(model) == before


def test_weights_that_are_rewritten_only_later_are_noticed():
    model = built(Clamped)
    with torch.no_grad():
        model.net[0].weight.clamp_(-0.2, 0.2)
    o = Objective(model, nn.CrossEntropyLoss(), batches(), check=False)
    o.gradient()
    with torch.no_grad():
        model.net[0].weight.mul_(10)
    with refuses("'net.0.weight' other values", RuntimeError):
        o.gradient()
    assert float(model.net[0].weight.detach().abs().max()) > 1


class InPlace(Around):
    def moved(self, x):
        return x.mul_(1.5)


def test_the_users_data_is_not_written_into():
    data = batches()
    model = built(InPlace)
    o, expected = (
        Objective(m, nn.CrossEntropyLoss(), given, forward=forward, check=False)
        for m, given, forward in ((model, data, None), (model, batches(), lambda m, x: m.net(1.5 * x)))
    )
    V = torch.eye(o.size, 2).double()
    for _ in range(2):
        assert o.value() == expected.value()
        torch.testing.assert_close(Hessian(o) @ V, Hessian(expected) @ V)
        torch.testing.assert_close(GaussNewton(o) @ V, GaussNewton(expected) @ V)
    assert all(
        torch.equal(a, b) for pair, fresh in zip(data, batches(), strict=True) for a, b in zip(pair, fresh, strict=True)
    )


class DefaultDtype(Around):
    def moved(self, x):
        torch.set_default_dtype(torch.float64)
        return x


def test_the_default_dtype_is_as_before():
    Objective(built(DefaultDtype), nn.CrossEntropyLoss(), batches(), check=False).gradient()
    assert torch.get_default_dtype() == torch.float32


class Freezing(Around):
    def forward(self, x):
        outputs = self.net(x)
        self.net[0].weight.requires_grad_(False)
        return outputs


def test_a_parameter_that_forward_freezes_is_refused_by_name():
    model = built(Freezing)
    o = Objective(model, nn.CrossEntropyLoss(), batches(), check=False)
    o.value()
    with refuses("requires_grad of its parameter 'net.0.weight'", RuntimeError):
        o.gradient()
    assert model.net[0].weight.requires_grad


class Late(Around):
    """Writes into a tensor of its own at other parameters than those of the first measurement."""

    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(3)

    def moved(self, x):
        if float(self.net[0].bias.detach().abs().max()) > 5:
            self.seen += 1
        return x


def test_what_is_written_only_later_is_said():
    o = Objective(built(Late), nn.CrossEntropyLoss(), batches(), check=False)
    o.gradient()
    with o.at(o.theta() + 10), refuses("wrote into its tensor 'seen'", RuntimeError):
        o.gradient()
