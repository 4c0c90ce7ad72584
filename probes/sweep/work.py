"""One job as it is done, in whichever process and on whichever machine: once, with its result kept in a file.

In the folder of the jobs, `NAME.json` is the result, `NAME.h5` the trace, `NAME.pt` the checkpoint of a run that is
not finished. Whoever does a job holds the lock of its result meanwhile: others see that it is being done.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from probes.environment import environment
from probes.errors import one_line
from probes.sweep.checkpoint import SECONDS, Checkpoint
from probes.sweep.jobs import Job, JobContext, Pace, Paused, Progress, write_json
from probes.trace.layout import TraceError
from probes.trace.lock import WriterLock, holder_of


@dataclass(frozen=True)
class JobResult:
    """What a job left: the data that it returned, or why there are none.

    Attributes:
        trace: where its trace is, if it wrote one.
        seconds: what it took, all tries together.
        resumed: the result was there before.
    """

    data: Any
    trace: Path
    seconds: float = 0.0
    error: str | None = None
    resumed: bool = False


class Outcome(NamedTuple):
    """How a try ended: `why` it failed or who is at it; a paused one takes `seconds` in all, `share` is done."""

    state: Literal["finished", "failed", "busy", "paused"]
    why: str = ""
    seconds: float = 0.0
    share: float = 1.0


@dataclass(frozen=True)
class Work:
    """A job with all that doing it takes; it is pickled, so it holds names and numbers only.

    Attributes:
        folder: of all jobs, absolute: a worker may have been started elsewhere.
        seed: of the sweep.
        threads: of torch.
        checkpoint: seconds from one checkpoint to the next.
        limit: seconds of steps after which a job that keeps checkpoints pauses.
    """

    job: Job
    folder: Path
    seed: int
    threads: int = 1
    checkpoint: float = SECONDS
    limit: float = float("inf")

    @property
    def result(self) -> Path:
        """The file of the result, which exists when the job is finished."""
        return self.folder / f"{self.job.name}.json"

    @property
    def trace(self) -> Path:
        """The file of the trace."""
        return self.folder / f"{self.job.name}.h5"

    @property
    def state(self) -> Checkpoint:
        """The job's checkpoint."""
        path = self.folder / f"{self.job.name}.pt"
        return Checkpoint(path, self.job.key(self.seed), self.checkpoint)

    def finished(self) -> JobResult | None:
        """The result that is there; None when there is none for these settings and this seed."""
        try:
            kept = json.loads(self.result.read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(kept, dict) or kept.get("key") != self.job.key(self.seed):
            return None
        return JobResult(kept["data"], self.trace, kept["seconds"], resumed=True)

    def busy(self) -> str:
        """Who is doing it at this moment; nothing when nobody is."""
        held, owner = holder_of(self.result)
        return str(owner) if held else ""

    def told(self) -> tuple[int, int] | None:
        """(steps done, steps planned), as whoever does it has said last."""
        try:
            done, planned = self._progress.read_text().split()
            return int(done), int(planned)
        except (OSError, ValueError):
            return None

    def perform(self, progress: Progress) -> JobResult:
        """Do the job in this process and keep its result; what it raises goes on to the caller.

        Raises `TraceError` when somebody else is doing it, and `Paused` at the limit.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = WriterLock(self.result)
        try:
            if (found := self.finished()) is not None:  # whoever had the lock before has done it
                return found
            return self._perform(progress)
        finally:
            self._progress.unlink(missing_ok=True)
            lock.release()

    def _perform(self, progress: Progress) -> JobResult:
        seed, checkpoint = self.job.seed(self.seed), self.state
        context = JobContext(self.job.name, seed, self.trace, progress, checkpoint, Pace(self.limit))
        with quiet_torch(seed, self.threads):
            data = self.job.run(context, **self.job.settings, **self.job.places)
        seconds = checkpoint.spent()
        kept = {
            "job": self.job.name,
            "key": self.job.key(self.seed),
            "settings": dict(self.job.settings),
            "seed": seed,
            "seconds": round(seconds, 2),
            "environment": environment(),
            "data": data,
        }
        write_json(self.result, kept)
        checkpoint.remove()
        # as a resumed run would read it: a tuple comes back as a list, whichever way the result is come by
        return JobResult(json.loads(json.dumps(data)), self.trace, seconds)

    def tell(self, done: int, planned: int) -> None:
        """Write down how far it is, for `told`."""
        with suppress(OSError):
            partial = self._progress.with_suffix(".partial")
            partial.write_text(f"{done} {planned}")
            os.replace(partial, self._progress)

    @property
    def _progress(self) -> Path:
        return self.folder / f".{self.job.name}.progress"


def carry_out(work: Work) -> Outcome:
    """Do the work in a worker, and say how it ended: nothing is raised but what ends a process."""
    try:
        result = work.perform(paced(work.tell, 0.5))
        return Outcome("finished", seconds=result.seconds)
    except Paused as paused:
        return Outcome("paused", seconds=paused.whole, share=paused.share)
    except Exception as error:
        if isinstance(error, TraceError) and (owner := work.busy()):
            return Outcome("busy", owner)
        return Outcome("failed", reason(error))


@contextmanager
def quiet_torch(seed: int, threads: int) -> Iterator[None]:
    """The job's threads and global seed (for a library that draws from it), and all as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def paced(progress: Progress, seconds: float) -> Progress:
    """Progress that is passed on at most so often, so that a job may tell each of its steps."""
    next_time = 0.0

    def tell(done: int, planned: int) -> None:
        nonlocal next_time
        now = time.monotonic()
        if now >= next_time:
            next_time = now + seconds
            progress(done, planned)

    return tell


def reason(error: BaseException) -> str:
    """One line: the error and where in the user's or the experiment's code it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "purelib")] + [str(Path(__file__).parent)]
    own = [f for f in frames if not f.filename.startswith(tuple(libraries))]
    where = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {one_line(error, 300)}{where}"


def search_path() -> list[str]:
    """Where this process finds modules beside what is installed, absolute: what a worker needs as its PYTHONPATH."""
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    paths = [os.path.abspath(path) for path in sys.path if not path.endswith(".zip")]
    return list(dict.fromkeys(path for path in paths if not path.startswith(installed)))
