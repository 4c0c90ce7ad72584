"""The report of one or more traces: what `landscape report` and `probes.report` write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from probes.errors import UserError
from probes.files import atomic_file, refuse_existing
from probes.trace.set import TraceSet
from probes.trace.trace import Trace
from probes.views.report.source import Source

FORMATS = (".html", ".htm", ".md")
Paths = str | os.PathLike[str]


def report(
    trace_or_paths: Trace | Paths | Iterable[Trace | Paths],
    path: Paths,
    *,
    title: str | None = None,
    note: str | None = None,
) -> Path:
    """Write one or more traces as a page, and return its path.

    A page opens from its file on a machine without internet. It says what was measured on what, then what to be
    careful about, then shows a section per kind of probe: figures, what they show and do not show, the formula, the
    paper, the numbers. Several traces are compared, with mean and band where some repeat an experiment. A trace that is
    still being written is shown as far as it is flushed. Figures are interactive with the extra `report`
    (plotly), else static.

    Args:
        trace_or_paths: a trace, the path of one, a folder of traces, a glob pattern, or several of these.
        path: a file that ends in .html, or in .md for Markdown with the same numbers; it is replaced.
        title: of the page; by default the names of the traces.
        note: a few words of yours below the title.

    Raises `UserError` for another ending, and `TraceError` for what cannot be read.

    Example:
        >>> from probes import Field, Trace, report
        >>> with Trace.create("run.h5") as trace:
        ...     trace.declare("loss", {"value": Field(), "gradient_norm": Field()})
        ...     trace.record("loss", step=0, value=2.5, gradient_norm=1.0)
        >>> text = report("run.h5", "run.md", title="A short run").read_text()
        >>> text.splitlines()[0]
        '# A short run'
    """
    target = check_ending(Path(path))
    runs = TraceSet.open(list(_places(trace_or_paths)))
    sources = [Source.read(run.open(), run.name) for run in runs]
    from probes.views.report.gather import gather

    page = gather(runs, sources, title=title, note=note)
    if target.suffix == ".md":
        from probes.views.report.markdown import markdown

        text = markdown(page)
    else:
        from probes.views.report import bundle
        from probes.views.report.html import html

        text = html(page, interactive=bundle.is_there())
    with atomic_file(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def check_ending(path: Path) -> Path:
    """The path, when it says a format. Raises `UserError`."""
    if path.suffix not in FORMATS:
        raise UserError(f"a report is a page (.html) or Markdown (.md), not {path}", status=2)
    refuse_existing([path], overwrite=True)  # a folder cannot be replaced
    return path


def _places(given: Trace | Paths | Iterable[Trace | Paths]) -> Iterable[Paths]:
    for one in [given] if isinstance(given, Trace | str | os.PathLike) else given:
        if isinstance(one, Trace):
            one.flush()
            yield one.path
        else:
            yield one
