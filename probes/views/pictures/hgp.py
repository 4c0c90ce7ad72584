"""The picture of two sets of data beside each other: across them and within one, in the bands of standard errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.views.pictures.axes import Columns, Settings, band, finish
from probes.views.pictures.style import BLUE, ORANGE, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (("cosine", "Cosine of the gradients"), ("distance", "Distance of H g, relative"))
LINES = (("", "of the two sets", BLUE), ("_within", "within one set", ORANGE))


def hgp_figure(columns: Columns, settings: Settings) -> Figure:
    """Cosine and distance of the two sets, each with what it is within one set."""
    made, panels = figure(2)
    for axes, (field, title) in zip(panels, PANELS, strict=True):
        for ending, label, color in LINES:
            values, errors = columns[field + ending], columns[f"{field}{ending}_stderr"]
            band(axes, columns["step"], values, errors, color=color, label=label)
        finish(axes, columns["step"], columns[field], title, remark(columns), ylabel=field)
    return made


def remark(columns: Columns) -> str:
    """What the numbers are of."""
    sizes = sorted(set(columns["samples"].tolist()))
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"means over pairs of parts of {size} samples, ± one standard error"
