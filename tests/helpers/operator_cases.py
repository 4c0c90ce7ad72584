"""The table of models, losses and data on which every operator is compared with dense autodiff in float64."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass
class Case:
    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    batches: list[tuple[Tensor, Tensor]]
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model.double()


CASES: dict[str, Callable[[], Case]] = {}


def case(function: Callable[[], Case]) -> Callable[[], Case]:
    def seeded() -> Case:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return function()

    CASES[function.__name__] = seeded
    return seeded


def ragged(X: Tensor, y: Tensor, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(X.split(sizes), y.split(sizes), strict=True))


def classification(inputs: Tensor, classes: int = 3, sizes: tuple[int, ...] = (8, 8, 3)) -> list[tuple[Tensor, Tensor]]:
    return ragged(inputs, torch.randint(0, classes, (len(inputs),)), sizes)


def perceptron(activation: nn.Module, outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 5), activation, nn.Linear(5, outputs))


def vectors(n: int = 19, d: int = 4) -> Tensor:
    return torch.randn(n, d).double()


@case
def relu() -> Case:
    return Case(perceptron(nn.ReLU()), nn.CrossEntropyLoss(), classification(vectors()))


@case
def tanh() -> Case:
    return Case(perceptron(nn.Tanh()), F.cross_entropy, classification(vectors()))


@case
def gelu_one_batch() -> Case:
    return Case(perceptron(nn.GELU()), nn.CrossEntropyLoss(), classification(vectors(), sizes=(19,)))


@case
def batchnorm_eval() -> Case:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
    model(torch.randn(32, 1, 4, 4))  # running statistics that are not the identity
    return Case(model.eval(), nn.CrossEntropyLoss(), classification(torch.randn(19, 1, 4, 4).double()))


@case
def groupnorm() -> Case:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    return Case(model, nn.CrossEntropyLoss(), classification(torch.randn(19, 2, 4, 4).double()))


class Attention(nn.Module):
    """LayerNorm and one attention layer, written out or by a kernel of torch's own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.norm = nn.LayerNorm(4)
        self.qkv = nn.Linear(4, 12)
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True) if kind == "module" else None
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        if self.heads is not None:
            mixed = self.heads(h, h, h, need_weights=False)[0] + self.qkv(h)[..., :4]
        else:
            q, k, v = self.qkv(h).chunk(3, -1)
            if self.kind == "written":
                mixed = (q @ k.transpose(1, 2) / 2.0).softmax(-1) @ v
            else:
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head((x + mixed).mean(1))


def attention(kind: str) -> Case:
    return Case(Attention(kind), nn.CrossEntropyLoss(), classification(torch.randn(11, 3, 4).double(), sizes=(8, 3)))


@case
def layernorm_attention() -> Case:
    return attention("written")


@case
def sdpa() -> Case:
    return attention("kernel")


@case
def multihead() -> Case:
    return attention("module")


@case
def embedding() -> Case:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3))
    return Case(model, nn.CrossEntropyLoss(), classification(torch.randint(0, 7, (19, 3))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


@case
def lstm() -> Case:
    return Case(Recurrent(), nn.CrossEntropyLoss(), classification(torch.randn(11, 4, 3).double(), sizes=(8, 3)))


class Tied(nn.Module):
    """A language model whose head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.mix = nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.embedding(tokens)))).transpose(1, 2)


@case
def tied_and_ignored() -> Case:
    tokens = torch.randint(0, 6, (9, 5))
    labels = torch.randint(0, 6, (9, 5))
    labels[torch.rand(9, 5) < 0.4] = -100
    labels[8] = -100  # the last batch has no terms at all
    return Case(Tied(), nn.CrossEntropyLoss(), ragged(tokens, labels, (5, 3, 1)))


class FrozenAndUnused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.first.bias.requires_grad_(False)
        self.second = nn.Linear(5, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


@case
def frozen_and_unused() -> Case:
    return Case(FrozenAndUnused(), nn.CrossEntropyLoss(), classification(vectors()))


@case
def frozen_by_name() -> Case:
    options = {"parameters": ["first.*", "unused.bias"]}
    return Case(FrozenAndUnused(), nn.CrossEntropyLoss(), classification(vectors()), options)


@case
def two_groups() -> Case:
    options = {"parameters": ["0.*", "4.weight"]}
    return Case(perceptron(nn.Tanh()), nn.CrossEntropyLoss(), classification(vectors()), options)


@case
def squared_error() -> Case:
    return Case(perceptron(nn.Tanh(), 2), nn.MSELoss(), ragged(vectors(), torch.randn(19, 2).double(), (8, 8, 3)))


@case
def squared_error_sum() -> Case:
    return Case(perceptron(nn.Tanh(), 2), nn.MSELoss(reduction="sum"), ragged(vectors(), vectors(19, 2), (8, 8, 3)))


@case
def smoothed_and_weighted() -> Case:
    weight = torch.tensor([0.2, 1.0, 3.0]).double()
    loss = nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1)
    return Case(perceptron(nn.Tanh()), loss, classification(vectors()))


@case
def weighted_partial() -> Case:
    loss = partial(F.cross_entropy, weight=torch.tensor([0.2, 1.0, 3.0]).double(), ignore_index=1)
    return Case(perceptron(nn.Tanh()), loss, classification(vectors()))


@case
def class_probabilities() -> Case:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]).double(), label_smoothing=0.2)
    return Case(perceptron(nn.Tanh()), loss, ragged(vectors(), vectors(19, 3).softmax(1), (8, 8, 3)))


@case
def binary() -> Case:
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0, 0.5]).double())
    return Case(perceptron(nn.Tanh(), 2), loss, ragged(vectors(), (vectors(19, 2) > 0).double(), (8, 8, 3)))


@case
def poisson() -> Case:
    return Case(perceptron(nn.Tanh(), 1), nn.PoissonNLLLoss(), ragged(vectors(), vectors(19, 1).exp().round(), (8, 11)))


@case
def plain_function() -> Case:
    def robust(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.log1p((outputs - targets).square().sum(1)).mean()

    return Case(perceptron(nn.Tanh(), 2), robust, ragged(vectors(), vectors(19, 2), (8, 8, 3)))


@case
def counted_function() -> Case:
    def masked(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, ignore_index=-100)

    batches = classification(vectors())
    for _, y in batches:
        y[::3] = -100
    options = {"count": lambda outputs, targets: (targets != -100).sum()}
    return Case(perceptron(nn.Tanh()), masked, batches, options)


@case
def penalised() -> Case:
    model = perceptron(nn.Tanh())

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets) + 0.1 * model[0].weight.square().sum() + model[4].bias.cos().sum()

    return Case(model, loss, classification(vectors()))


class Loss(nn.Module):
    """The loss of a batch as a module: with `functional_call` a penalty in it sees the parameters that are given."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.model, self.loss = case.model, case.loss

    def forward(self, X: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.model(X), y)


# -- the oracle --------------------------------------------------------------------------------------------------


def whole(case: Case) -> tuple[Tensor, Tensor]:
    """All batches as one: f is the loss on it, whatever the batches were."""
    return torch.cat([X for X, _ in case.batches]), torch.cat([y for _, y in case.batches])


def dense(case: Case, names: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient, Hessian, Gauss-Newton) of the loss on all the data by torch.func, `(n,)`, `(n, n)`, `(n, n)`."""
    X, y = whole(case)
    values = {name: p.detach() for name, p in case.model.named_parameters() if name in names}
    shapes = {name: values[name].shape for name in names}
    theta = torch.cat([values[name].reshape(-1) for name in names])

    def state(theta: Tensor) -> dict[str, Tensor]:
        pieces = theta.split([shapes[name].numel() for name in names])
        return {name: piece.reshape(shapes[name]) for name, piece in zip(names, pieces, strict=True)}

    def outputs(theta: Tensor) -> Tensor:
        return functional_call(case.model, state(theta), (X,))

    def f(theta: Tensor) -> Tensor:
        return functional_call(Loss(case), {f"model.{name}": p for name, p in state(theta).items()}, (X, y))

    with sdpa_kernel(SDPBackend.MATH):
        gradient = torch.func.grad(f)(theta)
        hessian = torch.func.jacrev(torch.func.grad(f))(theta)
        o = outputs(theta).detach()
        J = torch.func.jacrev(outputs)(theta).reshape(o.numel(), -1)
        B = torch.func.hessian(lambda o: case.loss(o, y))(o).reshape(o.numel(), o.numel())
    return gradient.detach(), hessian.detach(), (J.T @ B @ J).detach()
