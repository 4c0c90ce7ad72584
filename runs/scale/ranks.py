"""One of two ranks, `python -m runs.scale.ranks RANK FOLDER`: measures constants, then what the model predicts.

Both measure at the same time, so that what they share, memory and cores, is shared as in a run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional

from landscape.clock import stopwatch
from landscape.operators.vectors import VectorSpace
from runs.scale.machine import ITEMSIZE
from runs.scale.model import BESIDE, PASSES
from runs.scale.tasks import COLUMNS, ROUNDS, TASKS, Diagonal, Run, all_gather, reduce_scatter, steps

DTYPES = tuple(ITEMSIZE)
COLLECTIVES: dict[str, Callable[[Tensor], object]] = {
    "all_reduce": dist.all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
}
# a device for each rank, else the processor: nccl takes no two ranks on one device
DEVICE = torch.device("cuda" if torch.cuda.device_count() >= 2 else "cpu")
_VECTOR, _OPERATIONS, _FILE = 1 << 19, 100, 1 << 24
_BATCH, _LAYERS, _MOVED = 128, 4, 19


def prepared(rank: int) -> dict[str, Run]:
    """All that is timed: by the names of constants, and of tasks."""
    small, whole = torch.zeros(2, device=DEVICE), torch.zeros(_VECTOR, device=DEVICE)
    runs: dict[str, Run] = {
        "bandwidth": _elementwise(),
        "orthogonalise": steps(Diagonal(VectorSpace(_rows(), torch.float32, DEVICE)), rank),
        "launch": _operations,
        "disk": _file(),
    }
    runs |= {f"flops {dtype}": _matrices(dtype) for dtype in DTYPES}
    for name, collective in COLLECTIVES.items():
        runs |= {f"{name} latency": partial(collective, small), f"{name} bandwidth": partial(collective, whole)}
    return runs | {name: task.make(rank, DEVICE) for name, task in TASKS.items()}


def timed(runs: Mapping[str, Run]) -> dict[str, float]:
    """The least of some rounds of all of them, in alternation: without what other programs take.

    Ranks begin together.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            dist.barrier()
            times[name].append(stopwatch(run, DEVICE)[0])
    return {name: min(found) for name, found in times.items()}


def constants(seconds: Mapping[str, float]) -> dict[str, Any]:
    """The figures of a `Machine` from those times."""
    flops = 6 * _LAYERS * _BATCH * _width() ** 2
    found: dict[str, Any] = {
        "flops": {dtype: flops / seconds[f"flops {dtype}"] for dtype in DTYPES},
        "bandwidth": 4 * _MOVED * _rows() / seconds["bandwidth"],
        "orthogonalise": PASSES * (COLUMNS + BESIDE) * 4 * _rows() / seconds["orthogonalise"],
        "launch": seconds["launch"] / (4 * _OPERATIONS),  # forward; backward two products and a sum each
        "disk": _FILE / seconds["disk"],
    }
    for name in COLLECTIVES:
        # of two ranks each sends half of an all-reduce twice, of the others once
        sent = 4 * _VECTOR * (1.0 if name == "all_reduce" else 0.5)
        latency, whole = seconds[f"{name} latency"], seconds[f"{name} bandwidth"]
        found[name] = {"latency": latency, "bandwidth": sent / max(whole - latency, 1e-9)}
    return found


def _rows() -> int:
    return 1 << (24 if DEVICE.type == "cuda" else 18)


def _elementwise() -> Run:
    """What transformers do beside matrix products: products, sums, GELU, softmax; `_MOVED` numbers for each of x."""
    x = torch.linspace(-1.0, 1.0, _rows(), device=DEVICE).reshape(-1, 128)
    return lambda: (x * x, x * x, x * x, x + x, x + x, functional.gelu(x), x.softmax(-1))


def _matrices(dtype: str) -> Run:
    """The matrix products of a few linear layers, forward and backward."""
    x = torch.ones(_BATCH, _width(), dtype=getattr(torch, dtype), device=DEVICE, requires_grad=True)
    weights = [torch.ones(_width(), _width(), dtype=x.dtype, device=DEVICE, requires_grad=True) for _ in range(_LAYERS)]

    def run() -> None:
        y = x
        for weight in weights:
            y = functional.linear(y, weight)
        torch.autograd.grad(y, [x, *weights], x.detach())

    return run


def _width() -> int:
    return 4096 if DEVICE.type == "cuda" else 256


def _operations() -> None:
    """Products of numbers with their graph, and the derivative."""
    x = w = torch.ones(1, device=DEVICE, requires_grad=True)
    for _ in range(_OPERATIONS):
        x = x * w
    torch.autograd.grad(x, w)


def _file() -> Run:
    """Reads a file that the system no longer holds in memory."""
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 -- it is gone with the process
    file.write(bytes(_FILE))
    file.flush()
    os.fsync(file.fileno())

    def read() -> None:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        np.memmap(file.name, dtype=np.uint8, mode="r").max()

    return read


def main(rank: int, folder: Path) -> None:
    """Leaves `RANK.json` in the folder."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    if DEVICE.type == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if DEVICE.type == "cuda" else "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=100),
    )
    seconds = timed(prepared(rank))
    found = {"constants": constants(seconds), "measured": {name: seconds[name] for name in TASKS}}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
