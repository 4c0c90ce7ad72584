"""Monitor: probes inside a training loop. It measures what is due, records it, and never stops the training.

    monitor = Monitor(objective, [Spectrum(k=5, every=100)], trace, optimizer=optimizer, budget=0.05)
    for step, batch in enumerate(loader):
        ...
        monitor(step, loss=loss, batch=batch)

How probes are measured is in `probes.monitor.measure`, what a budget allows in `probes.monitor.budget`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from probes.context import Context, Previous
from probes.errors import one_line
from probes.monitor.budget import Budget
from probes.monitor.costs import synchronise
from probes.monitor.measure import OnError, Outcome, check_on_error, declare, measure_all
from probes.monitor.notes import Notes
from probes.monitor.place import last_moment, lost_since, place_of
from probes.monitor.reflection import Reflection
from probes.monitor.together import asks, batch_on, ranks_of, trace_on, warn
from probes.monitor.turns import Turns
from probes.probe import Probe, check_needs
from probes.ranks import decided
from probes.schedules import Moment, as_schedule
from probes.session import Session, Step
from probes.trace.layout import TraceError

if TYPE_CHECKING:
    import torch

    from landscape.objective.objective import Objective
    from landscape.spectra import Callback
    from probes.trace.trace import Trace

_STATE_VERSION = 1


class Monitor:
    """Measures probes in a training loop: `monitor(step, loss=None, batch=None, epoch=None)` after each step.

    Args:
        objective: the loss as a function of the parameters.
        probes: each measures when its `every` says so: a number of steps, or a schedule (`probes.schedules`).
        trace: open for writing; the probes are declared at once, so that a bad setting shows before training. What
            a resumed trace holds already is not measured again. Of several ranks the first one writes: on the others
            it may be None.
        optimizer: handed to the probes that look at it; one that needs it is refused without.
        budget: the share of wall-clock time, in (0, 1), that measuring may take, the monitor's own time included.
            What is due and does not fit is measured at the first call at which it does; `/events` says what was
            skipped and why. The first cost of a probe is estimated from one product. None: no limit.
        on_error: "record" (a failing probe gets a row in `/events` and one `ProbeWarning`, and the training
            goes on) or "raise".
        callback: for the algorithms, as in `landscape.spectra`.
        mirror: what shows the numbers as well as they come: a `SummaryWriter` of TensorBoard, a run of wandb, or an
            object with `show(probe, step, scalars)`. One that fails is left alone from then on.

    Where the objective is one of several ranks, all of them make the monitor and call it at the same steps, each with
    its own part of the batch; the first one decides what is measured, and writes. Steps at which nothing is due and
    nothing waits for its time cost no communication. A schedule of one's own goes by steps and epochs, or is wrapped in
    `When`.

    Between steps it keeps operators (without graphs) and the last top vectors, on the host, from which the next search
    starts. Raises `ValueError` for a bad budget, two probes of one name, settings that do not fit the trace, and a
    probe that needs the optimizer where none is given; its first call raises it for one that needs the batch.

    Example:
        >>> from torch import eye, nn, ones, optim
        >>> from landscape import Objective
        >>> from probes import Monitor, Sharpness, Trace
        >>> model, batch = nn.Linear(2, 1), (eye(2), ones(2, 1))
        >>> sgd = optim.SGD(model.parameters(), lr=0.5)
        >>> with Trace.create("run.h5") as trace:
        ...     objective = Objective(model, nn.MSELoss(), batch)
        ...     monitor = Monitor(objective, [Sharpness(every=2)], trace, optimizer=sgd)
        ...     for step in range(5):
        ...         _ = monitor(step, batch=batch)  # beside the training step
        ...     trace["sharpness"]["step"].tolist(), trace["sharpness"]["threshold"].tolist()
        ([0, 2, 4], [4.0, 4.0, 4.0])
    """

    def __init__(
        self,
        objective: Objective,
        probes: Iterable[Probe],
        trace: Trace | None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        budget: float | None = None,
        on_error: OnError = "record",
        callback: Callback | None = None,
        mirror: Iterable[Any] = (),
    ) -> None:
        if budget is not None and not 0 < budget < 1:
            raise ValueError(f"budget is a share of the wall-clock time between 0 and 1, or None, not {budget}")
        check_on_error(on_error)
        self.objective = objective
        self.probes = tuple(probes)
        self._ranks = ranks_of(objective)
        self.trace = trace_on(self._ranks, trace)
        self.optimizer = optimizer
        self.on_error: OnError = on_error
        self.callback = callback
        self._schedules = {probe.name: as_schedule(getattr(probe, "every", 1)) for probe in self.probes}
        self._session = Session()
        self._previous: Previous | None = None
        self._notes = Notes(self.trace, on_error)
        self._budget = Budget(budget)
        self._reflection = Reflection(mirror, self.trace, self._notes)
        self._turns = Turns(self._budget, self._ranks, self._notes)
        declare(self.trace, self.probes, Context(objective, optimizer=optimizer, session=self._session))
        self._recorded, self._before = decided(self._ranks, self._standing)
        self._last: dict[str, int] = {}
        self._owed: frozenset[str] = frozenset()  # probes that wait for their time
        self._call: Moment | None = None
        self.trace.before_close(self._write_skips)

    def __call__(
        self, step: int, *, loss: Any = None, batch: Any = None, epoch: float | None = None
    ) -> dict[str, Outcome]:
        """Measure what is due at this step: the outcomes by name, empty when nothing is.

        `loss` is a number or a one-element tensor (read only when a probe is due: that waits for the device). Raises
        `ValueError` at the first call when a probe needs the batch and there is none.
        """
        if self._call is None and any("batch" in probe.needs for probe in self.probes):
            batch = batch_on(self._ranks, batch)
            if batch is None:
                check_needs(self.probes, ["batch"])
        start = time.perf_counter()
        now = Moment(int(step), epoch, loss)
        outcomes: dict[str, Outcome] = {}
        if not self._ranks.several or self._owed or self._asked(now):
            now, due, waiting = decided(self._ranks, lambda: self._plan(now, start))
            if waiting:
                synchronise(self.objective)  # what the training still has under way is not the cost of measuring
                start = time.perf_counter()
                outcomes = self._measure(waiting, due, now, batch_on(self._ranks, batch), start)
            self._owed = decided(self._ranks, self._waiting)
        self._look_ahead(Moment(now.step, epoch, loss))
        self._call = Moment(now.step, epoch)
        self._before = dict.fromkeys(self._before, self._call)
        self._budget.spend(time.perf_counter() - start, idle=not outcomes)
        return outcomes

    # -- one call ------------------------------------------------------------------------------------------------

    def _standing(self) -> tuple[dict[str, frozenset[int]], dict[str, Moment | None]]:
        """What the trace holds already: the steps of each probe, and its last moment."""
        names = [probe.name for probe in self.probes]
        steps = {name: frozenset(map(int, self.trace[name]["step"])) for name in names}
        return steps, {name: last_moment(self.trace, name) for name in names}

    def _waiting(self) -> frozenset[str]:
        return frozenset(probe.name for probe in self.probes if self._budget.owes(probe.name))

    def _plan(self, now: Moment, start: float) -> tuple[Moment, set[str], list[str]]:
        """Now with its loss, the names of the probes that are due, and those of which some are to be measured now."""
        due = self._due(now)
        waiting = [p for p in self.probes if p.name in due or self._budget.owes(p.name)]
        if not waiting or self.trace.broken or not self._turns.any_fits(waiting, due, now, start):
            return Moment(now.step, now.epoch), due, []
        return Moment(now.step, now.epoch, now.loss), due, [probe.name for probe in waiting]

    def _asked(self, now: Moment) -> bool:
        """Whether a probe may be due: the same on all ranks, without a word between them."""
        return any(asks(schedule, now, self._before[name]) for name, schedule in self._schedules.items())

    def _due(self, now: Moment) -> set[str]:
        """Names of the probes that are due. A schedule that fails is noted like a probe that does."""
        due = set()
        for name, schedule in self._schedules.items():
            try:
                # what the trace has already is from before it was resumed, or from this step
                there = now.step in self._recorded[name] or now.step == self._last.get(name)
                if schedule.due(now, self._before[name]) and not there:
                    due.add(name)
            except Exception as error:
                if self.on_error == "raise":
                    raise
                self._notes(now, name, f"its schedule failed: {type(error).__name__}: {one_line(error)}", warning=True)
        return due

    def _measure(self, waiting: list[str], due: set[str], now: Moment, batch: Any, start: float) -> dict[str, Outcome]:
        with ExitStack() as graphs:
            context = Context(
                self.objective,
                now.step,
                now.epoch,
                now.loss,
                batch,
                self.optimizer,
                callback=self.callback,
                previous=self._previous,
                seed=self.trace.seed,
                session=self._session,
                shared=Step(graphs),
            )
            probes = [probe for probe in self.probes if probe.name in waiting]
            chosen = self._turns.affordable(probes, due, now, context, start)
            outcomes = measure_all(chosen, self.trace, context, self.on_error, self._notes.warned)
        for name, outcome in outcomes.items():
            self._last[name] = now.step
            self._budget.note_measurement(name, outcome.cost, now.step, name in due)
            self._turns.tell_skips(name, now)
        self._reflection.show(outcomes, now)
        return outcomes

    def _look_ahead(self, now: Moment) -> None:
        """Keep a copy of the parameters for probes of the update that will be due at the next call."""
        self._previous = None
        stride = 1 if self._call is None else max(1, now.step - self._call.step)
        this, following = Moment(now.step, now.epoch), Moment(now.step + stride, now.epoch, now.raw_loss)
        for probe in self.probes:
            if "previous" not in probe.needs:
                continue
            schedule = self._schedules[probe.name]
            due = asks(schedule, following, this) if self._ranks.several else schedule.due(following, this)
            if due or probe.name in self._owed:
                self._previous = Previous(now.step, self.objective.theta())
                return

    def _write_skips(self) -> None:
        """What was skipped since the last row about it, when the trace is closed."""
        for name, before in self._before.items():
            if before is not None:
                self._turns.tell_skips(name, before, final=True)

    # -- the state that a checkpoint keeps ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the schedules, the budget and the trace stand: plain numbers and dicts, to be saved with a checkpoint.

        The trace is flushed: what it holds at a checkpoint survives the process, as the checkpoint does. The vectors
        that searches start from are left out: the first search after loading starts anew.
        """
        place = None
        try:
            if not self.trace.closed:
                self.trace.flush()
            place = place_of(self.trace, self._before)
        except TraceError as error:
            if self.on_error == "raise":
                raise
            warn(self.trace, f"the trace is behind this checkpoint: {one_line(error)}", 3)
        moments = {name: None if m is None else [m.step, m.epoch] for name, m in self._before.items()}
        budget = None if self._budget.unlimited else self._budget.state_dict()
        return {"version": _STATE_VERSION, "before": moments, "budget": budget, "trace": place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; probes that it does not know start as new. Raises `ValueError` for another thing.

        A trace that lacks records which it held then (it was not on the disk, or it is an older copy) goes on with the
        gap: there is a `ProbeWarning`, and a row in `/events`.
        """
        if not isinstance(state, Mapping) or state.get("version") != _STATE_VERSION:
            raise ValueError(f"this is not the state of a Monitor (of version {_STATE_VERSION})")
        for name, moment in state["before"].items():
            if name in self._before:
                self._before[name] = None if moment is None else Moment(*moment)
        if state["budget"] is not None and not self._budget.unlimited:
            self._budget.load_state_dict(state["budget"])
        self._before, self._owed = decided(self._ranks, lambda: (self._before, self._waiting()))
        for name, text in lost_since(state.get("trace"), self.trace).items():
            self._notes(self._before.get(name) or Moment(0), name, text, warning=True)
