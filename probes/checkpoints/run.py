"""Probe saved checkpoints: each becomes one step of one trace.

Everything that can be wrong is looked for before the first product: the output, the problem, every
checkpoint. What was measured when something stops the work later is kept, and `resume` goes on from there.
"""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from landscape.ranks import agreed_on
from probes.checkpoints.files import locate
from probes.checkpoints.layers import Group, groups_of
from probes.checkpoints.load import load_checkpoint, match_checkpoint
from probes.checkpoints.match import bare
from probes.checkpoints.output import check_output
from probes.checkpoints.problem import build_objective
from probes.checkpoints.resume import Kept
from probes.checkpoints.second import check_served, with_objectives
from probes.checkpoints.stations import Stations
from probes.checkpoints.texts import Texts
from probes.context import Context
from probes.display.progress import progress_bar
from probes.errors import UserError, first_few, one_line
from probes.hashes import hash_of
from probes.instruments.base import Instrument
from probes.monitor.measure import measure_once
from probes.ranks import Terminated, deal, decided, share_randomness, world
from probes.terminal import resumed
from probes.trace.layout import Field, TraceError
from probes.trace.trace import Trace
from probes.trace.unfinished import count_unfinished

if TYPE_CHECKING:
    from landscape import Objective
    from landscape.spectra import Callback

_END = ("end", "sketch")  # settings of a probe that looks ahead, known when the last checkpoint is loaded
_LOSS = {
    "value": Field(description="the objective's value at the checkpoint"),
    "gradient_norm": Field(description="Euclidean norm of its gradient"),
    "weights": Field((), "S32", "", "hash of the checkpoint's weights"),
}


@dataclass(frozen=True)
class Request:
    """One `landscape probe` or the like: what to measure, where, and what to do about an output that is there."""

    checkpoints: Sequence[tuple[int, Path]]
    problem: str
    probes: Sequence[Instrument]
    output: Path
    operator: str = "hessian"
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    notes: Sequence[str] = ()  # for the person who asked, before measuring begins
    texts: Texts | None = None  # of a problem that is a task
    by_layer: bool = False  # probes of a curvature matrix as one for each layer
    command: str = "probe"

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise UserError("--resume and --overwrite exclude each other: add to the output or replace it", status=2)

    @property
    def config(self) -> dict[str, Any]:
        """What the trace keeps of it."""
        return {
            "command": self.command,
            "problem": self.problem,
            "operator": self.operator,
            "probes": [probe.name for probe in self.probes],
            "checkpoints": {str(step): str(path) for step, path in self.checkpoints},
            **({} if self.texts is None else {"texts": self.texts.config}),
        }


def run(request: Request, console: Console) -> int:
    """Measure what is missing in the output; the number of measurements made. Progress goes to the console.

    Raises `UserError` for a probe that only a training loop can serve and for whatever is wrong with the output, the
    problem or a checkpoint before anything is measured, and for a measurement that fails. A trace in which no probe
    measured anything is removed again.
    """
    check_served(request.probes)
    ranks = world()
    kept = decided(ranks, lambda: _kept(request))
    ranks.agreed(lambda: [locate(path) for _, path in request.checkpoints])

    notes: list[str] = []
    first = request.checkpoints[0][1]
    share_randomness(ranks)
    # a problem function may communicate by itself, so what one rank raises here is not agreed on
    objective = deal(build_objective(request.problem, first, request.texts, request.seed, notes.append), ranks)
    origin: dict[str, Any] = {"checkpoint": first, "texts": request.texts, "seed": request.seed}
    probes = with_objectives(
        request.probes, objective, request.problem, **origin, deal=partial(deal, ranks=ranks), say=notes.append
    )
    request = replace(request, probes=probes)
    hashes, more = ranks.agreed(lambda: _examine(request, objective))
    notes += more
    _refuse_other_weights(request, ranks.gathered(hashes))
    todo = ranks.agreed(lambda: _missing(request, objective, kept, hashes))
    if kept.weights is None:
        notes.append(f"{request.output} has no hashes of its checkpoints: whether they are the same cannot be told")
    notes += _footprints(objective, todo)
    if ranks.several:
        notes.append(f"{ranks.size} ranks share the data")
    for note in (*request.notes, *notes):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if not todo:
        return 0
    trace: Trace | None = None
    opened, measured = False, 0
    try:
        with ExitStack() as stack:
            # a user's model or data set may print: stdout is for results
            stack.enter_context(redirect_stdout(sys.stderr))
            show = stack.enter_context(progress_bar(console, len(todo)))
            loaded: Path | None = None
            for made, (step, path, group) in enumerate(todo):
                if path != loaded:
                    ranks.agreed(partial(load_checkpoint, path, objective.model))
                    loaded = path
                callback = show(f"step {step} {_name(group)}", made)
                if group is None:
                    # before the trace is made: a loss without a gradient must not cost the old file
                    values = ranks.agreed(partial(_loss, objective, path)) | {"weights": hashes[step]}
                if not opened:
                    trace = ranks.agreed(lambda: stack.enter_context(_open(request)) if ranks.rank == 0 else None)
                    opened = True
                if group is not None:
                    _measure(objective, group, trace, step, path, request.problem, callback)
                    measured += len(group)
                elif trace is not None:
                    _record_loss(trace, step, values)
    except BaseException as error:
        measured = measured or _rows(trace)  # what was recorded just now is not counted yet
        if kept.fresh and measured == 0 and trace is not None:
            request.output.unlink(missing_ok=True)
        if isinstance(error, KeyboardInterrupt):
            ended = isinstance(error, Terminated)
            what, status = ("ended by its launcher: another rank has failed", 143) if ended else ("interrupted", 130)
            raise _stopped(what, measured, request.output, status) from error
        if measured and isinstance(error, UserError | RuntimeError | TraceError):
            raise _stopped(one_line(error, limit=400), measured, request.output, 1) from error
        raise
    return len(todo)


def _kept(request: Request) -> Kept:
    """What the output has. Raises `UserError` when a trace cannot be written there, or not on with it."""
    checkpoints = [path for _, path in request.checkpoints]
    check_output(request.output, resume=request.resume, overwrite=request.overwrite, checkpoints=checkpoints)
    fresh = not (request.resume and request.output.exists())
    kept = Kept(request.output) if fresh else Kept.read(request.output, request.config, request.seed)
    kept.check_settings(request.probes, but=_END, named=request.command == "probe")
    return kept


def _refuse_other_weights(request: Request, hashes: Sequence[dict[int, str]]) -> None:
    """Raise `UserError` where a rank finds other weights in a checkpoint than the first one."""
    for rank, found in enumerate(hashes):
        for step, path in request.checkpoints:
            if found[step] != hashes[0][step]:
                raise agreed_on(UserError(f"{path} holds other weights for rank {rank} than for rank 0"))


def _examine(request: Request, objective: Objective) -> tuple[dict[int, str], list[str]]:
    """The hash of each checkpoint's weights, by step, and what was decided in reading them, in a line each."""
    hashes: dict[int, str] = {}
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for step, path in request.checkpoints:
        said: list[str] = []
        matched = match_checkpoint(path, objective.model, said.append)
        hashes[step] = hash_of({bare(name): value for name, value in matched.items()})
        for text in said:
            paths[text].append(str(path))
    steps: defaultdict[str, list[str]] = defaultdict(list)
    for step, code in hashes.items():
        steps[code].append(str(step))
    notes = [f"{first_few(files)}: {text}" for text, files in paths.items()]
    same = [f"the checkpoints of steps {first_few(some)} hold the same weights" for some in steps.values() if some[1:]]
    return hashes, notes + same


def _missing(
    request: Request, objective: Objective, kept: Kept, hashes: Mapping[int, str]
) -> list[tuple[int, Path, Group | None]]:
    """What the output has not got yet: step, checkpoint and the probes of one go, None for the loss itself.

    Raises `UserError` when what it has is not of this problem.
    """
    kept.check_weights(request.checkpoints, hashes)
    for step, path in request.checkpoints:
        if step in kept.losses:  # one is enough to see that the problem is the same
            load_checkpoint(path, objective.model)
            with redirect_stdout(sys.stderr):
                kept.check_loss(step, lambda: _loss_and_norm(objective), request.problem)
            break
    probes = [probe.at_stations(Stations(request.checkpoints, objective)) for probe in request.probes]
    groups = groups_of(probes, objective, request.by_layer)
    kept.check_settings([probe for group in groups for probe in group], named=request.command == "probe")
    last = max(step for step, _ in request.checkpoints)
    todo: list[tuple[int, Path, Group | None]] = []
    for step, path in request.checkpoints:
        if step not in kept.steps.get("loss", ()):
            todo.append((step, path, None))
        for group in groups:
            open_ = (probe for probe in group if step not in kept.steps.get(probe.name, ()))
            if due := tuple(probe for probe in open_ if step == last or not probe.of_all):
                todo.append((step, path, due))
    return todo


def _name(group: Group | None) -> str:
    """What the progress says of it."""
    if group is None:
        return "loss"
    return group[0].name if len(group) == 1 else f"{group[0].name.partition(' ')[0]} of {len(group)} layers"


def _footprints(objective: Objective, todo: list[tuple[int, Path, Group | None]]) -> list[str]:
    """A line for each probe whose vectors will not lie on the device: how much, and where."""
    notes = []
    for probe in {probe.name: probe for _, _, group in todo for probe in group or ()}.values():
        with suppress(MemoryError, ValueError):  # the measurement says it
            found = probe.footprint(Context(objective))
            if found is not None and found.where != "device":
                notes.append(f"{probe.name}: {found} at most")
    return notes


def _rows(trace: Trace | None) -> int:
    """What would be lost with the trace: measurements, and what was found of one that has not ended."""
    if trace is None:
        return 0
    return count_unfinished(trace) + sum(len(trace[name]) for name in trace if name != "loss")


def _stopped(what: str, measured: int, output: Path, status: int) -> UserError:
    """What is kept, and the command that goes on with it."""
    if measured == 0:
        return UserError(f"{what}; nothing was measured", status=status)
    kept = f"{what}; what was measured before is kept in {output}, go on with"
    return UserError(kept, status=status, command=resumed())


def _open(request: Request) -> Trace:
    if request.resume and request.output.exists():
        return Trace.resume(request.output)
    return Trace.create(request.output, config=request.config, seed=request.seed, overwrite=request.overwrite)


def _record_loss(trace: Trace, step: int, values: dict[str, Any]) -> None:
    """One row of the loss; a trace of a time that knew no hashes goes on without them."""
    known = trace.declared("loss") or _LOSS
    trace.declare("loss", known)
    trace.record("loss", step, **{name: value for name, value in values.items() if name in (*known, "cost")})


def _loss(objective: Objective, path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    value, norm = _loss_and_norm(objective)
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise UserError(f"the loss at {path} is {value:g} with a gradient of norm {norm:g}: nothing to measure there")
    return {"value": value, "gradient_norm": norm, "cost": time.perf_counter() - start}


def _loss_and_norm(objective: Objective) -> tuple[float, float]:
    from landscape.operators.outline import norm

    value, gradient = objective.value_and_gradient()
    return value, norm(objective, gradient.double())


def _measure(
    objective: Objective, group: Group, trace: Trace | None, step: int, path: Path, problem: str, callback: Callback
) -> None:
    try:
        measure_once(objective, group, trace, step, on_error="raise", callback=callback)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"the probe {_name(group)} failed on {path} of {problem}: {one_line(error)}") from error
