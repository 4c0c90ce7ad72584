"""Monitor: probes inside a training loop. It measures what is due, records it, and never stops the training.

    monitor = Monitor(objective, [Spectrum(k=5, every=100)], trace)
    for step, batch in enumerate(loader):
        ...
        monitor(step, loss=loss)

`measure_once` measures without a loop, a saved checkpoint for example.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from probes.errors import one_line
from probes.probe import (
    Callback,
    Context,
    Moment,
    Probe,
    measurement_seed,
    schedule_of,
    settings_of,
)
from probes.trace_file import TraceError

if TYPE_CHECKING:
    import torch

    from landscape.objective import Objective
    from landscape.operators import LinearOperator
    from probes.trace import Trace

OnError = Literal["record", "raise"]


class ProbeWarning(UserWarning):
    """A probe failed, or its result could not be written; the training goes on."""


@dataclass(frozen=True)
class Outcome:
    """What became of one probe: its values, or None and the reason; the cost in seconds."""

    values: dict[str, Any] | None
    cost: float
    error: str | None = None


def measure_once(
    objective: Objective, probes: Iterable[Probe], trace: Trace, step: int, *, epoch: float | None = None,
    loss: Any = None, batch: Any = None, optimizer: torch.optim.Optimizer | None = None,
    on_error: OnError = "record", callback: Callback | None = None,
) -> dict[str, Outcome]:  # fmt: skip
    """Measure the probes at the parameters as they stand, record the results and return them by name.

    A probe that fails gets a row in `/events`, a `ProbeWarning` and an `Outcome` with the reason, or raises
    with `on_error="raise"`; Ctrl-C is never held back. Raises `ValueError` when a name is in the trace with
    other settings, and for a probe that cannot be measured on this objective.
    """
    probes = list(probes)
    _check_on_error(on_error)
    context = Context(objective, int(step), epoch, _number(loss), batch, optimizer, callback=callback)
    declare(trace, probes, context)
    return _measure_all(probes, trace, context, on_error, set())


def declare(trace: Trace, probes: Sequence[Probe], context: Context) -> None:
    """Declare what the probes measure. Raises `ValueError` for two of one name and for other settings."""
    seen: dict[str, Probe] = {}
    for probe in probes:
        if probe.name in seen:
            raise ValueError(
                f"two probes are named {probe.name!r}: {seen[probe.name]} and {probe}; give one a name= of its own"
            )
        seen[probe.name] = probe
        trace.declare(probe.name, probe.fields(context), settings=settings_of(probe))


def _measure_all(
    probes: Iterable[Probe], trace: Trace, context: Context, on_error: OnError, warned: set[str]
) -> dict[str, Outcome]:
    return {probe.name: _measure(probe, trace, context, on_error, warned) for probe in probes}


def _measure(probe: Probe, trace: Trace, context: Context, on_error: OnError, warned: set[str]) -> Outcome:
    import torch

    generator = torch.Generator().manual_seed(measurement_seed(trace.seed, probe.name, context.step))
    start = time.perf_counter()
    values: dict[str, Any] | None = None
    try:
        values = dict(probe.measure(replace(context, generator=generator)))
        cost = time.perf_counter() - start
        trace.record(probe.name, context.step, epoch=context.epoch, cost=cost, **values)
        return Outcome(values, cost)
    except Exception as error:
        cost = time.perf_counter() - start
        if on_error == "raise":
            raise
        reason = _report(trace, probe.name, context, error, warned)
        return Outcome(values if isinstance(error, TraceError) else None, cost, reason)


def _report(trace: Trace, name: str, context: Context, error: Exception, warned: set[str]) -> str:
    """Write the failure to `/events` and warn, once for each kind of failure."""
    reason = f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, TraceError):
        kind, text = "trace", f"step {context.step}: {one_line(error)}; the training goes on"
    else:
        kind = f"{name}: {reason}"
        text = f"probe {name!r} failed at step {context.step}: {reason}; the training goes on"
        try:
            trace.event(context.step, name, reason, epoch=context.epoch)
        except TraceError as full:
            text += f" (and {one_line(full)})"
    if kind not in warned:
        warned.add(kind)
        warnings.warn(text, ProbeWarning, stacklevel=6)
    return reason


class Monitor:
    """Measures probes in a training loop: `monitor(step, loss=None, batch=None, epoch=None)` after each step.

    Args:
        objective: the loss as a function of the parameters.
        probes: each measures when its `every` says so.
        trace: open for writing; the probes are declared at once, so that a bad setting shows before training.
        optimizer: handed to the probes that look at it.
        budget: the share of wall-clock time, in (0, 1), that measuring may take, the monitor's own time
            included; a due probe whose last cost does not fit is skipped, and `/events` says so. The first
            measurement of each probe is always made, since its cost is not known. None: no limit.
        on_error: "record" (a failing probe gets a row in `/events` and one `ProbeWarning`, and the training
            goes on) or "raise".
        callback: for the algorithms, as in `landscape.spectra`.

    Raises `ValueError` for a bad budget, two probes of one name, and settings that do not fit the trace.
    """

    def __init__(
        self, objective: Objective, probes: Iterable[Probe], trace: Trace, *,
        optimizer: torch.optim.Optimizer | None = None, budget: float | None = None,
        on_error: OnError = "record", callback: Callback | None = None,
    ) -> None:  # fmt: skip
        if budget is not None and not 0 < budget < 1:
            raise ValueError(f"budget is a share of the wall-clock time between 0 and 1, or None, not {budget}")
        _check_on_error(on_error)
        self.objective = objective
        self.probes = tuple(probes)
        self.trace = trace
        self.optimizer = optimizer
        self.on_error: OnError = on_error
        self.callback = callback
        self._schedules = {probe.name: schedule_of(probe) for probe in self.probes}
        self._last: dict[str, Moment] = {}
        self._operators: dict[Any, LinearOperator] = {}
        self._warned: set[str] = set()
        self._budget = None if budget is None else _Budget(budget)
        declare(trace, self.probes, Context(objective, optimizer=optimizer, operators=self._operators))

    def __call__(
        self, step: int, *, loss: Any = None, batch: Any = None, epoch: float | None = None
    ) -> dict[str, Outcome]:
        """Measure what is due at this step: the outcomes by name, empty when nothing is.

        `loss` is a number or a one-element tensor (read only when a probe is due: that waits for the device).
        """
        start = time.perf_counter()
        due = self._due(Moment(int(step), epoch))
        outcomes: dict[str, Outcome] = {}
        if due and not self.trace.broken:
            context = Context(
                self.objective, int(step), epoch, _number(loss), batch, self.optimizer,
                callback=self.callback, operators=self._operators,
            )  # fmt: skip
            outcomes = _measure_all(due, self.trace, context, self.on_error, self._warned)
        if self._budget is not None:
            self._budget.spent(start, outcomes)
        return outcomes

    def _due(self, now: Moment) -> list[Probe]:
        due = []
        for probe in self.probes:
            if self._schedules[probe.name].due(now, self._last.get(probe.name)):
                self._last[probe.name] = now
                due.append(probe)
        return due if self._budget is None else [probe for probe in due if self._fits(probe, now)]

    def _fits(self, probe: Probe, now: Moment) -> bool:
        assert self._budget is not None
        refusal = self._budget.refusal(probe.name)
        if refusal is not None and not self.trace.broken:
            try:
                self.trace.event(now.step, probe.name, refusal, epoch=now.epoch)
            except TraceError as error:
                if self.on_error == "raise":
                    raise
                if "trace" not in self._warned:
                    self._warned.add("trace")
                    warnings.warn(f"step {now.step}: {one_line(error)}", ProbeWarning, stacklevel=4)
        return refusal is None


class _Budget:
    """Keeps (time spent measuring) / (time since the start) at most `share`, as last costs foretell it."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.total = 0.0  # seconds spent in the monitor
        self.costs: dict[str, float] = {}
        self.planned = 0.0  # of the probes let through in this call
        self.began = time.perf_counter()

    def refusal(self, name: str) -> str | None:
        """Why the probe does not fit now; None when it does."""
        cost = self.costs.get(name)
        if cost is None:
            return None
        used = self.total + self.planned + cost
        share = used / (time.perf_counter() - self.began + self.planned + cost)
        if share > self.share:
            return f"skipped: {cost:.3g} s would make measuring {share:.1%} of the time, budget {self.share:.1%}"
        self.planned += cost
        return None

    def spent(self, start: float, outcomes: dict[str, Outcome]) -> None:
        """Note what a call took."""
        self.costs |= {name: outcome.cost for name, outcome in outcomes.items()}
        self.total += time.perf_counter() - start
        self.planned = 0.0


def _number(loss: Any) -> float | None:
    return None if loss is None else float(loss.detach() if hasattr(loss, "detach") else loss)


def _check_on_error(on_error: str) -> None:
    if on_error not in ("record", "raise"):
        raise ValueError(f"on_error is 'record' or 'raise', not {on_error!r}")
