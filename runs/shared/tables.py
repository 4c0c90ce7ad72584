"""What the rules of several experiments ask of a few numbers, and how these are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from probes.numbers import short


def rising(values: Sequence[float]) -> bool:
    """Whether there are several, each larger than the one before."""
    return len(values) > 1 and all(b > a for a, b in pairwise(values))


def falling(values: Sequence[float]) -> bool:
    """Whether there are several, each smaller than the one before."""
    return len(values) > 1 and all(b < a for a, b in pairwise(values))


def listed(found: Mapping[Any, object]) -> str:
    """`a: 1; b: 2`."""
    return "; ".join(f"{name}: {value}" for name, value in found.items())


def span(values: Iterable[float], digits: int = 3) -> str:
    """`least … largest`."""
    values = list(values)
    return f"{short(min(values), digits)} … {short(max(values), digits)}"
