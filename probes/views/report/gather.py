"""Traces to a page: a section per kind of probe, in it a block for each group of records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

from probes.environment import version_text
from probes.errors import first_few
from probes.instruments.entry import import_from
from probes.trace.set import TraceSet
from probes.views.kinds import KINDS, settings_text
from probes.views.notes import notes_on
from probes.views.pictures.draw import called, pictures_of
from probes.views.report import cautions
from probes.views.report.charts.other import other_charts
from probes.views.report.compare import comparison_block, shared_names
from probes.views.report.facts import facts_of, glance_of, lead_of
from probes.views.report.page import Block, Caution, Chart, Grid, Page, Section
from probes.views.report.rows import grid_of, some_rows
from probes.views.report.source import Group, Source
from probes.views.report.words import OTHER, WORDS, papers

_DRAWN = 1500  # rows that are drawn of a group: more than a screen has pixels
_RESERVED = ("main", "summary", "say", "plotly")
_STATIC = 100  # of a static picture, which is as heavy as it has points
_WHOLE = 4  # runs that are shown one by one; of more there is the comparison alone


def gather(runs: TraceSet, sources: Sequence[Source], *, title: str | None, note: str | None) -> Page:
    """The page of these runs, whose traces are open."""
    several = len(sources) > 1
    told: list[Caution] = [Caution(name, why) for name, why in runs.unreadable.items()]
    for source in sources:
        told += cautions.about_trace(source.trace, source.label if several else "")
    sections, taken = [], set(_RESERVED)
    for kind in [*KINDS, None]:
        blocks: list[Block] = []
        if several:
            names = shared_names([{g.records.name: kind for g in s.groups if g.kind == kind} for s in sources])
            for name in names:
                made = comparison_block(runs, name, kind, _anchor(f"{name}-compared", taken))
                blocks += [made] if made is not None else []
        whole = len(sources) <= _WHOLE
        for index, source in enumerate(sources):
            for group in source.groups:
                if group.kind == kind:
                    anchor = _anchor(f"{index + 1}-{group.records.name}" if several else group.records.name, taken)
                    block = _block(source, group, anchor, several)
                    told += cautions.about_records(group.entry, group.columns, block)
                    blocks += [block] if whole and len(group.columns["step"]) else []
        if blocks:
            sections.append(_section(kind, blocks))
    if several and len(sources) > _WHOLE:
        told.append(Caution("", f"{len(sources)} runs: compared, not shown one by one; give up to {_WHOLE} for that"))
    shown = {block.anchor for section in sections for block in section.blocks}
    told = [one if one.anchor in shown else Caution(one.where, one.text) for one in told]
    facts, details = facts_of(sources)
    return Page(
        title=title or _title(sources),
        note=note or "",
        lead=lead_of(sources),
        facts=facts,
        details=details,
        glance=glance_of(sources),
        cautions=told,
        sections=sections,
        made_by=version_text(),
    )


def _anchor(name: str, taken: set[str]) -> str:
    """A name for the page's own links, which no other part has: the charts' are this one and a number."""
    stem = re.sub(r"[^A-Za-z]+", "-", name).strip("-").lower() or "records"
    if name[:1].isdigit():
        stem = f"run-{name.partition('-')[0]}-{stem}"
    found = next(anchor for i in count() if (anchor := stem + "-" + "x" * i if i else stem) not in taken)
    taken.add(found)
    return found


def _title(sources: Sequence[Source]) -> str:
    names = [source.trace.path.stem for source in sources]
    return f"Loss landscape of {first_few(names)}"


def _section(kind: str | None, blocks: list[Block]) -> Section:
    words = WORDS.get(kind or "", OTHER)
    found = papers(KINDS[kind].paper) if kind else []
    return Section(f"about-{kind or 'other'}", words.title, words.shows, words.not_shows, words.formula, found, blocks)


def _block(source: Source, group: Group, anchor: str, several: bool) -> Block:
    """The records of one name: charts of an even choice of their rows, and the table of what they say."""
    records, columns = group.records, group.columns
    drawn = _every(columns, _DRAWN)
    rows = drawn["step"]
    grid = grid_of(records, group.entry, columns) if len(rows) else None
    notes = [line.removeprefix(f"{records.name}: ") for line in notes_on(records, group.entry, columns)]
    if len(rows) < len(columns["step"]):
        notes.append(f"{len(rows)} of {len(columns['step'])} rows are drawn, evenly chosen")
    return Block(
        anchor=anchor,
        title=f"{source.label}: {records.name}" if several else records.name,
        settings=settings_text(records.settings),
        draw=lambda: list(_charts(source, group, drawn)) if len(rows) else [],
        text=_text(grid),
        grid=grid,
        notes=notes,
        pictures=partial(pictures_of, source.trace, records, _every(columns, _STATIC)),
    )


def _every(columns: Mapping[str, Any], most: int) -> dict[str, Any]:
    """At most so many of the rows, evenly chosen."""
    rows = some_rows(len(columns["step"]), most)
    return {name: values[rows] for name, values in columns.items()}


def _charts(source: Source, group: Group, columns: dict[str, Any]) -> Iterator[Chart]:
    """What the kind's own function draws: `charts.<module>:<stem>_charts` beside its picture."""
    if group.kind is None:
        yield from other_charts(columns, group.records.settings or {}, group.records.fields)
        return
    place = re.sub(r"_figures?$", "_charts", group.entry.picture)
    yield from called(import_from("probes.views.report.charts", place), source.trace, group.records, columns)


def _text(grid: Grid | None) -> str:
    """The numbers of the first and the last row, for who cannot see the charts."""
    if grid is None or not grid.rows:
        return "no rows"
    ends = [grid.rows[0], *grid.rows[1:][-1:]]
    told = [
        f"{grid.corner} {label}: " + ", ".join(f"{h} {t}" for h, t in zip(grid.headings, texts, strict=True) if t)
        for label, texts in ends
    ]
    return "; ".join(told)
