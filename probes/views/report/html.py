"""A page as HTML: one file, nothing from anywhere else. Every text of a trace is escaped here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape as _escape
from importlib import resources
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from probes.views.report import bundle
from probes.views.report.formulas import mathml
from probes.views.report.page import Block, Caution, Chart, Fact, Grid, Page, Section
from probes.views.report.static import svgs


def escape(text: str) -> str:
    """A text between tags or in an attribute."""
    # what is no character of HTML would be repaired by each browser in its own way
    kept = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return _escape(kept, quote=True)


def html(page: Page, *, interactive: bool) -> str:
    """The whole page; with static pictures where it is not interactive."""
    return "\n".join(_document(page, interactive))


def _document(page: Page, interactive: bool) -> Iterator[str]:
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' blob: 'unsafe-eval'; "
    policy += "img-src data: blob:; connect-src 'none'; form-action 'none'; base-uri 'none'"
    yield "<!DOCTYPE html>"
    yield '<html lang="en">'
    yield '<head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield f'<meta name="generator" content="{escape(page.made_by)}">'
    yield f"<title>{escape(page.title)}</title>"
    yield f"<style>{_asset('page.css')}</style></head>"
    yield '<body><a class="skip" href="#main">Skip to the report</a>'
    yield _navigation(page)
    yield '<main id="main">'
    yield _head(page, interactive)
    for section in page.sections:
        yield _section(section, interactive)
    yield f"<footer><p>Written by {escape(page.made_by)}. Colours that the colour-blind can tell apart.</p></footer>"
    yield '</main><div id="say" class="hidden" aria-live="polite"></div>'
    if interactive and any(block.charts for section in page.sections for block in section.blocks):
        yield f'<script type="text/plain" id="plotly">{bundle.packed()}</script>'
    yield f"<script>{_asset('page.js')}</script>"
    yield "</body></html>\n"


def _asset(name: str) -> str:
    return (resources.files("probes.views.report") / "assets" / name).read_text(encoding="utf-8")


def _navigation(page: Page) -> str:
    links = ['<li><a href="#summary">Summary</a></li>']
    links += [f'<li><a href="#{escape(s.anchor)}">{escape(s.title)}</a></li>' for s in page.sections]
    return (
        f'<nav aria-label="Contents"><details open><summary>Contents</summary><ol>{"".join(links)}</ol></details></nav>'
    )


def _head(page: Page, interactive: bool) -> str:
    parts = ['<header id="summary">', f"<h1>{escape(page.title)}</h1>", f'<p class="lead">{escape(page.lead)}</p>']
    if page.note:
        parts.append(f'<p class="note">{_lines(page.note)}</p>')
    parts.append(f'<section aria-label="What was measured"><h2>What was measured</h2>{_facts(page.facts)}')
    if page.details:
        parts.append(f'<details class="more"><summary>Versions and files</summary>{_facts(page.details)}</details>')
    parts.append("</section>")
    if page.glance.rows:
        parts += ['<section aria-label="At a glance"><h2>At a glance</h2>', _table(page.glance), "</section>"]
    parts.append(_cautions(page.cautions))
    if not interactive and page.sections:
        parts.append(
            f'<p class="hint">Static pictures: interactive ones come with <code>{escape(bundle.HINT)}</code>.</p>'
        )
    return "\n".join([*parts, "</header>"])


def _facts(facts: list[Fact]) -> str:
    rows = (f"<div><dt>{escape(fact.name)}</dt>{''.join(map(_fact, fact.texts))}</div>" for fact in facts)
    return f"<dl>{''.join(rows)}</dl>"


def _fact(told: tuple[str, str]) -> str:
    label, text = told
    return f"<dd>{f'<b>{escape(label)}</b> ' if label else ''}{escape(text)}</dd>"


def _lines(text: str) -> str:
    return "<br>".join(map(escape, text.splitlines()))


def _cautions(cautions: list[Caution]) -> str:
    if not cautions:
        return '<section class="fine" aria-label="Warnings"><h2>Warnings</h2><p>None.</p></section>'
    items = []
    for one in cautions:
        where = escape(one.where)
        if one.anchor:
            where = f'<a href="#{escape(one.anchor)}">{where}</a>'
        items.append(f"<li><strong>{where}</strong> {escape(one.text)}</li>")
    return f'<section class="cautions" aria-label="Warnings"><h2>Warnings</h2><ul>{"".join(items)}</ul></section>'


def _section(section: Section, interactive: bool) -> str:
    parts = [
        f'<section class="kind" id="{escape(section.anchor)}"><h2>{_anchor(section.anchor)}{escape(section.title)}</h2>'
    ]
    parts.append(f'<div class="words"><p>{escape(section.shows)}</p>')
    parts.append(f'<p class="not"><b>It does not show:</b> {escape(section.not_shows)}</p></div>')
    if section.formula:
        parts.append(f'<div class="formula">{mathml(section.formula)}{_papers(section)}</div>')
    parts += [_block(block, interactive) for block in section.blocks]
    return "\n".join([*parts, "</section>"])


def _papers(section: Section) -> str:
    links = [
        f'<a href="{escape(url)}" rel="noreferrer noopener">{escape(name)}</a>' if url else escape(name)
        for name, url in section.papers
    ]
    return f'<p class="papers">{", ".join(links)}</p>' if links else ""


def _anchor(anchor: str) -> str:
    return f'<a class="anchor" href="#{escape(anchor)}" aria-label="Link to this part">#</a>'


def _block(block: Block, interactive: bool) -> str:
    anchor = escape(block.anchor)
    settings = f' <span class="settings">{escape(block.settings)}</span>' if block.settings else ""
    parts = [
        f'<article id="{anchor}-records"><h3>{_anchor(block.anchor + "-records")}{escape(block.title)}{settings}</h3>'
    ]
    if interactive:
        parts.append(f'<div class="charts" id="{anchor}">')
        parts += [_chart(chart, block, i) for i, chart in enumerate(block.charts)]
        parts.append("</div>")
    else:
        parts.append(f'<div class="pictures" id="{anchor}">{_pictures(block)}</div>')
    if block.notes:
        parts.append(f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in block.notes)}</ul>')
    if block.grid is not None:
        parts.append(_data(block.grid, block))
    return "\n".join([*parts, "</article>"])


def _pictures(block: Block) -> str:
    label = f"{block.title}. {block.text}"
    made = svgs(block.pictures, block.anchor, label)
    return "".join(f'<figure tabindex="0">{svg}</figure>' for svg in made)


def _chart(chart: Chart, block: Block, index: int) -> str:
    anchor = f"{block.anchor}-{index + 1}"
    label = (
        f"{chart.title}. {chart.remark + '. ' if chart.remark else ''}{block.text}. All numbers are in the table below."
    )
    height, data = chart.layout.get("height", 340), [_spaced(trace) for trace in chart.data]
    title = f'<figcaption id="{escape(anchor)}-title"><b>{_anchor(anchor)}{escape(chart.title)}</b>'
    return (
        f'<figure id="{escape(anchor)}">{title}<span>{escape(chart.remark)}</span></figcaption>'
        f'<div class="plot" role="img" tabindex="0" style="height:{int(height)}px" aria-label="{escape(label)}"></div>'
        f'<script type="application/json">{script_json({"data": data, "layout": chart.layout})}</script></figure>'
    )


def _spaced(trace: dict[str, Any]) -> dict[str, Any]:
    """Whole steps at equal distances by the first and the distance: each line has its own, a third of its numbers."""
    x = trace.get("x", ())
    if len(x) < 3 or not all(type(place) is int for place in x) or len({b - a for a, b in pairwise(x)}) != 1:
        return trace
    if x[0] == x[1]:  # plotly takes a distance of 0 for none, which is 1
        return trace
    return {key: value for key, value in trace.items() if key != "x"} | {"x0": x[0], "dx": x[1] - x[0]}


def script_json(value: object) -> str:
    """JSON inside a script element: no `</script>` or `<!--` can be in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _data(grid: Grid, block: Block) -> str:
    link = ""
    if grid.csv:
        name = f"{block.anchor}.csv"
        address = f"data:text/csv;charset=utf-8,{quote(grid.csv, safe=',:.+-_')}"
        link = f'<a class="button" download="{escape(name)}" href="{address}">CSV</a>'
    left = f'<p class="left">{escape(grid.left_out)}</p>' if grid.left_out else ""
    tools = f'<div class="tools"><button type="button" class="button copy">Copy</button>{link}</div>'
    table = _table(grid, block.title)
    return f'<details class="data"><summary>Numbers</summary>{tools}{table}{left}</details>'


def _table(grid: Grid, caption: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in (grid.corner, *grid.headings))
    rows = (
        f'<tr><th scope="row">{escape(label)}</th>{"".join(f"<td>{escape(text)}</td>" for text in texts)}</tr>'
        for label, texts in grid.rows
    )
    said = f'<caption class="hidden">{escape(caption)}</caption>' if caption else ""
    left = f'<p class="left">{escape(grid.left_out)}</p>' if grid.left_out and not caption else ""
    return (
        f'<div class="scroll" tabindex="0"><table>{said}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{left}"
    )
