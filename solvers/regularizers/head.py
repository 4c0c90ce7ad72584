"""The head of a classifier, found in the graph of its loss: the Linear layer that stands nearest to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from landscape.objective.wrappers import unwrap


def head_parameters(model: nn.Module, losses: Sequence[Tensor]) -> list[nn.Parameter]:
    """Weight and bias of the last Linear layer, those that require grad.

    Raises `ValueError` where it cannot be told: several are as near, none is in the graph, or a frozen one comes later.
    """
    linear = {id(m.weight): (name, m) for name, m in unwrap(model).named_modules() if isinstance(m, nn.Linear)}
    nearest = list(dict.fromkeys(found for loss in losses for found in _nearest(loss, linear)))
    listing = ", ".join(name for name, _ in linear.values()) or "none"
    if len(nearest) != 1:
        raise ValueError(
            f"which of the Linear layers ({listing}) is the head cannot be told from the loss: name its parameters, "
            'parameters="head.*"'
        )
    name, head = linear[nearest[0]]
    order = [m for _, m in linear.values()]
    later = [m for m in order[order.index(head) + 1 :] if not m.weight.requires_grad]
    if later:
        raise ValueError(
            f"{name} is the last Linear layer that is trained, and a frozen one comes after it: name the parameters to "
            f'align, parameters="{name}.*"'
        )
    return [p for p in head.parameters(recurse=False) if p.requires_grad]


def _nearest(loss: Tensor, weights: dict[int, Any]) -> list[int]:
    """Those of the weights that are the fewest steps of the graph away from the loss."""
    seen: set[Any] = set()
    front = [loss.grad_fn] if loss.grad_fn is not None else []
    while front:
        found = [key for node in front if (key := id(getattr(node, "variable", None))) in weights]
        if found:
            return found
        seen.update(front)
        following = {after for node in front for after, _ in node.next_functions if after is not None}
        front = list(following - seen)
    return []
