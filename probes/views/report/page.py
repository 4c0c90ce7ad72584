"""What a report says, before it is HTML or Markdown: texts are a reader's or a trace's own, and not yet escaped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Chart:
    """One interactive figure: title, what was done to the numbers, and what plotly.js draws (`data`, `layout`)."""

    title: str
    remark: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A table: a row of texts for each label of its first column, `corner`; as CSV with all digits where there is one.

    `left_out` says which rows the page does not show, and which columns the CSV does not have.
    """

    corner: str
    headings: list[str]
    rows: list[tuple[str, list[str]]]
    csv: str = ""
    left_out: str = ""


@dataclass(frozen=True)
class Block:
    """The records of one name in one run, or several runs compared.

    `text` holds its numbers for who cannot see the charts, which are made when they are asked for; `pictures` draws
    static ones, name -> matplotlib figure.
    """

    anchor: str
    title: str
    settings: str
    draw: Callable[[], list[Chart]]
    text: str
    grid: Grid | None
    notes: list[str] = field(default_factory=list)
    pictures: Callable[[], dict[str, Any]] = dict

    @cached_property
    def charts(self) -> list[Chart]:
        """Those of an interactive page."""
        return self.draw()


@dataclass(frozen=True)
class Section:
    """All blocks of one kind of probe: what it shows and does not show, its formula (TeX) and papers (name, URL)."""

    anchor: str
    title: str
    shows: str
    not_shows: str
    formula: str
    papers: list[tuple[str, str]]
    blocks: list[Block]


@dataclass(frozen=True)
class Fact:
    """Something about the runs: its name, and what each says of it, by its label; the label is "" for all of them."""

    name: str
    texts: list[tuple[str, str]]


@dataclass(frozen=True)
class Caution:
    """Something a reader must know before the pictures: whose it is, and the block to look at ("" for none)."""

    where: str
    text: str
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report: `facts` say what was measured on what, `details` from where it comes."""

    title: str
    note: str
    lead: str
    facts: list[Fact]
    details: list[Fact]
    glance: Grid
    cautions: list[Caution]
    sections: list[Section]
    made_by: str
