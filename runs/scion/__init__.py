"""Batch sizes of conditional gradients: what Islamov et al. (arXiv 2603.21191) find with Scion, and what is measured.

    python -m runs.scion [--quick] [--jobs N]

One pass over the 60,000 training images of Fashion-MNIST with an MLP 784-128-128-10 (in the reduced run over digits),
by constrained Scion (arXiv 2502.07529), its step size constant, then linear to 0 over the last 28 % of the images. The
loss is that of the 10,000 test images at the end, by batch size, each at its best step size. Beside it the constants of
the theory along a run, and its lemmas where these are known.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.scion import claims, constant_claims, jobs
from runs.scion.figures import figures

CLAIMS = (*claims.CLAIMS, *constant_claims.CLAIMS)
EXPERIMENT = Experiment("scion", f"Batch sizes of conditional gradients\n\n{__doc__}", jobs.plan, CLAIMS, figures)
"""The command `python -m runs.scion`."""
