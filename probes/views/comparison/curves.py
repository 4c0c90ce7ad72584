"""Curves of several runs on one axis: interpolated, averaged over seeds, with the error of the average.

Runs measure at steps of their own. Between two measurements a curve is the straight line through them; before its
first and after its last there is none. So at each place of the axis only the runs that have been there count.

Against the loss: the value at loss level l is the value when the run *first came down to* l. The loss of a
run goes up and down, so that its inverse has no meaning, but the time of first passage

    tau(l) = min { t : loss(t) <= l },    y(l) = y(tau(l))

has one for every l between the loss at the start and the lowest that was reached; loss and y are linear between
their measurements. What a run did while its loss was above an earlier low is left out. With a noisy
(mini-batch) loss the first passage is early by a share of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from probes.trace.layout import Array


class Curve(NamedTuple):
    """One run: x (n,) ascending without repeats, y (n,), all finite float64; dropped: how many rows were not."""

    x: Array
    y: Array
    dropped: int = 0


class Average(NamedTuple):
    """Several runs at m places: mean and standard error over the runs, and how many runs there are.

    mean (m,) is nan where there is no run, stderr (m,) where there are fewer than two; runs (m,) int64.
    """

    mean: Array
    stderr: Array
    runs: Array


def curve(x: Array, y: Array) -> Curve:
    """Rows as a curve: rows that are not finite left out, sorted by x, rows of the same x averaged."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    places, where = np.unique(x[finite], return_inverse=True)
    counts = np.bincount(where, minlength=len(places))
    sums = np.bincount(where, weights=y[finite], minlength=len(places))
    return Curve(places, sums / np.maximum(counts, 1), int(len(x) - finite.sum()))


def sample(line: Curve, x: Array) -> Array:
    """The curve at the places x (m,): linear between its points, nan outside of its range."""
    if not len(line.x):
        return np.full(len(x), np.nan)
    return np.interp(x, line.x, line.y, left=np.nan, right=np.nan)


def average(curves: Sequence[Curve], x: Array) -> Average:
    """Mean and standard error (the deviation with n - 1, over the root of n) of the curves at the places x (m,)."""
    values = np.array([sample(line, x) for line in curves]).reshape(len(curves), len(x))
    there = np.isfinite(values)
    count = there.sum(axis=0)
    mean = np.where(count > 0, np.where(there, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    squares = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0)
    stderr = np.sqrt(squares / np.maximum(count - 1, 1) / np.maximum(count, 1))
    return Average(mean, np.where(count > 1, stderr, np.nan), count)


def shared_grid(curves: Sequence[Curve], most: int) -> Array:
    """All places where a curve has a point; `most` of them, evenly chosen, when there are more. First and last stay."""
    places = np.unique(np.concatenate([line.x for line in curves])) if curves else np.empty(0)
    if len(places) <= most:
        return places
    return places[np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))]


def first_passage(steps: Array, loss: Array, levels: Array) -> Array:
    """tau(l) for each level l (m,): the step at which the loss first came down to it; nan when it did not, or began
    below it.

    steps and loss are (n,), steps ascending; the loss is linear between them. Rows whose loss is nan or inf are
    left out.
    """
    loss = np.asarray(loss, dtype=np.float64)
    finite = np.isfinite(loss)
    steps, loss = np.asarray(steps, dtype=np.float64)[finite], loss[finite]
    levels = np.asarray(levels, dtype=np.float64)
    if not len(loss):
        return np.full(len(levels), np.nan)
    lowest = np.minimum.accumulate(loss)
    first = np.searchsorted(-lowest, -levels, side="left")  # the first row whose loss is at or below the level
    after = np.clip(first, 1, len(loss) - 1) if len(loss) > 1 else np.zeros(len(levels), dtype=int)
    before = np.maximum(after - 1, 0)
    fall = np.where(loss[before] > loss[after], loss[before] - loss[after], 1.0)
    tau = steps[before] + (loss[before] - levels) / fall * (steps[after] - steps[before])
    tau = np.where(first == 0, steps[0], tau)
    return np.where((levels <= loss[0]) & (levels >= lowest[-1]), tau, np.nan)


def against_loss(line: Curve, steps: Array, loss: Array, levels: Array) -> Curve:
    """The curve over steps as a curve over the levels (m,) of the loss, by first passage; levels descend or ascend."""
    # beyond any line where the level was not reached: np.interp takes nan for a place on a line of one point
    tau = np.nan_to_num(first_passage(steps, loss, levels), nan=np.inf)
    return curve(levels, sample(line, tau))._replace(dropped=line.dropped)


def loss_levels(losses: Sequence[Array], most: int) -> Array:
    """`most` levels (ascending) between the lowest loss that any run reached and the highest start of a run.

    Evenly spaced in the logarithm when all are positive. Empty when no run has a finite loss.
    """
    finite = [loss[np.isfinite(loss)] for loss in losses]
    finite = [loss for loss in finite if len(loss)]
    if not finite:
        return np.empty(0)
    low, high = min(float(loss.min()) for loss in finite), max(float(loss[0]) for loss in finite)
    if low > 0:
        levels = np.geomspace(low, high, most)
        levels[0], levels[-1] = low, high  # not off by rounding: they are reached
        return np.unique(levels)
    return np.unique(np.linspace(low, high, most))
