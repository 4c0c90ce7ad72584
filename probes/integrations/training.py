"""What the callbacks of all trainers share: one `Monitor` for one training, from its first step to its end."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import distributed

from landscape.objective.objective import Objective
from landscape.ranks import Ranks
from probes.integrations.data import Wrap, chosen, given
from probes.monitor.monitor import Monitor
from probes.probe import Probe
from probes.ranks import deal, decided
from probes.schedules import Schedule, as_schedule
from probes.seeds import derive_seed
from probes.trace.layout import Field
from probes.trace.trace import Trace

if TYPE_CHECKING:
    from torch import nn

LOSS = Field((), "float64", "loss", "loss of the training, as the trainer reports it at this step")
Build = Objective | Callable[["nn.Module"], Objective]


class Training:
    """The settings of a callback, and the monitor of the training that is under way.

    Args: see `MonitorCallback`. `monitor` is None before the first training.
    """

    def __init__(
        self,
        probes: Iterable[Probe],
        trace: Trace | str | os.PathLike[str],
        *,
        every: int | Schedule | None = None,
        budget: float | None = None,
        objective: Build | None = None,
        data: Any = None,
        samples: int = 1024,
        mode: Literal["as-is", "eval", "train"] = "train",
        overwrite: bool = False,
        on_error: Literal["record", "raise"] = "record",
    ) -> None:
        self.probes = [_at_times(probe, every) for probe in probes]
        if samples < 1:
            raise ValueError(f"samples is the number of samples to measure on, at least 1, not {samples}")
        if objective is not None and data is not None:
            raise ValueError("an objective has data of its own: pass objective= or data=, not both")
        self.mode: Literal["as-is", "eval", "train"] = mode
        self.monitor: Monitor | None = None
        self._trace = trace
        self._budget, self._on_error = budget, on_error
        self._objective, self._data, self._samples = objective, data, samples
        self._overwrite = overwrite
        self._state: dict[str, Any] | None = None  # of the monitor: from a checkpoint, or when the training ended
        self._last: int | None = None

    def begin(
        self,
        model: nn.Module,
        own: Callable[[Any], Objective],
        loader: Callable[[], Any],
        wrap: Wrap,
        *,
        step: int,
        ranks: Ranks,
        optimizer: torch.optim.Optimizer | None,
        config: Any,
        seed: int | None,
    ) -> None:
        """A training begins at `step`, 0 or that of its checkpoint.

        `own` makes the objective that the trainer minimises of data, which comes from `loader()` by `wrap` where the
        user has not given any; several ranks share it. Raises `ValueError` for what `Monitor` refuses.
        """
        self.end()
        trace = ranks.agreed(lambda: self._open(step, config, seed) if ranks.rank == 0 else None)
        try:
            chosen_by = decided(ranks, lambda: None if trace is None else derive_seed(trace.seed, "samples"))
            if isinstance(self._objective, Objective):
                objective = self._objective
            elif self._objective is not None:
                objective = self._objective(model)
            elif self._data is not None:
                objective = deal(own(given(self._data, wrap)), ranks)
            else:
                objective = deal(own(chosen(loader(), self._samples, chosen_by or 0, wrap)), ranks)
            if ranks.several and not objective.ranks.several:
                raise ValueError(
                    "this training has several ranks: make the Objective of each with its own part of the data and "
                    "process_group=torch.distributed.group.WORLD"
                )
            if trace is not None:
                trace.declare("training", {"loss": LOSS})
            self.monitor = Monitor(
                objective, self.probes, trace, optimizer=optimizer, budget=self._budget, on_error=self._on_error
            )
            if step and self._state is not None:
                self.monitor.load_state_dict(self._state)
        except BaseException:
            if trace is not None:
                trace.close()
            raise
        self._state, self._last = None, None

    def _open(self, step: int, config: Any, seed: int | None) -> Trace:
        path = self._trace.path if isinstance(self._trace, Trace) else self._trace
        if isinstance(self._trace, Trace) and not self._trace.closed:
            return self._trace
        if step and os.path.exists(path):
            return Trace.resume(path, step=step)
        return Trace.create(path, config=config, seed=seed, overwrite=self._overwrite)

    @property
    def on_own(self) -> bool:
        """Whether what is measured is the trainer's own loss, not an objective that the user gave."""
        return self._objective is None

    def __call__(self, step: int, *, loss: Any = None, batch: Any = None, epoch: float | None = None) -> bool:
        """After a step, once for each: measure what is due. Whether anything was."""
        if self.monitor is None or self.monitor.trace.closed or step == self._last:
            return False
        self._last = step
        return bool(self.monitor(step, loss=loss, batch=batch, epoch=epoch))

    def note_loss(self, step: int, loss: float, epoch: float | None) -> None:
        """Keep a loss that the trainer reports."""
        if self.monitor is not None and not self.monitor.trace.closed:
            self.monitor.trace.record("training", step, epoch=epoch, loss=loss)

    def end(self) -> None:
        """The training is over, or failed: close the trace. Called again, it does nothing."""
        if self.monitor is not None and not self.monitor.trace.closed:
            self._state = self.monitor.state_dict()
            self.monitor.trace.close()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, plain numbers and dicts; what was measured until now is in the file then."""
        if self.monitor is None or self.monitor.trace.closed:
            return {"monitor": self._state}
        self.monitor.trace.flush()
        return {"monitor": self.monitor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` when the training begins."""
        self._state = state.get("monitor")


def ranks_of(world: int, whole: bool) -> Ranks:
    """Those of a training by so many processes, in which each has the model `whole`.

    Raises `ValueError` where each has a part of it.
    """
    if world < 2:
        return Ranks()
    if not whole or not distributed.is_initialized():
        raise ValueError(
            f"MonitorCallback measures models that are whole in every process (DDP), and this training has {world} "
            "with parts: measure its checkpoints with `landscape probe`"
        )
    return Ranks(distributed.group.WORLD)


def _at_times(probe: Probe, every: int | Schedule | None) -> Probe:
    """The probe with the schedule `every`, where it has none of its own."""
    if every is None or getattr(probe, "every", 1) != 1:
        return probe
    as_schedule(every)
    other = copy.copy(probe)
    object.__setattr__(other, "every", every)  # instruments are frozen
    return other
