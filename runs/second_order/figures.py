"""The pictures of `runs.second_order`; each group of claims has its own module of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runs.engine.claims import Results
from runs.second_order import factors_figures, heterogeneity_figures, preconditioning_figures, widths_figures
from runs.shared.figures import save_pictures


def figures(results: Results, folder: Path) -> list[Path]:
    """One PNG for each group whose jobs are finished."""
    groups = factors_figures, preconditioning_figures, heterogeneity_figures, widths_figures
    pictures: dict[str, Any] = {}
    for group in groups:
        pictures |= group.PICTURES
    return save_pictures(results, folder, pictures)
