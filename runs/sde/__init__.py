"""SDE models of solvers beside the solvers: what Compagnoni et al. (arXiv 2411.15958, 2301.08203) find, measured.

    python -m runs.sde [--quick] [--jobs N]

SGD, SignSGD, RMSprop(W), Adam(W), SAM, USAM and DNSAM on quadratics, a finite sum and a small network: means over
paths, covariances and bands of solver and SDE, with wrong SDEs as controls. Then what the SDEs foretell: how the
noise's size and its tails reach the loss, the phases of descent along the sign, stationary variances under weight
decay, and what SAM does at a saddle point.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.sde import claims, finding_claims, jobs, saddle_claims
from runs.sde.figures import figures

CLAIMS = (*claims.CLAIMS, *finding_claims.CLAIMS, *saddle_claims.CLAIMS)
EXPERIMENT = Experiment("sde", "SDE models of solvers\n\n" + str(__doc__), jobs.plan, CLAIMS, figures)
