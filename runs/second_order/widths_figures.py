"""The picture of steps by width: each layer's move in each parametrisation."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.views.pictures.style import BLUE, GREEN, ORANGE, headline
from runs.engine.claims import Results
from runs.second_order.widths import LAYERS, STEPS
from runs.second_order.widths_claims import NAMES
from runs.shared.figures import panel_grid

_COLOURS = (BLUE, ORANGE, GREEN)
_SHOWN = {
    "mu": ("width-stable", "scales, step sizes and damping by width"),
    "standard": ("standard", "one step size and damping"),
    "constant-damping": ("damping not scaled", "else width-stable"),
}


def overview(results: Results) -> Figure:
    """A row for each solver, a column for each parametrisation."""
    made, panels = panel_grid(len(NAMES), len(_SHOWN), (13.5, 8.0), sharex=True, sharey="row")
    for row, solver in zip(panels, NAMES, strict=True):
        for axes, name in zip(row, _SHOWN, strict=True):
            _panel(results, axes, solver, name)
        row[0].set_ylabel("mean |h − h₀|")
    for axes in panels[-1]:
        axes.set_xlabel("width n")
    panels[0, 0].legend(fontsize=8)
    return made


def _panel(results: Results, axes: Axes, solver: str, name: str) -> None:
    found = sorted(results.family(f"widths-{solver}-").values(), key=lambda data: data["width"])
    widths = [data["width"] for data in found]
    for layer, (label, colour) in enumerate(zip(LAYERS, _COLOURS, strict=True)):
        for step, mark in ((1, "--"), (STEPS, "-")):
            rows = [[run["moves"][step - 1][layer] for run in data["runs"][name]] for data in found]
            shown = f"{label} layer" if step == STEPS else None
            axes.plot(widths, [sum(row) / len(row) for row in rows], mark, marker=".", color=colour, label=shown)
            low, high = [min(row) for row in rows], [max(row) for row in rows]
            axes.fill_between(widths, low, high, color=colour, alpha=0.12, lw=0)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(widths, [str(width) for width in widths], minor=False)
    axes.set_xticks([], minor=True)
    title, text = _SHOWN[name]
    headline(axes, f"{NAMES[solver]}, {title}", f"{text}; dashed: first step, solid: {STEPS}")


PICTURES = {"second-order-widths.png": (overview, ("widths-*",))}
