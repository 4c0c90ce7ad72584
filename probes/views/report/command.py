"""The command `landscape report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    traces: Annotated[list[str], typer.Argument(help="Traces, folders of traces, or glob patterns.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The page to write: .html, or .md for Markdown.")
    ] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="Of the page.", show_default="the traces' names")] = None,
    note: Annotated[str | None, typer.Option(help="A few words below the title.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Write traces as one page to send to somebody. Its path is printed.

    It needs no network, and says first what to be careful about. Several traces are compared, and up to four shown one
    by one. Figures are interactive with the extra report, pip install 'landscape-engine[report]', else static.
    """
    from probes.files import refuse_existing
    from probes.views.report.write import check_ending
    from probes.views.report.write import report as write

    refuse_existing([check_ending(output)], overwrite)
    typer.echo(write(traces, output, title=title, note=note))
