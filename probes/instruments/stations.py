"""Stations: networks that were saved on the way of one training, or of several, for what looks at them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from probes.errors import first_few

if TYPE_CHECKING:
    import torch

    from landscape import Objective


@dataclass(frozen=True)
class Station:
    """One network.

    Attributes:
        step: of the training.
        theta: `(n,)`, its parameters in the order of the objective.
        buffers: those that it was saved with (running statistics), as `landscape.objective.running` has them; None for
            those of the model that measures.
    """

    step: int
    theta: torch.Tensor = field(repr=False)
    buffers: list[torch.Tensor] | None = field(default=None, repr=False)

    @contextmanager
    def on(self, objective: Objective) -> Iterator[None]:
        """Inside, the objective is measured at this network, with its own buffers."""
        from landscape.objective.running import running_on

        with ExitStack() as stack:
            stack.enter_context(objective.at(self.theta.to(objective.device)))
            here = None if self.buffers is None else [t.to(objective.device) for t in self.buffers]
            stack.enter_context(running_on(objective, here))
            yield


Through = Mapping[int, Any] | Sequence[Any]


def stations_of(through: Through) -> Sequence[Station]:
    """Stations as they are; vectors `(n,)` by their steps, or with the steps 0, 1, 2, ..., as stations."""
    if isinstance(through, Mapping):
        return [Station(int(step), theta) for step, theta in sorted(through.items())]
    return [one if isinstance(one, Station) else Station(step, one) for step, one in enumerate(through)]


def held_fixed(objective: Objective) -> dict[str, torch.Tensor]:
    """The model's parameters that are not among the objective's, frozen ones for instance, by name: f has them too."""
    there = dict(objective.module.named_parameters(remove_duplicate=False))
    own = {id(there[name]) for name in objective.names}
    return {name: p.detach() for name, p in objective.module.named_parameters() if id(p) not in own}


def beside_theta(objective: Objective) -> dict[str, torch.Tensor]:
    """What the model holds beside theta, on which f depends as well: parameters that are held fixed, and buffers."""
    from landscape.objective.running import own_buffers

    return held_fixed(objective) | {f"buffer {i}": t for i, t in enumerate(own_buffers(objective))}


def told_buffers(objective: Objective, stations: Sequence[Station], step: int) -> str:
    """A note where networks differ in buffers that are no running statistics: points between them have but one's."""
    from landscape.objective.running import buffer_names

    kept = [one.buffers for one in stations if one.buffers is not None]
    names = buffer_names(objective) if kept else []
    apart = [name for i, name in enumerate(names) if name and any(not one[i].equal(kept[0][i]) for one in kept)]
    return f"the networks differ in {first_few(apart)}, which all points have of that at step {step}" if apart else ""
