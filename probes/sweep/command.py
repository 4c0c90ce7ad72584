"""The options of `landscape sweep`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes.errors import UserError, one_line
from probes.terminal import err, out, resumed


def sweep(
    problem: Annotated[str, typer.Option(help="file.py:function or module:function that returns an Objective.")],
    solvers: Annotated[
        str,
        typer.Option(
            help="module:Class with options, such as torch.optim:SGD,solvers:NGN:momentum=0.9; with lr= it runs at "
            "that step size alone."
        ),
    ],
    lr: Annotated[str | None, typer.Option(help="LOW:HIGH:COUNT in the logarithm, or 0.01,0.1.")] = None,
    seeds: Annotated[int, typer.Option(help="Starts and orders of the data.")] = 3,
    steps: Annotated[int, typer.Option(help="Of each run.")] = 300,
    batch: Annotated[int, typer.Option(help="Size of mini-batches, where the data are a pair of tensors.")] = 64,
    schedule: Annotated[str, typer.Option(help="Of the step size: constant, sqrt or cosine.")] = "constant",
    engine: Annotated[str, typer.Option(help="What runs it: processes, submitit (SLURM) or ray.")] = "processes",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Runs at once.", show_default="1; 64 on SLURM; the CPUs of Ray"),
    ] = None,
    slurm: Annotated[
        str | None, typer.Option(metavar="KEY=VALUE,...", help="partition=NAME,time=MINUTES,...; cluster=local.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a cluster that runs.", show_default="RAY_ADDRESS, or one started here")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="Of each run, with Ray, which shows it none otherwise.")] = 0.0,
    seed: Annotated[int, typer.Option(help="From which the seeds of the runs derive.")] = 0,
    checkpoint: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints of a run.")] = 30.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run everything again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure first runs and say what the rest takes.")] = False,
    price: Annotated[
        float | None, typer.Option(min=0, metavar="PER_HOUR", help="What an hour of one run costs.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder.")] = Path("sweep"),
) -> None:
    """Train with solvers over step sizes and seeds: one trace per run, a table and a picture.

    The folder keeps every run that is finished and the checkpoints of those that are not: the same command goes on
    from there, also on another machine.
    """
    from probes.sweep.arguments import grid, slurm_settings
    from probes.sweep.conduct import Conditions, conduct
    from probes.sweep.engines.choose import Choice
    from probes.sweep.solvers import split_solvers
    from probes.sweep.sweep import Sweep

    choice = Choice(engine, jobs, slurm_settings(slurm or ""), ray_address, gpus)
    try:
        wanted = Sweep(problem, split_solvers(solvers), grid(lr) if lr else (), seeds, steps, batch, schedule)
    except ValueError as error:
        raise UserError(one_line(error), status=2) from error
    conditions = Conditions(choice, seed, fresh, dry_run, price, checkpoint)
    try:
        conduct(wanted, output, conditions, out(), err())
    except KeyboardInterrupt as error:
        kept = f"interrupted; what is finished is kept in {output}, go on with"
        raise UserError(kept, status=130, command=resumed("")) from error
