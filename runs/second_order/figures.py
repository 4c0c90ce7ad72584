"""The pictures of `runs.second_order`; each group of claims has its own module of them."""

from __future__ import annotations

from pathlib import Path

from runs.engine.claims import Results
from runs.second_order import factors_figures, preconditioning_figures
from runs.shared.figures import save_pictures


def figures(results: Results, folder: Path) -> list[Path]:
    """One PNG for each group whose jobs are finished."""
    return save_pictures(results, folder, {**factors_figures.PICTURES, **preconditioning_figures.PICTURES})
