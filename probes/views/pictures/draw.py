"""Pictures of a trace: curvature, sharpness and gradients over the steps.

Each group of records that is recognised becomes one PNG. Error bars are what the probe recorded, never left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from probes.numbers import at_thresholds, plus_minus, short
from probes.views.kinds import FUNCTION_CLASS, kind_of
from probes.views.pictures.axes import scale
from probes.views.pictures.conditioning import conditioning_figure
from probes.views.pictures.density import density_figure, density_map
from probes.views.pictures.dual_gradient import dual_gradient_figure
from probes.views.pictures.function_class import function_class_figures
from probes.views.pictures.gradient import alignment_figure, gradient_figure, updates_figure
from probes.views.pictures.neural_collapse import neural_collapse_figure
from probes.views.pictures.sharpness import (
    batch_sharpness_figure,
    critical_sharpness_figure,
    sam_figure,
    sharpness_figure,
)
from probes.views.pictures.spectrum import spectrum_figure
from probes.views.pictures.style import BLUE, GREEN, GREY, ORANGE, figure, note, save, style

if TYPE_CHECKING:
    from probes.trace.records import Records
    from probes.trace.trace import Trace

Columns = Mapping[str, Any]
_OPERATORS = {"hessian": "Hessian", "gauss-newton": "Gauss-Newton matrix", "fisher": "Fisher matrix"}
_TABLE = ("thresholds", "ranks", "kappas")


def plot_trace(trace: Trace, folder: Path, *, prefix: str = "trace") -> list[Path]:
    """Write one PNG for each group that can be drawn, `folder/prefix-group.png`; the paths written.

    A density of three steps or more gets a second one, `folder/prefix-group-map.png`: all of its steps.
    """
    written = []
    with style():
        for name in trace:
            records = trace[name]
            columns = records.read()
            if len(columns["step"]):
                for ending, made in _pictures(trace, records, columns):
                    written.append(save(made, folder / f"{prefix}-{name}{ending}.png"))
    return written


def _pictures(trace: Trace, records: Records, columns: Columns) -> Iterator[tuple[str, Figure]]:
    """What the names of the pictures of one group end in, and the pictures."""
    settings = records.settings or {}
    kind = kind_of(columns, settings)
    operator = settings.get("operator", "")
    subject = _OPERATORS.get(operator, "curvature matrix")
    if kind == "density":
        yield "", density_figure(columns, subject, _companion(trace, operator))
        if len(np.unique(columns["step"])) > 2:
            yield "-map", density_map(columns, subject)
    elif kind == "updates":
        yield "", updates_figure(columns, records.fields["ratio"].labels or ())
    elif kind in FUNCTION_CLASS:
        yield from function_class_figures(records)
    elif kind in _CURVATURE:
        yield "", _CURVATURE[kind](columns, subject)
    elif kind in _OTHERS:
        yield "", _OTHERS[kind](columns, settings)


def _companion(trace: Trace, operator: str) -> Columns | None:
    """The spectrum of the same operator in the same trace: its eigenvalues are marked in the density."""
    for name in trace:
        records = trace[name]
        settings = records.settings or {}
        if kind_of(records.fields, settings) == "spectrum" and settings.get("operator", "") == operator:
            return records.read()
    return None


def trace_figure(columns: Columns, subject: str) -> Figure:
    """The trace with its standard error over the steps."""
    made, (axes,) = figure()
    steps, values, errors = columns["step"], columns["value"], columns["stderr"]
    axes.errorbar(steps, values, yerr=errors, color=BLUE, marker="o", ms=5, capsize=3)
    axes.set_xlabel("step")
    axes.set_ylabel("trace")
    axes.set_title(f"Trace of the {subject}", pad=22)
    note(axes, f"bars: one standard error; last: {plus_minus(float(values[-1]), float(errors[-1]))}")
    if len(steps) == 1:
        axes.set_xticks(steps)
    return made


def condition_figure(columns: Columns, subject: str) -> Figure:
    """How many eigenvalues exceed each threshold, over the steps (bars for a single step)."""
    made, (axes,) = figure()
    steps = columns["step"]
    entries = [at_thresholds({key: columns[key][i] for key in _TABLE}) for i in range(len(steps))]
    thresholds = [threshold for threshold, _, _ in entries[-1]]
    ranks = np.array([[{t: r for t, r, _ in row}.get(t, np.nan) for t in thresholds] for row in entries])
    kappas = [kappa for _, _, kappa in entries[-1]]
    # an iteration that stopped early saw a part of the spectrum: what it counted are lower bounds
    bound = "" if bool(np.all(columns["converged"])) else "≥ "
    colours = [BLUE, GREEN, ORANGE, GREY]
    names = [f"> {t:.0e} λ₁".replace("e-0", "e-") for t in thresholds]
    if len(steps) == 1:
        bars = axes.barh(names, ranks[0], color=BLUE, height=0.55)
        axes.bar_label(
            bars,
            [
                f"{bound}{int(r)}   κ {bound.strip() or '='} {short(float(c), 3)}"
                for r, c in zip(ranks[0], kappas, strict=True)
            ],
            padding=5,
            fontsize=9.5,
        )
        axes.set_xlim(0, 1.3 * float(np.max(ranks[0], initial=1)))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"number of eigenvalues{', lower bounds' if bound else ''}")
    else:
        for i, name in enumerate(names):
            axes.plot(steps, ranks[:, i], color=colours[i % 4], marker="o", ms=4)
            axes.annotate(
                f"{name}\nκ {bound.strip() or '='} {short(float(kappas[i]), 3)}",
                (steps[-1], ranks[-1, i]),
                xytext=(8, 0),
                va="center",
                textcoords="offset points",
                color=colours[i % 4],
                fontsize=9,
                annotation_clip=False,
            )
        axes.set_ylim(0, None)
        axes.set_xlabel("step")
        axes.set_ylabel(f"number of eigenvalues{', lower bounds' if bound else ''}")
    axes.set_title(f"Rank of the {subject}", pad=22)
    note(axes, "κ: condition number of what exceeds the threshold, at the last step")
    return made


def loss_figure(columns: Columns, subject: str) -> Figure:
    """Loss and gradient norm over the steps."""
    made, panels = figure(2, height=3.8)
    for axes, field, title in zip(panels, ("value", "gradient_norm"), ("Loss", "Gradient norm"), strict=True):
        axes.plot(columns["step"], columns[field], color=BLUE, marker="o", ms=4)
        scale(axes, columns[field])
        axes.set_xlabel("step")
        axes.set_title(title)
    return made


_CURVATURE: dict[str, Callable[[Columns, str], Figure]] = {
    "spectrum": spectrum_figure,
    "trace": trace_figure,
    "condition": condition_figure,
    "loss": loss_figure,
}
_OTHERS: dict[str, Callable[[Columns, Mapping[str, Any]], Figure]] = {
    "conditioning": conditioning_figure,
    "neural-collapse": neural_collapse_figure,
    "dual-gradient": dual_gradient_figure,
    "sharpness": sharpness_figure,
    "batch-sharpness": batch_sharpness_figure,
    "critical-sharpness": critical_sharpness_figure,
    "sam-sharpness": sam_figure,
    "gradient": gradient_figure,
    "alignment": alignment_figure,
}
