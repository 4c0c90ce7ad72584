"""The edge of stability on Fashion-MNIST: what the literature says of sharpness, and what is measured.

    python -m runs.edge_of_stability [--quick] [--jobs N]

Full-batch gradient descent drives the largest eigenvalue of the Hessian to 2/eta and holds it there (Cohen et al.);
SGD does so with the curvature along its mini-batch gradients (Andreyev and Beneventano); the Hessian is a bulk at zero
and a few outliers (Sagun et al.); SGD keeps minima with tr(H) <= 2/eta only (Wu and Su). Networks of two hidden layers
of tanh: 784-200-200-10 on 5,000 images, as Cohen et al. have it on CIFAR-10, smaller ones for minima and spectra;
digits in the reduced run, which is too short for most claims.
"""

from __future__ import annotations

from runs.edge_of_stability import descent_claims, jobs, minima_claims, spectrum_claims, stochastic_claims
from runs.edge_of_stability.figures import figures
from runs.engine.experiment import Experiment

EXPERIMENT = Experiment(
    "edge_of_stability",
    f"Edge of stability, tanh networks on images\n\n{__doc__}",
    jobs.plan,
    (*descent_claims.CLAIMS, *stochastic_claims.CLAIMS, *minima_claims.CLAIMS, *spectrum_claims.CLAIMS),
    figures,
)
