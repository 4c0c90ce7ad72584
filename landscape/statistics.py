"""Means that carry their standard error, honest for few samples too."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.special import stdtrit
from torch import Tensor


def student(samples: int) -> float:
    """t_{0.975, samples - 1} / 1.96: makes mean +- 2 stderr an honest 95 % for few samples; inf for one."""
    if samples < 2:
        return float("inf")
    return float(stdtrit(samples - 1, 0.975)) / 1.959964


def mean_stderr(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first dimension and its standard error with Student's factor; inf for one sample."""
    count = samples.shape[0]
    mean = samples.mean(dim=0)
    if count < 2:
        return mean, torch.full_like(mean, float("inf"))
    return mean, samples.std(dim=0) * (student(count) / count**0.5)


def jackknife(statistic: Callable[[Tensor], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """A statistic of samples, given by their indices, and its standard error from leaving out one after the other.

    For smooth functions of means; with Student's factor; inf for one sample.
    """
    every = torch.arange(count)
    value = statistic(every)
    if count < 2:
        return value, torch.full_like(value, float("inf"))
    left = torch.stack([statistic(every[every != i]) for i in range(count)])
    return value, left.std(dim=0, correction=0) * (student(count) * (count - 1) ** 0.5)
