"""What a reader must know before the pictures: what failed, did not converge, is lost in its error, or says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import first_few
from probes.instruments.entry import Entry
from probes.numbers import short
from probes.trace.state import state_of
from probes.trace.unfinished import told_unfinished
from probes.views.pictures.surface import trail_of
from probes.views.report.page import Block, Caution

if TYPE_CHECKING:
    from probes.trace.trace import Trace

Columns = Mapping[str, Any]

_FEW = 4  # samples that a standard error is taken from: below, it is itself uncertain by half
_COARSE = 1e-2  # relative noise of a product from which on digits are missing that a reader expects
_FAR = 0.1  # of the way, from which on the loss of a network and that below it have little to do with each other
_SUMMARISED = 12


def about_trace(trace: Trace, where: str) -> Iterator[Caution]:
    """A trace that is not finished or has nothing in it, and what its writer noted."""
    state = state_of(trace.path)
    if state.kind == "live":
        yield Caution(where, "is still being written: this is how far it had come")
    elif state.kind == "crashed":
        yield Caution(where, "its writer is gone without closing it: rows after its last flush are missing")
    if not any(len(trace[name]) for name in trace):
        yield Caution(where, "holds no measurements yet")
    yield from (Caution(where, text) for text in told_unfinished(trace))
    yield from _versions(trace, where)
    yield from _events(trace, where)


def _versions(trace: Trace, where: str) -> Iterator[Caution]:
    packages = [period.get("environment", {}).get("packages", {}) for period in trace.periods]
    for name in sorted({name for known in packages for name in known}):
        found = list(dict.fromkeys(str(known.get(name)) for known in packages))
        if len(found) > 1:
            yield Caution(where, f"was resumed with another {name}: {', then '.join(found)}")


def _events(trace: Trace, where: str) -> Iterator[Caution]:
    columns = trace.events.read()
    found: dict[tuple[str, str], list[int]] = {}
    for step, probe, reason in zip(columns["step"], columns["probe"], columns["reason"], strict=True):
        found.setdefault((str(probe), str(reason)), []).append(int(step))
    for (probe, reason), steps in list(found.items())[:_SUMMARISED]:
        yield Caution(f"{where}{': ' if where else ''}{probe}", f"{reason} ({_at(steps)})")
    if len(found) > _SUMMARISED:
        yield Caution(where, f"{len(found) - _SUMMARISED} more kinds of events: landscape export has them all")


def about_records(entry: Entry, columns: Columns, block: Block) -> Iterator[Caution]:
    """What limits the numbers of one group."""
    for text in _limits(entry, columns):
        yield Caution(block.title, text, block.anchor)


def _limits(entry: Entry, columns: Columns) -> Iterator[str]:
    steps = columns["step"]
    if not len(steps):
        yield "was declared and never measured"
        return
    if "converged" in columns and not np.all(columns["converged"]):
        missed = steps[~np.asarray(columns["converged"], dtype=bool)]
        what = "lower bounds, the matrix was not seen whole" if "kappa" in columns else "did not converge"
        yield f"{what} ({_at(missed, len(steps))})"
    yield from _lost(columns)
    yield from _few(columns)
    yield from _said(columns)
    yield from _off(columns)
    if "noise" in columns and np.max(columns["noise"], initial=0.0) > _COARSE:
        yield f"products are only good to {short(float(np.max(columns['noise'])), 2)} of themselves"
    if "value" in columns or "loss" in columns:
        values = columns.get("value", columns.get("loss"))
        if values is not None and values.dtype.kind == "f" and np.ndim(values) == 1 and not np.isfinite(values).all():
            yield f"is not finite ({_at(steps[~np.isfinite(values)], len(steps))})"


def _lost(columns: Columns) -> Iterator[str]:
    """Values that their own error is as large as."""
    pairs = [("value", error) for error in ("residual", "stderr", "error") if error in columns]
    pairs += [("noise_scale", "noise_scale_stderr")] * ("noise_scale_stderr" in columns)
    pairs += [("values", "residuals")] * ("values" in columns and "residuals" in columns)
    for field, error in pairs:
        if field not in columns:
            continue
        values, errors = np.abs(_rows(columns[field])), _rows(columns[error])
        with np.errstate(invalid="ignore"):
            lost = np.isfinite(values) & np.isfinite(errors) & (errors >= values) & (errors > 0)
        if lost.ndim > 1:
            count = int(lost.sum(axis=1).max())
            if count:
                yield f"up to {count} of {lost.shape[1]} values are below their error: their sign is not known"
        elif lost.any():
            yield f"the error is as large as the value ({_at(columns['step'][lost], len(lost))})"


def _rows(values: Any) -> Any:
    """As floats; ragged rows are filled up with nan."""
    if values.dtype != object:
        return np.asarray(values, dtype=float)
    most = max((len(row) for row in values), default=0)
    return np.array(
        [np.pad(np.asarray(row, dtype=float), (0, most - len(row)), constant_values=np.nan) for row in values]
    )


def _few(columns: Columns) -> Iterator[str]:
    """Standard errors from too few samples."""
    for error in ("stderr", "noise_scale_stderr"):
        if error in columns and np.isinf(columns[error]).any():
            yield "one sample has no standard error: ask for more products or smaller batches"
    if "nodes" in columns and "weights" in columns:
        probes = columns["nodes"].shape[1]
        if probes < _FEW:
            yield f"too few probes: {probes}, so that the standard error is itself uncertain; {_FEW} or more tell more"
    if "batches" in columns and 1 < int(np.min(columns["batches"])) < _FEW:
        yield f"too few batches: {int(np.min(columns['batches']))}, so that the standard error is itself uncertain"


def _said(columns: Columns) -> Iterator[str]:
    """What the records say themselves, and bounds that are none."""
    for field, words in (("note", ""), ("checked", "second derivatives: ")):
        texts = dict.fromkeys(str(text) for text in columns.get(field, ()) if str(text))
        for text in texts:
            if field == "note" or not text.startswith("agrees"):
                yield words + text
    limits = dict.fromkeys(str(text) for text in columns.get("limited_by", ()) if str(text))
    if limits:
        yield f"κ is vacuous: it is limited by {first_few(limits)}, about largest / threshold"
    if "threshold" in columns and "kappa" not in columns and np.isnan(np.asarray(columns["threshold"], float)).all():
        yield "no threshold is known: there was no optimizer, and no lr="


def _off(columns: Columns) -> Iterator[str]:
    """Networks that are drawn on a plane which they are far from."""
    trails = [trail_of(columns, row) for row in range(len(columns["step"]))]
    far = [trail for trail in trails if trail is not None and trail.off > _FAR]
    if far:
        worst = max(far, key=lambda trail: trail.off)
        where = worst.labels[int(np.argmax(worst.distances))]
        share = f"{short(100 * worst.off, 2)} % of the way's length"
        yield f"networks lie up to {share} off the plane ({where}): their loss is not the one drawn there"


def vacuous(summary: str) -> bool:
    """Whether what a trajectory's conditions amount to says that some pair works in any case."""
    return "vacuous" in summary or "always" in summary


def _at(steps: Any, of: int = 0) -> str:
    """`step 3`, `12 of 40 steps: 3, 7, 9 and 9 more`."""
    steps = [str(int(step)) for step in steps]
    if len(steps) == 1:
        return f"step {steps[0]}"
    every = f"all {of} steps" if of == len(steps) else f"{len(steps)}{f' of {of}' if of else ''} steps"
    return every if of == len(steps) else f"{every}: {first_few(steps)}"
