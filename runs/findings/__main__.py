"""The command `python -m runs.findings`: one finding, several, or all of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from rich.console import Console

from probes.errors import check_choice
from probes.views.tables import table
from runs.engine.options import ending
from runs.findings import FINDINGS, Finding


def main(words: Sequence[str] | None = None) -> None:
    """See the findings that are named again; status 1 where one is not seen."""
    parser = argparse.ArgumentParser(prog="python -m runs.findings", description="see again what contradicts a source")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FINDINGS)} (default: all)")
    chosen = parser.parse_args(words)
    console = Console(width=None if Console().is_terminal else 160)
    with ending(console):
        for name in chosen.names:
            check_choice("a finding", name, FINDINGS)
        seen = [_show(console, FINDINGS[name]) for name in chosen.names or FINDINGS]
        if not all(seen):
            raise SystemExit(1)


def _show(console: Console, finding: Finding) -> bool:
    started = time.perf_counter()
    seen = finding.measure()
    seconds = time.perf_counter() - started
    console.print(f"[bold]{finding.name}[/]: {finding.about}", highlight=False)
    console.print(f"said: {finding.says}\nseen: {finding.found}", markup=False, highlight=False, soft_wrap=True)
    view = table(*seen.columns)
    for row in seen.rows:
        view.add_row(*(cell.replace("`", "") for cell in row))
    console.print(view)
    answer = "Seen again" if seen.again else "Not seen this time"
    console.print(f"{answer}, in {seconds:.0f} s.\n", highlight=False)
    return seen.again


if __name__ == "__main__":
    main()
