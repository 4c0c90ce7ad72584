"""Scion beside other solvers: the batch size at a fixed budget of images, the mu-KL condition, step sizes, the ball.

    python -m runs.scion [--quick] [--jobs N]

Two small networks on digits. Scion's last layer has the sign norm and radius 10, the others the spectral norm and
radius 1; momentum 0.1 of the new gradient.
"""

from __future__ import annotations

from runs import scion_claims, scion_jobs
from runs.experiment import Experiment, main
from runs.scion_figures import figures

EXPERIMENT = Experiment("scion", "Scion\n\n" + str(__doc__), scion_jobs.plan, scion_claims.CLAIMS, figures)


if __name__ == "__main__":
    main(EXPERIMENT)
