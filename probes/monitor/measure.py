"""Measuring probes at the parameters as they stand, and recording what came back or went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from probes.context import Context
from probes.errors import one_line
from probes.instruments.base import ADDED
from probes.monitor.costs import synchronise
from probes.monitor.subject import subject_of
from probes.monitor.together import batch_on, ranks_of, trace_on, warn
from probes.probe import Probe, check_needs, parts_of, searches_of
from probes.schedules import Moment
from probes.seeds import derive_seed
from probes.session import Step
from probes.trace.layout import TraceError
from probes.trace.trace import Trace

if TYPE_CHECKING:
    import torch

    from landscape.objective.objective import Objective
    from landscape.spectra import Callback

T = TypeVar("T")

OnError = Literal["record", "raise"]


@dataclass(frozen=True)
class Outcome:
    """What became of one probe: its values, or None and the reason; the cost in seconds."""

    values: dict[str, Any] | None
    cost: float
    error: str | None = None


def measure_once(
    objective: Objective,
    probes: Iterable[Probe],
    trace: Trace | None,
    step: int,
    *,
    epoch: float | None = None,
    loss: Any = None,
    batch: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    on_error: OnError = "record",
    callback: Callback | None = None,
) -> dict[str, Outcome]:
    """Measure the probes at the parameters as they stand, record the results and return them by name.

    A probe that fails gets a row in `/events`, a `ProbeWarning` and an `Outcome` with the reason, or raises
    with `on_error="raise"`; Ctrl-C is never held back. Where several ranks measure, all of them call this, and the
    first one writes: on the others the trace may be None. Raises `ValueError` when a name is in the trace with
    other settings, for a probe that cannot be measured on this objective, and before anything is measured for one that
    needs an optimizer or a batch that is not given.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Spectrum, Trace, measure_once
        >>> objective = Objective(nn.Linear(2, 1), nn.MSELoss(), (eye(2), ones(2, 1)))
        >>> with Trace.create("once.h5") as trace:
        ...     found = measure_once(objective, [Spectrum(k=2)], trace, step=0)
        >>> found["spectrum"].values["values"].round(3).tolist(), found["spectrum"].error
        ([3.0, 1.0], None)
    """
    probes = list(probes)
    check_on_error(on_error)
    value = Moment(int(step), epoch, loss).loss
    ranks = ranks_of(objective)
    writer, batch = trace_on(ranks, trace), batch_on(ranks, batch)
    with ExitStack() as graphs:
        shared = Step(graphs)
        context = Context(
            objective, int(step), epoch, value, batch, optimizer, callback=callback, seed=writer.seed, shared=shared
        )
        if batch is None:
            check_needs(probes, ["batch"])
        declare(writer, probes, context)
        return measure_all(probes, writer, context, on_error, set())


def declare(trace: Trace, probes: Sequence[Probe], context: Context) -> None:
    """Declare what the probes measure.

    Raises `ValueError` for two of one name, other settings, and a probe that needs an optimizer that is not there.
    """
    if context.optimizer is None:
        check_needs(probes, ["optimizer"])
    seen: dict[str, Probe] = {}
    for probe in probes:
        other = seen.get(probe.name)
        if other is not None:
            raise ValueError(f"two probes are named {probe.name!r}: {other} and {probe}; give one a name= of its own")
        seen[probe.name] = probe

    def declared() -> None:
        # another rank has no trace, and not every stand-in for an objective knows what it is
        if hasattr(trace, "describe") and hasattr(context.objective, "criterion"):
            trace.describe(subject_of(context.objective))
        every = [probe.fields(replace(context, name=probe.name)) for probe in probes]
        for probe, fields in zip(probes, every, strict=True):
            settings = getattr(probe, "settings", lambda: None)()
            trace.declare(probe.name, _as_before(trace, probe.name, fields), settings=settings)

    ranks_of(context.objective).agreed(declared)


def _as_before(trace: Trace, name: str, values: Mapping[str, T]) -> dict[str, T]:
    """Without the fields that a trace of an earlier version, which is resumed, has not got."""
    known = trace.declared(name)
    return {field: value for field, value in values.items() if field not in ADDED or known is None or field in known}


def measure_all(
    probes: Sequence[Probe], trace: Trace, context: Context, on_error: OnError, warned: set[str]
) -> dict[str, Outcome]:
    """The probes of one step; graphs, eigenpairs and gradients that several need are made once."""
    _tell_moved(trace, context, warned)
    context.shared.searches, context.shared.parts = searches_of(probes), parts_of(probes)
    return {probe.name: _measure(probe, trace, context, on_error, warned) for probe in probes}


def _tell_moved(trace: Trace, context: Context, warned: set[str]) -> None:
    """Say once that layers were frozen or unfrozen: an objective goes on with the parameters that it was made with."""
    look = getattr(context.objective, "moved", list)  # not every stand-in for an objective knows
    moved: list[str] = look()
    if not moved or "moved" in warned:
        return
    warned.add("moved")
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    text = (
        f"step {context.step}: {moved[0]!r}{more} of the model was frozen or unfrozen since the objective was made, "
        "which goes on with the parameters that it had then: make a new one, or name them with parameters="
    )
    trace.event(context.step, "objective", text, epoch=context.epoch)
    warn(trace, text, 6)


def _measure(probe: Probe, trace: Trace, context: Context, on_error: OnError, warned: set[str]) -> Outcome:
    import torch

    from landscape.ranks import RanksLost

    generator = torch.Generator().manual_seed(derive_seed(trace.seed, probe.name, context.step))
    start = time.perf_counter()
    values: dict[str, Any] | None = None
    try:
        kept = trace if isinstance(trace, Trace) else None
        own = replace(context, generator=generator, name=probe.name, trace=kept)
        values = ranks_of(context.objective).agreed(lambda: dict(probe.measure(own)))
        synchronise(context.objective)
        cost = time.perf_counter() - start
        fields = _as_before(trace, probe.name, values)
        trace.record(probe.name, context.step, epoch=context.epoch, cost=cost, **fields)
        return Outcome(values, cost)
    except RanksLost:
        raise
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
        warn(trace, text, 7)
    return reason


def check_on_error(on_error: str) -> None:
    """Raise `ValueError` for an unknown way of treating errors."""
    if on_error not in ("record", "raise"):
        raise ValueError(f"on_error is 'record' or 'raise', not {on_error!r}")
