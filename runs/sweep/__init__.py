"""How sensitive solvers are to their step size: solver x step size x seed, one trace per run.

    found = Sweep("digits-mlp", ("ngn-m", "adam"), lrs=(0.01, 0.1, 1.0)).run(Path("folder"))
    found.curves[0].mean, found.curves[0].sensitivity, found.traces["whole"]

The command is in `runs.sweep.command`.
"""

from runs.sweep.command import grid, main
from runs.sweep.sweep import Sweep, Swept

__all__ = ["Sweep", "Swept", "grid", "main"]
