"""Features and labels as `CollapseStatistics` takes them: checked, flat, in float64, without the samples left out."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor


def flatten(features: Tensor, labels: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Features `(n, D)` and class indices `(n,)`, detached. Raises `TypeError` and `ValueError` as `update`."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        raise TypeError(f"features must be a tensor of real floating numbers, not {_kind(features)}")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be class indices (a tensor of integers), one a sample, not {_kind(labels)}")
    if features.ndim < 2 or features.shape[-1] != dim:
        raise ValueError(f"features must have the shape (n, {dim}), not {tuple(features.shape)}")
    if labels.numel() * dim != features.numel():
        raise ValueError(
            f"labels or targets of shape {tuple(labels.shape)} do not go with features of shape "
            f"{tuple(features.shape)}: one label per feature vector is needed"
        )
    if labels.device != features.device:
        raise ValueError(f"the labels are on {labels.device}, the features on {features.device}")
    return features.detach().reshape(-1, dim), labels.detach().reshape(-1).long()


def select_now(X: Tensor, y: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """A copy of the features in float64 and the labels, those ignored left out. `ValueError` for one out of range."""
    ignored, outside = _left_out(y, num_classes, ignore_index)
    if bool(outside.any()):
        raise out_of_range(num_classes, f"such as {int(y[outside][0])}")
    if bool(ignored.any()):
        X, y = X[~ignored], y[~ignored]
    return X.to(torch.float64, copy=True), y


def select_later(
    X: Tensor, y: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same without looking at a value: what is left out is zero and of some class.

    The third result says which samples count, the fourth how many labels are out of range.
    """
    ignored, outside = _left_out(y, num_classes, ignore_index)
    kept = ~(outside | ignored)
    X = X.to(torch.float64, copy=True).masked_fill_(~kept.unsqueeze(1), 0.0)
    return X, y.clamp(0, num_classes - 1), kept, outside.sum()


def _left_out(y: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    """Which labels are ignored, and which of the others are out of range."""
    ignored = torch.zeros_like(y, dtype=torch.bool) if ignore_index is None else y == ignore_index
    return ignored, ((y < 0) | (y >= num_classes)) & ~ignored


def out_of_range(num_classes: int, what: str) -> ValueError:
    """The one message for labels that are no class."""
    return ValueError(f"there are labels outside 0 .. {num_classes - 1}, {what}: is num_classes right?")


def whole_number(value: Any, name: str, least: int) -> int:
    """A setting as an int. Raises `TypeError` for what is not a whole number, `ValueError` below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def _kind(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
