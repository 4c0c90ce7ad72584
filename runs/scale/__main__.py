"""What products, Lanczos steps and sweeps cost from one process to a thousand GPUs.

    python -m runs.scale [--machine this|h100|a100] [--kind gauss-newton] [--dtype bfloat16] [--json FILE]

"this" measures the constants of this machine with two processes and holds the model against them, in about a minute.
The constants of GPUs are those of data sheets and assumptions, not measured; the table says which.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from probes.environment import environment
from probes.errors import one_line
from probes.sweep.jobs import write_json
from runs.scale import page, tables
from runs.scale.check import Check, measured
from runs.scale.grid import Grid
from runs.scale.machine import ITEMSIZE, VENDORS
from runs.scale.model import Setting
from runs.scale.network import KINDS


def main(words: list[str] | None = None) -> None:
    """Measure or look up, then print."""
    chosen = _arguments(words)
    console = Console(width=max(170, Console().width), highlight=False)
    if chosen.page:
        console.print(f"written: {page.renew()}")
        return
    fields = ("rows", "batch", "kind", "dtype", "columns")
    setting = replace(Setting(), **{name: getattr(chosen, name) for name in fields})
    machine, checks = VENDORS.get(chosen.machine), list[Check]()
    if machine is None:
        console.print("measuring with two processes ...")
        try:
            machine, checks = measured()
        except RuntimeError as error:
            raise SystemExit(f"python -m runs.scale: {one_line(error)}") from error
    shown = [tables.constants(machine), *([tables.checks(checks)] if checks else []), tables.networks()]
    shown += [tables.steps(machine, setting), tables.sweeps(machine, setting, Grid())]
    for table in shown:
        console.print(table.rich())
    if chosen.json:
        content = {"environment": environment(), "machine": machine.plain(), "checks": [asdict(c) for c in checks]}
        content |= {"setting": asdict(setting), "tables": [asdict(table) for table in shown]}
        write_json(chosen.json, content)
        console.print(f"written: {chosen.json}")


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runs.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Setting()
    parser.add_argument("--machine", choices=["this", *VENDORS], default="this")
    parser.add_argument("--kind", choices=[kind for kind in KINDS if kind != "gradient"], default=default.kind)
    parser.add_argument("--dtype", choices=list(ITEMSIZE), default=default.dtype, help="of the model")
    parser.add_argument("--rows", type=int, default=default.rows, help="tokens of all data")
    parser.add_argument("--batch", type=int, default=default.batch, help="tokens of a batch")
    parser.add_argument("--columns", type=int, default=default.columns, help="of the basis")
    parser.add_argument("--json", type=Path, help="write constants, checks and tables there")
    parser.add_argument("--page", action="store_true", help="write the tables of docs/scale.md anew, and nothing else")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
