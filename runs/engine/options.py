"""The options of all commands that run jobs: how many at once, and by which engine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from probes.errors import UserError
from probes.sweep.arguments import slurm_settings
from probes.sweep.engines.choose import ENGINES, Choice

FOLDER = "LANDSCAPE_DATA"
"""The variable that names a folder of data sets; `--data` sets it, so that it reaches the processes of all jobs."""


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add `--data`."""
    parser.add_argument("--data", type=_folder, help=f"folder of data sets (default: {FOLDER}, then what is installed)")


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().absolute()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"a folder, which {text} is not")
    return folder


def use_data(chosen: argparse.Namespace) -> None:
    """The folder that was typed is that of this process, and of those that it starts."""
    if chosen.data is not None:
        os.environ[FOLDER] = str(chosen.data)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs`, `--engine` and what the engines take."""
    parser.add_argument("--jobs", type=natural, metavar="N", help="jobs at once, each in its own process (default: 1)")
    parser.add_argument("--engine", default="processes", help=f"what runs them: {', '.join(ENGINES)}")
    parser.add_argument("--slurm", default="", metavar="KEY=VALUE,...", help="partition=NAME,time=MINUTES,...")
    parser.add_argument("--ray-address", help="of a cluster that runs (default: RAY_ADDRESS, or one started here)")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each job, with ray")


def chosen_engine(chosen: argparse.Namespace) -> Choice:
    """The engine of what was typed. Raises `UserError`."""
    slurm = slurm_settings(chosen.slurm)
    return Choice(chosen.engine, chosen.jobs or None, slurm, chosen.ray_address, chosen.gpus)


@contextmanager
def ending(console: Console) -> Iterator[None]:
    """What ends such a command early ends it in one line: errors of the user with theirs, Ctrl-C with status 130."""
    try:
        yield
    except UserError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise SystemExit(error.status) from None
    except KeyboardInterrupt:
        console.print("Interrupted: the same command goes on from here.")
        raise SystemExit(130) from None


def natural(text: str) -> int:
    """A number >= 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"a number >= 0, not {text}")
    return value
