"""Subspace cubic Newton beside other solvers: what Zhao, Doikov and Lucchi (arXiv 2406.16666) find, and measurements.

    python -m runs.sscn [--quick] [--jobs N]
    python -m runs.sscn --file FILE.svm          a table of solvers on your own data, without claims

Logistic regression with a non-convex regulariser on MNIST's fours and nines, pairs of their pixels (gisette's kind) and
gene expressions (NCI60, leukemia); robust regression, non-linear least squares, log-sum-exp; a small network. Subsets
of several sizes with the rules for M, schedules, coordinate descent, cubic Newton, RS-RNM, gradient descent, L-BFGS.
"""

from __future__ import annotations

from collections.abc import Sequence

from runs.engine.experiment import Experiment, main
from runs.sscn import own_data, peer_claims, plan, point_claims, schedule_claims, size_claims
from runs.sscn.figures import figures

CLAIMS = *size_claims.CLAIMS, *schedule_claims.CLAIMS, *point_claims.CLAIMS, *peer_claims.CLAIMS
EXPERIMENT = Experiment("sscn", "Subspace cubic Newton\n\n" + str(__doc__), plan.plan, CLAIMS, figures)


def command(words: Sequence[str]) -> None:
    """`main`, or with `--file FILE` the table of solvers on it."""
    if "--file" in words:
        own_data.main(words)
    else:
        main(EXPERIMENT, words)
