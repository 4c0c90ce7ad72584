"""The reduced set of solvers on a user's file: `python -m runs.sscn --file FILE.svm`."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from probes.numbers import short
from probes.sweep.runner import Runner
from probes.sweep.work import JobResult
from probes.views.tables import table
from runs.engine.experiment import OUT
from runs.sscn.data import read
from runs.sscn.plan import of_file


def run(path: Path, folder: Path, *, seed: int = 0) -> dict[str, JobResult]:
    """The solvers on a file in LIBSVM's format. Raises what `read` does, and `OSError`."""
    content = zlib.crc32(path.read_bytes())
    features, _ = read(path)
    return Runner(folder, seed).run(of_file(str(path.resolve()), features.shape[1], f"{content:08x}"))


def solvers_table(title: str, results: Mapping[str, JobResult]) -> Table:
    """A row for each solver: what it took to a gradient norm of 1e-6, and where it ended."""
    view = table(title=title)
    headings = "steps to 1e-6", "seconds", "sum of τ² + τ", "steps", "‖∇f‖", "f", "λ_min of the Hessian"
    for heading in ("solver", *headings):
        view.add_column(heading, justify="left" if heading == "solver" else "right")
    for name, result in results.items():
        solver = name.partition("-")[2]
        if result.error is not None:
            view.add_row(solver, f"failed: {result.error}")
            continue
        run = result.data["runs"][0]
        found = run["to"].get("1e-06")
        cost = [short(found[k], 3) for k in ("seconds", "coordinates")] if found else ["", ""]
        first = str(found["steps"]) if found else "not reached"
        last = [str(run["steps"]), short(run["gradient_norm"], 3), short(run["loss"], 6)]
        view.add_row(solver, first, *cost, *last, short(float(run["lambda_min"]), 3))
    return view


def main(words: Sequence[str]) -> None:
    """What the command does with `--file`."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if len(words) != 2 or words[0] != "--file":
        console.print("usage: python -m runs.sscn --file FILE.svm")
        raise SystemExit(2)
    path = Path(words[1])
    try:
        results = run(path, OUT / "sscn" / "data" / path.stem)
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise SystemExit(1) from None
    console.print(solvers_table(f"Logistic regression, non-convex regulariser: {path.name}", results))
