"""The pictures of `runs.neural_collapse`."""

from __future__ import annotations

from pathlib import Path

from runs.experiment import Results


def figures(results: Results, folder: Path) -> list[Path]:
    """None yet."""
    return []
