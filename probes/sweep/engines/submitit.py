"""SLURM, through submitit: a job of its own for each run; or processes of this machine, where there is no SLURM.

Jobs outlive the sweep: one that is started again finds them at work, and waits for what they leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from probes.errors import UserError, import_extra, one_line
from probes.sweep.engines.engine import Lost
from probes.sweep.work import Outcome, Work, carry_out, search_path

CLUSTERS = ("slurm", "local", "debug")
_LOCAL_MINUTES = 7 * 24 * 60  # submitit's own limit for local jobs is two


class Submitit:
    """The engine `submitit`.

    Args:
        folder: for submitit's scripts, pickles and logs; all machines must see it.
        settings: of the jobs, by submitit's names or SLURM's: `{"partition": "gpu", "time": 60, "mem_gb": 8}`, and
            `cluster`: "slurm", "local" (default where there is no `srun`) or "debug" (this process).
        threads: CPUs of each job.

    Raises `MissingExtra`, and `UserError` for settings that submitit does not know.
    """

    retries = 2

    def __init__(self, folder: Path, settings: Mapping[str, Any], threads: int) -> None:
        submitit = import_extra("submitit", "--engine submitit", "slurm")
        self._core = import_extra("submitit.core.utils", "--engine submitit", "slurm")
        given = dict(settings)
        cluster = given.pop("cluster", None)
        if cluster not in (None, *CLUSTERS):
            raise UserError(f"--slurm cluster is one of {', '.join(CLUSTERS)}, not {cluster!r}", status=2)
        os.environ["PYTHONPATH"] = os.pathsep.join(search_path())  # jobs start with this environment
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            shared = self._executor._valid_parameters()
            named = {key if key in shared else f"slurm_{key}": value for key, value in given.items()}
            local = {} if self._executor.cluster == "slurm" else {"timeout_min": _LOCAL_MINUTES}
            self._executor.update_parameters(**{"name": "landscape-sweep", "cpus_per_task": threads} | local | named)
        except (NameError, ValueError, TypeError, AssertionError, RuntimeError) as error:
            raise UserError(f"--slurm: {one_line(error)}", status=2) from error
        self.cluster, self._folder = str(self._executor.cluster), folder
        self.capacity = 64 if self.cluster == "slurm" else 1

    def submit(self, work: Work) -> Any:
        """A job of submitit."""
        with self._quiet():
            return self._executor.submit(_Requeued(work))

    def done(self, handle: Any) -> bool:
        """Whether the job has left the queue; in debug mode it is done now."""
        return bool(handle.done())

    def result(self, handle: Any) -> Outcome:
        """What the job has returned. Raises `Lost` for one that was killed: it ends as FINISHED, without a result."""
        try:
            return Outcome(*handle.result())
        except self._core.FailedJobError as error:  # it could not even be read: nothing of ours is to be raised
            return Outcome("failed", one_line(str(error).splitlines()[-1]))
        except self._core.UncompletedJobError:
            raise Lost(f"job {handle.job_id} ended without a result; its log is {handle.paths.stderr}") from None

    def cancel(self, handle: Any) -> None:
        """Take it out of the queue, or end it."""
        handle.cancel(check=False)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """A local job's keeper writes to a file: on Ctrl-C, which reaches it as well, it would show its traceback."""
        if self.cluster != "local":
            yield
            return
        kept = os.dup(2)
        try:
            with (self._folder / "local.log").open("ab") as log:
                os.dup2(log.fileno(), 2)
                yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    def close(self) -> None:
        """Nothing is left."""


class _Requeued:
    """The work as submitit calls it: when SLURM takes the machine away, it is queued again and goes on."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self) -> tuple[Any, ...]:
        return tuple(carry_out(self.work))

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
