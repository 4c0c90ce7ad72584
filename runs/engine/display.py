"""How an experiment shows itself: its claims on the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from probes.views.tables import table
from runs.engine.claims import ANSWERS, ClaimResult, ControlResult


def claims_table(title: str, claims: Sequence[ClaimResult]) -> Table:
    """The claims for the terminal, the criterion below what it decides on."""
    view = table(title=title, caption="Each criterion was written down before the run that it judges.")
    view.show_lines = True
    for heading, ratio in (("claim", 3), ("literature", 4), ("measured", 5), ("holds", 1)):
        view.add_column(heading, ratio=ratio, overflow="fold")
    for found in claims:
        colour = {True: "green", False: "red", None: "yellow"}[found.holds]
        rule = f"[dim]holds if {escape(found.criterion)}[/]"
        said = f"{escape(found.literature)} [dim]({found.source})[/]\n{rule}"
        measured = escape(found.measured) + (f"\n[dim]{escape(_beside(found.control))}[/]" if found.control else "")
        view.add_row(escape(found.name), said, measured, f"[{colour}]{found.answer}[/]")
    return view


def index(claims: Sequence[ClaimResult]) -> str:
    """A table in Markdown, claim beside answer: what comes first on an experiment's page in docs/."""
    rows = [("claim", "source", "holds", "control"), ("---",) * 4]
    for found in claims:
        control = "" if found.control is None else ANSWERS[found.control.holds]
        rows.append((found.name.replace("|", "∣"), found.source, found.answer, control))
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def counts(claims: Sequence[ClaimResult]) -> tuple[str, ...]:
    """How many published claims hold, do not, could not be told, and how many questions are our own."""
    published = [found.holds for found in claims if found.published]
    told = [str(sum(holds is answer for holds in published)) for answer in (True, False, None)]
    return (*told, str(len(claims) - len(published)))


def _beside(control: ControlResult) -> str:
    return f"control, {control.what}: {ANSWERS[control.holds]} ({control.measured})"


def details(claims: Sequence[ClaimResult]) -> str:
    """A block in Markdown for each claim: what comes last on that page."""
    blocks = []
    for found in claims:
        control = "" if found.control is None else _beside(found.control).removeprefix("control, ")
        parts = (found.literature, found.criterion, found.measured, control)
        literature, criterion, measured, control = (part.replace("*", r"\*") for part in parts)
        lines = f"- *Literature ({found.source}):* {literature}\n- *Holds if* {criterion}\n- *Measured:* {measured}\n"
        lines += f"- *Control:* {control}\n" if control else ""
        blocks.append(f"### {found.name} ({found.answer})\n\n{lines}")
    return "\n".join(blocks)
