"""What the closed forms accept: real arrays of any device and dtype, read as float64 on the host."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landscape.memory import available_memory

EPS = torch.finfo(torch.float64).eps

Threshold = float | Literal["paper"] | None

_HOST = torch.device("cpu")


def as_float64(value: Any, name: str, ndim: int = 2) -> Tensor:
    """`value` (a tensor, a Parameter, a numpy array, nested lists) as a float64 tensor on the host, detached.

    Raises:
        TypeError: it holds no real numbers.
        ValueError: it has another number of dimensions, no entries, or entries that are not finite.
    """
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"{name} is complex: pass a real tensor or numpy array")
        dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
        array = dense.cpu().double()
    else:
        array = torch.from_numpy(np.array(_real(value, name), dtype=np.float64, order="C"))
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, not the shape {tuple(array.shape)}")
    if array.numel() == 0:
        raise ValueError(f"{name} has no entries (its shape is {tuple(array.shape)})")
    if not bool(torch.isfinite(array).all()):
        raise ValueError(f"{name} has entries that are not finite: the network has diverged, or the file is damaged")
    return array


def _real(value: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
        kind = array.dtype.kind
    except (TypeError, ValueError, RuntimeError):  # ragged lists, lists of tensors that need a gradient
        kind = "O"
    if kind not in "biuf":
        what = "complex" if kind == "c" else f"no array of real numbers ({type(value).__name__})"
        raise TypeError(f"{name} is {what}: pass a real tensor or numpy array")
    return array


def finite(value: float, name: str) -> float:
    """`value` as a float; `TypeError` for what is no number ("1/L"), `ValueError` for nan and infinities."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, not {number}")
    return number


def unit_roundoff(value: Any) -> float:
    """The rounding unit of the dtype in which `value` came, at least that of float64."""
    if isinstance(value, Tensor):
        return max(EPS, torch.finfo(value.dtype).eps) if value.dtype.is_floating_point else EPS
    dtype = np.asarray(value).dtype
    return max(EPS, float(np.finfo(dtype).eps)) if dtype.kind == "f" else EPS


def require_memory(rows: int, columns: int, what: str, advice: str, copies: int = 2) -> None:
    """Refuse a float64 matrix that does not fit (`copies` of it: the eigensolver works on its own).

    Raises:
        MemoryError: it would take more than half of the memory that is free.
    """
    need, budget = 8 * copies * rows * columns, available_memory(_HOST)
    if need > budget:
        side = math.isqrt(budget // (8 * copies))
        raise MemoryError(
            f"{what} is {rows:,} x {columns:,} and needs {need / 2**30:.3g} GiB, of which {budget / 2**30:.3g} may be "
            f"used: about {side:,} x {side:,} would fit, so {advice}"
        )


def absolute_threshold(threshold: Threshold, parameters: int | None) -> float | None:
    """The threshold that is meant for a network with so many parameters; `ValueError` for what is none."""
    if threshold is None:
        return None
    if threshold == "paper":
        if parameters is None or parameters < 1:
            raise ValueError('the threshold "paper" is 1e-8 / parameters: say how many parameters the network has')
        return 1e-8 / parameters
    if isinstance(threshold, str) or not (threshold >= 0 and math.isfinite(threshold)):
        raise ValueError(f'the threshold must be finite and not negative, or "paper", not {threshold!r}')
    return float(threshold)
