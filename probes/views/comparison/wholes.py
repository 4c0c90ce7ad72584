"""Runs compared by what is more than a number: their spectral densities, and the updates of all of their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.errors import UserError
from probes.numbers import short
from probes.trace.set import TraceSet
from probes.views.comparison.curves import Curve, curve
from probes.views.comparison.select import Comparison, compare_curves
from probes.views.pictures.density import density_curve, height_of_one, width_of

_POINTS = 400


def compare_densities(runs: TraceSet, name: str, keys: Sequence[str] = ()) -> Comparison:
    """The densities `name` at the last step of each run, as logarithms, with Gaussians of one width.

    What is less than a thirtieth of an eigenvalue is drawn as that. Raises `UserError` where no run has one.
    """
    rows = _read(runs, name, ("nodes", "weights", "n"), -1)
    seen = np.concatenate([found["nodes"][found["weights"] > 0] for found in rows.values()])
    sigma = width_of(seen)
    grid = np.linspace(seen.min() - 4 * sigma, seen.max() + 4 * sigma, _POINTS)
    floor = height_of_one(max(int(found["n"][0]) for found in rows.values()), sigma) / 30
    lines = {}
    for run, found in rows.items():
        mean, _ = density_curve(found["nodes"][0], found["weights"][0], grid, sigma)
        lines[run] = Curve(grid, np.log10(np.maximum(mean, floor)))
    how = f"at the last step of each run; Gaussians of width σ = {short(sigma, 2)}"
    return compare_curves(runs, lines, f"log10 of {name}", "", "eigenvalue", keys=keys, how=how)


def compare_updates(runs: TraceSet, name: str, keys: Sequence[str] = ()) -> Comparison:
    """The median over the tensors of the updates `name`, relative to the tensors: networks of other layers compare.

    Raises `UserError` where no run has one.
    """
    lines = {}
    for run, found in _read(runs, name, ("ratio",), 0).items():
        ratio = np.where(found["ratio"] > 0, found["ratio"], np.nan)
        known = np.isfinite(ratio).any(axis=1)
        lines[run] = curve(found["step"][known], np.nanmedian(ratio[known], axis=1))
    lines = {run: line for run, line in lines.items() if len(line.x)}
    if not lines:
        raise UserError(f"no run has {name}")
    return compare_curves(runs, lines, f"{name}: median over the tensors", "", "step", keys=keys)


def _read(runs: TraceSet, name: str, fields: Sequence[str], start: int) -> dict[str, dict[str, Any]]:
    """These columns of all runs that have rows of them, from the row `start` on, by the runs' names."""
    found = {}
    for run in runs:
        if name in run.probes:
            columns = run.records(name).read(start, only=("step", *fields))
            if len(columns["step"]) and set(fields) <= set(columns):
                found[run.name] = columns
    if not found:
        raise UserError(f"no run has {name}")
    return found
