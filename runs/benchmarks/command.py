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
from probes.sweep.jobs import write_json

RESULTS = Path("runs/out/benchmarks")
FASTEST = "cuda" if torch.cuda.is_available() else "cpu"
Row = dict[str, Any]
console = Console(width=120)


def arguments(
    words: list[str] | None, doc: str | None, *, quick: str, rounds: int = 0, device: str = "", **more: Any
) -> argparse.Namespace:
    """What the command was given.

    That is --quick (`quick` says what is reduced; rounds are 2 then), --out, --rounds and --device where they have
    defaults, and `more`: options with their settings.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{quick}: does it run at all")
    parser.add_argument("--out", type=Path)
    parser.set_defaults(rounds=1, device=torch.device("cpu"))
    more |= {"rounds": {"type": int, "default": rounds}} if rounds else {}
    more |= {"device": {"type": torch.device, "default": torch.device(device)}} if device else {}
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    chosen = parser.parse_args(words)
    chosen.rounds = 2 if chosen.quick else chosen.rounds
    return chosen


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[str] = ()) -> Table:
    """Rows of text: numbers to the right, the first column and those of `words` to the left."""
    out = Table(title=title)
    for heading in headings:
        out.add_column(heading, justify="left" if heading in (headings[0], *words) else "right")
    for row in rows:
        out.add_row(*row)
    return out


def write(chosen: argparse.Namespace, name: str, **content: Any) -> None:
    """Write the content beside the environment as JSON, to the path chosen or to its place among the results."""
    device = chosen.device
    path = chosen.out or RESULTS / f"{name}-{device.type}.json"
    surroundings = environment("pyhessian", "curvlinops-for-pytorch", "pytorch_optimizer") | {
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }
    write_json(path, {"environment": surroundings, **content})
    console.print(f"written to {path}")


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found.group(1)
    return platform.processor()
