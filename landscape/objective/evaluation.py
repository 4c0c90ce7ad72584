"""One evaluated batch: outputs, weight and loss of the model on it."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def output_tensor(outputs: Any) -> Tensor:
    """The one tensor that the model returns. Raises `TypeError` when it returns something else."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"Gauss-Newton and Fisher matrices need a model that returns one tensor, not {type(outputs).__name__}: "
            "give forward=lambda model, x: ... (for example model(**x).logits)"
        )
    if not outputs.is_floating_point():
        raise TypeError(f"the model's outputs are {outputs.dtype}: they cannot be differentiated")
    return outputs
