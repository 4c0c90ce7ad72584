"""The commands that show traces and write them in other forms: show, plot, export, compare.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from probes.errors import UserError
from probes.terminal import err, out, tell

if TYPE_CHECKING:
    from probes.trace.trace import Trace


def show(
    trace: Annotated[Path, typer.Argument(help="A trace, also one that is being written.")],
    last: Annotated[int, typer.Option(min=1, help="Show the last steps only.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what is measured, until the writer closes the trace.")
    ] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks, with --follow.")] = 1.0,
) -> None:
    """Print what a trace holds.

    That is its origin, its probes, and the last measurements with their errors.
    """
    if follow:
        from probes.views.follow import follow as watch

        open_trace(trace).close()
        try:
            watch(trace, out(), err(), last=last, interval=interval)
        except KeyboardInterrupt:  # which is how it is ended: there is nothing to say
            sys.exit(130)
        return
    from probes.views.tables import overview, steps_table

    with open_trace(trace) as opened:
        console = out()
        console.print(overview(opened))
        if len(opened):
            console.print(steps_table(opened, last, width=console.width))


def plot(
    trace: Annotated[Path, typer.Argument(help="A trace.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the pictures.", show_default="beside the trace")
    ] = None,
    style: Annotated[str, typer.Option(help="screen, or paper: columns wide, 8 pt, serif, without titles.")] = "screen",
    kind: Annotated[str, typer.Option("--format", help="png, pdf or svg.")] = "png",
) -> None:
    """Write the pictures of a trace. Their paths are printed.

    In the style for papers, titles and notes are left to the caption: they are in the files' metadata.
    """
    from probes.views.pictures.draw import plot_trace

    with open_trace(trace) as opened:
        folder = output if output is not None else trace.parent
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: -o names the folder for the pictures")
        written = plot_trace(opened, folder, prefix=trace.stem, style=style, format=kind)
    if not written:
        from probes.instruments.registry import PROBES

        raise UserError(f"{trace} holds nothing to plot: none of {', '.join(PROBES)} was measured")
    for path in written:
        typer.echo(path)


def export(
    trace: Annotated[Path, typer.Argument(help="A trace.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="csv, json, parquet (extra analysis), tensorboard, wandb-offline (extras tensorboard, wandb).",
            show_default="by the suffix of -o, else csv",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder or file to write.", show_default="beside the trace")
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="A probe to write. May be given several times.", show_default="all")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write a trace for other programs. The paths are printed.

    CSV and Parquet have a file per probe, JSON is one document: nan is null in it, infinities are the strings Infinity
    and -Infinity, and it has the events too. tensorboard and wandb-offline are folders with curves, their errors, and
    the pictures: tensorboard --logdir FOLDER, wandb sync FOLDER/wandb/offline-run-*.
    """
    from probes.views.export import export as write

    with open_trace(trace) as opened:
        written = write(opened, kind, output, probes=probe or (), overwrite=overwrite, say=tell)
    for path in written:
        typer.echo(path)


def compare(
    traces: Annotated[list[str], typer.Argument(help="Traces, folders of traces, or glob patterns.")],
    field: Annotated[
        str | None,
        typer.Option(help="probe.field, or probe.field.entry.", show_default="the sharpness, or what most runs have"),
    ] = None,
    by: Annotated[str, typer.Option(help="The axis: step, epoch, loss or time.")] = "step",
    group: Annotated[
        list[str] | None,
        typer.Option(
            help="Average over all runs that are equal in this config key (run: average over none). "
            "May be given several times.",
            show_default="all keys but seeds",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="The field that --by loss goes by.", show_default="loss.value, or a field named loss"),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A picture (.png) to write.")] = None,
) -> None:
    """Compare runs by the means of a field over repetitions.

    Repetitions are runs whose configs are equal up to seeds; means have their standard errors.
    """
    if output is not None and (output.suffix != ".png" or output.is_dir()):
        raise UserError(f"-o names the picture to write, a .png file, not {output}", status=2)
    from probes.trace.set import TraceSet
    from probes.views.comparison.select import compare_runs
    from probes.views.comparison.table import comparison_table

    comparison = compare_runs(TraceSet.open(traces), field, by, group or (), loss)
    console = out()
    console.print(comparison_table(comparison, width=console.width))
    if output is not None:
        from probes.views.comparison.picture import comparison_figure

        typer.echo(comparison_figure(comparison, output))


def open_trace(path: Path) -> Trace:
    """The trace, open for reading. Raises `UserError` where there is none."""
    from probes.trace.trace import Trace

    if path.is_dir():
        raise UserError(f"{path} is a folder: name a trace in it, such as {path / 'probe.h5'}")
    if not path.exists():
        raise UserError(f"there is no trace {path}")
    return Trace.open(path)
