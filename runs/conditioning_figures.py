"""The pictures of `runs.gauss_newton_conditioning`."""

from __future__ import annotations

from pathlib import Path

from runs.experiment import Results


def figures(results: Results, folder: Path) -> list[Path]:
    """Write them."""
    return []
