"""Subspace cubic Newton beside other solvers: what Zhao, Doikov and Lucchi (arXiv 2406.16666) find, and measurements.

    python -m runs.sscn [--quick] [--jobs N]
    python -m runs.sscn --data FILE.svm          a table of solvers on your own data, without claims

Logistic regression with a non-convex regulariser on breast cancer, digits and random data of the shapes of "duke" and
(reduced) "gisette"; log-sum-exp; a small network. Subsets of several sizes with two rules for M, schedules, coordinate
descent, cubic Newton, RS-RNM, gradient descent, L-BFGS; the norm of the whole gradient by steps, seconds and the sum of
tau^2 + tau.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from probes.numbers import short
from probes.views.tables import table
from runs.engine.experiment import OUT, Experiment, main
from runs.engine.runner import JobResult, Runner
from runs.sscn import claims
from runs.sscn import jobs as sscn_jobs
from runs.sscn.figures import figures
from runs.sscn.problems import read

EXPERIMENT = Experiment("sscn", "Subspace cubic Newton\n\n" + str(__doc__), sscn_jobs.plan, claims.CLAIMS, figures)


def own_data(path: Path, folder: Path, *, seed: int = 0) -> dict[str, JobResult]:
    """The reduced set of solvers on a file in LIBSVM's format. Raises what `read` does, and `OSError`."""
    content = zlib.crc32(path.read_bytes())
    features, _ = read(path)
    jobs = sscn_jobs.of_file(str(path.resolve()), features.shape[1], f"{content:08x}")
    return Runner(folder, seed).run(jobs)


def solvers_table(title: str, outcomes: Mapping[str, JobResult]) -> Table:
    """A row for each solver: what it took to a gradient norm of 1e-6, and where it ended."""
    view = table(title=title)
    for heading in (
        "solver",
        "steps to 1e-6",
        "seconds",
        "sum of τ² + τ",
        "steps",
        "‖∇f‖",
        "f",
        "λ_min of the Hessian",
    ):
        view.add_column(heading, justify="left" if heading == "solver" else "right")
    for name, outcome in outcomes.items():
        solver = name.partition("-")[2]
        if outcome.error is not None:
            view.add_row(solver, f"failed: {outcome.error}")
            continue
        run = outcome.data["runs"][0]
        found = run["to"].get("1e-06")
        cost = [short(found[k], 3) for k in ("seconds", "coordinates")] if found else ["", ""]
        first = str(found["steps"]) if found else "not reached"
        last = [str(run["steps"]), short(run["gradient_norm"], 3), short(run["loss"], 6)]
        view.add_row(solver, first, *cost, *last, short(float(run["lambda_min"]), 3))
    return view


def command(words: Sequence[str]) -> None:
    """`main`, or with `--data FILE` the table of solvers on it."""
    if "--data" not in words:
        main(EXPERIMENT, words)
        return
    console = Console(width=None if sys.stdout.isatty() else 140)
    rest = list(words)
    at = rest.index("--data")
    if len(rest) != 2 or at != 0:
        console.print("usage: python -m runs.sscn --data FILE.svm")
        raise SystemExit(2)
    path = Path(rest[1])
    try:
        outcomes = own_data(path, OUT / "sscn" / "data" / path.stem)
    except (OSError, ValueError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise SystemExit(1) from None
    console.print(solvers_table(f"Logistic regression, non-convex regulariser: {path.name}", outcomes))
