"""How an experiment shows itself: its claims on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from probes.views.tables import table
from runs.engine.claims import ClaimResult


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
