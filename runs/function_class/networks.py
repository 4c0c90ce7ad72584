"""Networks, data, optimizers and step sizes of `runs.function_class`; no network has dropout or batch norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from probes.digits import CLASSES, digits
from runs.shared import transformers
from runs.shared.data import english, fashion_mnist
from runs.shared.networks import mlp, pooled_cnn
from runs.shared.training import Data
from runs.shared.transformers import WINDOW, ByteTransformer

IMAGES, WINDOWS, VOCABULARY = 6000, 1024, 256


class Residual(nn.Module):
    """x + relu(W x + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.linear(x))


def residual(blocks: int) -> nn.Module:
    """A residual network of width 32 on the digits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), *(Residual(32) for _ in range(blocks)), nn.Linear(32, CLASSES)
    )


class LSTM(nn.Module):
    """Three layers on bytes; logits (batch, bytes, positions)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, 3, batch_first=True)
        self.out = nn.Linear(width, VOCABULARY)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.embed(x))[0]).transpose(1, 2)


NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "mlp": lambda width, inputs: mlp(width, inputs=inputs),
    "cnn": lambda channels, _: pooled_cnn(8, channels),
    "residual": lambda blocks, _: residual(blocks),
    "lstm": lambda width, _: LSTM(width),
    "transformer": lambda width, _: ByteTransformer(width),
}
"""By name, called with the size that is varied and the number of inputs."""


def load(name: str) -> Data:
    """Inputs and targets of that name. Raises `UserError` where they are not installed."""
    return DATA[name]()


def _fashion() -> Data:
    x, y = fashion_mnist().train
    return x[:IMAGES], y[:IMAGES]


def _english() -> Data:
    """Windows spread over the whole text."""
    x, y = transformers.windows(english().encode(), WINDOW)
    rows = torch.linspace(0, len(x) - 1, WINDOWS).long()
    return x[rows], y[rows]


DATA: dict[str, Callable[[], Data]] = {
    "digits": lambda: digits().train,
    "descriptions": lambda: transformers.text()[0],
    "fashion": _fashion,
    "english": _english,
}


def make_optimizer(name: str, parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The optimizer of that name."""
    known: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.95), "weight_decay": 0.1}),
        "normalized": (Normalized, {}),
    }
    kind, settings = known[name]
    return cast(torch.optim.Optimizer, kind(parameters, lr=lr, **settings))


def factor(schedule: str, step: int, steps: int) -> float:
    """What the step size is multiplied by: in (0, 1]."""

    def cosine(high: float, low: float, part: float) -> float:
        return low + (high - low) * (1 + math.cos(math.pi * min(part, 1.0))) / 2

    if schedule == "cosine":
        return cosine(1.0, 0.0, step / steps)
    if schedule in ("one-cycle", "warm-cosine"):
        warm, low, end = (0.3, 0.04, 4e-6) if schedule == "one-cycle" else (0.1, 0.01, 0.1)
        part = step / steps
        return cosine(low, 1.0, part / warm) if part < warm else cosine(1.0, end, (part - warm) / (1 - warm))
    return float((step + 1) ** -0.75) if schedule == "power" else 1.0


class Normalized(torch.optim.Optimizer):
    """SGD along the direction of the averaged gradient: x -= lr m / |m| with momentum 1 - t^(-1/2)."""

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.time = 0

    @torch.no_grad()
    @override
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.time += 1
        keep = 1 - self.time**-0.5
        for group in self.param_groups:
            moments = []
            for p in group["params"]:
                state = self.state[p]
                state["m"] = keep * state.get("m", torch.zeros_like(p)) + (1 - keep) * p.grad
                moments.append(state["m"])
            norm = sum(float(m.double().square().sum()) for m in moments) ** 0.5
            for p, m in zip(group["params"], moments, strict=True):
                p.sub_(m, alpha=group["lr"] / (norm + 1e-6))
