"""Subspace cubic Newton beside other solvers: what Zhao, Doikov and Lucchi (arXiv 2406.16666) find, and measurements.

    python -m runs.sscn [--quick] [--jobs N]
    python -m runs.sscn --data FILE.svm          a table of solvers on your own data, without claims

Logistic regression with a non-convex regulariser on breast cancer, digits and random data of the shapes of "duke" and
(reduced) "gisette"; log-sum-exp; a small network. Subsets of several sizes with two rules for M, schedules, coordinate
descent, cubic Newton, RS-RNM, gradient descent, L-BFGS; the norm of the whole gradient by steps, seconds and the sum of
tau^2 + tau.
"""

from __future__ import annotations

from collections.abc import Sequence

from runs.engine.experiment import Experiment, main
from runs.sscn import claims, jobs, own_data
from runs.sscn.figures import figures

EXPERIMENT = Experiment("sscn", "Subspace cubic Newton\n\n" + str(__doc__), jobs.plan, claims.CLAIMS, figures)


def command(words: Sequence[str]) -> None:
    """`main`, or with `--data FILE` the table of solvers on it."""
    if "--data" in words:
        own_data.main(words)
    else:
        main(EXPERIMENT, words)
