"""Pictures of a trace: spectral density with its outliers, eigenvalues, trace and ranks over the steps.

Each group of records that is recognised becomes one PNG. Error bars are what the probe recorded, never left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from probes.density_plot import density_figure
from probes.figures import BLUE, GREEN, GREY, ORANGE, figure, note, save, sequence, style
from probes.formats import at_thresholds, kind_of, plus_minus, short
from probes.outliers import Outliers, outliers

if TYPE_CHECKING:
    from probes.trace import Trace

Columns = Mapping[str, Any]
_OPERATORS = {"hessian": "Hessian", "gauss-newton": "Gauss-Newton matrix", "fisher": "Fisher matrix"}
_TABLE = ("thresholds", "ranks", "kappas")


def plot_trace(trace: Trace, folder: Path, *, prefix: str = "trace") -> list[Path]:
    """Write one PNG for each group that can be drawn, `folder/prefix-group.png`; the paths written."""
    written = []
    with style():
        for name in trace:
            records = trace[name]
            columns = records.read()
            kind = kind_of(columns)
            if kind not in _DRAWN or not len(columns["step"]):
                continue
            operator = (records.settings or {}).get("operator", "")
            subject = _OPERATORS.get(operator, "curvature matrix")
            if kind == "density":
                made = density_figure(columns, subject, _companion(trace, operator))
            else:
                made = _DRAWN[kind](columns, subject)
            written.append(save(made, folder / f"{prefix}-{name}.png"))
    return written


def _companion(trace: Trace, operator: str) -> Columns | None:
    """The spectrum of the same operator in the same trace: its eigenvalues are marked in the density."""
    for name in trace:
        records = trace[name]
        if kind_of(records.fields) == "spectrum" and (records.settings or {}).get("operator", "") == operator:
            return records.read()
    return None


def spectrum_figure(columns: Columns, subject: str) -> Figure:
    """Eigenvalues over the steps with their residuals; beside them the last step's and the widest gap."""
    steps, values, residuals = columns["step"], columns["values"], columns["residuals"]
    several = len(steps) > 1
    made, panels = figure(2 if several else 1)
    k = values.shape[1]
    if several:
        axes = panels[0]
        for i, colour in reversed(list(enumerate(sequence(k)))):
            axes.errorbar(
                steps,
                values[:, i],
                yerr=residuals[:, i],
                color=colour,
                marker="o",
                ms=3,
                capsize=2,
                lw=1.6 if i == 0 else 1.1,
                elinewidth=0.9,
            )
        _scale(axes, values)
        axes.margins(x=0.09)
        for i in {0, k - 1}:
            axes.annotate(
                f"λ{_subscript(i + 1)}",
                (steps[-1], values[-1, i]),
                xytext=(6, 0),
                va="center",
                textcoords="offset points",
                color=sequence(k)[i],
                annotation_clip=False,
            )
        axes.set_xlabel("step")
        axes.set_ylabel("eigenvalue")
        axes.set_title(f"Largest eigenvalues of the {subject}", pad=22)
        note(axes, "bars: residuals, a bound on each error")
    axes = panels[-1]
    last, index = values[-1], np.arange(1, k + 1)
    found = outliers(last)
    above = last > found.edge if found.count else np.zeros(k, dtype=bool)
    for mask, colour, label in ((above, ORANGE, _gap_label(found)), (~above, BLUE, "the rest")):
        if mask.any():
            axes.errorbar(
                index[mask],
                last[mask],
                yerr=residuals[-1][mask],
                color=colour,
                marker="o",
                ms=5,
                ls="",
                capsize=2,
                elinewidth=0.9,
                label=label,
            )
    if found.count:
        axes.axhline(found.edge, color=GREY, lw=0.9, ls=(0, (4, 3)))
        axes.legend(loc="upper right")
    _scale(axes, last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("index")
    axes.set_ylabel("eigenvalue")
    here = f"Step {int(steps[-1])}" if several else f"Largest eigenvalues of the {subject}, step {int(steps[-1])}"
    axes.set_title(here, pad=22)
    if found.count:
        note(axes, "dashed: the middle of the widest gap in log spacing")
    return made


def _gap_label(found: Outliers) -> str:
    return f"{found.count} above the widest gap (× {short(found.ratio, 3)})"


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
        _scale(axes, columns[field])
        axes.set_xlabel("step")
        axes.set_title(title)
    return made


def _scale(axes: Axes, values: Any) -> None:
    """A log axis with plain numbers where the values spread, else a linear one."""
    if not _spreads(values):
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: short(value, 3))
    axes.yaxis.set_minor_formatter(lambda value, _: short(value, 3) if f"{value:e}"[0] in "25" else "")


def _spreads(values: Any) -> bool:
    """Whether positive numbers range over so much that a linear axis would hide the small ones."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > 10 * values.min())


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


_DRAWN: dict[str | None, Callable[[Columns, str], Figure]] = {
    "density": density_figure,
    "spectrum": spectrum_figure,
    "trace": trace_figure,
    "condition": condition_figure,
    "loss": loss_figure,
}
