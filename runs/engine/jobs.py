"""Jobs: what an experiment is made of. A finished one leaves a file, so a killed experiment goes on where it stopped.

A job is a module-level function with its settings. Its seed derives from (seed of the experiment, name), so its result
depends neither on the other jobs nor on whether they run in this process or beside it. What it returns is kept as
JSON, with a key made of all that it depends on: a changed setting runs the job again. Changed code does not: `--fresh`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.files import atomic_file
from probes.seeds import derive_seed
from probes.trace.trace import Trace

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """A piece of work: `run(context, **settings)` returns what JSON can hold.

    Attributes:
        name: names its files, so letters, digits, "-", "_" and "." only.
        run: a function of a module, which another process can import.
        settings: keyword arguments, plain enough for JSON.
        stream: jobs of one stream share their seed, to start from the same weights for example; default: the name.
    """

    name: str
    run: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    stream: str = ""

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
    """What a job is given: its seed, the path of its trace, and a callback for its progress."""

    name: str
    seed: int
    path: Path
    progress: Progress

    def trace(self, **config: Any) -> AbstractContextManager[Trace]:
        """A new trace at the job's path; what an earlier try left there is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return Trace.create(self.path, config={"job": self.name, **config}, seed=self.seed, overwrite=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; it appears under its name only when it is whole and on the disk."""
    text = json.dumps(content, indent=1) + "\n"
    with atomic_file(path) as partial:
        partial.write_text(text)
