"""The forward pass of a model, and what is known of its ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.rnn import PackedSequence


@dataclass(frozen=True)
class Habits:
    """What is known of the way a model runs.

    Attributes:
        rewritten: names of tensors and arrays that a pass writes into.
        records: autograd has to record for its value too, since it differentiates something itself.
        writes_inputs: it writes into its inputs, which are the user's data.
    """

    rewritten: frozenset[str] = frozenset()
    records: bool = False
    writes_inputs: bool = False


class Forward(nn.Module):
    """The forward pass as a module of its own, so that `functional_call` reaches the model under `model.`"""

    def __init__(self, model: nn.Module, function: Callable[[Any, Any], Any] | None) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, inputs: Any) -> Any:
        """The model's outputs on inputs of any of the accepted shapes."""
        if self.function is not None:
            return self.function(self.model, inputs)
        if isinstance(inputs, Mapping):
            return self.model(**inputs)
        if isinstance(inputs, tuple | list) and not isinstance(inputs, PackedSequence):
            return self.model(*inputs)
        return self.model(inputs)


def replaced_in_forward(kind: str, name: str) -> str:
    """The message for a model that makes a parameter or module while it runs."""
    return (
        f"the model makes its {kind} {name!r} in the forward pass, so it is not among those that are measured: make "
        "it in __init__, or run the model on one batch before measuring if that happens only once"
    )
