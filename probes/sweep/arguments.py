"""What is typed after the options of a sweep, turned into numbers and settings."""

from __future__ import annotations

import math
from typing import Any

from probes.errors import UserError
from probes.specs import split_commas, value_of


def grid(text: str) -> tuple[float, ...]:
    """`1e-3:1e1:9` is nine step sizes evenly spaced in the logarithm, `0.1,1` are two. Raises `UserError`."""
    import numpy as np

    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        low, high, count = text.split(":")
        if not 0 < float(low) < float(high) < math.inf or int(count) < 2:
            raise ValueError
        # rounded, so that 0.01 is written as 0.01
        return tuple(float(f"{lr:.6g}") for lr in np.geomspace(float(low), float(high), int(count)))
    except ValueError:
        raise UserError(f"--lr is LOW:HIGH:COUNT such as 1e-3:1e1:9, or 0.01,0.1,1, not {text!r}", status=2) from None


def slurm_settings(text: str) -> dict[str, Any]:
    """`partition=gpu,time=60,gres=gpu:1` as settings; a time of `4:00:00` is a text. Raises `UserError` (status 2)."""
    found = {}
    for part in split_commas(text):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key.isidentifier():
            raise UserError(f"--slurm is partition=NAME,time=MINUTES, ..., not {part!r}", status=2)
        found[key] = value_of(value)
    return found
