"""SDE models of solvers beside the solvers: what Compagnoni et al. (arXiv 2411.15958, 2301.08203) find, measured.

    python -m runs.sde [--quick] [--jobs N]

SGD, SignSGD, RMSprop(W), Adam(W), SAM, USAM and DNSAM on quadratics, a finite sum and a small network: means over
paths, covariances and bands of solver and SDE, with wrong SDEs as controls. Then what the SDEs foretell: how the
noise's size and its tails reach the loss, the phases of descent along the sign, stationary variances under weight
decay, and what SAM does at a saddle point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runs import sde_claims, sde_findings, sde_jobs, sde_saddle_claims
from runs.experiment import Experiment, main
from runs.sde_figures import figures

CLAIMS: Sequence[Any] = (*sde_claims.CLAIMS, *sde_findings.CLAIMS, *sde_saddle_claims.CLAIMS)
EXPERIMENT = Experiment("sde", "SDE models of solvers\n\n" + str(__doc__), sde_jobs.plan, CLAIMS, figures)

if __name__ == "__main__":
    main(EXPERIMENT)
