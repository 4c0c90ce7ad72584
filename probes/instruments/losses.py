"""A loss that a probe looks at beside the monitor's: on the loop's batch, or another objective of the same model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probes.context import Context

if TYPE_CHECKING:
    from landscape import Objective


def is_objective(value: Any) -> bool:
    """Whether it is an `Objective`, without torch being imported for a word."""
    if value is None or isinstance(value, str | int | float | tuple | list | dict):
        return False
    from landscape import Objective

    return isinstance(value, Objective)


def in_words(chosen: str | Objective) -> str:
    """As settings in a trace have it: the word, or what the objective is made of."""
    if isinstance(chosen, str):
        return chosen
    from landscape.objective.words import data_in_words

    loss = chosen.criterion.loss
    return f"{getattr(loss, '__name__', type(loss).__name__)} on {data_in_words(chosen)}"


def check_parameters(context: Context, *chosen: str | Objective) -> None:
    """Raise `ValueError` for an objective of other parameters than the monitor's."""
    from landscape.sharpness.relative import same_parameters

    for other in chosen:
        if not isinstance(other, str):
            same_parameters(context.objective, other)


def objective_of(context: Context, chosen: str | Objective, name: str) -> Objective:
    """The objective itself for "objective", that on the training loop's batch for "batch", else the given one.

    Raises `ValueError` where there is no batch.
    """
    if chosen == "objective":
        return context.objective
    if not isinstance(chosen, str):
        return chosen
    batch = context.on_batch()
    if batch is None:
        raise ValueError(f"{name} needs the training loop's batch: monitor(step, batch=batch)")
    return batch


def gradient_of(context: Context, objective: Objective) -> Any:
    """`(n,)`, made once a step for the monitor's objective, and for that on the loop's batch."""
    if objective is context.objective:
        return context.gradients().gradient
    return context.once(("gradient", id(objective)), objective.gradient)
