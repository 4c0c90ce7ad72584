"""What the benchmarks share but for the measuring: the command line, the tables, the JSON with its environment."""

from __future__ import annotations

import argparse
import platform
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from probes.environment import environment
from runs.engine.jobs import write_json

RESULTS = Path("runs/out/benchmarks")
Row = dict[str, Any]


def parser(doc: str | None, *, quick: str, rounds: int | None = None, device: str | None = None) -> Any:
    """With --quick (`quick` says what is reduced), --out, and --rounds and --device where they have defaults."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=f"{quick}: does it run at all")
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds)
    if device is not None:
        made.add_argument("--device", type=torch.device, default=device)
    made.add_argument("--out", type=Path)
    return made


def fastest_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str] = ()) -> Table:
    """Rows of text: numbers to the right, the first column and those of `words` to the left."""
    out = Table(title=title)
    for heading in headings:
        out.add_column(heading, justify="left" if heading in (headings[0], *words) else "right")
    for row in rows:
        out.add_row(*row)
    return out


def write(console: Console, path: Path | None, name: str, device: torch.device, **content: Any) -> None:
    """Write the content beside the environment as JSON, to the path or to its place among the results."""
    path = path or RESULTS / f"{name}-{device.type}.json"
    write_json(path, {"environment": _environment(device), **content})
    console.print(f"written to {path}")


def _environment(device: torch.device) -> dict[str, Any]:
    """Versions, those of the peers too, and hardware."""
    return environment("pyhessian", "curvlinops-for-pytorch") | {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found.group(1)
    return platform.processor()
