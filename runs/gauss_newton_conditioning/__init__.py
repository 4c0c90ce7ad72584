"""Conditioning of the Gauss-Newton matrix: what Zhao, Singh and Lucchi (2024) find, and what is measured.

    python -m runs.gauss_newton_conditioning [--quick] [--jobs N]

kappa is the largest over the smallest non-zero eigenvalue of J^T J, J the derivatives of all outputs by all
parameters. Linear networks, one hidden layer of leaky ReLU, convolutions, batch norm, a pruned ResNet, and training;
Fashion-MNIST and MNIST, every fourth pixel as in the paper (48 and 34 of 49 ever change); in the reduced run digits and
random data. Means over initialisations are geometric.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.gauss_newton_conditioning import depth_claims, jobs, layer_claims, linear_claims, training_claims
from runs.gauss_newton_conditioning.figures import figures

EXPERIMENT = Experiment(
    "gauss_newton_conditioning",
    f"Conditioning of the Gauss-Newton matrix\n\n{__doc__}",
    jobs.plan,
    (*depth_claims.CLAIMS, *linear_claims.CLAIMS, *layer_claims.CLAIMS, *training_claims.CLAIMS),
    figures,
)
