"""A sweep on paper: many independent runs, each on as few ranks as it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from runs.scale.machine import Machine
from runs.scale.model import Setting, device, gathering
from runs.scale.network import Network
from runs.scale.plan import best


@dataclass(frozen=True)
class Grid:
    """What is run.

    Attributes:
        runs: how many; 3,888 are those of arXiv 2602.16642.
        steps: of training in each, a gradient on one batch.
        measurements, products: of curvature in each, and Lanczos steps in one of these, on one batch.
    """

    runs: int = 3888
    steps: int = 1000
    measurements: int = 10
    products: int = 60


@dataclass(frozen=True)
class Sweep:
    """What it costs.

    Attributes:
        ranks: of one run.
        start, training, measuring: seconds of one run.
        seconds: of the sweep.
        idle: the share of all ranks' time in which there is nothing to do for them.
        kept: bytes of one checkpoint of each run.
    """

    ranks: int
    start: float
    training: float
    measuring: float
    seconds: float
    idle: float
    kept: float

    @property
    def run(self) -> float:
        """Seconds of one run."""
        return self.start + self.training + self.measuring

    @property
    def bottleneck(self) -> str:
        """What takes most of a run."""
        parts = {"start": self.start, "training": self.training, "measuring": self.measuring}
        return max(parts, key=lambda name: parts[name])


def sweep(network: Network, grid: Grid, setting: Setting, ranks: int, machine: Machine) -> Sweep | None:
    """On so many ranks, each run on as many of them as cost it least together; None where not one run fits."""
    counts = [2**power for power in range(ranks.bit_length()) if 2**power <= ranks]
    found = [made for count in counts if (made := _on(network, grid, setting, ranks, count, machine)) is not None]
    return min(found, key=lambda one: one.seconds, default=None)


def _on(network: Network, grid: Grid, setting: Setting, ranks: int, count: int, machine: Machine) -> Sweep | None:
    """With `count` ranks for each run."""
    plan = best(network, replace(setting, rows=setting.batch), count, machine)
    if plan.step is None:
        return None
    rows = max(network.rows, setting.batch // count)
    # a gradient gathers a sharded weight twice and scatters its derivative once: half of what a rebuilt product does
    moving = gathering(network, setting, plan.layout, machine, is_kept=False) * 0.5
    training = grid.steps * (device(network.work("gradient", rows), setting, machine) + moving).total
    measuring = grid.measurements * grid.products * plan.step.total
    rounds = math.ceil(grid.runs / (ranks // count))
    return Sweep(
        ranks=count,
        start=machine.start,
        training=training,
        measuring=measuring,
        seconds=rounds * (machine.start + training + measuring),
        idle=1.0 - grid.runs * count / (rounds * ranks),
        kept=float(grid.runs) * network.parameters * setting.number,
    )
