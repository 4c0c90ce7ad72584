"""The claims of `runs.edge_of_stability` on the spectrum after training: what width and what data do to its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runs.edge_of_stability import jobs
from runs.edge_of_stability.criteria import NEAR, SAGUN, Array, correlation, count_outliers, profile, share_near
from runs.engine.claims import Control, Results, Verdict, claim, every

PROFILE = 10  # eigenvalues that are compared
EVERY = ("digits-*", "clusters-*")
Groups = dict[Any, list[str]]  # names of jobs by what changes between them


def by_width(results: Results, data: str, classes: int) -> Groups:
    """The runs on the same data by width."""
    found: Groups = {}
    for name, run in results.data(f"{data}-{classes}-*").items():
        found.setdefault(run["width"], []).append(name)
    return dict(sorted(found.items()))


def by_clusters(results: Results) -> Groups:
    """The runs at the largest width by number of clusters."""
    runs = results.data("clusters-*")
    widest = max(run["width"] for run in runs.values())
    found: Groups = {}
    for name, run in runs.items():
        if run["width"] == widest:
            found.setdefault(run["classes"], []).append(name)
    return dict(sorted(found.items()))


def of_bulk(results: Results, names: Sequence[str]) -> float:
    """How many eigenvalues are in the bulk, median over runs."""
    return float(np.median([share_near(results, name) * results.one(name)["parameters"] for name in names]))


def moved(results: Results, groups: Groups) -> float:
    """By which factor the outliers relative to the largest one change from the first group to the last, on average."""
    first, last = list(groups.values())[:1] + list(groups.values())[-1:]
    ends: list[Array] = [profile(results, names, PROFILE) for names in (first, last)]
    return float(np.exp(np.abs(ends[0] - ends[1]).mean()))


@claim(
    "a bulk at zero",
    source="abstract",
    literature=f"the spectrum is a bulk centred near zero, and outliers away from it; no percentages ({SAGUN})",
    criterion="after training, on all data and at all widths, at least three quarters of the eigenvalues are within "
    f"{NEAR:.0%} of the largest around zero (medians over {jobs.SEEDS} seeds)",
    needs=EVERY,
    control=Control("around a tenth of the largest", lambda judge, results: judge(results, 0.1)),
)
def bulk(results: Results, centre: float = 0.0) -> Verdict:
    found: dict[str, list[float]] = {}
    for name in results.data(*EVERY):
        found.setdefault(name.rpartition("-")[0], []).append(share_near(results, name, centre))
    shares = {name: float(np.median(values)) for name, values in found.items()}
    return every(shares, lambda share: share >= 0.75, lambda name, share: f"{name}: {100 * share:.1f} %")


def _scaled(results: Results, groups: Groups) -> dict[str, float]:
    """From the first group to the last: factors of parameters and of the bulk, power of the one in the other."""
    first, *_, last = groups.values()
    parameters = [results.one(names[0])["parameters"] for names in (first, last)]
    factor = of_bulk(results, last) / of_bulk(results, first)
    grown = parameters[1] / parameters[0]
    power = float(np.log(factor) / np.log(grown)) if grown > 1 else 0.0
    return {"parameters": grown, "bulk": factor, "power": power, "moved": moved(results, groups)}


@claim(
    "more parameters only scale the bulk",
    source="abstract",
    literature=f"fixing data, increasing the number of parameters merely scales the bulk of the spectrum ({SAGUN})",
    criterion=f"from width {jobs.WIDTHS[0]} to {jobs.WIDTHS[-1]}, on digits and on {jobs.FIXED} clusters: the number "
    "of eigenvalues in the bulk has a power of the number of parameters in [0.8, 1.2], and the outliers (the second to "
    f"the {PROFILE}th eigenvalue over the largest) change by a factor whose logarithm is less than half of that "
    "between 2 and 10 clusters",
    needs=EVERY,
    control=Control(
        "2 and 10 clusters in the place of the widths",
        lambda judge, results: judge(results, {"clusters": by_clusters(results)}),
    ),
)
def scales(results: Results, groups: Mapping[str, Groups] | None = None) -> Verdict:
    if groups is None:
        groups = {"digits": by_width(results, "digits", 10), "clusters": by_width(results, "clusters", jobs.FIXED)}
    data = moved(results, by_clusters(results))
    return every(
        {name: _scaled(results, group) for name, group in groups.items()},
        lambda f: 0.8 <= f["power"] <= 1.2 and np.log(f["moved"]) < np.log(data) / 2,
        lambda name, f: (
            f"{name}: parameters × {f['parameters']:.2f}, bulk × {f['bulk']:.2f} (power {f['power']:.2f}), "
            f"outliers × {f['moved']:.2f}"
        ),
        after=f"; by data × {data:.2f}",
    )


@claim(
    "changed data move the outliers only",
    source="abstract",
    literature="fixing the dimension, changing the data (more clusters, for instance) only affects the outliers "
    f"({SAGUN})",
    criterion=f"width {jobs.WIDTHS[-1]}, ten outputs, {', '.join(map(str, jobs.CLUSTERS))} clusters: the number of "
    "outliers (above the widest gap, rule of `probes.outliers`) rises with that of clusters, rank correlation over "
    f"all runs with a 95 % interval above 0.5; the number in the bulk changes by a factor below 1.25",
    needs=EVERY,
    control=Control(
        "widths in the place of clusters",
        lambda judge, results: judge(results, by_width(results, "clusters", jobs.FIXED)),
    ),
)
def moves(results: Results, groups: Groups | None = None) -> Verdict:
    groups = by_clusters(results) if groups is None else groups
    pairs = [(key, count_outliers(results, name)) for key, names in groups.items() for name in names]
    rho, low = correlation(*map(list, zip(*pairs, strict=True)))
    sizes = [of_bulk(results, names) for names in groups.values()]
    spread = max(sizes) / min(sizes)
    counts = {key: [n for k, n in pairs if k == key] for key in groups}
    told = "; ".join(f"{key}: {', '.join(map(str, found))}" for key, found in counts.items())
    measured = f"outliers, {told}; rank correlation {rho:.2f}, at least {low:.2f}; bulk × {spread:.2f}"
    numbers = {"outliers": {str(key): found for key, found in counts.items()}, "correlation": rho, "low": low}
    return Verdict(bool(low > 0.5 and spread < 1.25), measured, numbers | {"bulk": spread})


@claim(
    "about as many outliers as classes",
    source="text",
    literature="the outliers of the trained network are about as many as classes (as later papers cite Sagun et al. "
    "2016 and 2017: Papyan 2018, arXiv 1811.07062; their abstracts have no number)",
    criterion="for each number of clusters the median number of outliers, as above, over seeds is that of the clusters "
    "or one fewer or more",
    needs="clusters-*",
    control=Control("twice as many expected", lambda judge, results: judge(results, 2)),
)
def classes(results: Results, factor: int = 1) -> Verdict:
    found = {}
    for number, names in by_clusters(results).items():
        counts = [count_outliers(results, name) for name in names]
        found[f"{number}"] = {"expected": factor * number, "median": float(np.median(counts)), "counts": counts}
    return every(
        found,
        lambda f: abs(f["median"] - f["expected"]) <= 1,
        lambda name, f: f"{name} clusters: {f['median']:g}",
        after=f"; (K − 1)² would be {', '.join(str((int(name) - 1) ** 2) for name in found)}",
    )


CLAIMS = (bulk, scales, moves, classes)
