"""How many eigenvalues stand apart from the bulk, by a rule that a reader can check with the eye.

The rule: below the eigenvalues that exceed 1 % of the largest, the widest gap in log spacing, that is the
largest ratio of neighbours `values[i] / values[i + 1]`; what lies above it are the outliers. Every list has a
widest gap, so the ratio belongs to the count: near 1 there is no separation to speak of. The number of
classes plays no part in it, on purpose: it is what the count is held against (about as many outliers as
classes: Sagun et al., arXiv 1706.04454; Papyan, arXiv 1811.07062).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_FLOOR = 0.01


@dataclass(frozen=True)
class Outliers:
    """`count` eigenvalues lie above `edge`, the geometric middle of the widest gap; `ratio` is the width of
    that gap. `count` is 0 and the rest nan when there were too few eigenvalues to compare.
    """

    count: int
    edge: float
    ratio: float


def outliers(values: Any, *, least: int = 10) -> Outliers:
    """The outliers among eigenvalues `(k,)` in any order, by the rule above.

    None are counted among fewer than `least` positive values: a gap says nothing about a bulk that is not there.
    """
    ordered = np.sort(np.asarray(values, dtype=float).reshape(-1))[::-1]
    ordered = ordered[np.isfinite(ordered) & (ordered > 0)]
    if len(ordered) < max(least, 2):
        return Outliers(0, float("nan"), float("nan"))
    # a gap counts by its upper side: what lies below 1 % is the bulk that the last outlier is compared with
    upper = ordered[:-1]
    ratios = np.where(upper >= _FLOOR * ordered[0], upper / ordered[1:], 0.0)
    widest = int(np.argmax(ratios))
    edge = float(np.sqrt(ordered[widest] * ordered[widest + 1]))
    return Outliers(widest + 1, edge, float(ratios[widest]))


def single_ritz_values(nodes: Any, weights: Any, n: int) -> Any:
    """The first probe's Ritz values from the top down to the first that stands for several of the n eigenvalues.

    `nodes` and `weights` are those of a density, `(probes, steps)`. The weight of one eigenvalue is chi-squared / n;
    what is more than six standard errors above 1 / n in the mean over the probes, rank by rank, is the bulk.
    """
    order = np.argsort(nodes, axis=1)[:, ::-1]
    ordered, own = (np.take_along_axis(np.asarray(a, dtype=float), order, axis=1) for a in (nodes, weights))
    rows = [(t[w > 0], w[w > 0]) for t, w in zip(ordered, own, strict=True)]
    least = min(len(w) for _, w in rows)
    shares = n * np.mean([w[:least] for _, w in rows], axis=0)
    bulk = np.flatnonzero(shares > 1 + 6 * np.sqrt(2 / len(rows)))
    return rows[0][0][: bulk[0] + 1 if len(bulk) else least]
