"""A page as Markdown: the same words and numbers, the figures left out. Every text of a trace is escaped here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from probes.views.report.page import Block, Grid, Page, Section

_SPECIAL = re.compile(r"([\\`*_\[\]{}<>#|~$!&])")


def escape(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    text = " ".join(text.split())
    text = _SPECIAL.sub(lambda found: f"&#{ord(found[1])};" if found[1] in "<>&|" else f"\\{found[1]}", text)
    text = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)
    text = re.sub(r"^([-+=])", r"\\\1", text)
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])", r"\1\\", text)


def markdown(page: Page) -> str:
    """The whole page."""
    return "\n".join(_document(page)) + "\n"


def _document(page: Page) -> Iterator[str]:
    yield f"# {escape(page.title)}\n"
    yield f"{escape(page.lead)}\n"
    if page.note:
        yield from (f"> {escape(line)}" for line in page.note.splitlines())
        yield ""
    yield "## What was measured\n"
    for fact in page.facts + page.details:
        if len(fact.texts) == 1:
            yield f"- {escape(fact.name)}: {_told(fact.texts[0])}"
        else:
            yield f"- {escape(fact.name)}:"
            yield from (f"  - {_told(told)}" for told in fact.texts)
    yield ""
    if page.glance.rows:
        yield "## At a glance\n"
        yield from _table(page.glance)
    yield "## Warnings\n"
    for one in page.cautions:
        where = f"**{escape(one.where)}** " if one.where else ""
        yield f"- {where}{escape(one.text)}"
    yield "" if page.cautions else "None.\n"
    for section in page.sections:
        yield from _section(section)
    yield f"Written by {escape(page.made_by)}."


def _told(told: tuple[str, str]) -> str:
    label, text = told
    return f"{escape(label)}: {escape(text)}" if label else escape(text)


def _section(section: Section) -> Iterator[str]:
    yield f"## {escape(section.title)}\n"
    yield f"{escape(section.shows)} It does not show: {escape(section.not_shows[:1].lower() + section.not_shows[1:])}\n"
    if section.formula:
        yield f"$$\n{section.formula.replace('~', ' ')}\n$$\n"
    if section.papers:
        yield ", ".join(f"[{name}]({url})" if url else escape(name) for name, url in section.papers) + "\n"
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterator[str]:
    yield f"### {escape(block.title)}\n"
    if block.settings:
        yield f"{escape(block.settings)}\n"
    if block.grid is not None:
        yield from _table(block.grid)
    yield from (f"- {escape(note)}" for note in block.notes)
    yield ""


def _table(grid: Grid) -> Iterator[str]:
    yield f"| {' | '.join(escape(heading) for heading in (grid.corner, *grid.headings))} |"
    yield f"|---|{'---:|' * len(grid.headings)}"
    for label, texts in grid.rows:
        yield f"| {' | '.join(escape(text) for text in (label, *texts))} |"
    yield ""
    if grid.left_out:
        yield f"{escape(grid.left_out)}\n"
