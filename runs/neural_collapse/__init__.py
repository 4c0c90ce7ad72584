"""Neural collapse and the optimizer: what arXiv 2602.16642 proves and finds, and what is measured on digits.

    python -m runs.neural_collapse [--quick] [--jobs N]

NC0 = ||W^T 1||, the norm of the sum of the last layer's rows, must vanish for the simplex of neural collapse (NC2 and
NC3) to form. Under SGD weight decay alone moves it, and so theorems give it step by step; with Adam and sign rules it
depends on whether the decay is in the gradient or beside it. An MLP, a CNN and a small ResNet on 1347 images of
8 x 8 pixels, 3000 steps each, against the paper's 94,000 on images of 32 x 32: the order of optimizers is compared,
not the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from probes.numbers import short
from runs.engine.claims import ClaimResult
from runs.engine.experiment import Experiment
from runs.neural_collapse import jobs, optimizer_claims, theory_claims, trend_claims
from runs.neural_collapse.figures import figures
from runs.neural_collapse.optimizer_claims import METRICS

EXPERIMENT = Experiment(
    "neural_collapse",
    f"Neural collapse and the optimizer\n\n{__doc__}",
    jobs.plan,
    (*theory_claims.CLAIMS, *optimizer_claims.CLAIMS, *trend_claims.CLAIMS),
    figures,
)


def side_by_side(claims: Sequence[ClaimResult]) -> str:
    """NC1 to NC4 and the accuracy at the setting, on train and test features, as a table in Markdown."""
    (found,) = [one.numbers for one in claims if one.name == optimizer_claims.nc0_order.name]
    rows: list[Sequence[str]] = [("network", "optimizer", "NC0", "NC1", "NC2", "NC3", "NC4", "accuracy"), ("---",) * 8]
    for network, sides in found.items():
        for optimizer, value in sides["train"]["nc0"].items():
            pairs = [[sides[side][metric][optimizer] for side in ("train", "test")] for metric in METRICS]
            cells = [" / ".join(short(v, 3) for v in pair) for pair in pairs[1:4]]
            rates = [" / ".join(f"{v:.1%}" for v in pair) for pair in pairs[4:]]
            rows.append((network, optimizer, short(value, 3), *cells, *rates))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
