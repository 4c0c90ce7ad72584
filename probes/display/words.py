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
        return _in_words(estimate)
    except Exception:  # what a callback is given is anybody's, and a display must not fail
        return ""


def unit_of(estimate: Any) -> str:
    """What the callback counts that is given such an estimate; empty where that is not known."""
    if isinstance(unit := getattr(estimate, "unit", ""), str) and unit:
        return unit
    return "points" if getattr(estimate, "ndim", 0) else ""


def _in_words(estimate: Any) -> str:
    if hasattr(estimate, "residuals"):  # eigenpairs
        return f"λ₁ = {_number(estimate.values[0], estimate.residuals[0])}"
    value = getattr(estimate, "value", estimate)
    error = getattr(estimate, "error", getattr(estimate, "stderr", 0.0))
    name = getattr(estimate, "name", None)
    numbers = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)
    if numbers.ndim == 0:
        text = _number(numbers, error)
        return f"{_SYMBOLS.get(name, name)} = {text}" if isinstance(name, str) and text else text
    seen = numbers[~np.isnan(numbers)]
    if not seen.size:
        return ""
    low, high = short(float(seen.min())), short(float(seen.max()))
    return low if low == high else f"from {low} to {high}"


def _number(value: Any, error: Any) -> str:
    """A number with its error, `±?` where that is not known yet; empty for nan."""
    value, error = float(value), float(error)
    return "" if math.isnan(value) else plus_minus(value, error if math.isfinite(error) else math.nan)
