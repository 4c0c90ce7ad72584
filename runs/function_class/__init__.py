"""Function classes along trajectories: what Islamov et al. (2024) find of the alpha-beta-condition, and measurements.

    python -m runs.function_class [--quick] [--jobs N]

<grad f_k(x_k), x_k - x_K> >= alpha (f_k(x_k) - f_k(x_K)) - beta (f_k(x_k) - f_k^*), f_k the batch of step k and x_K the
last iterate of the same run, found in a first pass that the second repeats bit by bit. The paper's examples where their
constants hold; MLPs with batches of several sizes on Fashion-MNIST, an LSTM and a transformer on English; MLPs, CNNs
and residual networks of several sizes on 1,347 digits; the theorems where all constants are known. Every constant
belongs to its region or path. On a path with f_k(x_K) > f_k^* everywhere some pair always works, so that only its size
says something.
"""

from __future__ import annotations

from runs.engine.experiment import Experiment
from runs.function_class import exact_claims, jobs, path_claims, size_claims
from runs.function_class.figures import figures

TITLE = "Function classes along trajectories\n\n" + str(__doc__)
CLAIMS = (*exact_claims.CLAIMS, *size_claims.CLAIMS, *path_claims.CLAIMS)
EXPERIMENT = Experiment("function_class", TITLE, jobs.plan, CLAIMS, figures)
"""The command `python -m runs.function_class`."""
