"""Scion beside other solvers: the batch size at a fixed budget of images, the mu-KL condition, step sizes, the ball.

    python -m runs.scion [--quick] [--jobs N]

Two small networks on digits. Scion's last layer has the sign norm and radius 10, the others the spectral norm and
radius 1; momentum 0.1 of the new gradient.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.scion import claims, jobs
from runs.scion.figures import figures

EXPERIMENT = Experiment("scion", "Scion\n\n" + str(__doc__), jobs.plan, claims.CLAIMS, figures)
