"""Jobs: what a sweep or an experiment is made of. A finished one leaves a file, so a killed sweep goes on from there.

A job is a module-level function with its settings. Its seed derives from (seed of the sweep, name), so its result
depends neither on the other jobs nor on the process, the machine or the engine that runs it. What it returns is kept
as JSON, with a key made of all that it depends on: a changed setting runs the job again. Changed code does not, but
for the file of a user's problem, whose content is one of the settings: `--fresh`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.files import atomic_file
from probes.seeds import derive_seed
from probes.sweep.checkpoint import Checkpoint
from probes.trace.layout import TraceError
from probes.trace.trace import Trace

if TYPE_CHECKING:
    from probes.sweep.checkpoint import State

Progress = Callable[[int, int], None]


class Paused(Exception):
    """The job has used the time that it was given: its checkpoint and its trace are kept, and the next try goes on."""

    def __init__(self, done: int, planned: int, whole: float) -> None:
        super().__init__(f"paused after {done} of {planned} steps")
        self.whole, self.share = whole, done / planned  # `whole`: seconds that all steps take, by those made


class Pace:
    """How fast steps are, without what comes before the first one: imports, data, the first look.

    Args:
        limit: seconds of steps, from the end of the first one.
    """

    def __init__(self, limit: float = float("inf")) -> None:
        self.limit, self.start = limit, time.monotonic()
        self.first: tuple[float, int] | None = None

    def late(self, step: int) -> bool:
        """Whether the limit is reached after this step."""
        now = time.monotonic()
        if self.first is None:
            self.first = now, step
        return now - self.first[0] >= self.limit

    def whole(self, step: int, planned: int) -> float:
        """Seconds of a run with so many steps, by the time until now."""
        now = time.monotonic()
        at, first = self.first or (self.start, step)
        if step == first:  # one step alone: what came before it is not told from it
            return (now - self.start) * planned
        each = (now - at) / (step - first)
        return max(0.0, at - self.start - each) + each * planned


@dataclass(frozen=True)
class Job:
    """A piece of work: `run(context, **settings, **places)` returns what JSON can hold.

    Attributes:
        name: names its files, so letters, digits, "-", "_" and "." only.
        run: a function of a module, which another process can import.
        settings: keyword arguments, plain enough for JSON.
        stream: jobs of one stream share their seed, to start from the same weights for example; default: the name.
        places: more keyword arguments, which say where something is: they may change and the result stands.
        kind: jobs of one kind cost about the same.
    """

    name: str
    run: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    stream: str = ""
    places: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise ValueError(f"a job's name is made of letters, digits, '-', '_' and '.', not {self.name!r}")

    def seed(self, seed: int) -> int:
        """The job's own seed, in [0, 2**63), in an experiment with this seed."""
        return derive_seed(seed, self.stream or self.name)

    def key(self, seed: int) -> str:
        """What tells apart results that differ in function, settings or seed."""
        parts = [self.run.__qualname__, dict(self.settings), self.seed(seed)]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class JobContext:
    """What a job is given.

    Attributes:
        name: of the job.
        seed: its own.
        path: of its trace.
        progress: to be called with (steps done, steps planned).
        checkpoint: where it may leave its state, and finds what an earlier try has left.
        pace: of its steps, with the limit at which a job that keeps checkpoints leaves one and raises `Paused`.
    """

    name: str
    seed: int
    path: Path
    progress: Progress
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    pace: Pace = field(default_factory=Pace)

    def trace(self, **config: Any) -> AbstractContextManager[Trace]:
        """A new trace at the job's path; what an earlier try left there is replaced."""
        self.checkpoint.remove()  # it is no longer this trace's
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return Trace.create(self.path, config={"job": self.name, **config}, seed=self.seed, overwrite=True)

    def resume(self, **config: Any) -> tuple[Trace, State | None]:
        """The trace and the state of the last checkpoint to go on from; a new trace and None where there is none.

        Records of steps after the checkpoint's are dropped: they are measured again.
        """
        state = self.checkpoint.load()
        if state is not None:
            with suppress(TraceError):
                trace = Trace.resume(self.path, step=int(state["step"]))
                if trace.uuid == state["trace"]:
                    return trace, state
                trace.close()
        made = self.trace(**config)
        assert isinstance(made, Trace)
        return made, None

    def keep(self, trace: Trace, step: int, planned: int, state: Callable[[], State]) -> None:
        """After step `step` (from 0) of `planned`: leave a checkpoint if due. Raises `Paused` at the limit."""
        late = self.pace.late(step) and step + 1 < planned
        if late or self.checkpoint.due():
            trace.flush()
            self.checkpoint.save({"step": step, "trace": trace.uuid, **state()})
        if late:
            raise Paused(step + 1, planned, self.pace.whole(step, planned))


def write_json(path: Path, content: Any) -> None:
    """Write JSON; it appears under its name only when it is whole and on the disk."""
    text = json.dumps(content, indent=1) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text)
