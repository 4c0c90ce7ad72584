"""The edge of stability on handwritten digits: what the literature says of sharpness, and what is measured.

    python -m runs.edge_of_stability [--quick] [--jobs N]

Full-batch gradient descent drives the largest eigenvalue of the Hessian to 2/eta and holds it there (Cohen et al.);
SGD does so with the curvature along its mini-batch gradients (Andreyev and Beneventano); the Hessian is a bulk at zero
and a few outliers (Sagun et al.); SGD keeps minima with tr(H) <= 2/eta only (Wu and Su). An MLP of 8970 parameters on
1347 images of 8 x 8 pixels, so every statement is about this small problem.
Eleven minutes in one process; --quick, which is too short for most claims, takes less than one.
"""

from __future__ import annotations

from runs.edge_of_stability import claims, jobs
from runs.edge_of_stability.figures import figures
from runs.engine.experiment import Experiment

EXPERIMENT = Experiment(
    "edge_of_stability", f"Edge of stability, MLPs on digits\n\n{__doc__}", jobs.plan, claims.CLAIMS, figures
)
