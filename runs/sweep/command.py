"""How sensitive solvers are to their step size: solver x step size x seed, one trace per run.

    python -m runs.sweep --problem digits-mlp --solvers sgd-m,ngn-m,adam --lr 1e-3:1e1:9 --seeds 3 --steps 300 --jobs 2
    python -m runs.sweep --problem my.py:problem --solvers torch.optim:RMSprop:alpha=0.9 --lr 0.001,0.01 -o folder

A user's problem is a function that returns `landscape.Objective(model, loss, data)`, as for `landscape probe`. In the
folder: `runs.csv`, `sweep.json`, `sensitivity.png`, and `jobs/` with the traces, which are one `TraceSet`. A killed
sweep goes on where it stopped; changed code does not run anything again without --fresh.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from probes.environment import environment
from probes.errors import UserError, one_line
from runs.engine.display import Bars
from runs.engine.experiment import OUT
from runs.engine.jobs import write_json
from runs.sweep import problems, solvers
from runs.sweep.curves import curves_table
from runs.sweep.figures import sensitivity_figure
from runs.sweep.sweep import Sweep, Swept, slug
from runs.sweep.training import SCHEDULES, Trial, build_seeded


def write(found: Swept, sweep: Sweep, folder: Path) -> list[Path]:
    """Write `runs.csv`, `sweep.json` and `sensitivity.png`; the paths written."""
    path = folder / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Trial)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in found.rows)
    report = {
        "sweep": dataclasses.asdict(sweep),
        "environment": environment(),
        "failures": dict(found.failures),
        "solvers": {
            curve.solver: {
                "best_lr": float(curve.lrs[curve.best]),
                "loss": float(curve.mean[curve.best]),
                "sensitivity": curve.sensitivity,
                "decades": curve.decades(),
                "diverged": int(curve.diverged.sum()),
            }
            for curve in found.curves
        },
    }
    write_json(folder / "sweep.json", report)
    picture = sensitivity_figure(found.curves, folder / "sensitivity.png", f"{sweep.problem}, {sweep.steps} steps")
    return [path, folder / "sweep.json", picture]


def grid(text: str) -> tuple[float, ...]:
    """`1e-3:1e1:9` is nine step sizes evenly spaced in the logarithm, `0.1,1` are two. Raises `UserError`."""
    try:
        if ":" not in text:
            return tuple(float(part) for part in text.split(","))
        low, high, count = text.split(":")
        if not 0 < float(low) < float(high) < math.inf or int(count) < 2:
            raise ValueError
        # rounded, so that 0.01 is written as 0.01
        return tuple(float(f"{lr:.6g}") for lr in np.geomspace(float(low), float(high), int(count)))
    except ValueError:
        raise UserError(f"--lr is LOW:HIGH:COUNT such as 1e-3:1e1:9, or 0.01,0.1,1, not {text!r}", status=2) from None


def command(words: Sequence[str]) -> None:
    """What `python -m runs.sweep` does. Raises `UserError`."""
    parser = argparse.ArgumentParser(prog="python -m runs.sweep", description=str(__doc__).splitlines()[0])
    parser.add_argument("--problem", required=True, help=f"{', '.join(problems.PROBLEMS)} or FILE.py:FUNCTION")
    parser.add_argument("--solvers", required=True, help=f"{','.join(solvers.SOLVERS)} or module:Class, options")
    parser.add_argument("--lr", required=True, help="LOW:HIGH:COUNT in the logarithm, or a list")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--schedule", default="constant", help=", ".join(SCHEDULES))
    parser.add_argument("--seed", type=int, default=0, help="from which the seeds derive")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, each in its own process")
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    parser.add_argument("-o", "--out", type=Path, help="folder (default: runs/out/sweep/PROBLEM)")
    chosen = parser.parse_args(words)
    names, size = solvers.split_solvers(chosen.solvers), (chosen.seeds, chosen.steps, chosen.batch)
    try:
        sweep = Sweep(chosen.problem, names, grid(chosen.lr), *size, chosen.schedule)
    except ValueError as error:
        raise UserError(one_line(error), status=2) from error
    made = build_seeded(sweep.problem, 0)  # what is wrong with it shows before any process is started
    for solver in names:
        solvers.make(solver, made.objective.leaves(), sweep.lrs[0])
    folder = chosen.out or OUT / "sweep" / slug(sweep.problem)
    console = Console(width=None if sys.stdout.isatty() else 140)
    with Bars(console, len(sweep.jobs())) as bars:
        found = sweep.run(folder, seed=chosen.seed, at_once=max(chosen.jobs, 1), fresh=chosen.fresh, listener=bars.tell)
    console.print(curves_table(found.curves, f"{sweep.problem}, {sweep.steps} steps, {sweep.seeds} seeds"))
    for solver, why in found.failures.items():
        console.print(f"{solver} failed: {why}", markup=False, soft_wrap=True)
    for path in (*write(found, sweep, folder), folder / "jobs"):
        console.print(f"  {path}", markup=False, soft_wrap=True)


def main(words: Sequence[str]) -> None:
    """`command`; what goes wrong is one line on stderr. Ctrl-C ends with status 130 and keeps what is finished."""
    try:
        command(words)
        return
    except UserError as error:
        why, status = str(error), error.status
    except OSError as error:
        why, status = one_line(error), 1
    except KeyboardInterrupt:
        why, status = "interrupted; the same command goes on from here", 130
    print(f"sweep: {why}", file=sys.stderr)
    raise SystemExit(status)
