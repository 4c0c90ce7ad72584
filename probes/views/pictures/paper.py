"""A picture for the screen made into one for a paper: a column wide, thin, without what belongs into its caption.

Grey print and the colour-blind are served by dashes and markers: each of the house's colours has its own.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probes.views.pictures.axes import is_crowded
from probes.views.pictures.style import BLUE, GREEN, GREY, NOTE, ORANGE

COLUMN, PAGE = 3.25, 6.75  # inches: one column and both of the usual two
_WIDE = 8.0  # inches on the screen from which on a figure takes both columns
_PANEL = 1.7  # inches that a panel is high at least
_LETTER = 0.065  # inches that a letter of a heading is wide
_THIN, _SMALL = 0.6, 0.6  # lines and markers beside those on the screen
_HEAVY = 3000  # points or shapes from which on a part is drawn as pixels, which stay small
_DASHES = {ORANGE: (0, (4, 1.6)), GREEN: (0, (4, 1.2, 1, 1.2)), GREY: (0, (4, 1, 1, 1, 1, 1))}
_MARKERS = {BLUE: "o", ORANGE: "s", GREEN: "^", GREY: "D"}


def for_paper(made: Figure) -> Figure:
    """The same figure for a paper; its title and notes become its label, which `save` writes into the file."""
    panels = [axes for axes in made.axes if axes.get_title(loc="left")]
    made.set_label(" ".join(map(_caption, sorted(panels, key=_place))))
    width, height = made.get_size_inches()
    chosen = PAGE if width > _WIDE or made.legends else COLUMN
    rows = len({_place(axes)[0] for axes in panels}) or 1
    made.set_size_inches(chosen, max(height * chosen / width, _PANEL * rows))
    across = -(-len(panels) // rows)
    for axes in made.axes:
        _heading(axes, int(chosen / across / _LETTER) if len(panels) > 1 else 0)
        for part in [*axes.lines, *axes.collections]:
            _thin(part)
            part.set_rasterized(part.get_rasterized() or _size(part) > _HEAVY)
    for legend in [*made.legends, *filter(None, (axes.get_legend() for axes in made.axes))]:
        for handle in legend.findobj(lambda part: isinstance(part, Line2D | Collection)):
            _thin(handle)
        for text in legend.get_texts():
            text.set_color("black")
    return made


def _caption(axes: Axes) -> str:
    texts = [axes.get_title(loc="left"), *(f"({text.get_text()})" for text in axes.texts if text.get_label() == NOTE)]
    return " ".join(texts).replace(r"\$", "$") + "."


def _heading(axes: Axes, letters: int) -> None:
    """The title in so many letters a line, and none in a figure of one panel; no notes."""
    for text in list(axes.texts):
        if text.get_label() == NOTE:
            text.remove()
    axes.set_title(textwrap.fill(axes.get_title(loc="left"), letters) if letters else "", pad=4)


def _thin(part: Any) -> None:
    """Thinner; told apart without its colour too."""
    widths = part.get_linewidth()
    part.set_linewidth(_THIN * widths if isinstance(part, Line2D) else [_THIN * width for width in widths])
    if isinstance(part, Line2D):
        colour = to_hex(part.get_color()).upper()
        part.set_markersize(_SMALL * part.get_markersize())
        part.set_markeredgewidth(_THIN * part.get_markeredgewidth())
        if part.get_linestyle() == "-" and colour in _DASHES:
            part.set_linestyle(_DASHES[colour])
        if part.get_linestyle() != "None" and is_crowded(part.get_xdata()):
            part.set_marker("None")
        elif part.get_marker() in (".", "o") and colour in _MARKERS:
            part.set_markersize(part.get_markersize() * (0.5 if part.get_marker() == "." else 1.0))
            part.set_marker(_MARKERS[colour])


def _size(part: Any) -> int:
    """How many points or shapes it is made of."""
    return len(np.asarray(part.get_xdata())) if isinstance(part, Line2D) else len(part.get_paths())


def _place(axes: Axes) -> tuple[int, int]:
    """The row and column of the figure's panels in which it stands."""
    place = axes.get_subplotspec()
    if place is None:
        return 0, 0
    cell = place.get_topmost_subplotspec()
    return cell.rowspan.start, cell.colspan.start
