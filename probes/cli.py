"""The command `landscape`: what is typed, turned into calls.

Nothing heavy is imported before a command needs it: `landscape --help` knows no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from probes.checkpoints.arguments import ProbeCommand, RanksCommand
from probes.commands.connect import connect
from probes.commands.probe import probe
from probes.commands.surface import surface
from probes.sweep.command import sweep
from probes.terminal import begin, err, out, run
from probes.views.commands import compare, export, plot, show
from probes.views.report.command import report

app = typer.Typer(
    name="landscape",
    help="What the loss of a neural network looks like where the network is: curvature with error bars.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's frames around the help take longer than all the rest
    context_settings={"max_content_width": 120},
)


def _print_version(asked: bool) -> None:
    if asked:
        from probes.environment import version_text

        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Silence probe, noise, trace or all.")] = None,
) -> None:
    """Read what stands before the command; `run` has taken --debug out, wherever it stood."""
    begin(context.invoked_subcommand, quiet or [])


@app.command()
def demo(
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Folder for the results.", show_default="landscape-demo")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the data split, the training and the probes.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", hidden=True)] = False,
) -> None:
    """Train two small networks, probe them, and show what was seen.

    The probes look on inside the training loop, and at the checkpoints afterwards.
    """
    from probes.demo import run_demo

    run_demo(out_dir, seed=seed, quick=quick, console=out(), progress=err())


@app.command("probes")
def list_probes() -> None:
    """List the probes: what they measure, need and cost."""
    from probes.views.tables import probes_table

    console = out()
    console.print(probes_table(console.width))


app.command(cls=ProbeCommand)(probe)
app.command(cls=RanksCommand)(surface)
app.command(cls=RanksCommand)(connect)


@app.command()
def doctor(
    problem: Annotated[str | None, typer.Option(help="Look at this one: module:function or file.py:function.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what works here, or what works with a problem.

    Looks at versions, devices, memory, second derivatives and the folder. With --problem, at the parameters, modes,
    layers and derivatives of a problem, and at what products and probes will cost. Exit status 1 when a check fails.
    """
    from probes.doctor.run import examine

    examine(problem, as_json=as_json, console=out())


for _command in (show, plot, export, compare, report, sweep):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, 1 for a failure, 2 for bad arguments, 130 for Ctrl-C."""
    run(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
