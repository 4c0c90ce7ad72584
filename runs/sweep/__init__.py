"""How sensitive solvers are to their step size: solver x step size x seed, one trace per run.

    found = Sweep("digits-mlp", ("ngn-m", "adam"), lrs=(0.01, 0.1, 1.0)).run(Path("folder"))
    found.curves[0].mean, found.curves[0].sensitivity, found.traces["whole"]

What runs them is in `probes.sweep`, which is `landscape sweep`; here are problems and solvers with short names.
"""

from runs.sweep.command import main
from runs.sweep.sweep import Sweep

__all__ = ["Sweep", "main"]
