"""A loss that a probe looks at beside the monitor's: on the loop's batch, or another objective of the same model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import Instrument

if TYPE_CHECKING:
    from landscape import Objective


@dataclass(frozen=True)
class NamedObjective:
    """One that the command names by a text, which is what the trace keeps; made when the problem is."""

    text: str
    objective: Objective | None = None


@dataclass(frozen=True, kw_only=True)
class TwoLosses(Instrument):
    """A probe of two losses, each in a field of its own that may be an `Objective`, or the name of one."""

    losses: ClassVar[tuple[str, str]]

    @override
    def settings(self) -> dict[str, Any]:
        return super().settings() | {name: in_words(getattr(self, name)) for name in self.losses}

    @override
    def with_objectives(self, made: Callable[[str], Objective]) -> Self:
        found = {name: getattr(self, name) for name in self.losses}
        named = {name: value.text for name, value in found.items() if isinstance(value, NamedObjective)}
        filled: dict[str, Any] = {name: NamedObjective(text, made(text)) for name, text in named.items()}
        return replace(self, **filled)


def is_objective(value: Any) -> bool:
    """Whether it is an `Objective` or the name of one, without torch being imported for a word."""
    if isinstance(value, NamedObjective):
        return True
    if value is None or isinstance(value, str | int | float | tuple | list | dict):
        return False
    from landscape import Objective

    return isinstance(value, Objective)


def in_words(chosen: str | Objective | NamedObjective) -> str:
    """As settings in a trace have it: the word, or what the objective is made of."""
    if isinstance(chosen, str):
        return chosen
    if isinstance(chosen, NamedObjective):
        return chosen.text
    from landscape.objective.words import data_in_words

    loss = chosen.criterion.loss
    return f"{getattr(loss, '__name__', type(loss).__name__)} on {data_in_words(chosen)}"


def check_parameters(context: Context, *chosen: str | Objective | NamedObjective) -> None:
    """Raise `ValueError` for an objective of other parameters than the monitor's."""
    from landscape.objective.same import same_parameters

    for other in chosen:
        if not isinstance(other, str):
            same_parameters(context.objective, _given(other))


def objective_of(context: Context, chosen: str | Objective | NamedObjective, name: str) -> Objective:
    """The objective itself for "objective", that on the training loop's batch for "batch", else the given one.

    Raises `ValueError` where there is no batch.
    """
    if chosen == "objective":
        return context.objective
    if not isinstance(chosen, str):
        return _given(chosen)
    batch = context.on_batch()
    if batch is None:
        raise ValueError(f"{name} needs the training loop's batch: monitor(step, batch=batch)")
    return batch


def _given(chosen: Objective | NamedObjective) -> Objective:
    if not isinstance(chosen, NamedObjective):
        return chosen
    if chosen.objective is None:
        raise ValueError(f"{chosen.text} is the name of an objective for the command: give the Objective itself")
    return chosen.objective


def gradient_of(context: Context, objective: Objective) -> Any:
    """`(n,)`, made once a step for the monitor's objective, and for that on the loop's batch."""
    if objective is context.objective:
        return context.gradients().gradient
    return context.once(("gradient", id(objective)), objective.gradient)
