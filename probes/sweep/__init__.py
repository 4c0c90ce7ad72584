"""Sweeps: many runs, each done once, by processes of this machine, by SLURM or by Ray.

from probes.sweep.sweep import Sweep
found = Sweep("problem.py:problem", ("torch.optim:SGD", "solvers:NGN"), lrs=(0.1, 1.0)).run(Path("folder"))
found.curves[0].mean, found.traces["loss"]
"""
