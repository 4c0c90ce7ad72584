"""What charts of all layers share: a row for each layer, the first at the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def layer_rows(names: Sequence[str]) -> dict[str, Any]:
    """A row for each layer, the first at the top."""
    axis = {"type": "category", "autorange": "reversed", "title": {"text": ""}, "automargin": True}
    return {"yaxis": axis, "height": max(320, min(900, 130 + 18 * len(names)))}


def errors_across(errors: Any) -> dict[str, Any]:
    """Error bars to both sides of dots or bars in rows."""
    shown = np.where(np.isfinite(errors), np.maximum(errors, 0.0), 0.0)
    return {"type": "data", "array": [float(f"{e:.2g}") for e in shown], "thickness": 1, "width": 3}
