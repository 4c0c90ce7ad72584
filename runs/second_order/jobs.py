"""All jobs of `runs.second_order`; each group of claims has its own module of them."""

from __future__ import annotations

from probes.sweep.jobs import Job
from runs.second_order import factors, heterogeneity, preconditioning, widths


def plan(quick: bool) -> list[Job]:
    """Group by group; quick: fewer networks, seeds and steps."""
    return [*factors.plan(quick), *preconditioning.plan(quick), *heterogeneity.plan(quick), *widths.plan(quick)]
