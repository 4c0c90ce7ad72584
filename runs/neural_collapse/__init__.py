"""Neural collapse and the optimizer: what arXiv 2602.16642 proves and finds, and what is measured on Fashion-MNIST.

    python -m runs.neural_collapse [--quick] [--jobs N]

NC0 = ||W^T 1||, the norm of the sum of the last layer's rows, must vanish for the simplex of neural collapse (NC2 and
NC3) to form. Under SGD weight decay alone moves it; with Adam and sign rules it depends on whether the decay is in the
gradient or beside it. A small ResNet with batch norm, as the paper's networks have it, on 800 images of 14 x 14 pixels,
600 steps, against the paper's 94,000 on 60,000 of 32 x 32: orders and trends are compared, not numbers. An MLP without
batch norm stands beside it.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.neural_collapse import decay_claims, jobs, optimizer_claims, small_claims, theory_claims, trend_claims
from runs.neural_collapse.figures import figures

CLAIMS = (
    *theory_claims.CLAIMS,
    *small_claims.CLAIMS,
    *optimizer_claims.CLAIMS,
    *decay_claims.CLAIMS,
    *trend_claims.CLAIMS,
)
EXPERIMENT = Experiment(
    "neural_collapse", f"Neural collapse and the optimizer\n\n{__doc__}", jobs.plan, CLAIMS, figures
)
