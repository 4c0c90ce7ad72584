"""An estimate on the way, in words: a number with its error, or the lowest and the highest of many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probes.numbers import plus_minus, short

_SYMBOLS = {"lambda_1": "λ₁", "lambda_min": "λ_min"}


def in_words(estimate: Any) -> str:
    """`"λ₁ = 12.34 ± 0.05"`, `"from 0.12 to 3.4"` for an array; empty for what cannot be shown, whatever it is."""
    try:
        if hasattr(estimate, "residuals"):  # eigenpairs
            return f"λ₁ = {_number(estimate.values[0], estimate.residuals[0])}"
        numbers = _numbers(estimate)
        return _range(numbers) if numbers.ndim else _named(estimate, float(numbers))
    except Exception:  # what a callback is given is anybody's, and a display must not fail
        return ""


def unit_of(estimate: Any) -> str:
    """What the callback counts that is given such an estimate; empty where that is not known."""
    try:
        return str(estimate.unit) if hasattr(estimate, "unit") else "points" if _numbers(estimate).ndim else ""
    except Exception:
        return ""


def _numbers(estimate: Any) -> np.ndarray[Any, Any]:
    value = getattr(estimate, "value", getattr(estimate, "values", estimate))
    value = estimate if callable(value) else value  # a tensor has a method of that name
    return np.asarray(value.detach().cpu().double() if hasattr(value, "detach") else value, dtype=np.float64)


def _range(numbers: np.ndarray[Any, Any]) -> str:
    """The lowest and the highest of those that are there."""
    seen = numbers[~np.isnan(numbers)]
    low, high = (short(float(end)) for end in (seen.min(), seen.max()))
    return low if low == high else f"from {low} to {high}"


def _named(estimate: Any, value: float) -> str:
    error, name = getattr(estimate, "error", getattr(estimate, "stderr", 0.0)), getattr(estimate, "name", None)
    text = _number(value, error)
    return f"{_SYMBOLS.get(name, name)} = {text}" if isinstance(name, str) and text else text


def _number(value: Any, error: Any) -> str:
    """A number with its error, `±?` where that is not known yet; empty for nan."""
    value, error = float(value), float(error)
    return "" if math.isnan(value) else plus_minus(value, error if math.isfinite(error) else math.nan)
