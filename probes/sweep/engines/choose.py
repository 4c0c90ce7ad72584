"""How an engine is chosen, by its name and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.errors import UserError, check_choice
from probes.sweep.engines.engine import Engine

ENGINES = ("processes", "submitit", "ray")


@dataclass(frozen=True)
class Choice:
    """An engine as it is asked for at the command line.

    Attributes:
        name: one of `ENGINES`.
        at_once: runs at a time; None: what suits the engine.
        slurm: settings of submitit, `{"partition": "gpu", "time": 60}`; `cluster` is "slurm", "local" or "debug".
        ray_address: of a cluster that is running; default: `RAY_ADDRESS`, else one for this sweep on this machine.
        gpus: of each run, for Ray, which shows none otherwise.
    """

    name: str = "processes"
    at_once: int | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    ray_address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        check_choice("--engine", self.name, ENGINES)
        for given, option, engine in (
            (self.slurm, "--slurm", "submitit"),
            (self.ray_address, "--ray-address", "ray"),
            (self.gpus, "--gpus", "ray"),
        ):
            if given and self.name != engine:
                raise UserError(f"{option} goes with --engine {engine}, not {self.name}", status=2)

    def start(self, folder: Path, threads: int) -> tuple[Engine | None, int]:
        """The engine, and how many runs it is given at a time; None for one after the other in this process.

        `folder` is for the engine's own files. Raises `MissingExtra`, and `UserError` for settings that it refuses.
        """
        if self.name == "submitit":
            from probes.sweep.engines.submitit import Submitit

            slurm = Submitit(folder, self.slurm, threads)
            return slurm, self.at_once or slurm.capacity
        if self.name == "ray":
            from probes.sweep.engines.ray import Ray

            ray = Ray(self.at_once, threads, self.ray_address, self.gpus)
            return ray, self.at_once or ray.capacity
        if (self.at_once or 1) == 1:
            return None, 1
        from probes.sweep.engines.processes import Processes

        return Processes(), self.at_once or 1
