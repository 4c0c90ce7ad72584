"""One function of one vector, never stale, and measuring leaves no mark."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from landscape import (
    DataChanged,
    EmpiricalFisher,
    FiniteDifferenceHessian,
    GaussNewton,
    Hessian,
    MatrixOperator,
    Objective,
)


def network(dropout=0.0, norm=False):
    torch.manual_seed(0)
    layers = [
        nn.Linear(4, 6),
        nn.BatchNorm1d(6) if norm else nn.Identity(),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Linear(6, 3),
    ]
    return nn.Sequential(*layers)


def samples(n=19):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g)


def objective(model=None, data=None, loss=None, **options):
    return Objective(model or network(), loss or nn.CrossEntropyLoss(), samples() if data is None else data, **options)


# -- the function and the flat vector -----------------------------------------------------------------------------


def test_value_weights_batches_by_their_terms():
    X, y = samples()
    model = network()
    whole = F.cross_entropy(model(X), y).item()
    assert objective(model, [(X[:16], y[:16]), (X[16:], y[16:])]).value() == pytest.approx(whole, rel=1e-6)
    weight = torch.tensor([0.1, 1.0, 5.0])
    loss = nn.CrossEntropyLoss(weight=weight)
    assert objective(model, [(X[:16], y[:16]), (X[16:], y[16:])], loss).value() == pytest.approx(
        loss(model(X), y).item(), rel=1e-6
    )


def test_sums_are_sums():
    X, y = samples()
    model = network()
    split = [(X[:16], y[:16]), (X[16:], y[16:])]
    total = F.cross_entropy(model(X), y, reduction="sum").item()
    assert objective(model, split, nn.CrossEntropyLoss(reduction="sum")).value() == pytest.approx(total, rel=1e-6)
    own = objective(model, split, lambda o, t: F.cross_entropy(o, t, reduction="sum"), reduction="sum")
    assert own.value() == pytest.approx(total, rel=1e-6)


def test_names_slices_and_vectors():
    model = network()
    model[0].bias.requires_grad_(False)
    o = objective(model)
    assert o.names == ["0.weight", "4.weight", "4.bias"]
    assert o.slices["4.weight"] == slice(24, 42)
    assert o.size == 45
    values = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert torch.equal(o.flatten(values), o.theta())
    assert all(torch.equal(a, values[name]) for name, a in o.unflatten(o.theta()).items())
    with pytest.raises(ValueError, match="shape"):
        o.unflatten(torch.zeros(3))
    with pytest.raises(KeyError, match=r"4\.bias"):
        o.flatten({k: v for k, v in values.items() if k != "4.bias"})


def test_selections():
    assert objective(parameters="4.*").names == ["4.weight", "4.bias"]
    assert objective(parameters=["*.bias"]).names == ["0.bias", "4.bias"]
    assert objective(parameters=lambda name: name.startswith("0")).names == ["0.weight", "0.bias"]
    assert objective(parameters=lambda name, p: p.ndim == 1).names == ["0.bias", "4.bias"]
    with pytest.raises(ValueError, match="matches none of"):
        objective(parameters="head.*")


def test_at_restores_even_after_an_error():
    model = network()
    o = objective(model)
    before = o.theta()
    storages = [p.data_ptr() for p in model.parameters()]
    value = o.value()
    with pytest.raises(ZeroDivisionError), o.at(before + 1):
        assert torch.equal(o.theta(), before + 1)
        assert o.value() != value
        raise ZeroDivisionError
    assert torch.equal(o.theta(), before)
    assert [p.data_ptr() for p in model.parameters()] == storages


def test_converted_copy_follows_the_model():
    model = network()
    o = objective(model, dtype=torch.float64)
    assert o.dtype == torch.float64
    H = Hessian(o)
    v = torch.ones(o.size)
    H @ v
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    expected = (
        Hessian(Objective(copy.deepcopy(model).double(), nn.CrossEntropyLoss(), (samples()[0].double(), samples()[1])))
        @ v
    )
    assert torch.allclose(H @ v, expected, rtol=1e-12)
    assert next(model.parameters()).dtype == torch.float32


# -- never a stale number -------------------------------------------------------------------------------------------


def sgd_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    optimizer.step()


def in_place(model):
    with torch.no_grad():
        model[4].weight[0, 0] += 0.5


def data_edit(model):
    model[0].weight.data[1, 2] += 0.5


def storage_swap(model):
    model[0].weight.data = model[0].weight.data * 1.5


def parameter_replaced(model):
    model[0].weight = nn.Parameter(model[0].weight.detach() * 1.5)


def state_dict_assigned(model):
    model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()}, assign=True)


def buffer_changed(model):
    model[1].running_mean.add_(0.5)


def mode_changed(model):
    model.train()


CHANGES = [
    sgd_step,
    in_place,
    data_edit,
    storage_swap,
    parameter_replaced,
    state_dict_assigned,
    buffer_changed,
    mode_changed,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("operator", [Hessian, GaussNewton, EmpiricalFisher, FiniteDifferenceHessian])
def test_a_product_after_any_change_is_right(operator, change):
    model = network(norm=True).double().eval()
    X, y = samples()
    data = [(X[:12].double(), y[:12]), (X[12:].double(), y[12:])]

    def new():
        return operator(Objective(model, nn.CrossEntropyLoss(), data))

    A = new()
    v = torch.ones(A.shape[0], dtype=torch.float64)
    first = A @ v
    assert torch.equal(A @ v, first)
    if change is sgd_step:
        F.cross_entropy(model(X.double()), y).backward()
        torch.optim.SGD(model.parameters(), lr=0.5).step()
    else:
        change(model)
    second = A @ v
    assert not torch.allclose(second, first, rtol=1e-3)
    assert torch.allclose(second, new() @ v, rtol=1e-6, atol=1e-9)


def test_two_operators_and_restricted_ones_share_nothing_stale():
    o = objective()
    v = torch.ones(o.size)
    whole, part = Hessian(o), Hessian(o).restrict(["4.*"])
    with o.at(o.theta() * 1.5):
        moved = whole @ v
    assert not torch.allclose(whole @ v, moved, rtol=1e-3)
    assert part.shape[0] == 21


# -- measuring changes nothing --------------------------------------------------------------------------------------


def everything_of(model):
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "versions": [t._version for t in [*model.parameters(), *model.buffers()]],
        "identity": [id(t) for t in [*model.parameters(), *model.buffers()]],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("mode", ["as-is", "eval", "train"])
@pytest.mark.parametrize("operator", [Hessian, GaussNewton, EmpiricalFisher, FiniteDifferenceHessian])
def test_nothing_is_left_behind(operator, mode):
    model = network(dropout=0.5, norm=True)
    model[4].bias.requires_grad_(False)
    model[3].eval()
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    loader = DataLoader(TensorDataset(*samples()), batch_size=5, shuffle=True)
    before = everything_of(model)
    o = objective(model, loader, mode=mode)
    A = operator(o)
    A @ A.random(2, "normal", torch.Generator().manual_seed(0))
    o.value(), o.gradient(), o.theta()
    assert same(before, everything_of(model))


def test_nothing_is_left_behind_after_an_exception():
    model = network(norm=True)
    before = everything_of(model)

    def broken(outputs, targets):
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError("broken loss")

    o = objective(model, loss=broken, mode="eval")
    for call in (o.value, o.gradient, lambda: Hessian(o) @ torch.ones(o.size)):
        with pytest.raises(KeyError, match="broken"):
            call()
    assert same(before, everything_of(model))


def test_dropout_and_batchnorm_in_train_mode_are_one_function():
    model = network(dropout=0.5, norm=True).double()
    X, y = samples()
    o = objective(model, [(X.double()[:12], y[:12]), (X.double()[12:], y[12:])])
    assert o.value() == o.value()
    H = Hessian(o)
    D = H.to_dense()
    assert torch.allclose(D, D.T, atol=1e-12)
    numeric = FiniteDifferenceHessian(o).to_dense()
    assert torch.allclose(D, numeric, atol=1e-6)


def test_a_hook_on_a_parameter_is_not_part_of_the_function():
    model = network()
    expected = Hessian(objective(model)).to_dense()
    calls = []
    handle = model[0].weight.register_hook(lambda g: calls.append(1) or g * 100)
    assert torch.equal(Hessian(objective(model)).to_dense(), expected)
    assert not calls
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    assert calls
    handle.remove()


def test_between_forward_and_backward_of_a_training_step():
    model, twin = network(), network()
    X, y = samples()
    loss = F.cross_entropy(model(X), y)
    o = objective(model)
    FiniteDifferenceHessian(o) @ torch.ones(o.size)
    Hessian(o) @ torch.ones(o.size)
    loss.backward()
    F.cross_entropy(twin(X), y).backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("scope", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
@pytest.mark.parametrize("operator", [Hessian, GaussNewton, FiniteDifferenceHessian])
def test_any_scope_gives_the_same_product(operator, scope):
    model = network()
    o = objective(model)
    v = torch.ones(o.size)
    expected = operator(o) @ v
    with scope():
        X, y = samples()
        inside = operator(objective(model, (X, y)))
        assert torch.equal(inside @ v, expected)


# -- precision ------------------------------------------------------------------------------------------------------


def test_bfloat16_products_say_how_noisy_they_are():
    X, y = samples()
    o = objective(network().bfloat16(), (X.bfloat16(), y))
    assert o.dtype == torch.float32
    H = Hessian(o)
    assert H.noise == torch.finfo(torch.bfloat16).eps
    exact = Hessian(Objective(network().bfloat16(), nn.CrossEntropyLoss(), (X.bfloat16(), y), dtype=torch.float64))
    v = H.random(1, "normal", torch.Generator().manual_seed(0))
    assert (H @ v - exact @ v).norm() < 10 * H.noise * (exact @ v).norm()


def test_mixed_dtypes_take_the_widest_vector():
    model = network()
    model[4].double()
    o = Objective(model, nn.CrossEntropyLoss(), samples(), forward=lambda m, x: m[4](m[:4](x).double()))
    assert o.dtype == torch.float64
    D = Hessian(o).to_dense()
    assert torch.allclose(D, D.T, atol=1e-6)


# -- data -----------------------------------------------------------------------------------------------------------


def reference(v):
    return Hessian(objective()) @ v


@pytest.mark.parametrize("memory", ["auto", 64], ids=["held", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_shuffling_loaders_give_one_function(workers, memory):
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(*samples()), batch_size=6, shuffle=True, num_workers=workers, generator=generator)
    state = generator.get_state()
    o = objective(data=loader, memory=memory)
    v = torch.ones(o.size)
    H = Hessian(o)
    for _ in range(3):
        assert torch.allclose(H @ v, reference(v), atol=1e-6)
    assert torch.equal(generator.get_state(), state)


def test_measuring_inside_an_epoch_over_a_loader_with_persistent_workers():
    loader = DataLoader(TensorDataset(*samples()), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)
    o = objective(data=loader)
    seen = 0
    for X, _ in loader:
        Hessian(o) @ torch.ones(o.size)
        seen += len(X)
    assert seen == 19


class Augmenting(Dataset):
    def __len__(self):
        return 19

    def __getitem__(self, i):
        X, y = samples()
        return X[i] + 0.1 * torch.randn(4) + 0.1 * random.random(), y[i]


@pytest.mark.parametrize("memory", ["auto", 64], ids=["held", "streamed"])
def test_random_transforms_are_frozen(memory):
    o = objective(data=DataLoader(Augmenting(), batch_size=5), memory=memory)
    assert o.value() == o.value()
    H = Hessian(o)
    assert torch.equal(H @ torch.ones(o.size), H @ torch.ones(o.size))


class Restless(Dataset):
    """A data set with a random state of its own, which nobody can seed."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self):
        return 19

    def __getitem__(self, i):
        X, y = samples()
        return X[i] + torch.randn(4, generator=self.generator), y[i]


def test_data_that_differs_between_passes_is_refused_with_the_cause():
    o = objective(data=DataLoader(Restless(), batch_size=5), memory=64)
    o.value()
    with pytest.raises(DataChanged, match="batch 0 is not the one"):
        o.value()
    held = objective(data=DataLoader(Restless(), batch_size=5))
    assert held.value() == held.value()


class Shrinking(IterableDataset):
    left = 4

    def __iter__(self):
        X, y = samples()
        self.left -= 1
        return iter([(X[i], y[i]) for i in range(self.left)])


def test_data_that_changes_length_is_refused():
    o = objective(data=DataLoader(Shrinking(), batch_size=1), memory=64)
    o.value()
    with pytest.raises(DataChanged, match="length"):
        o.value()


def test_one_shot_iterators_are_held_or_refused():
    X, y = samples()
    o = objective(data=((X[i : i + 5], y[i : i + 5]) for i in range(0, 19, 5)))
    v = torch.ones(o.size)
    assert torch.allclose(Hessian(o) @ v, reference(v), atol=1e-6)
    assert o.value() == o.value()
    with pytest.raises(MemoryError, match="read once"):
        objective(data=((X[i : i + 5], y[i : i + 5]) for i in range(0, 19, 5)), memory=64).value()


def test_edited_data_is_refused():
    X, y = samples()
    o = objective(data=[(X, y)])
    H = Hessian(o)
    H @ torch.ones(o.size)
    X[0] += 1
    with pytest.raises(DataChanged, match="edited"):
        H @ torch.ones(o.size)
    array = np.ones((4, 4), dtype=np.float32)
    o = objective(data=(torch.from_numpy(array), torch.zeros(4, dtype=torch.long)))
    o.value()
    array *= 2
    with pytest.raises(DataChanged, match="edited"):
        o.value()


class Classifier(nn.Module):
    """The calling convention of Hugging Face models."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, input_values, labels=None):
        logits = self.net(input_values)
        return {"logits": logits, "loss": F.cross_entropy(logits, labels)}


def test_dict_batches():
    X, y = samples()
    batch = {"input_values": X, "labels": y}
    v = torch.ones(45 + 6)
    for data in (
        batch,
        [batch],
        DataLoader([{"input_values": a, "labels": b} for a, b in zip(X, y, strict=True)], batch_size=7),
    ):
        o = Objective(Classifier(), lambda out, labels: out["loss"], data)
        assert torch.allclose(Hessian(o) @ v, reference(v), atol=1e-6)
        with pytest.raises(TypeError, match="one tensor"):
            GaussNewton(o) @ v
        o = Objective(Classifier(), nn.CrossEntropyLoss(), data, forward=lambda m, x: m(**x)["logits"])
        assert torch.allclose(GaussNewton(o) @ v, GaussNewton(objective()) @ v, atol=1e-6)


def test_tuple_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, a, b):
            return self.net(torch.cat([a, b], 1))

    X, y = samples()
    o = Objective(Two(), nn.CrossEntropyLoss(), ((X[:, :2], X[:, 2:]), y))
    v = torch.ones(o.size)
    assert torch.allclose(Hessian(o) @ v, reference(v), atol=1e-6)


# -- memory ---------------------------------------------------------------------------------------------------------


def test_graphs_are_kept_within_the_budget_and_dropped():
    X, y = samples()
    o = objective(data=[(X[:10], y[:10]), (X[10:], y[10:])])
    H = Hessian(o)
    H @ torch.ones(o.size)
    assert len(H._kept) == 2
    H.release()
    assert not H._kept
    one = Hessian(
        objective(data=[(X[:10], y[:10]), (X[10:], y[10:])], memory=int(H._bytes_per_input * X[:10].nbytes) + 1)
    )
    assert torch.allclose(one @ torch.ones(o.size), H @ torch.ones(o.size), atol=1e-6)
    assert len(one._kept) == 1


# -- bad input gets one clear line ------------------------------------------------------------------------------------


def refuses(match, error=(ValueError, TypeError, RuntimeError, MemoryError)):
    return pytest.raises(error, match=match)


def test_bad_arguments():
    X, y = samples()
    with refuses("torch.nn.Module"):
        Objective(lambda x: x, F.cross_entropy, (X, y))
    with refuses("callable"):
        Objective(network(), "loss", (X, y))
    with refuses("Dataset of single samples"):
        objective(data=TensorDataset(X, y))
    with refuses("iterable of such batches"):
        objective(data=3)
    with refuses("iterable of such batches"):
        objective(data=X)
    with refuses("no batches"):
        objective(data=[]).value()
    with refuses("a tuple of 3 items"):
        objective(data=[(X, X, y)]).value()
    with refuses('reduction="none"'):
        objective(loss=nn.CrossEntropyLoss(reduction="none"))
    with refuses("must be a scalar"):
        objective(loss=lambda o, t: o.sum(1)).value()
    with refuses("must be a scalar tensor"):
        objective(loss=lambda o, t: 3.0).value()
    with refuses("no graph back"):
        objective(loss=lambda o, t: o.detach().sum()).gradient()
    with refuses("no graph back"):
        Hessian(objective(loss=lambda o, t: torch.zeros(()))) @ torch.ones(51)
    with refuses("requires grad"):
        objective(network().requires_grad_(False))
    with refuses("count="):
        objective(data=(X, torch.where(y == 0, -100, y)), loss=lambda o, t: F.cross_entropy(o, t)).value()
    with refuses("no loss terms"):
        objective(data=(X, torch.full_like(y, -100))).value()
    with torch.inference_mode():
        unborn = network()
    with refuses("inference_mode"):
        objective(unborn)
    with refuses(r"shape \(51,\)"):
        Hessian(objective()) @ torch.ones(50)


def test_only_unused_parameters_have_zero_curvature():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    o = objective(Unused(), parameters="unused.*")
    assert (
        float(Hessian(o).to_dense().abs().sum() + GaussNewton(o).to_dense().abs().sum() + o.gradient().abs().sum())
        == 0.0
    )


def test_an_operation_without_second_derivative_is_named():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g

    model = network()
    o = Objective(model, nn.CrossEntropyLoss(), samples(), forward=lambda m, x: m[4](Once.apply(m[:4](x))))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        Hessian(o) @ torch.ones(o.size)
    assert torch.allclose(FiniteDifferenceHessian(o) @ torch.ones(o.size), reference(torch.ones(o.size)), atol=1e-2)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = network(), reentrant

    def forward(self, x):
        return self.net[4](checkpoint(self.net[:4], x, use_reentrant=self.reentrant))


def test_activation_checkpointing_is_right_or_refused():
    v = torch.ones(51)
    o = objective(Checkpointed(False))
    for A, expected in ((Hessian(o), Hessian(objective())), (GaussNewton(o), GaussNewton(objective()))):
        assert torch.allclose(A @ v, expected @ v, atol=1e-6)
        assert torch.allclose(A @ v, expected @ v, atol=1e-6)
    with refuses("use_reentrant=False"):
        Hessian(objective(Checkpointed(True))) @ v


def test_compiled_models_and_parts():
    v = torch.ones(51)
    assert torch.allclose(Hessian(objective(torch.compile(network()))) @ v, reference(v), atol=1e-6)
    model = network()
    part = nn.Sequential(torch.compile(model[:4]), model[4])
    assert torch.allclose(Hessian(objective(part)) @ v, reference(v), atol=1e-6)


def test_matrix_operator():
    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]])
    op = MatrixOperator(A)
    assert torch.equal(op.to_dense(), A)
    with refuses("square"):
        MatrixOperator(torch.zeros(2, 3))
    with refuses("not symmetric"):
        MatrixOperator(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    with refuses("not finite"):
        MatrixOperator(torch.full((2, 2), float("nan")))
    with pytest.raises(IndexError):
        op.block([5])
    with refuses("up to n = 1"):
        MatrixOperator(torch.eye(3), memory=8).to_dense()
    state = torch.get_rng_state()
    assert not torch.equal(op.random(5, "normal"), op.random(5, "normal"))
    assert torch.equal(torch.get_rng_state(), state)
    once, together = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    one_by_one = torch.cat([op.random(1, "normal", once) for _ in range(3)], dim=1)
    assert torch.equal(one_by_one, op.random(3, "normal", together))
