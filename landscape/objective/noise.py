"""How exact the model's own arithmetic is: the relative error of outputs and their derivatives, measured.

The dtype of the parameters does not tell: a forward pass may cast to half precision by itself (autocast), a float64
model may compute a norm in float32, matrix products may be rounded to tf32. Where the graph of a few samples, or a
switch of torch, shows a coarser precision than that of the vectors, outputs y and J^T r for random r are held against
those of the same function in float64. Where there is no such copy, against the same samples in another order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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

    The larger one of the outputs' and of J^T r's, r of random signs: no cancellation near a minimum inflates it, as it
    would the gradient's. What errs as the coarsest precision of the graph does counts with at least its eps: the
    roundings of one draw may cancel, in deep networks by more than half. So does what cannot be measured.
    """
    with few.measuring():
        e = next(few.evaluations(), None)
        if e is None:
            return 0.0
        coarsest = coarsest_eps(_roots(e), few.dtype)
        if getattr(few, "sharded", False):  # there is no copy of it
            return coarsest
        if coarsest == 0.0 and not _rounded_products(few) and not _out_of_sight(_roots(e)):
            return 0.0
        outputs, slopes = _values(few, e)
    found = _against_float64(few, outputs, slopes)
    if found is None:
        return max(_between_orders(few, e.batch, outputs), coarsest)
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


def _rounded_products(few: Measured) -> bool:
    """Whether torch may round the factors of float32 products to tf32 or bfloat16."""
    if few.dtype != torch.float32:
        return False
    conv = few.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    return conv or torch.get_float32_matmul_precision() != "highest"


def _roots(e: Evaluation) -> list[Tensor]:
    """What the model returns and what can be differentiated in it; the loss where that is nothing."""
    found = [t for t in tensors_in(e.outputs) if t.is_floating_point() and t.requires_grad]
    return found or [loss for loss in [e.loss()] if loss.requires_grad]


def _values(few: Measured, e: Evaluation) -> tuple[Tensor, Tensor]:
    """The outputs in a row, and J^T r with the same r for equal outputs; float64 on the host. Inside `measuring()`."""
    roots = _roots(e)
    generator = torch.Generator().manual_seed(0)
    signs = [torch.randint(2, r.shape, generator=generator).mul(2).sub(1).to(r) for r in roots]
    flat = torch.cat([r.detach().double().cpu().reshape(-1) for r in roots])
    slopes = torch.autograd.grad(roots, few.leaves(), signs, allow_unused=True, materialize_grads=True)
    return flat, few.join(slopes).double().cpu()


def _against_float64(few: Measured, outputs: Tensor, slopes: Tensor) -> float | None:
    """Distance from the function in float64; None where there is no such copy, or no room for it."""
    if few.device.type == "mps" or 8 * few.size > budget(few.memory, few.device):
        return None
    try:
        exact = few.converted(torch.float64)
        with exact.measuring(), all_in_float64():
            true_outputs, true_slopes = _values(exact, next(exact.evaluations()))
    except Exception:  # layers and casts that know one dtype only
        return None
    if true_outputs.shape != outputs.shape:
        return None
    return max(_distance(outputs, true_outputs), _distance(slopes, true_slopes))


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


def _between_orders(few: Measured, batch: Batch, outputs: Tensor) -> float:
    """Distance of the outputs from those of the same samples the other way round; 0.0 where that cannot be told."""
    try:
        m = samples(batch)
        (turned,) = split(batch, m, torch.arange(m).flip(0))
        with few.measuring(), torch.no_grad():
            again = [t for t in tensors_in(few.evaluate(turned).outputs) if t.is_floating_point()]
        back = torch.cat([t.flip(0).double().cpu().reshape(-1) for t in again])
    except Exception:
        return 0.0
    distance = _distance(back, outputs) if back.shape == outputs.shape else 0.0
    return distance if distance < _UNORDERED else 0.0


def _distance(a: Tensor, b: Tensor) -> float:
    size = float(b.norm())
    return float((a - b).norm()) / size if 0.0 < size < float("inf") else 0.0
