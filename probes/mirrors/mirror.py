"""One interface to what shows curves: a `SummaryWriter` of TensorBoard, a run of Weights & Biases, or one's own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from probes.mirrors.scalars import Scalar, scalars
from probes.trace.layout import Field

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Mirror(Protocol):
    """What a monitor can write to beside its trace."""

    def show(self, probe: str, step: int, numbers: list[Scalar]) -> None:
        """The numbers of one record."""


class TensorBoard:
    """A `torch.utils.tensorboard.SummaryWriter` that somebody else opens and closes.

    Curves are `probe/column`; those with an error have their ends as `bounds/probe/column/lower` and `.../upper`, and
    a chart of all three on the page of custom scalars.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._charts: dict[str, dict[str, list[Any]]] = {}

    def show(self, probe: str, step: int, numbers: list[Scalar]) -> None:
        """The numbers of one record."""
        for number in numbers:
            tag = f"{probe}/{number.name}"
            self._writer.add_scalar(tag, number.value, step)
            if number.lower is None or number.upper is None:
                continue
            ends = [f"bounds/{tag}/{end}" for end in ("lower", "upper")]
            self._writer.add_scalar(ends[0], number.lower, step)
            self._writer.add_scalar(ends[1], number.upper, step)
            charts = self._charts.setdefault(probe, {})
            if number.name not in charts:
                charts[number.name] = ["Margin", [tag, *ends]]
                self._writer.add_custom_scalars(self._charts)

    def picture(self, name: str, figure: Figure, step: int) -> None:
        """A picture of the whole trace."""
        self._writer.add_figure(name, figure, step)


class WeightsAndBiases:
    """A run of `wandb` that somebody else begins and finishes.

    Curves are `probe/column`, their ends `probe/column/lower` and `.../upper`. They are logged with `step=`, so that
    what the training logs has to be logged with its steps as well.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def show(self, probe: str, step: int, numbers: list[Scalar]) -> None:
        """The numbers of one record."""
        logged: dict[str, float] = {}
        for number in numbers:
            tag = f"{probe}/{number.name}"
            ends = {"lower": number.lower, "upper": number.upper}
            logged |= {tag: number.value} | {f"{tag}/{end}": v for end, v in ends.items() if v is not None}
        self._run.log(logged, step=step)

    def picture(self, name: str, figure: Figure, step: int) -> None:
        """A picture of the whole trace."""
        import wandb
        from PIL import Image

        drawn = io.BytesIO()  # wandb takes figures only where pyplot has been imported
        figure.savefig(drawn, format="png")
        self._run.log({name: wandb.Image(Image.open(drawn))}, step=step)


def as_mirror(thing: Any) -> Mirror:
    """What was given for `mirror=`. Raises `TypeError` for what is none.

    Example:
        >>> from probes.mirrors.mirror import as_mirror
        >>> as_mirror("runs/1")
        Traceback (most recent call last):
        ...
        TypeError: mirror= takes a SummaryWriter of TensorBoard, a run of wandb, or an object with show(), not 'runs/1'
    """
    if isinstance(thing, Mirror):
        return thing
    if hasattr(thing, "add_scalar"):
        return TensorBoard(thing)
    if hasattr(thing, "log") and hasattr(thing, "finish"):
        return WeightsAndBiases(thing)
    raise TypeError(
        f"mirror= takes a SummaryWriter of TensorBoard, a run of wandb, or an object with show(), not {thing!r:.80}"
    )


def show_record(mirror: Mirror, probe: str, step: int, values: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Write the numbers of one record to a mirror."""
    mirror.show(probe, step, list(scalars(values, fields)))
