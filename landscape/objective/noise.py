"""How exact the model's own arithmetic is: the relative error of outputs and their derivatives, measured.

The dtype of the parameters does not tell: a layer norm of nearly equal features turns a float32 rounding into hundreds,
a forward pass may cast to half precision by itself (autocast), a float64 model may compute a norm in float32, matrix
products may be rounded to tf32. So outputs y, J^T r and H u for random r and u of a few samples are held against those
of the same function in float64. Where there is no such copy, y against that of the same samples in another order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from landscape.memory import Memory, budget
from landscape.objective.batch import Batch, samples, split, tensors_in
from landscape.objective.evaluation import Evaluation
from landscape.objective.graph import nodes

_CLEAN = 16.0  # roundings of the vectors' own dtype that pass for exact
_COARSE = 1 / 32  # an error above this part of the coarsest eps seen comes from there, and is taken for that eps
_UNORDERED = 0.1  # two orders that differ by more are no rounding: a sample's output depends on its place
_DRAWS = (1.0, 1.0, 2.0)  # what may be off of outputs, J^T r and H u, to what is in one draw
# Bytes a parameter: in float64 the parameters, a gradient, what it is multiplied by, the product and what makes it, and
# two of these in the model's own precision.
_ALIVE = 56
_UNUSED: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
Pieces = Sequence[Tensor]
_LOW = (torch.float32, torch.float16, torch.bfloat16)


class Measured(Protocol):
    """What is asked of an objective."""

    dtype: torch.dtype
    device: torch.device
    memory: Memory

    @property
    def size(self) -> int: ...  # noqa: D102
    def measuring(self) -> AbstractContextManager[None]: ...  # noqa: D102
    def evaluations(self) -> Iterator[Evaluation]: ...  # noqa: D102
    def evaluate(self, batch: Batch) -> Evaluation: ...  # noqa: D102
    def leaves(self) -> list[nn.Parameter]: ...  # noqa: D102
    def join(self, pieces: Sequence[Tensor]) -> Tensor: ...  # noqa: D102
    def converted(self, dtype: torch.dtype) -> Measured: ...  # noqa: D102


def measured_noise(few: Measured) -> float:
    """The relative error of the function on a few samples beyond the rounding of its vectors; 0.0 when there is none.

    The largest one of the outputs', of J^T r's with r of random signs (no cancellation near a minimum inflates it, as
    it would the gradient's) and of twice H u's: an eigenvalue may err by more than the product with one random vector,
    in 1,200 random networks by at most twice as much. What errs as the coarsest precision of the graph does counts with
    at least its eps: the roundings of one draw may cancel, in deep networks by more than half. So does what cannot be
    measured.
    """
    with few.measuring():
        e = next(few.evaluations(), None)
        if e is None:
            return 0.0
        coarsest = coarsest_eps(_roots(e), few.dtype)
        if getattr(few, "sharded", False):  # there is no copy of it
            return coarsest
        if few.dtype == torch.float64 and coarsest == 0.0 and not _out_of_sight(_roots(e)):
            return 0.0
        values = _values(few, e)
        # without room for the function in float64 there is nothing to hold derivatives against
        own = list(values) if (room := _has_room(few)) else [next(values)]
    found = _against_float64(few, own) if room else None
    if found is None:
        return max(_between_orders(few, e.batch, own[0]), coarsest)
    found = max(found, coarsest) if found > _COARSE * coarsest else found
    return found if found > _CLEAN * torch.finfo(few.dtype).eps else 0.0


def coarsest_eps(roots: Sequence[Tensor], dtype: torch.dtype) -> float:
    """eps of the coarsest precision in the graphs of the roots, leaves included; 0.0 where none is below `dtype`."""
    seen = {r.dtype for r in roots} | {of.dtype for node in nodes(roots) for of in node._input_metadata}
    coarsest = max((torch.finfo(one).eps for one in seen if one.is_floating_point), default=0.0)
    return coarsest if coarsest > torch.finfo(dtype).eps else 0.0


def _out_of_sight(roots: Sequence[Tensor]) -> bool:
    """Whether a function of somebody's own is in the graph: it may compute in anything."""
    return any(isinstance(node, torch.autograd.function.BackwardCFunction) for node in nodes(roots))


def _roots(e: Evaluation) -> list[Tensor]:
    """What the model returns and what can be differentiated in it; the loss where that is nothing."""
    found = [t for t in tensors_in(e.outputs) if t.is_floating_point() and t.requires_grad]
    return found or [loss for loss in [e.loss()] if loss.requires_grad]


def _values(few: Measured, e: Evaluation) -> Iterator[Pieces]:
    """The outputs, J^T r with the same r for equal outputs, and H u, one after the other. Inside `measuring()`."""
    roots, leaves = _roots(e), few.leaves()
    generator = torch.Generator().manual_seed(0)
    yield [r.detach() for r in roots]
    yield torch.autograd.grad(roots, leaves, _signs(roots, generator), retain_graph=True, **_UNUSED)
    with suppress(Exception):  # whatever a layer raises that cannot be differentiated twice
        gradient = torch.autograd.grad(e.loss(), leaves, create_graph=True, **_UNUSED)
        live = [(g, s) for g, s in zip(gradient, _signs(leaves, generator), strict=True) if g.requires_grad]
        graphs, along = zip(*live, strict=True)
        yield torch.autograd.grad(graphs, leaves, along, **_UNUSED)


def _signs(like: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    return [torch.randint(2, t.shape, generator=generator).mul(2).sub(1).to(t) for t in like]


def _has_room(few: Measured) -> bool:
    return few.device.type != "mps" and _ALIVE * few.size <= budget(few.memory, few.device)


def _against_float64(few: Measured, own: list[Pieces]) -> float | None:
    """Distance from the function in float64; None where there is no such copy."""
    try:
        exact = few.converted(torch.float64)
        with exact.measuring(), all_in_float64():
            true = _values(exact, next(exact.evaluations()))
            return max(many * _distance(a, b) for many, a, b in zip(_DRAWS, own, true, strict=False))
    except Exception:  # layers and casts that know one dtype only
        return None


class _Float64(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in _LOW:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


@contextmanager
def all_in_float64() -> Iterator[None]:
    """Casts to a lower precision that are written into a forward pass go to float64; autocast spares float64 anyway."""
    with _Float64():
        yield


def _between_orders(few: Measured, batch: Batch, outputs: Pieces) -> float:
    """Distance of the outputs from those of the same samples the other way round; 0.0 where that cannot be told."""
    try:
        m = samples(batch)
        (turned,) = split(batch, m, torch.arange(m).flip(0))
        with few.measuring(), torch.no_grad():
            again = [t for t in tensors_in(few.evaluate(turned).outputs) if t.is_floating_point()]
        distance = _distance([t.flip(0) for t in again], outputs)
    except Exception:
        return 0.0
    return distance if distance < _UNORDERED else 0.0


def _distance(a: Pieces, b: Pieces) -> float:
    """||a - b|| / ||b||, in float64 on the host; 0.0 where that is no number. Raises `ValueError` for other shapes."""
    apart = size = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            raise ValueError("tensors of other shapes")
        exact = y.detach().cpu().double()
        apart += float((x.detach().cpu().double() - exact).square().sum())
        size += float(exact.square().sum())
    return math.sqrt(apart / size) if 0.0 < size < float("inf") else 0.0
