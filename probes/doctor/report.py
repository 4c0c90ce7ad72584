"""The report on the terminal, line by line as it is found, and as one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from probes.doctor.finding import Finding

_STYLES = {"ok": "green", "note": "yellow", "FAIL": "bold red", "": ""}


def show(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print each finding as it comes; all of them."""
    seen = []
    width = 36 if console.width >= 120 else 27
    for found in findings:
        line = Table.grid(padding=(0, 1))
        line.add_column(width=4)
        line.add_column(width=width, overflow="fold")
        line.add_column(overflow="fold")
        line.add_row(Text(found.status, style=_STYLES[found.status]), Text(found.what), Text(found.text))
        console.print(line)
        seen.append(found)
    return seen


def as_json(findings: Iterable[Finding], **head: Any) -> str:
    """One document: `head`, whether all is well, and the findings with what they hold for programs."""
    rows = [{"what": f.what, "status": f.status, "text": f.text} | dict(f.values) for f in findings]
    well = not any(row["status"] == "FAIL" for row in rows)
    return json.dumps(_plain(head | {"ok": well, "findings": rows}), ensure_ascii=False, allow_nan=False, indent=1)


def _plain(value: Any) -> Any:
    """What JSON has a word for: what is not finite is a text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
