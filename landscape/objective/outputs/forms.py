"""A loss as a function of one tensor: what Gauss-Newton and Fisher matrices, and the weights of batches, stand on.

The outputs of a model may be a nest, and the loss may have been computed inside the model from its logits, as models
of `transformers` do. Such a loss is recognised by its slope: its derivative in the logits is compared with that of the
losses known here, on a few samples, whatever the model's class is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from landscape.objective.batch import Batch
from landscape.objective.losses import KnownLoss
from landscape.objective.outputs.nests import main_output, real_tensors, with_tensors

_IGNORED = -100


@dataclass(frozen=True)
class Form:
    """How the loss of a batch is a function of one tensor z.

    Attributes:
        read: outputs -> z, with its graph.
        known: the loss of z where it is one of torch's own, else None: it is the user's, of outputs rebuilt from z.
        labels: (outputs, batch) -> the targets that go with z.
        rebuild: (outputs, z) -> outputs with z in their place, where the loss is the user's own.
        whole: whether `known` is all of the loss (else the rest does not depend on z, such as a balance of experts).
        counted: in words, how many terms the loss has.
        used: which of the outputs' floating tensors make z, where the loss is the user's own.
    """

    read: Callable[[Any], Tensor]
    known: KnownLoss | None = None
    labels: Callable[[Any, Batch], Any] = lambda outputs, batch: batch.targets
    rebuild: Callable[[Any, Tensor], Any] | None = None
    whole: bool = True
    counted: str = ""
    used: tuple[int, ...] = ()

    def count(self, outputs: Any, batch: Batch) -> float:
        """The number of terms of a known loss in this batch."""
        assert self.known is not None
        return self.known.count(self.read(outputs), self.labels(outputs, batch))


def joint(used: list[int]) -> Form:
    """z is all the tensors that the loss uses, side by side: one row a sample where each has one."""

    def together(out: Any) -> tuple[list[Tensor], bool]:
        chosen = [t for i, t in enumerate(real_tensors(out)) if i in used]
        rows = all(t.ndim and len(t) == len(chosen[0]) for t in chosen)
        return chosen, rows

    def read(out: Any) -> Tensor:
        chosen, rows = together(out)
        if len(chosen) == 1:
            return chosen[0]
        return torch.cat([t.reshape(len(t), -1) if rows else t.reshape(-1) for t in chosen], -1)

    def rebuild(out: Any, z: Tensor) -> Any:
        every = [t.detach() for t in real_tensors(out)]
        chosen, rows = together(out)
        if len(chosen) == 1:
            every[used[0]] = z
        else:
            widths = [t[0].numel() if rows else t.numel() for t in chosen]
            for i, t, piece in zip(used, chosen, z.split(widths, -1), strict=True):
                every[i] = piece.reshape(-1, *t.shape[1:]) if rows else piece.reshape(t.shape)
        return with_tensors(out, iter(every))

    return Form(read, rebuild=rebuild, used=tuple(used))


@dataclass(frozen=True)
class _Arrangement:
    """One way in which logits and labels are laid out for a torch loss, and how its terms are counted."""

    kind: str
    function: Callable[..., Tensor]
    denominator: str
    fits: Callable[[Tensor, Tensor], bool]
    z: Callable[[Tensor], Tensor]
    y: Callable[[Tensor, Tensor], Tensor]  # of labels and logits
    counted: str


def _indices(y: Tensor) -> bool:
    return not y.is_floating_point() and not y.is_complex() and y.dtype != torch.bool


def _shifts(z: Tensor, y: Tensor) -> bool:
    return _indices(y) and z.ndim == 3 and z.shape[:2] == y.shape and z.shape[1] > 1


def _last(z: Tensor, y: Tensor) -> bool:
    return _indices(y) and z.ndim > 1 and z.shape[:-1].numel() == y.numel()


def _second(z: Tensor, y: Tensor) -> bool:
    return _indices(y) and z.ndim > 2 and (z.shape[0], *z.shape[2:]) == y.shape


def _elements(z: Tensor, y: Tensor) -> bool:
    return z.numel() == y.numel()


def _classes(fits: Any, z: Any, y: Any, counted: str) -> _Arrangement:
    return _Arrangement("cross_entropy", F.cross_entropy, "classes", fits, z, y, counted)


def _like(y: Tensor, z: Tensor) -> Tensor:
    return y.reshape(z.shape).to(z.dtype)


_ARRANGEMENTS = (
    _classes(_shifts, lambda z: z[:, :-1].movedim(-1, 1), lambda y, z: y[:, 1:], "(targets[:, 1:] != -100).sum()"),
    _classes(
        _last,
        lambda z: z.movedim(-1, 1) if z.ndim > 2 else z,
        lambda y, z: y.reshape(z.shape[:-1]),
        "(targets != -100).sum()",
    ),
    _classes(_second, lambda z: z, lambda y, z: y, "(targets != -100).sum()"),
    _Arrangement("mse", F.mse_loss, "elements", _elements, lambda z: z, _like, "targets.numel()"),
    _Arrangement(
        "bce_with_logits",
        F.binary_cross_entropy_with_logits,
        "elements",
        _elements,
        lambda z: z,
        _like,
        "targets.numel()",
    ),
)


class Untold(Exception):
    """A batch on which losses look alike."""


def recognise_slope(logits: Tensor, slope: Tensor, value: Tensor, labels: Mapping[str, Tensor]) -> Form | None:
    """The known loss of these logits that has this derivative in them; else None.

    `labels` are the tensors that may be the targets, by name ("" for the batch's targets). Raises `Untold` where a
    derivative of zero, or one that is no number, says nothing.
    """
    size = float(slope.double().norm())
    if not math.isfinite(size) or size == 0.0:
        raise Untold
    for name, y in labels.items():
        for way in _ARRANGEMENTS:
            if not way.fits(logits, y):
                continue
            leaf = logits.detach().clone().requires_grad_(True)
            try:
                of_leaf = way.function(way.z(leaf), way.y(y, leaf))
                (expected,) = torch.autograd.grad(of_leaf, leaf)
            except (RuntimeError, ValueError, IndexError):  # labels out of range: they are none
                continue
            if close(slope, expected):
                return _form(way, name, whole=close(value.reshape(1), of_leaf.reshape(1)))
    return None


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal to rounding; models of a wide dtype may compute their losses in float32."""
    found, expected = found.detach(), expected.detach()
    difference = float((found.double() - expected.double()).norm())
    return difference <= max(torch.finfo(found.dtype).eps ** 0.5, 1e-4) * float(expected.double().norm())


def _form(way: _Arrangement, name: str, whole: bool) -> Form:
    def logits(outputs: Any) -> Tensor:
        found = main_output(outputs)
        assert found is not None
        return found

    def labels(outputs: Any, batch: Batch) -> Tensor:
        return way.y(batch.inputs[name] if name else batch.targets, logits(outputs))

    options: dict[str, Any] = {"ignore_index": _IGNORED} if way.denominator == "classes" else {}
    known = KnownLoss(way.kind, way.function, way.denominator, options)
    return Form(lambda outputs: way.z(logits(outputs)), known, labels, None, whole, way.counted)
