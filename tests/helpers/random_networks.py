"""A grammar of small networks, losses and ragged batches, and f written down a second time, without the package.

A drawn `Problem` holds the model in float64, the batches, the loss as a user would give it, and `terms`: the sum of a
batch's losses with the number that the mean over all data divides by, both from first principles.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

DOUBLE = torch.float64
WIDTHS = st.integers(2, 4)
SMOOTH = (nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.Mish, nn.ELU, nn.CELU)
KINKED = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.PReLU, nn.Hardtanh)


@dataclass
class Problem:
    model: nn.Module
    loss: Any
    batches: list[tuple[Any, Any]]
    terms: Callable[[Tensor, Any], tuple[Tensor, Tensor]]
    options: dict[str, Any] = field(default_factory=dict)
    wrong: str | None = None  # the name of a module whose derivative is none

    def parameters(self) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}

    def value(self, theta: Tensor) -> Tensor:
        """f as one differentiable function of the flat vector."""
        pieces, start = {}, 0
        for name, p in self.parameters().items():
            pieces[name] = theta[start : start + p.numel()].reshape(p.shape)
            start += p.numel()
        kept = {name: b.clone() for name, b in self.model.named_buffers()}
        sums = []
        for inputs, targets in self.batches:
            with _plainly():
                outputs = functional_call(self.model, {**pieces, **{k: b.clone() for k, b in kept.items()}}, (inputs,))
            sums.append(self.terms(outputs, targets))
        total, count = (torch.stack(column).sum() for column in zip(*sums, strict=True))
        return total if self.options.get("reduction") == "sum" or _sums(self.loss) else total / count

    def theta(self) -> Tensor:
        return torch.cat([p.reshape(-1) for p in self.parameters().values()])

    def gradient(self, theta: Tensor) -> Tensor:
        theta = theta.detach().requires_grad_(True)
        return torch.autograd.grad(self.value(theta), theta, allow_unused=True, materialize_grads=True)[0]

    def hessian(self) -> Tensor:
        """Dense, by double backward of f as written here."""
        theta = self.theta().requires_grad_(True)
        gradient = torch.autograd.grad(
            self.value(theta), theta, create_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        if not gradient.requires_grad:
            return torch.zeros(len(theta), len(theta), dtype=DOUBLE)
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        try:
            every = torch.eye(len(theta), dtype=DOUBLE)
            return torch.autograd.grad(gradient, theta, every, is_grads_batched=True, **options)[0]
        except RuntimeError:  # some operations take one gradient at a time
            return torch.stack([torch.autograd.grad(g, theta, **options)[0] for g in gradient])

    def direction(self) -> Tensor:
        """A random unit vector; zero where an embedding holds its padding row fixed, whose gradient torch masks."""
        pieces = {k: torch.randn(p.shape, dtype=DOUBLE, generator=_generator()) for k, p in self.parameters().items()}
        for name, m in self.model.named_modules():
            if isinstance(m, nn.Embedding) and m.padding_idx is not None and f"{name}.weight" in pieces:
                pieces[f"{name}.weight"][m.padding_idx] = 0.0
        v = torch.cat([p.reshape(-1) for p in pieces.values()])
        return v / v.norm()

    def difference(self, v: Tensor, h: float = 1e-5) -> Tensor:
        """H v by central differences of the gradient."""
        theta = self.theta()
        return (self.gradient(theta + h * v) - self.gradient(theta - h * v)) / (2 * h)


@contextmanager
def _plainly() -> Iterator[None]:
    """Operations that can be differentiated twice in the place of fused ones, and nothing computed a second time."""
    fused, Checkpointed.recomputes = torch._weight_norm, False
    torch._weight_norm = lambda v, g, dim: v * (g / torch.norm_except_dim(v, 2, dim))
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._weight_norm, Checkpointed.recomputes = fused, True


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _sums(loss: Any) -> bool:
    return getattr(loss, "reduction", "mean") == "sum"


# -- layers ----------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Checkpointed(Residual):
    recomputes = True

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False) if self.recomputes else self.inner(x)


class Twice(Residual):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x))


class Scale(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w * 1.5 + 0.1 * w**3


class Unused(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.spare = inner, nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Last(nn.Module):
    """A recurrent layer's outputs."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Attention(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(d, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]


class Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


# -- what is no derivative ---------------------------------------------------------------------------------------------


class _Opaque(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.detach())
        return torch.from_numpy(x.detach().numpy() ** 3 + x.detach().numpy())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.from_numpy(3 * x.detach().numpy() ** 2 + 1)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 0.3 * g


class OpaqueBackward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Opaque.apply(x)


class ScaledGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(_Scaled.apply(x))


class StraightThrough(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (x.sin() - x).detach()


WRONG = (OpaqueBackward, ScaledGradient, StraightThrough)


# -- drawing -----------------------------------------------------------------------------------------------------------


def vector_layer(draw: Any, d: int) -> tuple[nn.Module, int]:
    """A layer on `(samples, d)`."""
    width = draw(WIDTHS)
    kind = draw(st.sampled_from(["linear", "smooth", "kinked", "norm", "wrapped", "reparametrised", "batch norm"]))
    if kind == "smooth":
        return draw(st.sampled_from(SMOOTH))(), d
    if kind == "kinked":
        return draw(st.sampled_from(KINKED))(), d
    if kind == "norm":
        return draw(st.sampled_from([nn.LayerNorm, nn.RMSNorm, lambda d: nn.GroupNorm(1, d)]))(d), d
    if kind == "batch norm":
        norm = nn.BatchNorm1d(d)
        norm.running_mean.normal_()
        return norm.train(draw(st.booleans())), d
    if kind == "wrapped":
        inner = nn.Sequential(nn.Linear(d, d), draw(st.sampled_from(SMOOTH))())
        return draw(st.sampled_from([Residual, Checkpointed, Twice, Unused]))(inner), d
    linear = nn.Linear(d, width, bias=draw(st.booleans()))
    if kind == "reparametrised":
        how = draw(st.sampled_from(["weight norm", "spectral norm", "pruned", "scaled"]))
        if how == "weight norm":
            parametrizations.weight_norm(linear)
        elif how == "spectral norm":
            parametrizations.spectral_norm(linear).eval()
        elif how == "pruned":
            prune.random_unstructured(linear, "weight", 0.4)
        else:
            parametrize.register_parametrization(linear, "weight", Scale())
    return linear, width


def sequence_layer(draw: Any, d: int) -> tuple[nn.Module, int]:
    """A layer on `(samples, time, d)`."""
    kind = draw(st.sampled_from(["linear", "recurrent", "attention", "norm", "smooth", "encoder"]))
    if kind == "recurrent":
        width = draw(WIDTHS)
        made = draw(st.sampled_from([nn.GRU, nn.LSTM, nn.RNN]))(d, width, batch_first=True)
        return Last(made), width
    if kind == "attention":
        return Attention(d), d
    if kind == "encoder":
        return nn.TransformerEncoderLayer(d, 1, 3, dropout=0.0, batch_first=True, norm_first=draw(st.booleans())), d
    if kind == "norm":
        return nn.LayerNorm(d), d
    if kind == "smooth":
        return draw(st.sampled_from(SMOOTH))(), d
    width = draw(WIDTHS)
    return nn.Linear(d, width), width


def body(draw: Any, inputs: str, depth: int) -> tuple[list[nn.Module], bool]:
    """Layers on the inputs, and whether what they return has a time axis."""
    d = draw(WIDTHS)
    layers: list[nn.Module] = []
    if inputs == "image":
        layers = [nn.Conv2d(1, d, 2), draw(st.sampled_from(SMOOTH + KINKED))()]
        layers += [draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))(2), nn.Flatten()]
        inputs, d = "vector", d * 1
    elif inputs == "tokens":
        layers, inputs = [nn.Embedding(5, d, padding_idx=draw(st.sampled_from([None, 0])))], "sequence"
    elif inputs == "sequence":
        layers = [nn.Linear(3, d)]
    else:
        layers = [nn.Linear(3, d)]
    for _ in range(depth):
        layer, d = (sequence_layer if inputs == "sequence" else vector_layer)(draw, d)
        layers.append(layer)
    return layers, inputs == "sequence"


# kind -> (loss as a user gives it, terms(outputs, targets) -> (sum of losses, denominator), kind of targets)
Loss = tuple[Any, Callable[[Tensor, Any], tuple[Tensor, Tensor]], str, dict[str, Any]]


def losses(draw: Any, classes: int) -> Loss:
    weight = torch.rand(classes, dtype=DOUBLE) + 0.2
    smoothing = draw(st.sampled_from([0.0, 0.2]))
    numel = lambda o: torch.tensor(float(o.numel()), dtype=DOUBLE)  # noqa: E731
    kind = draw(
        st.sampled_from(["classes", "weighted", "summed", "mse", "smooth", "bce", "poisson", "batchmean", "own"])
    )
    if kind == "classes":
        return (
            nn.CrossEntropyLoss(label_smoothing=smoothing),
            lambda o, t: (
                F.cross_entropy(o, t, reduction="sum", label_smoothing=smoothing),
                (t != -100).sum().double(),
            ),
            "ignored",
            {},
        )
    if kind == "weighted":
        return (
            nn.CrossEntropyLoss(weight=weight),
            lambda o, t: (-(weight[t] * o.log_softmax(1).gather(1, t.unsqueeze(1)).squeeze(1)).sum(), weight[t].sum()),
            "labels",
            {},
        )
    if kind == "summed":
        return (
            nn.CrossEntropyLoss(reduction="sum"),
            lambda o, t: (F.cross_entropy(o, t, reduction="sum"), numel(t)),
            "labels",
            {},
        )
    if kind == "mse":
        return nn.MSELoss(), lambda o, t: ((o - t).square().sum(), numel(o)), "real", {}
    if kind == "smooth":
        return (
            F.smooth_l1_loss,
            lambda o, t: (torch.where((o - t).abs() < 1, 0.5 * (o - t) ** 2, (o - t).abs() - 0.5).sum(), numel(o)),
            "real",
            {},
        )
    if kind == "bce":
        return (nn.BCEWithLogitsLoss(), lambda o, t: ((F.softplus(o) - t * o).sum(), numel(o)), "binary", {})
    if kind == "poisson":
        return nn.PoissonNLLLoss(), lambda o, t: ((o.exp() - t * o).sum(), numel(o)), "binary", {}
    if kind == "batchmean":
        return (
            nn.KLDivLoss(reduction="batchmean"),
            lambda o, t: ((torch.xlogy(t, t) - t * o).sum(), torch.tensor(float(len(o)), dtype=DOUBLE)),
            "positive",
            {},
        )
    return (
        lambda o, t: (o - t).pow(4).sum() / t.numel(),
        lambda o, t: ((o - t).pow(4).sum(), numel(t)),
        "real",
        {"count": lambda o, t: t.numel()},
    )


def targets(draw: Any, kind: str, shape: tuple[int, ...], classes: int) -> Tensor:
    """Targets for outputs `(samples, classes, ...)`."""
    places = (shape[0], *shape[2:])
    if kind in ("labels", "ignored"):
        t = torch.randint(0, classes, places)
        if kind == "ignored" and draw(st.booleans()):
            t[torch.rand(places) < 0.3] = -100
            t.view(-1)[0] = 0
        return t
    if kind == "binary":
        return torch.randint(0, 2, shape).double()
    return torch.rand(shape, dtype=DOUBLE) if kind == "positive" else torch.randn(shape, dtype=DOUBLE)


@st.composite
def problems(draw: Any, wrong: bool = False) -> Problem:
    """A network in float64 with data and a loss; with `wrong` one module in it has a false derivative."""
    seed = draw(st.integers(0, 10_000))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inputs = draw(st.sampled_from(["vector", "vector", "image", "tokens", "sequence"]))
        layers, timed = body(draw, inputs, draw(st.integers(0, 4)))
        culprit = None
        if wrong:
            culprit = draw(st.integers(1, len(layers)))
            layers.insert(culprit, draw(st.sampled_from(WRONG))())
        classes = draw(st.integers(2, 3))
        layers += [nn.LazyLinear(classes)] + [Swap()] * timed
        model = nn.Sequential(*layers).double()
        sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
        batches = [_inputs(draw, inputs, m) for m in sizes]
        with torch.no_grad():
            shape = model(batches[0]).shape  # also makes the lazy layer
        if draw(st.booleans()) and not wrong:
            layers[0].requires_grad_(False)
        loss, terms, kind, options = losses(draw, classes)
        pairs = [(x, targets(draw, kind, _outputs(model, x, shape), classes)) for x in batches]
    return Problem(model, loss, pairs, terms, options, None if culprit is None else str(culprit))


def _inputs(draw: Any, kind: str, m: int) -> Tensor:
    time = draw(st.integers(1, 3))
    if kind == "tokens":
        return torch.randint(0, 5, (m, time))
    return torch.randn({"vector": (m, 3), "image": (m, 1, 3, 3), "sequence": (m, time, 3)}[kind], dtype=DOUBLE)


def _outputs(model: nn.Module, x: Tensor, shape: torch.Size) -> tuple[int, ...]:
    return (len(x), *shape[1:2], *x.shape[1 : len(shape) - 1])
