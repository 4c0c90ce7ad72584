"""Ray: a task for each run, on a cluster that is there or on one that is started on this machine.

Ray does a task whose worker has died again by itself, with the same work: the second worker finds the result, or the
trace and checkpoint, that the first has left.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from probes.errors import UserError, import_extra, one_line
from probes.sweep.engines.engine import Lost
from probes.sweep.work import Outcome, Work, carry_out, search_path

_RETRIES = 2
_STORE = 80 << 20  # bytes for objects: work and outcomes are a few hundred each


class Ray:
    """The engine `ray`.

    Args:
        at_once: CPUs of a cluster that is started, over `threads`.
        threads: CPUs of each task.
        address: of a cluster; None: that of `RAY_ADDRESS`, else one is started here and ended at the end.
        gpus: of each task.

    Raises `MissingExtra`, and `UserError` when the cluster cannot be reached or lacks the resources.
    """

    retries = 0  # Ray's own

    def __init__(self, at_once: int | None, threads: int, address: str | None, gpus: float) -> None:
        ray = import_extra("ray", "--engine ray", "ray")
        self._ray = ray
        # a worker starts in a folder of its own, without the paths of this process
        environment = {"PYTHONPATH": os.pathsep.join(search_path()), "OMP_NUM_THREADS": str(threads)}
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        started = {"num_cpus": at_once * threads} if at_once and address == "local" else {}
        if address == "local":
            started |= {"include_dashboard": False, "object_store_memory": _STORE}
        self._ours = not ray.is_initialized()
        try:
            if self._ours:
                ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **started)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"no Ray cluster at {address}: {one_line(error)}") from error
        there = ray.cluster_resources()
        self.capacity = int(there.get("CPU", 1) // threads)
        if gpus:
            self.capacity = min(self.capacity, int(there.get("GPU", 0) // gpus))
        if self.capacity < 1:
            self.close()
            raise UserError(
                f"the Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs: "
                f"a run with {threads} and {gpus:g} fits nowhere"
            )
        self._task = ray.remote(carry_out).options(
            num_cpus=threads, num_gpus=gpus, max_retries=_RETRIES, runtime_env={"env_vars": environment}
        )

    def submit(self, work: Work) -> Any:
        """A reference to the task's outcome."""
        return self._task.remote(work)

    def done(self, handle: Any) -> bool:
        """Whether the outcome is there, or the task is lost."""
        return bool(self._ray.wait([handle], timeout=0)[0])

    def result(self, handle: Any) -> Outcome:
        """The outcome. Raises `Lost` when Ray has given the task up."""
        errors = self._ray.exceptions
        try:
            return Outcome(*self._ray.get(handle))
        except errors.RayTaskError as error:
            return Outcome("failed", one_line(str(error).splitlines()[-1]))
        except errors.RayError as error:
            lost = f"the worker died {_RETRIES + 1} times" if "Worker" in type(error).__name__ else type(error).__name__
            raise Lost(f"{lost}: {one_line(error, 200)}") from None

    def cancel(self, handle: Any) -> None:
        """End its worker."""
        self._ray.cancel(handle, force=True)

    def close(self) -> None:
        """End a cluster that was started here."""
        if self._ours:
            self._ray.shutdown()
