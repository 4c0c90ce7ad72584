"""What is said where K-FAC has no rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from landscape.operators.kronecker.layers.layer import Layer


class NoRule(TypeError):
    """Parameters that K-FAC has no rule for; `names` of them."""

    def __init__(self, text: str, names: Collection[str] = ()) -> None:
        super().__init__(text)
        self.names = names


def refusal(names: Sequence[str], refused: Mapping[str, str]) -> NoRule:
    """Some parameters are used in ways that there is no rule for."""
    listed = [f"{name} (in torch's {refused[name]})" for name in names if name in refused]
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return NoRule(f"K-FAC has no rule for {', '.join(listed[:4])}{more}: {_LEAVE_OUT}", refused)


def unseen(names: Sequence[str]) -> NoRule:
    """What the layers give is not the gradient."""
    return NoRule(
        f"the derivative in {', '.join(names[:4])} is not what the layers that use it give: it is used somewhere else "
        f"as well, in a function of somebody's own or in place, where K-FAC has no rule: {_LEAVE_OUT}",
        names,
    )


def mixed(names: Collection[str]) -> NoRule:
    """Rows of a layer belong to no sample."""
    return NoRule(
        f"it cannot be told which rows of the layer of {', '.join(sorted(names)[:4])} belong to which sample (samples "
        f"see each other, or share what the layer gives in a way without a rule): {_LEAVE_OUT}",
        names,
    )


_LEAVE_OUT = "leave it out, as in KFAC(objective.restrict(KFAC.covered(objective)))"

SIGNS = "terms of a sample together under random signs: an estimate without bias"
MIXED = "BatchNorm in train mode: derivatives of samples are those of their whole batch"


def as_diagonal(layer: Layer, side: str, size: int) -> str:
    """A side that is too large."""
    what = "exact block" if layer.exact else f"{side} side"
    return f"{layer.label}: {what} of {size} as its diagonal"


def tied(layers: Sequence[Layer]) -> list[str]:
    """Parameters of several layers."""
    uses = Counter(name for layer in layers for name in layer.names)
    shared = [name for name, count in uses.items() if count > 1]
    return [f"{', '.join(shared)}: summed over the layers that share it, cross terms dropped"] if shared else []


def repeated(calls: Mapping[Layer, int]) -> list[str]:
    """Layers that are called several times in one pass (recurrent ones)."""
    return [
        f"{layer.label}: called {count} times in a pass, each call as further positions"
        for layer, count in calls.items()
        if count > 1
    ]
