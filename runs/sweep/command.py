"""How sensitive solvers are to their step size: solver x step size x seed, one trace per run.

    python -m runs.sweep --problem digits-mlp --solvers sgd-m,ngn-m,adam --lr 1e-3:1e1:9 --seeds 3 --steps 300 --jobs 2
    python -m runs.sweep --problem my.py:problem --solvers torch.optim:RMSprop:alpha=0.9 --lr 0.001,0.01 -o folder

It is `landscape sweep` with short names for problems and solvers. A user's problem is a function that returns
`landscape.Objective(model, loss, data)`, as for `landscape probe`. In the folder: `runs.csv`, `sweep.json`,
`sensitivity.png`, and `jobs/` with the traces, which are one `TraceSet`. A killed sweep goes on where it stopped;
changed code does not run anything again without --fresh.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from probes.errors import UserError, one_line
from probes.sweep.arguments import grid
from probes.sweep.conduct import Conditions, conduct
from probes.sweep.solvers import split_solvers
from probes.sweep.sweep import slug
from probes.sweep.training import SCHEDULES
from runs.engine.experiment import OUT
from runs.engine.options import add_engine, chosen_engine
from runs.sweep import problems, solvers
from runs.sweep.sweep import Sweep


def command(words: Sequence[str]) -> None:
    """What `python -m runs.sweep` does. Raises `UserError`."""
    parser = argparse.ArgumentParser(prog="python -m runs.sweep", description=str(__doc__).splitlines()[0])
    parser.add_argument("--problem", required=True, help=f"{', '.join(problems.PROBLEMS)} or FILE.py:FUNCTION")
    parser.add_argument("--solvers", required=True, help=f"{','.join(solvers.SOLVERS)} or module:Class, options")
    parser.add_argument("--lr", help="LOW:HIGH:COUNT in the logarithm, or a list")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--schedule", default="constant", help=", ".join(SCHEDULES))
    parser.add_argument("--seed", type=int, default=0, help="from which the seeds derive")
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    parser.add_argument("--dry-run", action="store_true", help="measure first runs and say what the rest takes")
    parser.add_argument("--price", type=float, metavar="PER_HOUR", help="what an hour of one run costs")
    parser.add_argument("-o", "--out", type=Path, help="folder (default: runs/out/sweep/PROBLEM)")
    add_engine(parser)
    chosen = parser.parse_args(words)
    names, size = split_solvers(chosen.solvers), (chosen.seeds, chosen.steps, chosen.batch)
    conditions = Conditions(chosen_engine(chosen), chosen.seed, chosen.fresh, chosen.dry_run, chosen.price)
    try:
        sweep = Sweep(chosen.problem, names, grid(chosen.lr) if chosen.lr else (), *size, chosen.schedule)
    except ValueError as error:
        raise UserError(one_line(error), status=2) from error
    folder = chosen.out or OUT / "sweep" / slug(sweep.problem)
    results = Console(width=None if sys.stdout.isatty() else 140)
    conduct(sweep, folder, conditions, results, Console(stderr=True))


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
