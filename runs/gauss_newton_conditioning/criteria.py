"""What the claims of `runs.gauss_newton_conditioning` are decided by: rows out of traces, plain functions of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.numbers import finite
from runs.engine.claims import Results

Array = NDArray[np.float64]
Rows = dict[str, Array]
Groups = dict[tuple[float, ...], Array]
PAPER = "Zhao, Singh, Lucchi 2024"


def rows(results: Results, pattern: str, group: str = "networks") -> Rows:
    """The columns of all traces whose jobs match, one below another, and `job`, the number of each."""
    parts: dict[str, list[Array]] = {}
    for number, name in enumerate(results.data(pattern)):
        with results.trace(name) as trace:
            for column, values in trace[group].read().items():
                parts.setdefault(column, []).append(np.asarray(values, dtype=float))
        parts.setdefault("job", []).append(np.full(len(parts[column][-1]), float(number)))
    return {column: np.concatenate(values) for column, values in parts.items()}


def chosen(table: Rows, **keys: float) -> Rows:
    """The rows with these keys."""
    mask = np.ones(len(next(iter(table.values()))), dtype=bool)
    for key, value in keys.items():
        mask &= table[key] == value
    return {column: values[mask] for column, values in table.items()}


def grouped(table: Rows, *keys: str, values: Array | None = None) -> Groups:
    """kappa (or other values), one array per combination of keys, sorted by the keys."""
    values = table["kappa"] if values is None else values
    lines = list(zip(*(table[key].tolist() for key in keys), strict=True))
    return {line: values[[other == line for other in lines]] for line in sorted(set(lines))}


def distinct(table: Rows, key: str) -> list[float]:
    """The values of a key, ascending."""
    return sorted(set(table[key].tolist()))


def geometric(values: Array) -> float:
    """The geometric mean; inf when one of the values is."""
    return float(np.exp(np.mean(np.log(values)))) if bool(np.isfinite(values).all()) else math.inf


def spread(values: Array) -> float:
    """The standard deviation as a factor: exp of that of the logarithms."""
    if len(values) < 2 or not bool(np.isfinite(values).all()):
        return 1.0
    return float(np.exp(np.std(np.log(values), ddof=1)))


def means(groups: Groups) -> dict[tuple[float, ...], float]:
    """The geometric mean of each group."""
    return {key: geometric(values) for key, values in groups.items()}


def lines(groups: Groups) -> dict[float, list[float]]:
    """Means by (first key, second key), as one list over the second for each first."""
    made: dict[float, list[float]] = {}
    for (first, _), values in sorted(groups.items()):
        made.setdefault(first, []).append(geometric(values))
    return made


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of the least-squares y ~ x^p."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def rank_correlation(values: Sequence[float]) -> float:
    """Spearman's, of values with their places in the sequence; nan of fewer than two."""
    if len(values) < 2:
        return math.nan
    return float(np.corrcoef(np.argsort(np.argsort(values)), np.arange(len(values)))[0, 1])


def exceeding(table: Rows, bound: str = "bound") -> int:
    """In how many networks kappa is above a bound by more than rounding explains."""
    kappa = table["kappa"]
    slack = 1e-9 + 1e-16 * table["size"] * kappa  # of kappa, relative
    return int((kappa > table[bound] * (1 + slack)).sum())


def within(measured: Array, reference: float, of: int) -> float:
    """|mean - reference| in standard errors of the difference, the reference being a mean of `of` like values."""
    deviation = float(np.std(measured, ddof=1))
    return abs(float(measured.mean()) - reference) / (deviation * math.sqrt(1 / len(measured) + 1 / of))


def deficiency(table: Rows) -> str:
    """What is to be said of the ranks: full everywhere, or of how many eigenvalues they fall short, and where."""
    short = table["size"] - table["rank"]
    lacking = int((short > 0).sum())
    if lacking == 0:
        return "ranks full"
    worst = int(np.argmax(short / table["size"]))
    return (
        f"rank deficient in {lacking} of {len(short)} networks, down to "
        f"{int(table['rank'][worst])} of {int(table['size'][worst])}"
    )


def number(value: float) -> str:
    """Three digits, as short as they get."""
    if not math.isfinite(value):
        return "∞"
    if value >= 1e5 or value < 1e-3:
        mantissa, power = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def ends(found: Mapping[float, Sequence[float]]) -> str:
    """The first and last value of each line, by its key."""
    return "; ".join(f"{key:g}: {number(line[0])} → {number(line[-1])}" for key, line in found.items())


def lists(found: Mapping[float, Iterable[float]]) -> str:
    """All values of each line, by its key."""
    return "; ".join(f"{key:g}: {', '.join(number(v) for v in line)}" for key, line in found.items())


def kept(groups: Groups) -> dict[str, Any]:
    """For JSON: geometric mean and spread by keys; None where it is infinite."""
    return {
        ", ".join(f"{k:g}" for k in key): {
            "mean": finite(float(f"{geometric(values):.6g}")),
            "spread": float(f"{spread(values):.6g}"),
            "networks": len(values),
        }
        for key, values in groups.items()
    }
