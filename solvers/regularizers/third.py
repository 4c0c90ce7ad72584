"""Layers of torch whose third derivatives are silently wrong, where a graph differentiates through them.

LayerNorm, and BatchNorm and InstanceNorm on the statistics of the batch, are fused: what torch has as their second
derivative is right and cannot be differentiated again (pytorch issues 176234, 196699).
weight_norm goes wrong one derivative earlier. Eval-mode BatchNorm, GroupNorm and RMSNorm are right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from landscape.objective.graph import nodes

_BATCH = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
# A word of the node's name; the layer in words; what it is in a model; what to have in its place.
_FUSED: tuple[tuple[str, str, Callable[[nn.Module], bool], str], ...] = (
    ("LayerNorm", "LayerNorm", lambda m: isinstance(m, nn.LayerNorm), "GroupNorm(1, ...) or RMSNorm"),
    (
        "BatchNorm",
        "BatchNorm or InstanceNorm on statistics of the batch",
        lambda m: isinstance(m, _BATCH),
        "its eval mode or GroupNorm",
    ),
    (
        "WeightNorm",
        "weight_norm",
        lambda m: hasattr(m, "weight_g") or type(m).__name__ == "_WeightNorm",
        "landscape.unfused_weight_norm() around the forward pass",
    ),
)


def refuse_wrong_thirds(roots: Iterable[Tensor], leaves: Sequence[Tensor], model: nn.Module) -> None:
    """Raise `ValueError` for such a layer between the roots and one of the leaves, by its name in the model."""
    for node in _between(roots, leaves):
        kind = type(node).__name__
        for word, what, is_one, instead in _FUSED:
            if word in kind and (word != "BatchNorm" or getattr(node, "_saved_training", True)):
                layers = [name for name, m in model.named_modules() if is_one(m)]
                where = f" ({', '.join(layers[:3])}{', ...' * (len(layers) > 3)})" if layers else ""
                raise ValueError(
                    f"third derivatives through torch's {what}{where} are wrong, and parameters to align lie before: "
                    f"align those of an untied head alone, or put {instead} in its place"
                )


def _between(roots: Iterable[Tensor], leaves: Sequence[Tensor]) -> list[Any]:
    """The nodes of the graph from which a leaf is reached."""
    before: defaultdict[Any, list[Any]] = defaultdict(list)
    chosen = {id(leaf) for leaf in leaves}
    front = []
    for node in nodes(roots):
        if id(getattr(node, "variable", None)) in chosen:
            front.append(node)
        for after, _ in node.next_functions:
            if after is not None:
                before[after].append(node)
    found: dict[Any, None] = {}
    while front:
        node = front.pop()
        if node not in found:
            found[node] = None
            front.extend(before[node])
    return list(found)
