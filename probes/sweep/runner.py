"""Jobs run by an engine, each kept as it ends, so that a killed sweep goes on where it was.

Several runners may have one folder: each job is done by the one that comes first, and the others wait for its result.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.sweep.checkpoint import SECONDS
from probes.sweep.engines.engine import Engine, Lost
from probes.sweep.jobs import Job, Paused
from probes.sweep.work import JobResult, Outcome, Work, paced, reason
from probes.trace.layout import TraceError

# Called as (name of the job, steps done, steps planned), and with the result as a fourth once there is one.
Listener = Callable[..., None]
POLL = 0.05  # seconds from one look at the engine to the next
LOOK = 0.5  # from one look at files to the next
PATIENCE = 30.0  # seconds for a result to reach this machine from the one where it was written


@dataclass
class _Running:
    work: Work
    handle: Any
    tries: int


class Runner:
    """Runs jobs and keeps their results in a folder: `NAME.json` with `NAME.h5` beside it.

    Args:
        folder: made when the first job runs.
        seed: of the experiment.
        threads: of torch, the same however many jobs run at once, since sums depend on them.
        checkpoint: seconds from one checkpoint of a run to the next.
    """

    def __init__(self, folder: Path, seed: int, *, threads: int = 1, checkpoint: float = SECONDS) -> None:
        self.folder, self.seed, self.threads, self.checkpoint = folder.absolute(), seed, threads, checkpoint
        self.paused: dict[str, Outcome] = {}  # how far what is not finished came within a limit

    def work(self, job: Job, limit: float = float("inf")) -> Work:
        """The job with all that doing it takes."""
        return Work(job, self.folder, self.seed, self.threads, self.checkpoint, limit)

    def run(
        self,
        jobs: Iterable[Job],
        *,
        at_once: int = 1,
        fresh: bool = False,
        listener: Listener | None = None,
        engine: Engine | None = None,
        limit: float = float("inf"),
    ) -> dict[str, JobResult]:
        """Run what has no result yet, `at_once` jobs at a time; the results by name, in the order of the jobs.

        A job that fails has a result with the reason, and the others go on. Ctrl-C ends all at once.

        Args:
            at_once: how many jobs the engine has at a time.
            fresh: forget the results, traces and checkpoints that are there.
            listener: is told how far each job is.
            engine: runs them; None: this process, one after the other.
            limit: seconds for each; those that pause then have no result, and stand in `paused`.

        Raises `UserError` when results are to be forgotten that somebody is working on.
        """
        jobs = list(jobs)
        if len({job.name for job in jobs}) < len(jobs):
            raise ValueError(f"two jobs have one name among {[job.name for job in jobs]}")
        works = [self.work(job, limit) for job in jobs]
        if fresh:
            forget(works)
        tell = listener or (lambda *_: None)
        results = {work.job.name: found for work in works if (found := work.finished()) is not None}
        for name, result in results.items():
            tell(name, 1, 1, result)
        left = [work for work in works if work.job.name not in results]
        made = self._here(left, tell) if engine is None else self._on(engine, left, at_once, tell)
        results |= made
        return {job.name: results[job.name] for job in jobs if job.name in results}

    def finished(self, job: Job) -> JobResult | None:
        """The result that an earlier run left; None when there is none for these settings and this seed."""
        return self.work(job).finished()

    # -- in this process ---------------------------------------------------------------------------------------------

    def _here(self, works: list[Work], tell: Listener) -> dict[str, JobResult]:
        results = {}
        waiting = deque(works)
        while waiting:
            work = waiting.popleft()
            name = work.job.name
            try:
                results[name] = work.perform(paced(partial(tell, name), 0.1))
            except Paused as paused:
                self.paused[name] = Outcome("paused", "", paused.whole, paused.share)
                continue
            except Exception as error:
                if isinstance(error, TraceError) and work.busy():
                    waiting.append(work)
                    time.sleep(LOOK)
                    continue
                results[name] = JobResult(None, work.trace, error=reason(error))
            tell(name, 1, 1, results[name])
        return results

    # -- by an engine ------------------------------------------------------------------------------------------------

    def _on(self, engine: Engine, works: list[Work], at_once: int, tell: Listener) -> dict[str, JobResult]:
        waiting = deque((work, 0) for work in works)
        elsewhere: list[Work] = []  # another sweep is doing them
        running: list[_Running] = []
        results: dict[str, JobResult] = {}
        next_look = 0.0
        try:
            while waiting or running or elsewhere:
                while waiting and len(running) < at_once:
                    work, tries = waiting.popleft()
                    if work.busy():
                        elsewhere.append(work)
                    else:
                        running.append(_Running(work, engine.submit(work), tries))
                ended = [run for run in running if engine.done(run.handle)]
                running = [run for run in running if run not in ended]
                for run in ended:
                    again, found = self._settle(engine, run)
                    if again == "elsewhere":
                        elsewhere.append(run.work)
                    elif again:
                        waiting.append((run.work, run.tries + 1))
                    if found is not None:
                        results[run.work.job.name] = found
                        tell(run.work.job.name, 1, 1, found)
                if (now := time.monotonic()) >= next_look:
                    next_look = now + LOOK
                    elsewhere = self._look(elsewhere, waiting, results, tell)
                    for work in [run.work for run in running] + elsewhere:
                        if (told := work.told()) is not None:
                            tell(work.job.name, *told)
                time.sleep(0 if ended else POLL)
        finally:
            for run in running:
                engine.cancel(run.handle)
        return results

    def _settle(self, engine: Engine, run: _Running) -> tuple[str, JobResult | None]:
        """Whether and why a job that has left the engine must be waited for or done again, and its result if not."""
        work = run.work
        try:
            outcome = engine.result(run.handle)
        except Lost as lost:
            if (found := work.finished()) is not None:  # it died after its work was done
                return "", replace(found, resumed=False)
            if run.tries < engine.retries:
                return "again", None
            tried = f", {run.tries + 1} times" if run.tries else ""
            return "", JobResult(None, work.trace, error=f"{lost}{tried}")
        if outcome.state == "finished":
            found = _arrived(work)
            why = f"its result did not appear in {work.folder}: is that folder shared with the workers?"
            return "", JobResult(None, work.trace, error=why) if found is None else replace(found, resumed=False)
        if outcome.state == "paused":
            self.paused[work.job.name] = outcome
            return "", None
        if outcome.state == "busy":
            return "elsewhere", None
        return "", JobResult(None, work.trace, error=outcome.why)

    def _look(
        self, elsewhere: list[Work], waiting: deque[tuple[Work, int]], results: dict[str, JobResult], tell: Listener
    ) -> list[Work]:
        """What others are still doing; what they have finished is taken over, what they have left is done here."""
        still = []
        for work in elsewhere:
            if (found := work.finished()) is not None:
                results[work.job.name] = found
                tell(work.job.name, 1, 1, found)
            elif work.busy():
                still.append(work)
            else:
                waiting.append((work, 0))
        return still


def forget(works: Iterable[Work]) -> None:
    """Remove results and checkpoints. Raises `UserError` when somebody is at work on one."""
    works = list(works)
    for work in works:
        if owner := work.busy():
            raise UserError(f"{work.result} is being made by {owner}: end that before --fresh")
    for work in works:
        work.result.unlink(missing_ok=True)
        work.state.remove()


def _arrived(work: Work) -> JobResult | None:
    """The result of finished work, which a file system over the network may show a little later."""
    end = time.monotonic() + PATIENCE
    while (found := work.finished()) is None and time.monotonic() < end:
        time.sleep(POLL)
    return found
