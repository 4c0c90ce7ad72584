"""Measures this machine's constants, and holds the cost model against what two real processes need."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from landscape.memory import available_memory
from runs.scale.machine import MEASURED, Channel, Machine
from runs.scale.tasks import TASKS

_ROOT = Path(__file__).resolve().parents[2]
_RANK = "runs.scale.ranks"
_LIMIT = 300.0  # seconds for all of it
_CHANNELS = ("all_reduce", "all_gather", "reduce_scatter")
_RATES = ("flops", "bandwidth", "orthogonalise", "launch", "disk")
_FIGURES = (*_RATES, "collectives", "pcie", "start", "memory", "host_memory", "disk_memory")


@dataclass(frozen=True)
class Check:
    """One thing that was predicted and measured: seconds, and what takes most by the model."""

    name: str
    predicted: float
    measured: float
    bottleneck: str

    @property
    def ratio(self) -> float:
        """Predicted by measured."""
        return self.predicted / self.measured


def measured() -> tuple[Machine, list[Check]]:
    """A machine of two ranks that is this one, and the model's predictions beside what the ranks needed.

    Raises `RuntimeError` where a rank fails or takes longer than five minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        ranks = _run(Path(folder))
    machine = _machine([rank["constants"] for rank in ranks])
    checks = []
    for name, task in TASKS.items():
        cost = task.predicted(machine)
        longest = max(rank["measured"][name] for rank in ranks)  # they wait for each other
        checks.append(Check(name, cost.total, longest, cost.bottleneck))
    return machine, checks


def _run(folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", _RANK]
    notes = [(folder / f"{rank}.txt").open("w") for rank in range(2)]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder)], cwd=_ROOT, stdout=note, stderr=note)
        for rank, note in enumerate(notes)
    ]
    try:
        end = time.monotonic() + _LIMIT
        while any(rank.poll() is None for rank in ranks):
            if any(rank.poll() for rank in ranks) or time.monotonic() > end:
                break
            time.sleep(0.1)
        failed = [i for i, rank in enumerate(ranks) if rank.poll()]
        if failed:
            raise RuntimeError(f"rank {failed[0]} failed: {_last_line(folder / f'{failed[0]}.txt')}")
        if any(rank.poll() is None for rank in ranks):
            raise RuntimeError(f"two ranks took longer than {_LIMIT:.0f} s: is the machine busy?")
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
        for note in notes:
            note.close()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def _last_line(note: Path) -> str:
    return (note.read_text().strip().splitlines() or ["it said nothing"])[-1]


def _machine(constants: list[dict[str, Any]]) -> Machine:
    """The mean of what both found."""

    def mean(values: Iterable[Any]) -> Any:
        values = list(values)
        if isinstance(values[0], dict):
            return {key: mean(value[key] for value in values) for key in values[0]}
        return statistics.fmean(values)

    found = mean(constants)
    cuda = torch.cuda.device_count() >= 2
    host = float(available_memory(torch.device("cpu")))  # half of what is free, of two ranks
    rates: dict[str, Any] = {name: found[name] for name in _RATES}
    channels: dict[str, Any] = {kind: Channel(**found[kind]) for kind in _CHANNELS}
    return Machine(
        name="this machine, two ranks",
        **rates,
        memory=torch.cuda.mem_get_info(0)[0] if cuda else host,
        host_memory=host,
        disk_memory=shutil.disk_usage(tempfile.gettempdir()).free / 2,
        asynchronous=cuda,
        node=2,
        **channels,
        nic=None,
        pcie=_pcie() if cuda else None,
        start=_start(),
        sources=dict.fromkeys(_FIGURES, MEASURED),
    )


def _pcie() -> float:
    """Bytes a second from the host's memory to a device."""
    there = torch.zeros(1 << 26, dtype=torch.uint8).pin_memory()
    there.cuda()
    torch.cuda.synchronize()
    start = time.perf_counter()
    there.cuda()
    torch.cuda.synchronize()
    return there.nbytes / (time.perf_counter() - start)


def _start() -> float:
    """Seconds until a new process has what a run needs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import landscape, solvers, probes"], env=environment, check=True)
    return time.perf_counter() - start
