"""What a connection between two networks is measured by: lines, a path, eigenvalues, dropped units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from probes.context import Context
from probes.hashes import hash_of
from probes.instruments.base import NOTE
from probes.instruments.networks import OfNetworks
from probes.instruments.stations import Station, beside_theta, told_buffers
from probes.seeds import derive_seed
from probes.trace.layout import Array
from probes.trace.table import truncate

if TYPE_CHECKING:
    import torch

    from landscape.surface import Along, Path
    from probes.trace.unfinished import Unfinished

WAYS = ("straight", "aligned", "trained")
_RECOMPUTED = "running statistics between the ends are those of one pass over the data at each point"


@dataclass(frozen=True, kw_only=True)
class Asked(OfNetworks):
    """What is asked of a connection.

    Attributes, besides those of `OfNetworks`:
        kind: of the path, "bezier" or "polygon"; "none" trains none.
        bends: inner nodes of the path.
        steps: of its training; each costs a gradient.
        lr: of the first step, see `landscape.surface.path`.
        points: on each way.
        share: of the hidden units that are dropped (arXiv 1906.06247); 0 leaves it out.
        samples: of those that are dropped.
        curvature: whether eigenvalues are sought along the path.
    """

    kind: Literal["bezier", "polygon", "none"] = "bezier"
    bends: int = 1
    steps: int = 200
    lr: float = 0.1
    points: int = 25
    share: float = 0.25
    samples: int = 16
    curvature: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(points=self.points >= 3, bends=self.bends >= 1, samples=self.samples >= 2)
        self._check(share=0.0 <= self.share < 1.0)


class Measurement:
    """One measurement of a `Connection`: parts that can be interrupted are taken up where they were."""

    def __init__(self, probe: Asked, context: Context, a: Station, b: Station) -> None:
        self.probe, self.context, self.objective = probe, context, context.objective
        self.stations = (a, b)
        self.a, self.b = (one.theta.to(self.objective.device, self.objective.dtype) for one in (a, b))
        self.ends = np.array([self._own(one) for one in self.stations])
        self.recomputed = np.full(2, np.nan)
        self.notes = [*filter(None, [told_buffers(self.objective, self.stations, context.step)])]
        self.evaluations = 2

    def row(self) -> dict[str, Any]:
        """All fields."""
        none = np.full(self.probe.points, np.nan)
        straight = self._line("straight", self.b)
        found: dict[str, Any] = {
            "straight": straight,
            "aligned": none,
            "trained": none,
            "distance": self._distances(None),
        }
        aligned = self._aligned()
        if aligned is not None:
            found |= {"aligned": self._line("aligned", aligned), "distance": self._distances(aligned)}
        found |= self._dropped()
        low = self._path()
        if low is not None:
            found["trained"] = self._at_ends(low.values.numpy())
        along = self._along(low)
        heights = np.array([self._height(found[way]) for way in WAYS])
        return found | {
            "t": np.linspace(0.0, 1.0, self.probe.points),
            "height": heights[:, 0],
            "height_error": heights[:, 1],
            "ends": self.ends,
            "recomputed": self.recomputed,
            "eigenvalue": none if along is None else along.values.numpy(),
            "eigenvalue_error": none if along is None else along.errors.numpy(),
            "converged": along is None or along.converged,
            "evaluations": self.evaluations,
            "gradients": 0 if low is None else low.steps,
            "matvecs": 0 if along is None else along.matvecs,
            "note": truncate("; ".join(self.notes), NOTE),
        }

    def _own(self, station: Station) -> float:
        with station.on(self.objective):
            return self.objective.value()

    def _unfinished(self, part: str, of: Mapping[str, Any], size: int) -> Unfinished:
        what = {**beside_theta(self.objective), **of, "points": self.probe.points}
        return self.context.unfinished(part, hash_of(what), size)

    def _tell(self, done: int, total: int, value: float, error: float, name: str, unit: str) -> bool | None:
        from landscape.spectra import RunningEstimate

        told = RunningEstimate(value, error, name, unit)
        return None if self.context.callback is None else self.context.callback(done, total, told)

    def _line(self, part: str, b: torch.Tensor) -> Array:
        """f on a straight line from a, the ends as the networks have it."""
        from landscape.surface import barrier

        kept = self._unfinished(part, {"a": self.a, "b": b}, self.probe.points)

        def keep(done: int, total: int, values: torch.Tensor) -> bool | None:
            kept.keep(values.numpy())
            return self._tell(
                done, total, float(values.nan_to_num(nan=-np.inf).max()), 0.0, f"highest {part}", "points"
            )

        points = self.probe.points
        found = barrier(self.objective, self.a, b, points=points, known=kept.tensor([points]), callback=keep)
        self.evaluations += found.evaluations
        if part == "straight":
            self.recomputed = found.values[[0, -1]].numpy()
            self.notes += [_RECOMPUTED] if found.statistics == "recompute" else []
        return self._at_ends(found.values.numpy())

    def _at_ends(self, values: Array) -> Array:
        values = values.copy()
        values[[0, -1]] = self.ends
        return values

    def _height(self, values: Array) -> tuple[float, float]:
        import torch

        from landscape.surface.barrier import height, unit_interval

        if np.isnan(values).all():
            return np.nan, np.nan
        high, rounding = height(self.objective, unit_interval(len(values)), torch.from_numpy(values))
        return high, rounding + float(np.abs(self.recomputed - self.ends).max())

    def _aligned(self) -> torch.Tensor | None:
        from landscape.surface import align

        try:
            return align(self.objective, self.a, self.b)
        except (TypeError, ValueError) as error:  # a module without a rule, or an order that cannot be seen
            self.notes.append(f"not aligned: {error}")
            return None

    def _distances(self, aligned: torch.Tensor | None) -> Array:
        from landscape.precision import accurate

        ends = (self.b, aligned)
        return np.array([np.nan if b is None else float((accurate(b) - accurate(self.a)).norm()) for b in ends])

    def _dropped(self) -> dict[str, Array]:
        """The mean loss of both ends with hidden units dropped, the same ones of both."""
        import torch

        from landscape.surface import dropout_stability

        found = np.full((2, 2), np.nan)
        seed = derive_seed(self.context.seed, self.context.name, self.context.step)
        try:
            for i, station in enumerate(self.stations if self.probe.share else ()):
                with station.on(self.objective):
                    generator = torch.Generator().manual_seed(seed)
                    mean = dropout_stability(
                        self.objective, self.probe.share, samples=self.probe.samples, generator=generator
                    )
                found[i] = mean.value, mean.stderr
                self.evaluations += mean.matvecs
        except (TypeError, ValueError) as error:
            self.notes.append(f"no units are dropped: {error}")
        return {"dropout": found[:, 0], "dropout_error": found[:, 1]}

    def _path(self) -> Path | None:
        """Trained anew each time: it has no other state than its steps, and is the same again."""
        from landscape.surface import path

        if self.probe.kind == "none":
            return None
        if bool((self.a == self.b).all()):
            self.notes.append("no path is trained: both networks are the same")
            return None
        found = path(
            self.objective,
            self.a,
            self.b,
            self.probe.kind,
            bends=self.probe.bends,
            steps=self.probe.steps,
            lr=self.probe.lr,
            points=self.probe.points,
            callback=lambda step, steps, f: self._tell(step, steps, f, 0.0, "f on the path", "steps"),
        )
        self.evaluations += 2 * self.probe.points
        return found

    def _along(self, low: Path | None) -> Along | None:
        from landscape.surface import Along, curvature_along

        if low is None or not self.probe.curvature:
            return None
        points = self.probe.points
        kept = self._unfinished("eigenvalues", {"nodes": low.nodes}, 2 * points)
        known = kept.tensor([2, points])

        def keep(done: int, total: int, found: Along) -> bool | None:
            kept.keep(np.concatenate([found.values.numpy(), found.errors.numpy()]))
            i = int(found.values.nan_to_num(nan=-np.inf).argmax())
            return self._tell(done, total, float(found.values[i]), float(found.errors[i]), "largest lambda_1", "points")

        try:
            return curvature_along(
                self.objective,
                low,
                known=Along(known[0], known[1], True, 0),
                generator=self.context.generator,
                callback=keep,
            )
        except RuntimeError as error:
            self.notes.append(f"no second derivatives: {error}")
            return None
