"""Envelopes of lines: the two small problems behind the exact constants.

The lowest point of an upper envelope, min over u in [lower, upper] of max_k (a_k + b_k u), is a linear program in two
variables. Two lines bracket it, one falling and one rising; the line that is highest where they cross replaces one of
them. Each round costs one pass over the lines, and a handful suffices, so a million lines take milliseconds.

The values of a lower envelope, min_k (a_k + b_k u) at many u: the lines that are lowest at both ends of an interval
make a tent above the envelope, and only lines below its top can be lower than it anywhere between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from landscape.regularity.trajectory import Array

# Lines times points that are simply all computed: half a megabyte.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class LowestPoint:
    """Where the envelope is lowest (the smallest such u), how high it is there, and the lines that meet there."""

    u: float
    value: float
    lines: tuple[int, ...]


def lowest_point(intercepts: Array, slopes: Array, lower: float = 0.0, upper: float = math.inf) -> LowestPoint:
    """The smallest minimiser of max_k (intercepts_k + slopes_k u) over lower <= u <= upper, exact to rounding.

    Raises `ValueError` when nothing bounds it from below (all lines fall and upper is inf).
    """
    falling = _highest(intercepts + slopes * lower, slopes)
    if slopes[falling] >= 0 or lower == upper:
        return LowestPoint(lower, float(intercepts[falling] + slopes[falling] * lower), (falling,))
    if math.isinf(upper):
        rising = _highest(slopes, intercepts)
        if slopes[rising] < 0:
            raise ValueError("every line falls for ever: the envelope has no lowest point")
    else:
        rising = _highest(intercepts + slopes * upper, -slopes)
        if slopes[rising] < 0:
            return LowestPoint(upper, float(intercepts[rising] + slopes[rising] * upper), (rising,))
    seen = {falling, rising}
    while True:
        u = float((intercepts[falling] - intercepts[rising]) / (slopes[rising] - slopes[falling]))
        u = min(max(u, lower), upper)
        heights = intercepts + slopes * u
        top = int(np.argmax(heights))
        # No tolerance, so that one steep line, all rounding, does not hide the others; no line comes in twice.
        if heights[top] <= heights[rising] or top in seen:
            return LowestPoint(u, float(heights[rising]), (falling, rising))
        seen.add(top)
        if slopes[top] < 0:
            falling = top
        else:
            rising = top


def lower_envelope(intercepts: Array, slopes: Array, at: Array) -> Array:
    """min_k (intercepts_k + slopes_k u) at each u of `at`, in any order: `(len(at),)`."""
    order = np.argsort(at)
    lowest = np.empty(len(at))
    lowest[order] = _envelope(intercepts, slopes, at[order])
    return lowest


def _envelope(a: Array, b: Array, u: Array) -> Array:
    if len(a) * len(u) <= _BLOCK or len(u) == 1:
        return (a[:, None] + b[:, None] * u).min(axis=0)
    left, right = int(np.argmin(a + b * u[0])), int(np.argmin(a + b * u[-1]))
    tent = np.minimum(a[left] + b[left] * u, a[right] + b[right] * u)
    if b[left] == b[right]:
        return tent
    top = min(max(float((a[left] - a[right]) / (b[right] - b[left])), u[0]), u[-1])
    below = a + b * top < min(a[left] + b[left] * top, a[right] + b[right] * top)
    if not below.any():
        return tent
    below[[left, right]] = True
    split = min(max(int(np.searchsorted(u, top)), 1), len(u) - 1)
    return np.concatenate([_envelope(a[below], b[below], part) for part in (u[:split], u[split:])])


def _highest(first: Array, second: Array) -> int:
    """The index of the largest `first`; among equals, of the largest `second`."""
    rows = np.flatnonzero(first == first.max())
    return int(rows[np.argmax(second[rows])])
