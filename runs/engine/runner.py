"""Jobs run in processes, each kept as it ends, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from probes.environment import environment
from probes.errors import one_line
from runs.engine.jobs import Job, JobContext, Progress, write_json

# Called as (name of the job, steps done, steps planned), and with the result as a fourth once there is one.
Listener = Callable[..., None]


@dataclass(frozen=True)
class JobResult:
    """What a job left: the data that it returned, or why there are none.

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


class Runner:
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
    ) -> dict[str, JobResult]:
        """Run what has no result yet, `at_once` jobs at a time; the results by name, in the order of the jobs.

        A job that fails has a result with the reason, and the others go on. Ctrl-C ends all at once.
        """
        jobs = list(jobs)
        if len({job.name for job in jobs}) < len(jobs):
            raise ValueError(f"two jobs have one name among {[job.name for job in jobs]}")
        for job in jobs if fresh else ():
            self._result(job).unlink(missing_ok=True)
        tell = listener or (lambda *_: None)
        results = {job.name: found for job in jobs if (found := self.finished(job)) is not None}
        for name, result in results.items():
            tell(name, 1, 1, result)
        left = [job for job in jobs if job.name not in results]
        results |= self._beside(left, at_once, tell) if at_once > 1 else self._here(left, tell)
        return {job.name: results[job.name] for job in jobs}

    def finished(self, job: Job) -> JobResult | None:
        """The result that an earlier run left; None when there is none for these settings and this seed."""
        try:
            kept = json.loads(self._result(job).read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(kept, dict) or kept.get("key") != job.key(self.seed):
            return None
        return JobResult(kept["data"], self._trace(job), kept["seconds"], resumed=True)

    def perform(self, job: Job, progress: Progress) -> JobResult:
        """Run one job in this process and keep its result; what it raises goes on to the caller."""
        start = time.perf_counter()
        seed = job.seed(self.seed)
        with _quiet_torch(seed, self.threads):
            data = job.run(JobContext(job.name, seed, self._trace(job), _paced(progress)), **job.settings)
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
        return JobResult(json.loads(json.dumps(data)), self._trace(job), seconds)

    def _here(self, jobs: list[Job], tell: Listener) -> dict[str, JobResult]:
        results = {}
        for job in jobs:
            try:
                results[job.name] = self.perform(job, partial(tell, job.name))
            except Exception as error:
                results[job.name] = JobResult(None, self._trace(job), error=_reason(error))
            tell(job.name, 1, 1, results[job.name])
        return results

    def _beside(self, jobs: list[Job], at_once: int, tell: Listener) -> dict[str, JobResult]:
        """Each job in a process of its own, so that one that dies takes nothing with it."""
        processes = _context()
        waiting, results = list(reversed(jobs)), dict[str, JobResult]()
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
                        results[job.name] = self._collect(job, process, said)
                        tell(job.name, 1, 1, results[job.name])
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
        return results

    def _collect(self, job: Job, process: BaseProcess, said: list[str]) -> JobResult:
        if not said and (finished := self.finished(job)) is not None:
            return replace(finished, resumed=False)
        code = process.exitcode or 0
        died = f"the process ended with {'signal' if code < 0 else 'status'} {abs(code)}"
        return JobResult(None, self._trace(job), error=said[-1] if said else died)

    def _result(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def _trace(self, job: Job) -> Path:
        return self.folder / f"{job.name}.h5"


def _child(runner: Runner, job: Job, pipe: connection.Connection) -> None:
    """A process's whole life. The parent alone answers Ctrl-C; when it is gone, `send` fails and ends the job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        runner.perform(job, lambda done, planned: pipe.send((done, planned)))
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
