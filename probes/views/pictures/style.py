"""The look of the pictures: sizes, colours, type. matplotlib's objects alone, never pyplot's global state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"
# matplotlib's viridis up to 0.88 (beyond it is too light for white paper), here so that reports need not load it.
_VIRIDIS = "440154 481d6f 453781 3c4f8a 32648e 2a788e 228b8d 1f9f88 2cb17e 4ec36b 7ad151 b0dd2f"
NOTE = "_note"  # the label of what `note` writes: legends leave out what begins so

_COMMON: dict[str, Any] = {
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "pdf.fonttype": 42,  # whole TrueType outlines, which editors can read and publishers ask for
    "svg.hashsalt": "landscape",
}
_SCREEN: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 10.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#888888",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
}
# STIX looks like Times and comes with matplotlib, so that no LaTeX is needed; DejaVu has the few signs that it lacks.
_PAPER: dict[str, Any] = {
    "font.family": ["STIXGeneral", "DejaVu Serif"],
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlepad": 4,
    "axes.labelsize": 8,
    "axes.labelpad": 2,
    "axes.linewidth": 0.5,
    "grid.linewidth": 0.4,
    **{f"{axis}tick.{what}": size for axis in "xy" for what, size in (("labelsize", 7), ("major.width", 0.5))},
    **{f"{axis}tick.{what}": size for axis in "xy" for what, size in (("major.size", 2.5), ("minor.size", 1.5))},
    **{f"{axis}tick.{what}": size for axis in "xy" for what, size in (("minor.width", 0.4), ("major.pad", 2))},
    "legend.fontsize": 7,
    "legend.handlelength": 1.8,
    "legend.labelspacing": 0.3,
    "savefig.dpi": 300,
}
STYLES: Mapping[str, dict[str, Any]] = {"screen": _COMMON | _SCREEN, "paper": _COMMON | _PAPER}
FORMATS = ("png", "pdf", "svg")


def style(name: str = "screen") -> Any:
    """A context in which figures get the house style; matplotlib's settings are as before afterwards."""
    from matplotlib import rc_context

    return rc_context(STYLES[name])  # type: ignore[arg-type]


def figure(
    columns: int = 1, *, rows: int = 1, height: float = 4.4, size: tuple[float, float] | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels side by side, and below each other where there are `rows`, with one x axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = size or (7.4 if columns == 1 else 5.6 * columns, height)
    made = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(made)
    return made, list(made.subplots(rows, columns, squeeze=False, sharex=rows > 1).flat)


def sequence(count: int) -> list[str]:
    """`count` colours from dark to light whose order is seen, in grey print too."""
    anchors = [[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in _VIRIDIS.split()]
    places = np.linspace(0, len(anchors) - 1, count) if count > 1 else np.zeros(count)
    parts = [np.interp(places, range(len(anchors)), part).round().astype(int) for part in zip(*anchors, strict=True)]
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in zip(*parts, strict=True)]


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
    look: dict[str, Any] = {"fontsize": "small", "color": GREY, "va": "bottom", "label": NOTE}
    written = axes.text(0.0, 1.015, literal(text), transform=axes.transAxes, **look)
    written.set_in_layout(False)  # a long line must not squeeze the panels


def save(made: Figure, path: Path) -> Path:
    """Write a picture in the format of the path's ending; it appears under its name only when it is whole.

    The figure's label goes into the file's metadata. The same numbers give the same bytes.
    """
    kind, said = path.suffix[1:], str(made.get_label())
    told: dict[str, dict[str, str | None]] = {
        "png": {"Description": said},
        "pdf": {"Subject": said, "CreationDate": None},
        "svg": {"Description": said, "Date": None},
    }
    with atomic_file(path) as partial:
        made.savefig(partial, format=kind, metadata={key: text for key, text in told[kind].items() if text != ""})
    return path
