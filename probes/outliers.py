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
    """One probe's Ritz values from the top down to the first that stands for several of the n eigenvalues.

    `nodes` and `weights` are those of a density, `(probes, steps)`; the first probe's are taken. The weight of one
    eigenvalue is chi-squared / n, above 4 / n in one case of twenty: more is the bulk.
    """
    order = np.argsort(nodes[0])[::-1]
    ordered, own = nodes[0][order], weights[0][order]
    ordered, own = ordered[own > 0], own[own > 0]
    bulk = np.flatnonzero(own * n > 4)
    return ordered[: bulk[0] + 1] if len(bulk) else ordered
