"""What a record fills in a table of steps: heading and text of each column, for probes that say more than a number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import at_thresholds, plus_minus, round_to_error, short, storage
from probes.outliers import outliers, single_ritz_values

if TYPE_CHECKING:
    from probes.trace.records import Records

# More eigenvalues than this make a row longer than a terminal is wide; the trace has them all.
_SHOWN = 5
_FLOAT32 = 16 * float(np.finfo(np.float32).eps)  # relative error of a node, for traces that do not say

ENDS = {"LA": "largest eigenvalues", "SA": "smallest eigenvalues", "LM": "largest eigenvalues in absolute value"}

Cells = Iterator[tuple[str, str]]
Values = Mapping[str, Any]  # one row: field -> value
Settings = Mapping[str, Any]  # of the probe


def star(values: Values) -> str:
    """The mark of a number that had not converged."""
    return "" if bool(values.get("converged", True)) else " *"


def loss_cells(name: str, values: Values, settings: Settings) -> Cells:
    """Loss and gradient norm; there is one loss in a trace, whose name says nothing."""
    yield "loss", short(float(values["value"]), 5)
    yield "|gradient|", short(float(values["gradient_norm"]), 4)


def connection_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The barrier of each way that was measured, and the largest eigenvalue on the path."""
    labels = ("barrier", "aligned", "on the path")
    for label, height, error in zip(labels, values["height"], values["height_error"], strict=True):
        if np.isfinite(height):
            yield f"{name}: {label}", plus_minus(float(height), float(error))
    top = np.asarray(values["eigenvalue"], dtype=float)
    if np.isfinite(top).any():
        i = int(np.nanargmax(top))
        text = plus_minus(float(top[i]), float(values["eigenvalue_error"][i]))
        yield f"{name}: largest λ₁ on the path", text + star(values)


def spectrum_cells(name: str, values: Values, settings: Settings) -> Cells:
    """`"12.34, 8.21, 5.6 ± 0.01"`: the largest residual bounds the error of each."""
    found = np.isfinite(values["values"])  # pairs that were not found are nan
    text = _first_of(np.asarray(values["values"])[found], np.asarray(values["residuals"])[found])
    yield f"{name}: {ENDS[settings.get('which', 'LA')]}", (text or "none found") + star(values)


def threshold_cells(name: str, values: Values, settings: Settings) -> Cells:
    """`"2: 12.34, 8.21 ± 0.01"`: how many are above, and the first of them."""
    text = _first_of(np.asarray(values["values"]), np.asarray(values["residuals"]))
    count = f"{'at least ' * bool(values['more'])}{int(values['count'])}" if values["count"] else "none"
    near = " (~)" * bool(np.any(values["marginal"]))
    yield f"{name}: above {settings.get('c', 2.0):g}/η", count + f": {text}" * bool(text) + near + star(values)


def _first_of(values: Any, residuals: Any) -> str:
    """The first eigenvalues, the largest of their residuals, and how many more there are."""
    largest = np.asarray(values, dtype=float)[:_SHOWN]
    error = float(np.max(np.asarray(residuals, dtype=float)[:_SHOWN], initial=0.0))
    more = len(values) - len(largest)
    text = ", ".join(round_to_error(float(v), error, 5) for v in largest)
    text += f" ± {error:.1g}".replace("e-0", "e-") if error > 0 else ""
    return text + (f" (+{more})" if more > 0 else "")


def density_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The range of the nodes, the share of eigenvalues below zero, and how many stand apart at the top."""
    nodes, weights = np.asarray(values["nodes"]), np.asarray(values["weights"])
    seen = nodes[weights > 0]
    yield f"{name}: from .. to", f"{short(float(seen.min()))} .. {short(float(seen.max()))}"
    low, high = below_zero(nodes, weights, zero_within(values))
    share = f"{short(100 * low, 2)} .. {short(100 * high, 2)} %" if high > 0 else "none seen"
    yield f"{name}: below 0", share
    found = outliers(single_ritz_values(nodes, weights, int(values["n"])), least=2)
    yield f"{name}: outliers", f"{found.count} (× {short(found.ratio, 3)})" if found.count else "0"


def below_zero(nodes: Any, weights: Any, near: float) -> tuple[float, float]:
    """Between what the share of eigenvalues below -near lies: (0, 0) where there is no node.

    The mass below a point is known up to the weights of the nodes beside it (Chebyshev, Markov and Stieltjes), which in
    a dense part of the spectrum is much more than how the probes differ. Two standard errors of that are added.
    """
    if not (weights[nodes < -near] > 0).any():
        return 0.0, 0.0
    ends = []
    for t, w in zip(nodes, weights, strict=True):
        order = np.argsort(t)
        t, w = t[order][w[order] > 0], w[order][w[order] > 0]
        total, below = np.concatenate([[0.0], np.cumsum(w)]), int((t < -near).sum())
        ends.append((total[max(0, below - 1)], total[min(len(w), max(below + 1, int((t <= near).sum())))]))
    low, high = np.array(ends).T
    error = 2 * np.std([low, high], axis=1, ddof=1) / np.sqrt(len(ends)) if len(ends) > 1 else np.zeros(2)
    return max(0.0, float(low.mean() - error[0])), min(1.0, float(high.mean() + error[1]))


def zero_within(values: Values) -> float:
    """How far from 0 a node may be that stands for eigenvalues 0: by rounding, and by noise of the products."""
    largest = float(np.abs(values["nodes"]).max())
    return float(values.get("rounding", _FLOAT32)) * largest


def by_layer_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The sharpest layer's largest eigenvalue, the sum of all traces, and how many layers there are."""
    top, errors = (np.asarray(values[field], dtype=float)[:, 0] for field in ("values", "residuals"))
    i = int(np.nanargmax(top)) if np.isfinite(top).any() else 0
    yield f"{name}: largest λ₁ of {len(top)} layers", plus_minus(float(top[i]), float(errors[i])) + star(values)
    total, spread = np.sum(values["trace"]), np.linalg.norm(values["trace_stderr"])
    yield f"{name}: sum of traces", plus_minus(float(total), float(spread))


def heterogeneity_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The mean distance of two layers, and that of a layer to itself, which is noise."""
    yield f"{name}: mean distance", plus_minus(float(values["mean"]), float(values["mean_stderr"]))
    yield f"{name}: of a layer to itself", short(float(values["mean_floor"]), 2)


def condition_cells(name: str, values: Values, settings: Settings) -> Cells:
    """Rank and kappa, also at a few relative thresholds."""
    yield from _kappa_cells(name, values)
    bound = "" if bool(values["converged"]) else "≥ "
    for threshold, rank, kappa in at_thresholds(values):
        heading = f"{name} > {threshold:.0e} λ₁ (κ)".replace("e-0", "e-")
        yield heading, f"{bound}{rank} ({bound}{short(kappa, 3)})"


def conditioning_cells(name: str, values: Values, settings: Settings) -> Cells:
    """Rank, kappa, how sensitive it is to the rank, and its bound where there is one."""
    yield from _kappa_cells(name, values)
    beside = (short(float(kappa), 3) if not np.isnan(kappa) else "-" for kappa in values["neighbours"])
    yield f"{name}: at rank -2, -1, +1", ", ".join(beside)
    if np.isfinite(values["bound"]):
        yield f"{name}: bound", short(float(values["bound"]))


def _kappa_cells(name: str, values: Values) -> Cells:
    lower, limit = "" if bool(values["converged"]) else "≥ ", limited_by(values)
    yield f"{name}: rank", f"{lower}{int(values['rank'])}"
    yield f"{name}: kappa{', limited by ' + limit if limit else ''}", f"{lower}{short(float(values['kappa']))}"


def limited_by(values: Values) -> str:
    """What limits kappa, as `landscape.spectra.ConditionNumber` has it; traces of the past do not say by what."""
    if "limited_by" in values:
        return str(values["limited_by"])
    return "the threshold" if 0 < values.get("smallest", 0) < 2 * values.get("threshold", 0) else ""


def critical_sharpness_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The bracket that holds the value."""
    yield name, f"{short(float(values['lower']))} .. {short(float(values['upper']))}{star(values)}"
    if np.isfinite(values["threshold"]):  # it is not known without an optimizer
        yield f"{name}: threshold", short(float(values["threshold"]))


def critical_step_curve_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The brackets of both steps, and the learning rate where it is known."""
    for heading, field in (("", "critical"), (": 2 / λ₁", "edge")):
        low, high = (short(float(values[f"{field}_{end}"])) for end in ("lower", "upper"))
        yield f"{name}{heading}", (low if low == high else f"{low} .. {high}") + star(values)
    if np.isfinite(values["lr"]):
        yield f"{name}: lr", short(float(values["lr"]))


def relative_critical_sharpness_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The bracket that holds the value, or that the watched loss rises at once; and its slope."""
    if bool(values["ascent"]):
        yield name, "inf: rises at once"
    else:
        yield from critical_sharpness_cells(name, values, settings)
    yield f"{name}: slope", plus_minus(float(values["slope"]), float(values["slope_error"]))


def neural_collapse_cells(name: str, values: Values, settings: Settings) -> Cells:
    """NC0 to NC3, and NC4 where it was measured."""
    for number in range(5):
        value = float(values[f"nc{number}"])
        if np.isfinite(value) or number < 4:
            yield f"{name}: NC{number}", short(value)


def effective_rank_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The ranges of effective ranks over the layers, and the largest share of dormant units."""
    for heading, field in (("activations", "effective_rank"), ("weights", "weight_effective_rank")):
        yield f"{name}: {heading}", _range_of(values[field])
    dormant = np.asarray(values["dormant"], dtype=float)
    most = dormant[~np.isnan(dormant)].max(initial=-1.0)
    yield f"{name}: most dormant", f"{short(100 * float(most), 3)} %" if most >= 0 else "-"


def _range_of(values: Any, digits: int = 3) -> str:
    """The lowest and the highest of those that are known."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return f"{short(float(known.min()), digits)} .. {short(float(known.max()), digits)}" if known.size else "-"


def attention_entropy_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The ranges over all heads, in nats and as a share of what they could be; and of the bounds."""
    entropy, uniform = (np.asarray(values[field], dtype=float) for field in ("entropy", "uniform"))
    yield f"{name}: heads", _range_of(entropy)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(uniform > 0, 100 * entropy / uniform, np.nan)
    yield f"{name}: share, %", _range_of(share)
    yield f"{name}: bound", _range_of(values["bound"])


def batch_rule_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The constants, then the batch and step size; without a point before there is no L, and nothing that needs it."""
    for field in ("L", "mu"):
        yield f"{name}: {field}", short(float(values[field]))
    for field in ("rho", "sigma"):
        yield f"{name}: {field}", plus_minus(float(values[field]), float(values[f"{field}_stderr"]))
    for field in ("batch", "lr"):
        yield f"{name}: {field}", short(float(values[field]), 2)


def updates_cells(name: str, values: Values, settings: Settings) -> Cells:
    """The range over the tensors."""
    yield f"{name}: |update| / |weight|", _range_of(values["ratio"], 2)


def snapshots_cells(name: str, values: Values, settings: Settings) -> Cells:
    """How large the network is, in numbers and in bytes, and how far from zero."""
    yield f"{name}: parameters", f"{int(values['n']):,}"
    yield f"{name}: size", storage(float(values["bytes"]))
    yield f"{name}: norm", short(float(values["norm"]))


def function_class_cells(name: str, values: Values, settings: Settings) -> Cells:
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
