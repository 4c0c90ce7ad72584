"""Jobs that lay an SDE beside its solver: means, covariances and bands at several step sizes, wrong SDEs as controls.

The SDE is integrated with dt = eta / 10; at dt = eta SGD's with Gaussian noise would be SGD itself. Adam's, which is
0/0 at t = 0, starts at a fixed time from paths of the solver of its own. Controls: no diffusion, twice the covariance,
time that runs fast; for RMSprop and Adam no noise in the second moment ("quiet"), and for Adam the published SDE, which
is that and takes the means before the step. Groups `solver-0.1`, `sde-0.1` ... of a trace have mean and deviation over
paths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.sde import saddles, stationary
from runs.sde.problems import SAM_FAMILY, make, model
from solvers.diffusion import SDE, Paths, discrete, integrate

FINER = 10  # steps of the SDE in one of the solver
END, SHORT = 2.0, 1.0  # time that paths run; SHORT where a step is costly
FINE, COARSE = (0.2, 0.1, 0.05, 0.025), (0.2, 0.1, 0.05)  # step sizes
LATER = 0.6  # when Adam's SDE starts
CONTROLS = {"none": (0.0, 1.0), "double": (2.0, 1.0), "fast": (1.0, 1.1)}  # factors of the covariance and of time
STATISTICS = ("loss", "gradient_norm", "square")
QUADRATICS, REAL = ("commuting", "rotated"), ("cancer", "network")
# rules by problem: no decoupled decay and no DNSAM off the quadratics
RULES_ON = {
    "commuting": ("sgd", "sign", "rmsprop", "rmspropw", "adam", "adamw", "sam", "usam", "dnsam"),
    "rotated": ("sgd", "sign", "rmsprop", "adam", "sam", "usam", "dnsam"),
    "cauchy": ("sign",),
    "cancer": ("sgd", "sign", "rmsprop", "adam", "sam", "usam", "dnsam"),
    "network": ("sgd", "sign", "rmsprop", "adam", "sam", "usam", "dnsam"),
}
_BAND = {"t": Field((), "float64", "", "steps times eta")}
_BAND |= {f"{s}_{p}": Field((), "float64", "", f"{p} over paths of {s}") for s in STATISTICS for p in ("mean", "std")}


def plan(quick: bool) -> list[Job]:
    """Every rule on the problems that it is compared on, then the other jobs; quick: few paths."""
    made = [
        Job(f"track-{problem}-{rule}", track, {"problem": problem, "rule": rule, **_size(problem, rule, quick)})
        for problem, rules in RULES_ON.items()
        for rule in rules
    ]
    return [*made, *stationary.plan(quick), *saddles.plan(quick)]


def _size(problem: str, rule: str, quick: bool) -> dict[str, Any]:
    etas: tuple[float, ...] = FINE
    paths, end, changed = 4000, END, dict[str, int]()
    if rule == "sam" or (problem, rule) == ("rotated", "sign"):
        paths = 2000
    if problem in REAL:
        etas, paths = COARSE, 120 if problem == "network" else 200 if rule in SAM_FAMILY else 400
        end = SHORT if rule in SAM_FAMILY else END
    if (problem, rule) == ("network", "sam"):
        paths, changed = 80, {"draws": 16}
    if quick:
        etas, paths, end = etas[:2], 40, 0.2 if rule in SAM_FAMILY else 0.4
    return {"etas": list(etas), "paths": paths, "end": end, "changed": changed}


@dataclass(frozen=True)
class Cloud:
    """Points of many paths at common times, `(T, paths, n)`."""

    X: Tensor

    @property
    def mean(self) -> Tensor:
        """Of all times one after the other, `(T n,)`."""
        return self.X.mean(1).flatten()

    def noise(self) -> Tensor:
        """The covariance of `mean`, `(T n, T n)`."""
        paths = self.X.shape[1]
        return torch.cov(self.X.permute(0, 2, 1).flatten(0, 1)) / paths

    def covariance(self) -> Tensor:
        """Of the points at the end, `(n, n)`."""
        return torch.cov(self.X[-1].T)

    def spread(self) -> tuple[float, float]:
        """The trace of `covariance`, and its standard error."""
        squares = (self.X[-1] - self.X[-1].mean(0)).square().sum(-1)
        paths = len(squares)
        return float(squares.sum()) / (paths - 1), float(squares.std()) / math.sqrt(paths)


def track(
    job: JobContext, problem: str, rule: str, etas: Sequence[float], paths: int, end: float, changed: Mapping[str, Any]
) -> dict[str, Any]:
    """The solver, its SDE and the controls at every step size."""
    at, x0 = make(problem)
    generator = torch.Generator().manual_seed(job.seed)
    rows = []
    with job.trace(problem=problem, rule=rule, end=end, finer=FINER) as trace:
        for number, eta in enumerate(etas):
            sde = model(rule, at, eta, **changed)
            first, start = (_paths_until(sde, x0, _later(rule, end), paths, generator) for _ in range(2))
            begin = 0.0 if first is None else first[1]
            steps, every = round((end - begin) / eta), round(etas[0] / eta)
            solver = discrete(sde, x0, steps, paths, generator=generator, trajectory=True, start=first)
            cloud = _cloud(solver, every)
            _keep(trace, f"solver-{eta:g}", solver)
            row: dict[str, Any] = {"eta": eta, "sdes": {}}
            for kind, (made, noise, pace, count) in _kinds(rule, sde, eta, at, paths).items():
                own = None if start is None else (start[0][:, :count], start[1])
                options: dict[str, Any] = {"generator": generator, "trajectory": True, "noise": noise, "start": own}
                found = integrate(made, x0, pace * eta / FINER, FINER * steps, count, every=FINER, **options)
                _keep(trace, f"{kind}-{eta:g}", found)
                row["sdes"][kind] = difference(cloud, _cloud(found, every), x0)
                if kind == "sde":
                    row["statistics"] = _statistics(solver, found)
            rows.append(row)
            job.progress(number + 1, len(etas))
    return {"problem": problem, "rule": rule, "n": at.n, "paths": paths, "rows": rows}


def difference(solver: Cloud, sde: Cloud, x0: Tensor) -> dict[str, Any]:
    """How far apart they are.

    `error` is the distance of the means over all times (root mean square) without what sampling adds to it, 0 where
    that is all; `scale` is how far the solver's mean is from x0, in the same way. `ratio` is that of the covariances'
    traces at the end, solver over SDE; `low` and `high` are the extremes over all directions, where there are few.
    None: infinite.
    """
    d, C, root = solver.mean - sde.mean, solver.noise() + sde.noise(), math.sqrt(len(solver.X))
    both = float(C.square().sum())  # of |d|^2 with d = 0 the variance is 2 tr C^2
    error = max(float(d.square().sum() - C.trace()), 0.0)
    stderr = math.sqrt(float(d @ C @ d) / float(d.square().sum()) + both / (2 * max(error, math.sqrt(2 * both))))
    scale = float((solver.X.mean(1) - x0).norm())
    found: dict[str, Any] = {"paths": sde.X.shape[1]}
    found |= {"error": math.sqrt(error) / root, "error_stderr": stderr / root, "scale": scale / root}
    (a, da), (b, db) = solver.spread(), sde.spread()
    if b <= 1e-12 * a:
        return found | {"ratio": None, "ratio_stderr": None, "low": None, "high": None}
    ratio = a / b
    found |= {"ratio": ratio, "ratio_stderr": ratio * math.hypot(da / a, db / b)}
    if solver.X.shape[-1] > 3:
        return found | {"low": None, "high": None}
    values = torch.linalg.eigvals(torch.linalg.solve(sde.covariance(), solver.covariance())).real
    return found | {"low": float(values.min()), "high": float(values.max())}


Kind = tuple[SDE, float, float, int]


def _kinds(rule: str, sde: SDE, eta: float, problem: Any, paths: int) -> dict[str, Kind]:
    """SDEs with the factors of their diffusion's covariance and of time, and how many paths."""
    fewer = paths // 2 if paths >= 1000 else paths
    kinds: dict[str, Kind] = {"sde": (sde, 1.0, 1.0, paths)}
    kinds |= {kind: (sde, noise, pace, fewer) for kind, (noise, pace) in CONTROLS.items()}
    if rule.startswith(("rmsprop", "adam")):
        kinds["quiet"] = (model(rule, problem, eta, moment_noise=False), 1.0, 1.0, paths)
    if rule.startswith("adam"):
        kinds["published"] = (model(rule, problem, eta, moment_noise=False, lookahead=False), 1.0, 1.0, fewer)
    return kinds


def _later(rule: str, end: float) -> float | None:
    return min(LATER, end / 2) if rule.startswith("adam") else None


def _paths_until(
    sde: SDE, x0: Tensor, time: float | None, paths: int, generator: torch.Generator
) -> tuple[Tensor, float] | None:
    """The state of the solver's paths at a time, and that time."""
    if time is None:
        return None
    steps = round(time / sde.eta)
    return discrete(sde, x0, steps, paths, generator=generator, every=steps).final, steps * sde.eta


def _cloud(paths: Paths, every: int) -> Cloud:
    """At each so many steps of the solver, without the start."""
    assert paths.trajectory is not None
    return Cloud(paths.trajectory[every::every])


def _keep(trace: Any, name: str, paths: Paths) -> None:
    trace.declare(name, _BAND)
    for i in range(len(paths.times)):
        found = {statistic: paths.statistics[statistic] for statistic in STATISTICS}
        means = {f"{statistic}_mean": float(at.mean[i].sum()) for statistic, at in found.items()}
        deviations = {f"{statistic}_std": float(at.variance[i].sum().sqrt()) for statistic, at in found.items()}
        trace.record(name, i, t=float(paths.times[i]), **means, **deviations)


def _statistics(solver: Paths, sde: Paths) -> dict[str, dict[str, float]]:
    """Means of each statistic at the end, and the ratio of its variances over paths."""
    found = {}
    for name in STATISTICS:
        a, b = solver.statistics[name], sde.statistics[name]
        found[name] = {
            "solver": float(a.mean[-1].sum()),
            "sde": float(b.mean[-1].sum()),
            "stderr": float((a.mean_stderr[-1].square().sum() + b.mean_stderr[-1].square().sum()).sqrt()),
            "ratio": float(a.variance[-1].sum() / b.variance[-1].sum()),
        }
    return found
