"""A sweep whose problem and solvers may have short names."""

from __future__ import annotations

from probes.sweep import sweep
from runs.sweep import problems, solvers


class Sweep(sweep.Sweep):
    """As in `probes.sweep.sweep`; names of `problems.PROBLEMS` and `solvers.SOLVERS` are known."""

    @staticmethod
    def problem_of(name: str) -> str:
        """Where the problem of that name is."""
        return problems.spec(name)

    @staticmethod
    def solver_of(name: str) -> str:
        """Where the solver of that name is, with its options."""
        return solvers.spec(name)
