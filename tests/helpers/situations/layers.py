"""Layers and how they are wrapped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from landscape import Objective
from situations.situation import Case, Situation

GROUP = "Layers and wrappers"


def data(*shape: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return X, torch.randint(0, classes, shape[:1], generator=generator)


def classify(make: Callable[[], nn.Module], *shape: int, train: bool = True, **options: Any) -> Case:
    torch.manual_seed(0)
    model = make().double().train(train)
    X, y = data(*(shape or (6, 4)))
    return Case(Objective(model, nn.CrossEntropyLoss(), (X, y), **options), lambda: F.cross_entropy(model(X), y))


def mlp(*inner: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), *inner, nn.Linear(5, 3))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.core, self.head = kind(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Any) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(torch.tanh(self.first(x))))


def cnn(*inner: nn.Module, width: int = 48) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), *inner, nn.Flatten(), nn.Linear(width, 3))


def frozen() -> nn.Module:
    model = mlp(nn.Tanh())
    model[0].requires_grad_(False)
    return model


def pruned() -> nn.Module:
    model = mlp(nn.Tanh())
    prune.random_unstructured(model[0], "weight", amount=0.4)
    return model


def hooked() -> nn.Module:
    model, seen = mlp(nn.Tanh()), []
    model[0].register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    return model


def dropout() -> Case:
    case = classify(lambda: mlp(nn.Tanh(), nn.Dropout(0.5)))
    model, (X, y) = case.objective.model, data(6, 4)

    def f() -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0x5EED)  # what every batch's forward pass starts from
            return F.cross_entropy(model(X), y)

    return Case(case.objective, f)


class Noisy(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.draw = mlp(nn.Tanh()), torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + torch.randn(x.shape, generator=self.draw, dtype=x.dtype))


def noisy() -> Case:
    case = classify(Noisy)

    def f() -> Tensor:
        case.objective.model.draw.manual_seed(3)
        loss = case.f()
        case.objective.model.draw.manual_seed(3)
        return loss

    return Case(case.objective, f)


class Reentrant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(checkpoint(self.first, x, use_reentrant=True).tanh())


def reentrant() -> Case:
    """The oracle runs without checkpointing, which cannot be differentiated twice."""
    case = classify(Reentrant)
    model, (X, y) = case.objective.model, data(6, 4)
    return Case(case.objective, lambda: F.cross_entropy(model.rest(model.first(X).tanh()), y))


def sparse() -> Case:
    """The oracle looks up by a dense product."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Flatten(), nn.Linear(12, 3)).double()
    ids, y = torch.arange(15).reshape(5, 3) % 9, torch.arange(5) % 3
    rows = F.one_hot(ids, 9).double()
    return Case(
        Objective(model, nn.CrossEntropyLoss(), (ids, y)),
        lambda: F.cross_entropy(model[2]((rows @ model[0].weight).flatten(1)), y),
    )


class Metered(nn.Module):
    """Counts its passes, and keeps its last activations, as attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.passes, self.seen = mlp(nn.Tanh()), 0, []

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.seen.append(self.net(x))
        return self.seen[-1]


def precise(dtype: torch.dtype, autocast: bool = False) -> Case:
    case = classify(lambda: mlp(nn.Tanh()))
    model, (X, y) = case.objective.model.to(dtype), data(6, 4)
    X = X.to(dtype)

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model(x).float()

    return Case(
        Objective(model, nn.CrossEntropyLoss(), (X, y), forward=forward), lambda: F.cross_entropy(forward(model, X), y)
    )


def selected() -> Case:
    case = classify(lambda: mlp(nn.Tanh()), parameters="2.*")
    return Case(case.objective, case.f, list(case.objective.model[2].parameters()))


def lightning_module() -> Case:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    return classify(Module)


def compiled_part() -> nn.Module:
    return nn.Sequential(torch.compile(mlp(nn.Tanh()), backend="eager"), nn.Identity())


_case = partial(Situation, GROUP)
SITUATIONS = [
    _case("multilayer perceptron", partial(classify, lambda: mlp(nn.Tanh()))),
    *(
        _case(f"{kind.__name__}", partial(classify, partial(mlp, kind())))
        for kind in (nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish, nn.ReLU)
    ),
    _case("convolutions", partial(classify, lambda: cnn(nn.Tanh()), 4, 2, 6, 6)),
    _case("max pooling", partial(classify, lambda: cnn(nn.Tanh(), nn.MaxPool2d(2), width=12), 4, 2, 6, 6)),
    _case("BatchNorm, training", partial(classify, lambda: mlp(nn.BatchNorm1d(5), nn.Tanh()))),
    _case("BatchNorm, evaluation", partial(classify, lambda: mlp(nn.BatchNorm1d(5), nn.Tanh()), train=False)),
    _case("LayerNorm", partial(classify, lambda: mlp(nn.LayerNorm(5), nn.Tanh()))),
    _case("GroupNorm", partial(classify, lambda: cnn(nn.GroupNorm(3, 3), nn.Tanh()), 4, 2, 6, 6)),
    _case("RMSNorm", partial(classify, lambda: mlp(nn.RMSNorm(5), nn.Tanh()))),
    _case("dropout in training: one fixed mask a batch", dropout),
    _case("LSTM", partial(classify, partial(Recurrent, nn.LSTM), 4, 5, 4)),
    _case("GRU", partial(classify, partial(Recurrent, nn.GRU), 4, 5, 4)),
    _case("attention (TransformerEncoderLayer), training", partial(classify, Attention, 4, 5, 4)),
    _case("attention, evaluation (torch's fast path)", partial(classify, Attention, 4, 5, 4, train=False)),
    _case("tied weights", partial(classify, Tied)),
    _case("a frozen layer", partial(classify, frozen)),
    _case("some parameters by name", selected),
    _case(
        "spectral_norm, evaluation",
        partial(classify, lambda: mlp(parametrizations.spectral_norm(nn.Linear(5, 5)), nn.Tanh()), train=False),
    ),
    _case(
        "weight_norm (parametrization)",
        partial(classify, lambda: mlp(parametrizations.weight_norm(nn.Linear(5, 5)), nn.Tanh())),
        "differences",
        1e-7,
    ),
    _case(
        "orthogonal (parametrization)",
        partial(classify, lambda: mlp(parametrizations.orthogonal(nn.Linear(5, 5)), nn.Tanh())),
    ),
    _case("pruned weights", partial(classify, pruned)),
    _case("hooks that record activations", partial(classify, hooked)),
    _case("torch.compile of the model", partial(classify, lambda: torch.compile(mlp(nn.Tanh()), backend="eager"))),
    _case("torch.compile of a part", partial(classify, compiled_part)),
    _case("DataParallel", partial(classify, lambda: nn.DataParallel(mlp(nn.Tanh())))),
    _case("measured in float64 by dtype=", partial(classify, lambda: mlp(nn.Tanh()), dtype=torch.float64)),
    _case("a generator of the model's own, kept in an attribute", noisy),
    _case("counters and lists in attributes", partial(classify, Metered)),
    _case("reentrant checkpointing of the first layer", reentrant),
    _case("embeddings with sparse gradients", sparse),
    _case("float32", partial(precise, torch.float32), tolerance=1e-5),
    _case("bfloat16 parameters", partial(precise, torch.bfloat16), tolerance=3e-2),
    _case("autocast inside forward", partial(precise, torch.float32, autocast=True), tolerance=3e-2),
    Situation(GROUP, "a Lightning module", lightning_module, needs=("lightning",)),
]
