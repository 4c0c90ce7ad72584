"""What a sweep says: the loss over step sizes for each solver, and how sensitive it is, in numbers and as a table.

Sensitivity (Wortsman et al. 2023, arXiv 2309.14322): mean over the grid of step sizes of min(l_0, l_lr) - l_*, with l_0
the loss at the start, l_lr at the end, l_* the smallest l_lr of the same solver. It depends on the grid, and a solver
that is equally bad everywhere has none: it belongs beside l_*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from probes.numbers import plus_minus, short
from probes.sweep.training import Trial
from probes.views.tables import table

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LossCurve:
    """One solver over the step sizes.

    Attributes:
        solver: its name.
        lrs: `(L,)`, ascending.
        losses: `(L, S)`, `Trial.capped` at each step size from each seed.
        first: `(S,)`, the loss at the start.
        diverged: `(L,)`, how many of the runs did.
        accuracy, test_loss, test_accuracy: `(L, S)`, nan where they are not known.
    """

    solver: str
    lrs: Array
    losses: Array
    first: Array
    diverged: NDArray[np.int64]
    accuracy: Array
    test_loss: Array
    test_accuracy: Array

    @property
    def mean(self) -> Array:
        """`(L,)`: mean loss over the seeds."""
        return self.losses.mean(axis=1)

    @property
    def stderr(self) -> Array:
        """`(L,)`: its standard error; 0 for one seed."""
        return standard_error(self.losses)

    @property
    def best(self) -> int:
        """Position of the step size with the smallest mean loss."""
        return int(np.argmin(self.mean))

    @property
    def sensitivity(self) -> tuple[float, float]:
        """The metric of the module, mean and standard error over the seeds, l_* of each seed its own."""
        each = (self.losses - self.losses.min(axis=0)).mean(axis=0)
        return float(each.mean()), float(standard_error(each[None])[0])

    def decades(self, factor: float = 2.0) -> float:
        """log10 of largest over smallest step size around the best whose mean loss is within `factor` of its own."""
        fits = self.mean <= factor * self.mean[self.best]
        low = high = self.best
        while low > 0 and fits[low - 1]:
            low -= 1
        while high + 1 < len(fits) and fits[high + 1]:
            high += 1
        return float(np.log10(self.lrs[high] / self.lrs[low]))


def curves(rows: Iterable[Trial]) -> list[LossCurve]:
    """A curve for each solver, in the order in which they come.

    Raises `ValueError` when a solver does not have all its seeds at all its step sizes.
    """
    found: dict[str, list[Trial]] = {}
    for row in rows:
        found.setdefault(row.solver, []).append(row)
    return [_curve(solver, of_solver) for solver, of_solver in found.items()]


def _curve(solver: str, rows: Sequence[Trial]) -> LossCurve:
    at = {(row.lr, row.seed): row for row in rows}
    lrs, seeds = sorted({row.lr for row in rows}), sorted({row.seed for row in rows})
    missing = [(lr, seed) for lr in lrs for seed in seeds if (lr, seed) not in at]
    if missing:
        raise ValueError(f"{solver} has no run at lr={missing[0][0]:g} with seed {missing[0][1]}")

    def of_all(name: str) -> Array:
        return np.array([[getattr(at[lr, seed], name) for seed in seeds] for lr in lrs])

    return LossCurve(
        solver,
        np.array(lrs),
        losses=of_all("capped"),
        first=of_all("first_loss")[0],
        diverged=of_all("diverged").sum(axis=1),
        accuracy=of_all("accuracy"),
        test_loss=of_all("test_loss"),
        test_accuracy=of_all("test_accuracy"),
    )


def standard_error(values: Array) -> Array:
    """Of the mean along the last axis; 0 for a single value."""
    count = values.shape[-1]
    return values.std(axis=-1, ddof=1) / math.sqrt(count) if count > 1 else np.zeros(values.shape[:-1])


def curves_table(found: Sequence[LossCurve], title: str = "") -> Table:
    """A row for each solver: where it is best and how good, and how much the step size matters."""
    caption = "sensitivity: mean over the step sizes of min(l_0, l) - l_*; ± one standard error"
    view = table(title=title, caption=caption)
    headings = "solver", "best lr", "loss there", "accuracy", "test", "sensitivity", "decades within 2x", "diverged"
    for heading in headings:
        view.add_column(heading, justify="left" if heading == "solver" else "right", overflow="fold")
    for curve in found:
        i = curve.best
        means = [float(a[i].mean()) for a in (curve.accuracy, curve.test_accuracy)]
        shares = [f"{mean:.1%}" if math.isfinite(mean) else "" for mean in means]
        best = short(float(curve.lrs[i])), _with_error(curve.mean[i], curve.stderr[i])
        lost = f"{int(curve.diverged.sum())} of {curve.losses.size}"
        width = _with_error(*curve.sensitivity), short(curve.decades(), 3)
        view.add_row(curve.solver, *best, *shares, *width, lost)
    return view


def _with_error(value: float, error: float) -> str:
    return plus_minus(value, error) if error > 0 else short(value)
