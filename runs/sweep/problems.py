"""The problems that `runs.sweep` knows by name: networks on handwritten digits and on text, and a user's own.

Each is an `Objective` on the data to train on, with another on data to test on. Weights are drawn from torch's global
generator, which the sweep seeds: every solver and step size starts from the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from probes.checkpoints.problem import build_objective
from probes.digits import CLASSES, digits
from probes.errors import UserError, did_you_mean
from runs.shared.networks import mlp, pooled_cnn
from runs.shared.training import batches

WINDOW = 32  # bytes
TRAINED, TESTED = 256, 64  # windows of text


@dataclass(frozen=True)
class TrainingTask:
    """What is minimised, and the test data if there are any."""

    objective: Objective
    test: Objective | None = None

    def draws(self, size: int, steps: int, seed: int) -> Iterator[tuple[Any, Any]]:
        """(inputs, targets) of each step, in a new order each epoch.

        A single pair of tensors is cut into mini-batches of `size`; other data keep their own batches.
        """
        own = [(batch.inputs, batch.targets) for batch in self.objective.sweep()]
        x, y = own[0]
        if len(own) == 1 and isinstance(x, Tensor) and isinstance(y, Tensor) and x.ndim and y.ndim and len(x) > size:
            yield from batches(x, y, size, steps, seed)
            return
        generator = torch.Generator().manual_seed(seed)
        order: list[int] = []
        for _ in range(steps):
            order = order or torch.randperm(len(own), generator=generator).tolist()
            yield own[order.pop()]

    def loss(self, batch: tuple[Any, Any]) -> Tensor:
        """The loss of a mini-batch with its graph, the model in the mode that it is in."""
        # not `objective.evaluate`, which gives buffers back and fixes dropout: right for measuring, not for training
        return self.objective.criterion(self.objective.forward(batch[0]), batch[1])


def build(name: str) -> TrainingTask:
    """The problem of that name, or that a `FILE.py:FUNCTION` or `module:FUNCTION` returns as an `Objective`.

    Raises `UserError` for a name that is neither, and for what `probes.checkpoints.problem.build_objective` does.
    """
    if ":" in name:
        return TrainingTask(build_objective(name))
    if name not in PROBLEMS:
        near = did_you_mean(name, PROBLEMS)
        raise UserError(
            f"there is no problem {name!r}{near or ':'} known are {', '.join(PROBLEMS)}, your own is FILE.py:FUNCTION",
            status=2,
        )
    model, data = PROBLEMS[name]
    train, test = data()
    objective = Objective(model(), nn.CrossEntropyLoss(), train)
    return TrainingTask(objective, objective.on(test))


def evaluate(objective: Objective) -> tuple[float, float]:
    """The loss over all data, as `objective.value()`, and the share of right answers, from one pass.

    The share is nan where outputs are no logits (N, C, ...) with their classes (N, ...) as targets.
    """
    total, terms, right, count = 0.0, 0.0, 0, 0
    with objective.measuring(), torch.no_grad():
        for batch in objective.sweep():
            e = objective.evaluate(batch)
            outputs, targets = e.outputs, batch.targets
            if e.weight:
                total, terms = total + e.weight * float(e.loss()), terms + e.weight
            if _classes(outputs, targets):
                right, count = right + int((outputs.argmax(dim=1) == targets).sum()), count + targets.numel()
    return float(objective.normalise(total, terms)), right / count if count else math.nan


def _classes(outputs: Any, targets: Any) -> bool:
    tensors = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    if not tensors or targets.is_floating_point() or outputs.ndim != targets.ndim + 1:
        return False
    return bool(outputs[:, 0].shape == targets.shape)


# -- networks and data -----------------------------------------------------------------------------------------------


class AttentionBlock(nn.Module):
    """A pre-norm transformer block with four heads."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, width)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.first(x)).view(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.mix(heads.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.second(x))


class ViT(nn.Module):
    """A vision transformer on 8 x 8 images: 16 patches of 2 x 2, two blocks of width 16."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, causal=False) for _ in range(2)), nn.LayerNorm(width))
        self.out = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 8, 8)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.out(self.blocks(tokens).mean(dim=1))


class ByteTransformer(nn.Module):
    """Two causal blocks of width 32 on bytes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.place = nn.Parameter(0.02 * torch.randn(WINDOW, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, causal=True) for _ in range(2)), nn.LayerNorm(width))
        self.out = nn.Linear(width, 256)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 256, T) of the byte after each of (N, T)."""
        return self.out(self.blocks(self.embed(x) + self.place[: x.shape[1]])).transpose(1, 2)


Data = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def images() -> Data:
    """The digits to train on and to test on."""
    return digits().train, digits().test


def text() -> Data:
    """Windows of English text and the byte after each: what scikit-learn says about its data sets.

    That text comes with the library that the digits come with, and does not change with this repository.
    """
    from sklearn import datasets

    names = "breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine"
    raw = "\n".join(getattr(datasets, f"load_{name}")().DESCR for name in names).encode()
    codes = torch.tensor(list(raw[: (len(raw) - 1) // WINDOW * WINDOW + 1]))
    x, y = codes[:-1].reshape(-1, WINDOW), codes[1:].reshape(-1, WINDOW)
    test = slice(TRAINED, TRAINED + TESTED)
    return (x[:TRAINED], y[:TRAINED]), (x[test], y[test])


PROBLEMS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Data]]] = {
    "digits-mlp": (lambda: mlp(100), images),  # 17,610 parameters
    "digits-cnn": (lambda: pooled_cnn(16, 32), images),
    "digits-vit": (ViT, images),
    "text-transformer": (ByteTransformer, text),
}
