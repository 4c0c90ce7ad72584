"""NGN steps beside other solvers: what arXiv 2508.15071 and 2410.12455 say of them, and measurements.

    python -m runs.ngn [--quick] [--jobs N]

NGN sizes its step by a Gauss-Newton model of sqrt(f), so that a large step size c does no harm. Rosenbrock's function,
x^2 + x^4, a regression and two noisy functions; an MLP, a CNN and a small vision transformer on digits and a small
transformer on text, each over nine step sizes, for the sensitivity of NGN-M and NGN-MD to them beside SGD with
momentum, MoMo, Adam and MoMo-Adam.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.ngn import claims, jobs
from runs.ngn.figures import figures

EXPERIMENT = Experiment("ngn", "NGN steps\n\n" + str(__doc__), jobs.plan, claims.CLAIMS, figures)
