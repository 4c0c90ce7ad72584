"""What a reader must know about a probe's columns: what an error means, why a number is a bound, missing or infinite.

A function `x_notes` takes the columns of the rows that are shown and the settings, and yields what is true of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.numbers import short
from probes.views import cells
from probes.views.kinds import function_of

if TYPE_CHECKING:
    from probes.instruments.entry import Entry
    from probes.trace.records import Records

Columns = Mapping[str, Any]  # of a table: field -> (rows, ...)
Settings = Mapping[str, Any]

_CUT = "the threshold cuts through the spectrum, smaller eigenvalues that are there count as zero"
_FLOAT64 = "in float64, Objective(..., dtype=torch.float64), fewer do"


def notes_on(records: Records, entry: Entry, columns: Columns) -> Iterator[str]:
    """One line on the rows of a group that are shown, and one on what all of its rows amount to."""
    parts = [entry.note] if entry.note else []
    if "converged" in columns and "kappa" not in columns and not bool(np.all(columns["converged"])):
        parts.append("* had not converged when its products were spent")
    if function := function_of(entry, "notes", sys.modules[__name__]):
        parts += function(columns, records.settings or {})
    parts += _recorded(columns)
    if parts:
        yield f"{records.name}: {'; '.join(parts)}"
    if summary := function_of(entry, "summary", cells):
        yield f"{records.name}: {summary(records)}"


def _recorded(columns: Columns) -> Iterator[str]:
    """What the records themselves say: the self-check, the noise, and why a number is what it is."""
    for text, steps in _by_step(columns, "checked"):
        yield f"second derivatives: {text}{steps}"
    for text, steps in _by_step(columns, "noise"):
        yield f"relative noise of a product {text}{steps}"
    for text, steps in _by_step(columns, "note"):
        yield f"{text}{steps}"


def _by_step(columns: Columns, field: str) -> Iterator[tuple[str, str]]:
    """Each text of the field, and of which steps it is where not of all."""
    found: dict[str, list[int]] = {}
    for step, value in zip(columns["step"], columns.get(field, ()), strict=False):
        text = value if isinstance(value, str) else short(float(value), 2) if value > 0 else ""
        found.setdefault(text, []).append(int(step))
    for text, steps in found.items():
        if text:
            few = ", ".join(map(str, steps[:3])) + (f" and {len(steps) - 3} more" if len(steps) > 3 else "")
            yield text, "" if len(found) == 1 else f" (step {few})"


def _rows(columns: Columns) -> Iterator[dict[str, Any]]:
    for row in range(len(columns["step"])):
        yield {name: column[row] for name, column in columns.items()}


def spectrum_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """Pairs that were not found."""
    missing = int(np.isnan(columns["values"]).sum(axis=1).max(initial=0))
    if missing:
        yield f"up to {missing} of the {columns['values'].shape[1]} were not found before the products were spent"


def trace_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """One sample."""
    if np.isinf(columns["stderr"]).any():
        yield "± inf: one sample has no standard error; ask for more matvecs="


def density_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """How the shares and the outliers are meant."""
    near = max(map(cells.zero_within, _rows(columns)), default=0.0)
    yield f"below 0: between what the share of eigenvalues under -{short(near, 2)} lies, nearer to 0 is rounding"
    yield "outliers: Ritz values above the widest gap, and how wide it is; near × 1 there is none to speak of"


def condition_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """What limits kappa, and which of the thresholds rounding reaches."""
    yield from _kappa_notes(columns)
    known = columns.get("largest", np.zeros(1)) > 0
    if settings.get("threshold") is None and settings.get("rank") is None and known.any():
        relative = float(np.max(columns["threshold"][known] / columns["largest"][known]))
        if relative > 1e-6:
            yield f"below {short(relative, 2)} λ₁, the threshold of kappa, rounding errors count as well"


def conditioning_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """What limits kappa, and ranks that there are not."""
    yield from _kappa_notes(columns)
    if np.isnan(columns["neighbours"]).any():
        yield "-: there is no such rank"


def _kappa_notes(columns: Columns) -> Iterator[str]:
    limits = {cells.limited_by(row) for row in _rows(columns)} - {""}
    if "the threshold" in limits:
        yield "limited by the threshold: it cuts through the spectrum, kappa is about largest / threshold"
    for limit in sorted(limits - {"the threshold"}):
        yield f"limited by {limit}: {_CUT}" + ("" if limit == "float64" else f"; {_FLOAT64}")
    if not np.all(columns["converged"]):
        yield "≥: a lower bound"
    if np.any(columns["rank"] == 0):
        yield "rank 0: no eigenvalue is above the threshold, there is no condition number"


def sharpness_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """Thresholds that are not known."""
    if np.isnan(columns["threshold"]).all() and np.isnan(columns["preconditioned_threshold"]).all():
        yield _NO_THRESHOLD


_NO_THRESHOLD = "no threshold: there was no optimizer, and no lr="


def batch_sharpness_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """One batch; thresholds that are not known."""
    if np.isinf(columns["stderr"]).any():
        yield "± inf: the data is one batch, which has no standard error; batch_size= splits it"
    if np.isnan(columns["threshold"]).all():
        yield _NO_THRESHOLD


def critical_sharpness_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """What 0, inf and nan mean; thresholds that are not known."""
    said = {
        "0: no step along it raises the loss": columns["value"] == 0,
        "inf: every step raises the loss": np.isinf(columns["value"]),
        "nan: at the first step there is no update to follow": np.isnan(columns["value"]),
    }
    yield from (text for text, rows in said.items() if rows.any())
    if np.isnan(columns["threshold"]).all():
        yield _NO_THRESHOLD


def critical_step_curve_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """What inf means, and a learning rate that is not known."""
    if np.isinf(columns["critical"]).any():
        yield "inf: no step along the gradient raises the loss"
    if np.isinf(columns["edge"]).any():
        yield "2 / λ₁ inf: no eigenvalue is positive"
    if np.isnan(columns["lr"]).all():
        yield "no lr: there was no optimizer with a single one, and no lr="


def relative_critical_sharpness_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """What inf and nan mean; thresholds that are not known."""
    if np.any(columns["ascent"]):
        yield "inf: the watched loss rises from the first step on, by the slope"
    yield from critical_sharpness_notes(
        {**columns, "value": np.where(columns["ascent"], 1.0, columns["value"])}, settings
    )


def gradient_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """A noise scale that is not known."""
    if np.isnan(columns["noise_scale"]).any() and "note" not in columns:
        yield "noise scale nan: how the batches differ could not be known"
    elif not np.isfinite(columns["noise_scale"]).all() or not np.isfinite(columns["noise_scale_stderr"]).all():
        yield "a noise scale or error that is not finite: the mean gradient is within its noise"


def alignment_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """Totals that are not known."""
    if np.isnan(columns["total"]).any():
        yield "nan: at the first step there is no update, or the vectors were not found"
    if (columns["total_bound"] >= 1).any():
        yield "± 1: nothing is known, as where eigenvalues are equal"


def updates_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """Steps without one before them; tensors that were zero."""
    if np.isnan(columns["update"]).all(axis=1).any():
        yield "-: the first step has none before it to compare with"
    if np.isinf(columns["ratio"]).any():
        yield "inf: a tensor that is zero"


def loss_notes(columns: Columns, settings: Settings) -> Iterator[str]:
    """A run that diverged."""
    if not np.isfinite(columns["value"]).all():
        yield "the loss is not finite: the run has diverged, or the data has nan"
