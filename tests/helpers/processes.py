"""Several ranks on one machine: `on_ranks("data_parallel_cases:products", 2, tmp_path)` runs a function on each.

The function takes `(rank, world)` and returns what `torch.save` can hold; it lives in a module of this folder, and a
gloo process group is up. Every wait has an end.
"""

import importlib
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]


def environment(**more):
    path = os.pathsep.join([str(ROOT), str(HELPERS)])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | more


def start_ranks(function, world, folder, *arguments, seconds=240):
    """The processes, not waited for; `seconds` is the timeout of their group."""
    folder = Path(folder)
    store = folder / f"store-{time.monotonic_ns()}"
    return [
        subprocess.Popen(
            [sys.executable, __file__, function, str(rank), str(world), str(store), str(seconds), *map(str, arguments)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]


def ended(processes, seconds=240):
    """(status, what it printed, errors if they come apart) of each; all are killed where one takes longer."""
    try:
        end = time.monotonic() + seconds
        said = [process.communicate(timeout=max(1, end - time.monotonic())) for process in processes]
        return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def on_ranks(function, world, folder, *arguments, seconds=240):
    """What the function returned on each rank. AssertionError with the output where one failed."""
    import torch

    processes = start_ranks(function, world, folder, *arguments, seconds=seconds)
    store = processes[0].args[5]
    for rank, (status, said, _) in enumerate(ended(processes, seconds)):
        assert status == 0, f"rank {rank} ended with {status}:\n{said}"
    return [torch.load(f"{store}-{rank}", weights_only=False) for rank in range(world)]


def main(function, rank, world, store, seconds, *arguments):
    """One rank."""
    import torch
    from torch import distributed

    import landscape.tuning

    torch.set_num_threads(1)
    landscape.tuning._SHORT = 0.0  # whichever way of a product is taken is right
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=int(rank),
        world_size=int(world),
        timeout=timedelta(seconds=float(seconds)),
    )
    module, name = function.split(":")
    found = getattr(importlib.import_module(module), name)(int(rank), int(world), *arguments)
    torch.save(found, f"{store}-{rank}")
    sys.stdout.flush()
    os._exit(0)  # gloo may abort, or wait, where another rank has gone before this one lets go of the group


if __name__ == "__main__":
    main(*sys.argv[1:])
