"""The command `landscape`: what is typed, turned into calls.

Nothing heavy is imported before a command needs it: `landscape --help` knows no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from probes.checkpoints.arguments import BatchSize, Data, Length, ProbeCommand, Samples, Timeout
from probes.errors import UserError
from probes.ranks import is_first, world
from probes.sweep.command import sweep
from probes.terminal import begin, err, out, run
from probes.views.report.command import report

if TYPE_CHECKING:
    from probes.trace.trace import Trace

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


@app.command(cls=ProbeCommand)
def probe(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="Weights: torch, safetensors or Lightning files, folders of from_pretrained or DCP."),
    ],
    problem: Annotated[
        str,
        typer.Option(
            help="module:function or file.py:function that returns a landscape.Objective; with --data also "
            "hf:causal-lm, hf:masked-lm, hf:sequence-classification or hf:seq2seq, for folders of from_pretrained."
        ),
    ],
    data: Data = None,
    samples: Samples = None,
    length: Length = None,
    batch_size: BatchSize = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="One of those below, such as spectrum:k=10,tol=1e-4. May be given several times.",
            show_default="spectrum and trace",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")] = Path("probe.h5"),
    operator: Annotated[str, typer.Option(help="hessian, gauss-newton or fisher.")] = "hessian",
    steps: Annotated[
        str | None, typer.Option(help="Step of each checkpoint: 0,100,200.", show_default="the numbers in their names")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the probes' random vectors.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Measure what is missing in the output.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
    timeout: Timeout = 10.0,
) -> None:
    """Measure the loss at saved checkpoints. Each becomes one step of the trace."""
    from probes.checkpoints.arguments import parse_probes, parse_steps, parse_texts
    from probes.checkpoints.steps import checkpoint_steps

    texts = parse_texts(problem, data, samples=samples, length=length, batch_size=batch_size)
    wanted = parse_probes(probe or ["spectrum", "trace"], operator)
    said: list[str] = []
    files = world().agreed(lambda: checkpoint_steps(checkpoints, parse_steps(steps), said.append))

    from probes.checkpoints.run import Request
    from probes.checkpoints.run import run as measure

    notes = err()
    made = measure(Request(files, problem, wanted, output, operator, seed, resume, overwrite, said, texts), notes)
    if is_first():
        from probes.views.tables import tell_measured

        tell_measured(output, made, out(), notes)


@app.command()
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

        _open(trace).close()
        watch(trace, out(), err(), last=last, interval=interval)
        return
    from probes.views.tables import overview, steps_table

    with _open(trace) as opened:
        console = out()
        console.print(overview(opened))
        if len(opened):
            console.print(steps_table(opened, last, width=console.width))


@app.command()
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

    with _open(trace) as opened:
        folder = output if output is not None else trace.parent
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: -o names the folder for the pictures")
        written = plot_trace(opened, folder, prefix=trace.stem, style=style, format=kind)
    if not written:
        from probes.instruments.registry import PROBES

        raise UserError(f"{trace} holds nothing to plot: none of {', '.join(PROBES)} was measured")
    for path in written:
        typer.echo(path)


@app.command()
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

    with _open(trace) as opened:
        written = write(opened, kind, output, probes=probe or (), overwrite=overwrite)
    for path in written:
        typer.echo(path)


@app.command()
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


app.command()(report)
app.command()(sweep)


def _open(path: Path) -> Trace:
    from probes.trace.trace import Trace

    if path.is_dir():
        raise UserError(f"{path} is a folder: name a trace in it, such as {path / 'probe.h5'}")
    if not path.exists():
        raise UserError(f"there is no trace {path}")
    return Trace.open(path)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit: 0, 1 for a failure, 2 for bad arguments, 130 for Ctrl-C."""
    run(app, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    main()
