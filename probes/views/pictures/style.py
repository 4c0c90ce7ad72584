"""The look of the pictures: sizes, colours, type. matplotlib's objects alone, never pyplot's global state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from probes.files import atomic_file

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "axes.formatter.useoffset": False,
}


def style() -> Any:
    """A context in which figures get the house style; matplotlib's settings are as before afterwards."""
    return rc_context(_STYLE)  # type: ignore[arg-type]


def figure(
    columns: int = 1, *, rows: int = 1, height: float = 4.4, size: tuple[float, float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels side by side, and below each other where there are `rows`, with one x axis."""
    size = size or (7.4 if columns == 1 else 5.6 * columns, height)
    made = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(made)
    return made, list(made.subplots(rows, columns, squeeze=False, sharex=rows > 1).flat)


def sequence(count: int) -> list[Any]:
    """`count` colours from dark to light whose order is seen, in grey print too."""
    return [colormaps["viridis"](0.88 * i / max(count - 1, 1)) for i in range(count)]


def literal(text: str) -> str:
    """A text of a user's (a name, a setting) that matplotlib shows as it is: dollars are no formulas."""
    return text.replace("$", r"\$")


def headline(axes: Axes, title: str, text: str = "") -> None:
    """The title of a panel, and below it the quiet line of `note`."""
    axes.set_title(literal(title), pad=22)
    if text:
        note(axes, text)


def note(axes: Axes, text: str) -> None:
    """A quiet line right above the plot, below the title: what was done to the numbers."""
    written = axes.text(0.0, 1.015, literal(text), transform=axes.transAxes, fontsize=8.5, color=GREY, va="bottom")
    written.set_in_layout(False)  # a long line must not squeeze the panels


def save(made: Figure, path: Path) -> Path:
    """Write a PNG; it appears under its name only when it is whole."""
    with atomic_file(path) as partial:
        made.savefig(partial, format="png")
    return path
