"""How an experiment shows itself: bars while it runs, its claims on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from probes.views.tables import table
from runs.engine.claims import ClaimResult
from runs.engine.runner import JobResult


def claims_table(title: str, claims: Sequence[ClaimResult]) -> Table:
    """The claims for the terminal, the criterion below what it decides on."""
    view = table(title=title, caption="Each criterion was written down before the run that it judges.")
    view.show_lines = True
    for heading, ratio in (("claim", 3), ("literature", 4), ("measured", 5), ("holds", 1)):
        view.add_column(heading, ratio=ratio, overflow="fold")
    for found in claims:
        colour = {True: "green", False: "red", None: "yellow"}[found.holds]
        rule = f"[dim]holds if {escape(found.criterion)}[/]"
        cells = escape(found.name), f"{escape(found.literature)}\n{rule}", escape(found.measured)
        view.add_row(*cells, f"[{colour}]{found.answer}[/]")
    return view


def index(claims: Sequence[ClaimResult]) -> str:
    """A table in Markdown, claim beside answer: what comes first on an experiment's page in docs/."""
    rows = [("claim", "holds"), ("---", "---"), *((found.name, found.answer) for found in claims)]
    return "".join(f"| {name.replace('|', '∣')} | {answer} |\n" for name, answer in rows)


def details(claims: Sequence[ClaimResult]) -> str:
    """A block in Markdown for each claim: what comes last on that page."""
    blocks = []
    for found in claims:
        parts = (found.literature, found.criterion, found.measured)
        literature, criterion, measured = (part.replace("*", r"\*") for part in parts)
        lines = f"- *Literature:* {literature}\n- *Holds if* {criterion}\n- *Measured:* {measured}\n"
        blocks.append(f"### {found.name} ({found.answer})\n\n{lines}")
    return "\n".join(blocks)


class Bars:
    """Bars on a terminal: one for the experiment, one for each job that runs. Nothing in a pipe."""

    def __init__(self, console: Console | None, jobs: int) -> None:
        shown = console is not None and console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}")
        self.view = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not shown)
        self.all = self.view.add_task("jobs", total=jobs)
        self.running: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self.view.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.view.stop()

    def tell(self, name: str, done: int, planned: int, result: JobResult | None = None) -> None:
        """A listener of `Runner.run`."""
        if result is not None:
            self.view.advance(self.all)
            if name in self.running:
                self.view.remove_task(self.running.pop(name))
            return
        if name not in self.running:
            self.running[name] = self.view.add_task(name, total=planned)
        self.view.update(self.running[name], completed=done, total=planned)
