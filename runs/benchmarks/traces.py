"""How many scalar records a second go into a trace, beside plain h5py and csv; how fast a large trace is opened.

    python -m runs.benchmarks.traces [--quick] [--out FILE.json]

A record is step, epoch, time, cost and one float. The yardsticks write the same five numbers: h5py to a dataset each,
grown by one row per record, csv to a line. All ways run in alternation, closing included. "Flushed" means handed to
the system after each record, as `Trace` does once a second otherwise; nobody waits for the disk (no fsync).

The large trace has the records of a long run: a million losses, the rest sharpness and densities. It is opened from
the system's cache, and once more after the system was asked to forget it. All files are temporary.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from probes import Field, Trace
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.timing import alternate, quartiles

NODES = 2048  # of a density: 32 KiB a record with their weights
COLUMNS = {"step": "i8", "epoch": "f8", "time": "f8", "cost": "f8", "value": "f8"}


def to_trace(path: Path, records: int, *, flush: bool, tensor: bool = False) -> None:
    """Record Python floats (or tensors) one by one."""
    value: Any = torch.tensor(0.5) if tensor else 0.5
    with Trace.create(path, seed=0, overwrite=True) as trace:
        trace.declare("loss", {"value": Field()})
        for step in range(records):
            trace.record("loss", step, value=value)
            if flush:
                trace.flush()


def to_h5py(path: Path, records: int, *, flush: bool) -> None:
    """Plain h5py: each dataset grows by one row per record, in chunks as those of a trace."""
    start = time.monotonic()
    with h5py.File(path, "w", libver="latest") as file:
        grow = {"maxshape": (None,), "chunks": (512,)}
        columns = {name: file.create_dataset(name, (0,), dtype, **grow) for name, dtype in COLUMNS.items()}
        for step in range(records):
            row = (step, np.nan, time.monotonic() - start, 0.0, 0.5)
            for dataset, value in zip(columns.values(), row, strict=True):
                dataset.resize((step + 1,))
                dataset[step] = value
            if flush:
                file.flush()


def to_csv(path: Path, records: int, *, flush: bool) -> None:
    """A line of text per record."""
    start = time.monotonic()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for step in range(records):
            writer.writerow((step, np.nan, time.monotonic() - start, 0.0, 0.5))
            if flush:
                file.flush()


def rates(folder: Path, records: int, rounds: int) -> list[Row]:
    """One row per way: records per second, with quartiles over the rounds, and bytes per record."""
    few = max(100, records // 100)  # where a record takes longest
    ways: dict[str, tuple[Callable[..., None], int, dict[str, bool]]] = {
        "Trace": (to_trace, records, {"flush": False}),
        "Trace, from tensors": (to_trace, records, {"flush": False, "tensor": True}),
        "h5py": (to_h5py, few, {"flush": False}),
        "csv": (to_csv, records, {"flush": False}),
        "Trace, flushed": (to_trace, few, {"flush": True}),
        "h5py, flushed": (to_h5py, few, {"flush": True}),
        "csv, flushed": (to_csv, records, {"flush": True}),
    }
    files = {name: folder / f"{name.replace(', ', '-').replace(' ', '-')}.out" for name in ways}
    calls = {name: partial(way, files[name], count, **how) for name, (way, count, how) in ways.items()}
    times = alternate(calls, rounds, torch.device("cpu"))
    rows: list[Row] = []
    for name, (_, count, how) in ways.items():
        middle, *spread = map(round, quartiles([count / seconds for seconds in times[name]]))
        row = {"way": name, "records": count, "flushed": how["flush"], "per_second": middle, "quartiles": spread}
        rows.append(row | {"bytes": round(files[name].stat().st_size / count, 1)})
    return rows


def write_large(path: Path, crashed: Path, size: int) -> None:
    """A trace of about `size` bytes; `crashed` is what a writer that died before closing it leaves."""
    losses = size // 1000
    sharpnesses = losses // 10
    densities = (size - 45 * losses - 64 * sharpnesses) // (16 * NODES)
    g = np.random.default_rng(0)
    with Trace.create(path, config={"lr": 0.1}, seed=0) as trace:
        trace.declare("loss", {"value": Field(units="nats")})
        trace.declare("sharpness", {"value": Field(), "residual": Field(), "converged": Field(dtype="bool")})
        trace.declare("density", {"nodes": Field((NODES,)), "weights": Field((NODES,))})
        for step in range(losses):
            trace.record("loss", step, value=float(step))
            if step * sharpnesses // losses < (step + 1) * sharpnesses // losses:
                trace.record("sharpness", step, value=1.0, residual=1e-3, converged=True)
            if step * densities // losses < (step + 1) * densities // losses:
                trace.record("density", step, nodes=g.standard_normal(NODES), weights=g.random(NODES))
        trace.flush()
        shutil.copy(path, crashed)


def reading(folder: Path, size: int, rounds: int) -> list[Row]:
    """One row per way of reading a large trace: seconds, with quartiles over the rounds."""
    path, crashed = folder / "large.h5", folder / "crashed.h5"
    write_large(path, crashed, size)
    show = [sys.executable, "-m", "probes.cli", "show"]
    trace = Trace.open(path)
    ways: dict[str, Callable[[], object]] = {
        "Trace.open": partial(Trace.open, path),
        "Trace.open, forgotten by the cache": partial(Trace.open, path),
        "Trace.open, after a crash": partial(Trace.open, crashed),
        "column of all losses": lambda: trace["loss"]["value"],
        "column of all sharpnesses": lambda: trace["sharpness"]["value"],
        "last density": lambda: trace["density"].row(-1),
        "landscape show": partial(subprocess.run, [*show, str(path)], check=True, capture_output=True),
        "landscape show --help": partial(subprocess.run, [*show, "--help"], check=True, capture_output=True),
    }
    rows = []
    for name, way in ways.items():
        seconds = []
        for _ in range(rounds + 1):
            if "forgotten" in name:
                forget(path)
            start = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - start)
        middle, *spread = quartiles(seconds[1:])  # the first one warms up
        rows.append({"what": name, "bytes": path.stat().st_size, "seconds": middle, "quartiles": spread})
    return rows


def forget(path: Path) -> None:
    """Ask the system to drop a file from its cache, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="few records and a small file", rounds=7)
    records, size = (2000, 4 << 20) if chosen.quick else (200_000, 1_000_000_000)
    with tempfile.TemporaryDirectory(prefix="traces-") as name:
        written = rates(Path(name), records, chosen.rounds)
        cells = []
        for row in written:
            speed = f"{row['per_second']:,}", "{:,}-{:,}".format(*row["quartiles"])
            cells.append((row["way"], *speed, f"{row['bytes']:.0f}"))
        headings = "way", "per second", "quartiles", "bytes each"
        console.print(command.table("scalar records written", headings, cells))
        read = reading(Path(name), size, chosen.rounds)
        title = f"a trace of {read[0]['bytes'] / 1e9:.2f} GB"
        times = [(row["what"], f"{row['seconds']:.4f}", "{:.4f}-{:.4f}".format(*row["quartiles"])) for row in read]
        console.print(command.table(title, ("what", "seconds", "quartiles"), times))
    command.write(chosen, "traces", written=written, read=read)


if __name__ == "__main__":
    main()
