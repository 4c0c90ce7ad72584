"""Jobs: what an experiment is made of. A finished one leaves a file, so a killed experiment goes on where it stopped.

A job is a module-level function with its settings. Its seed derives from (seed of the experiment, name), so its result
depends neither on the other jobs nor on whether they run in this process or beside it. What it returns is kept as
JSON, with a key made of all that it depends on: a changed setting runs the job again. Changed code does not: `--fresh`.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from probes.environment import environment
from probes.errors import one_line

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from probes.trace import Trace

Progress = Callable[[int, int], None]
# Called as (name of the job, steps done, steps planned), and with the outcome as a fourth once there is one.
Listener = Callable[..., None]


@dataclass(frozen=True)
class Job:
    """A piece of work: `run(desk, **settings)` returns what JSON can hold.

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
        digest = hashlib.blake2b(f"{seed}/{self.stream or self.name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    def key(self, seed: int) -> str:
        """What tells apart results that differ in function, settings or seed."""
        told = [self.run.__qualname__, dict(self.settings), self.seed(seed)]
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Desk:
    """Where a job works: its seed, its trace, and whom it tells how far it is."""

    name: str
    seed: int
    path: Path
    progress: Progress

    def trace(self, **config: Any) -> AbstractContextManager[Trace]:
        """A new trace at the job's path; what an earlier try left there is replaced."""
        from probes.trace import Trace

        self.path.parent.mkdir(parents=True, exist_ok=True)
        return Trace.create(self.path, config={"job": self.name, **config}, seed=self.seed, overwrite=True)


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the data that it returned, or why there are none.

    Attributes:
        trace: where its trace is, if it wrote one.
        seconds: what it took, when it ran.
        resumed: the result was there before.
    """

    data: Any
    trace: Path
    seconds: float = 0.0
    error: str | None = None
    resumed: bool = False


class Workshop:
    """Runs jobs and keeps their results in a folder: `NAME.json` with `NAME.h5` beside it.

    Args:
        folder: made when the first job runs.
        seed: of the experiment.
        threads: of torch, the same however many jobs run at once, since sums depend on them.
    """

    def __init__(self, folder: Path, seed: int, *, threads: int = 1) -> None:
        self.folder, self.seed, self.threads = folder, seed, threads

    def run(
        self, jobs: Iterable[Job], *, at_once: int = 1, fresh: bool = False, listener: Listener | None = None
    ) -> dict[str, Outcome]:
        """Run what has no result yet, `at_once` jobs at a time; the outcomes by name, in the order of the jobs.

        A job that fails has an outcome with the reason, and the others go on. Ctrl-C ends all at once.
        """
        jobs = list(jobs)
        if len({job.name for job in jobs}) < len(jobs):
            raise ValueError(f"two jobs have one name among {[job.name for job in jobs]}")
        if fresh:
            for job in jobs:
                self._result(job).unlink(missing_ok=True)
        tell = listener or _silent
        outcomes = {job.name: found for job in jobs if (found := self.finished(job)) is not None}
        for name, outcome in outcomes.items():
            tell(name, 1, 1, outcome)
        left = [job for job in jobs if job.name not in outcomes]
        outcomes |= self._beside(left, at_once, tell) if at_once > 1 else self._here(left, tell)
        return {job.name: outcomes[job.name] for job in jobs}

    def finished(self, job: Job) -> Outcome | None:
        """The result that an earlier run left; None when there is none for these settings and this seed."""
        try:
            kept = json.loads(self._result(job).read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(kept, dict) or kept.get("key") != job.key(self.seed):
            return None
        return Outcome(kept["data"], self._trace(job), kept["seconds"], resumed=True)

    def perform(self, job: Job, progress: Progress) -> Outcome:
        """Run one job in this process and keep its result; what it raises goes on to the caller."""
        start = time.perf_counter()
        seed = job.seed(self.seed)
        with _quiet_torch(seed, self.threads):
            data = job.run(Desk(job.name, seed, self._trace(job), _paced(progress)), **job.settings)
        seconds = time.perf_counter() - start
        kept = {
            "job": job.name,
            "key": job.key(self.seed),
            "settings": dict(job.settings),
            "seed": seed,
            "seconds": round(seconds, 2),
            "environment": environment(),
            "data": data,
        }
        write_json(self._result(job), kept)
        # as a resumed run would read it: a tuple comes back as a list, whichever way the result is come by
        return Outcome(json.loads(json.dumps(data)), self._trace(job), seconds)

    def _here(self, jobs: list[Job], tell: Listener) -> dict[str, Outcome]:
        outcomes = {}
        for job in jobs:
            try:
                outcome = self.perform(job, partial(tell, job.name))
            except Exception as error:
                outcome = Outcome(None, self._trace(job), error=_reason(error))
            outcomes[job.name] = outcome
            tell(job.name, 1, 1, outcome)
        return outcomes

    def _beside(self, jobs: list[Job], at_once: int, tell: Listener) -> dict[str, Outcome]:
        """Each job in a process of its own, so that one that dies takes nothing with it."""
        processes = _context()
        waiting, outcomes = list(reversed(jobs)), dict[str, Outcome]()
        running: dict[connection.Connection, tuple[Job, BaseProcess, list[str]]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    job = waiting.pop()
                    ours, theirs = processes.Pipe(duplex=False)
                    process = processes.Process(target=_child, args=(self, job, theirs), daemon=True)
                    process.start()
                    theirs.close()  # so that the end of the process is the end of the file
                    running[ours] = (job, process, [])
                for pipe in cast(list[connection.Connection], connection.wait(list(running))):
                    job, process, said = running[pipe]
                    try:
                        message = pipe.recv()
                    except EOFError:
                        process.join()
                        del running[pipe]
                        outcomes[job.name] = self._collect(job, process, said)
                        tell(job.name, 1, 1, outcomes[job.name])
                        continue
                    if isinstance(message, str):
                        said.append(message)
                    else:
                        tell(job.name, *message)
        finally:
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.join()
        return outcomes

    def _collect(self, job: Job, process: BaseProcess, said: list[str]) -> Outcome:
        finished = self.finished(job)
        if finished is not None and not said:
            return Outcome(finished.data, finished.trace, finished.seconds)
        code = process.exitcode
        died = f"the process ended with {'signal' if code and code < 0 else 'status'} {abs(code or 0)}"
        return Outcome(None, self._trace(job), error=said[-1] if said else died)

    def _result(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def _trace(self, job: Job) -> Path:
        return self.folder / f"{job.name}.h5"


def write_json(path: Path, content: Any) -> None:
    """Write JSON; it appears under its name only when it is whole and on the disk."""
    text = json.dumps(content, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's files are private
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _child(workshop: Workshop, job: Job, pipe: connection.Connection) -> None:
    """A process's whole life. The parent alone answers Ctrl-C; when it is gone, `send` fails and ends the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        workshop.perform(job, lambda done, planned: pipe.send((done, planned)))
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        with suppress(BrokenPipeError):
            pipe.send(_reason(error))


def _context() -> Any:
    """Processes forked from a server that has imported torch and started no thread; spawned where there is none."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    # torch's optimizers import the compiler, which alone takes as long as many a job
    context.set_forkserver_preload(["torch", "torch._dynamo", "landscape", "probes", "sklearn.datasets"])
    return context


@contextmanager
def _quiet_torch(seed: int, threads: int) -> Any:
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


def _paced(progress: Progress) -> Progress:
    """Progress that is passed on ten times a second, so that a job may tell each of its steps."""
    next_time = 0.0

    def tell(done: int, planned: int) -> None:
        nonlocal next_time
        now = time.monotonic()
        if now >= next_time:
            next_time = now + 0.1
            progress(done, planned)

    return tell


def _reason(error: Exception) -> str:
    """One line: the error and where in the experiment it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = next((f" ({Path(f.filename).name}:{f.lineno})" for f in reversed(frames) if "runs" in f.filename), "")
    return f"{type(error).__name__}: {one_line(error, 300)}{where}"


def _silent(*_: Any) -> None:
    """Nobody listens."""
