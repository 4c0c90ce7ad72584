"""NGN steps beside other solvers: what arXiv 2508.15071 and 2410.12455 say of them, and measurements.

    python -m runs.ngn [--quick] [--jobs N]

NGN sizes its step by a Gauss-Newton model of sqrt(f), so that a large step size c does no harm. The MLP of the paper on
Fashion-MNIST and on 5,000 images of MNIST, a CNN and a transformer on English, each over powers of 10 of the step
size, for the sensitivity of NGN-M and NGN-MD to it beside SGD with momentum, MoMo, Adam and MoMo-Adam; Rosenbrock's
function, x^2 + x^4, two regressions; and the theorems on convex sums and on two functions that are not.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.ngn import claims, jobs
from runs.ngn.figures import figures

EXPERIMENT = Experiment("ngn", "NGN steps\n\n" + str(__doc__), jobs.plan, claims.CLAIMS, figures)
