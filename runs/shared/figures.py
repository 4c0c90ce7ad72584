"""What the pictures of several experiments are made with: grids of panels, and what is drawn at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from probes.views.pictures.style import save, sequence, style
from runs.engine.claims import Results

T = TypeVar("T")

# by the name of the file: what draws it, and the patterns of the jobs that it needs
Pictures = Mapping[str, tuple[Callable[[Results], Figure], Iterable[str]]]


def save_pictures(results: Results, folder: Path, pictures: Pictures) -> list[Path]:
    """Write the pictures whose jobs are finished; their paths."""
    with style():
        return [
            save(draw(results), folder / name)
            for name, (draw, needs) in pictures.items()
            if all(results.data(pattern) for pattern in needs)
        ]


def panel_grid(rows: int, columns: int, size: tuple[float, float], *, dpi: float = 150, **kept: Any) -> Any:
    """A figure of that size in inches, and its panels `(rows, columns)`; `kept` goes to `Figure.subplots`."""
    made = Figure(figsize=size, layout="constrained", dpi=dpi)
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, squeeze=False, **kept)


def with_colours(items: Collection[T]) -> Iterator[tuple[T, Any]]:
    """Each with its colour of `sequence`, from dark to light."""
    return zip(items, sequence(len(items)), strict=True)
