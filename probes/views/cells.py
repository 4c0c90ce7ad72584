"""What a record fills in a table of steps: heading and text of each column, for probes that say more than a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import at_thresholds, round_to_error, short

if TYPE_CHECKING:
    from probes.trace.records import Records

# More eigenvalues than this make a row longer than a terminal is wide; the trace has them all.
_SHOWN = 5

Cells = Iterator[tuple[str, str]]
Values = Mapping[str, Any]  # one row: field -> value


def star(values: Values) -> str:
    """The mark of a number that had not converged."""
    return "" if bool(values.get("converged", True)) else " *"


def loss_cells(name: str, values: Values) -> Cells:
    """Loss and gradient norm; there is one loss in a trace, whose name says nothing."""
    yield "loss", short(float(values["value"]), 5)
    yield "|gradient|", short(float(values["gradient_norm"]), 4)


def spectrum_cells(name: str, values: Values) -> Cells:
    """`"12.34, 8.21, 5.6 ± 0.01"`: the largest residual bounds the error of each."""
    found = np.isfinite(values["values"])  # pairs that were not found are nan
    largest = np.asarray(values["values"], dtype=float)[found][:_SHOWN]
    error = float(np.max(np.asarray(values["residuals"], dtype=float)[found][:_SHOWN], initial=0.0))
    more = int(found.sum()) - len(largest)
    text = ", ".join(round_to_error(float(v), error, 5) for v in largest)
    text += f" ± {error:.1g}".replace("e-0", "e-") if error > 0 else ""
    text += f" (+{more})" if more > 0 else ""
    yield f"{name}: largest eigenvalues", text + star(values)


def density_cells(name: str, values: Values) -> Cells:
    """The range of the nodes."""
    seen = values["nodes"][values["weights"] > 0]
    yield f"{name}: from .. to", f"{short(float(seen.min()))} .. {short(float(seen.max()))}"


def condition_cells(name: str, values: Values) -> Cells:
    """Rank and kappa, also at a few relative thresholds."""
    yield f"{name}: rank", f"{short(float(values['rank']), 6)}"
    yield f"{name}: kappa", f"{short(float(values['kappa']))}{star(values)}"
    bound = "" if bool(values["converged"]) else "≥ "
    for threshold, rank, kappa in at_thresholds(values):
        heading = f"{name} > {threshold:.0e} λ₁ (κ)".replace("e-0", "e-")
        yield heading, f"{bound}{rank} ({bound}{short(kappa, 3)})"


def conditioning_cells(name: str, values: Values) -> Cells:
    """Rank, kappa, how sensitive it is to the rank, and its bound where there is one."""
    lower = "" if bool(values["converged"]) else "≥ "
    yield f"{name}: rank", f"{lower}{int(values['rank'])}"
    yield f"{name}: kappa", f"{lower}{short(float(values['kappa']))}"
    yield f"{name}: at rank -2, -1, +1", ", ".join(short(float(kappa), 3) for kappa in values["neighbours"])
    if np.isfinite(values["bound"]):
        yield f"{name}: bound", short(float(values["bound"]))


def critical_sharpness_cells(name: str, values: Values) -> Cells:
    """The bracket that holds the value."""
    yield name, f"{short(float(values['lower']))} .. {short(float(values['upper']))}"
    yield f"{name}: threshold", short(float(values["threshold"]))


def neural_collapse_cells(name: str, values: Values) -> Cells:
    """NC0 to NC3, and NC4 where it was measured."""
    for number in range(5):
        value = float(values[f"nc{number}"])
        if np.isfinite(value) or number < 4:
            yield f"{name}: NC{number}", short(value)


def updates_cells(name: str, values: Values) -> Cells:
    """The range over the tensors."""
    ratios = np.asarray(values["ratio"], dtype=float)
    if np.isfinite(ratios).any():  # nothing to compare with at the first step
        low, high = float(np.nanmin(ratios)), float(np.nanmax(ratios))
        yield f"{name}: |update| / |weight|", f"{short(low, 2)} .. {short(high, 2)}"


def function_class_cells(name: str, values: Values) -> Cells:
    """The loss and the angle to the end point; means over the samples where a row has many."""
    yield f"{name}: loss", short(float(np.mean(values["loss"])), 5)
    if "inner" in values:
        scale = np.asarray(values["grad_norm"]) * np.asarray(values["distance"])
        if np.all(scale > 0):
            yield f"{name}: cos(g, x - x_K)", short(float(np.mean(values["inner"] / scale)), 3)


def function_class_summary(records: Records) -> str:
    """The conditions of all rows in words, whichever rows a table shows."""
    from landscape.regularity import describe
    from probes.instruments.function_class import trajectory

    try:
        return describe(trajectory(records))
    except ValueError as error:
        return str(error)
