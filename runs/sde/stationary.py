"""Jobs on where solvers settle: the noise's size, decay, heavy tails, and the phases of descent along the sign.

All of them run the solvers themselves; what they are compared with is in closed form. Only the phases run an SDE too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.sde.problems import DECAY, model, vector
from solvers.diffusion import SDE, GaussianNoise, Quadratic, SignSGD, StudentNoise, discrete, integrate, linearised

CURVATURES = (1.0, 0.5)
RELAXED = 4.0  # times of relaxation, of the slowest direction
SIGMAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# what of the noise's size reaches the stationary loss: rule, settings of the SDE
NOISY: dict[str, tuple[str, dict[str, float]]] = {
    "sgd": ("sgd", {}),
    "sgd-decay": ("sgd", {"weight_decay": DECAY}),
    "sign": ("sign", {}),
    "adam": ("adam", {}),
    "adam-coupled": ("adam", {"coupled": DECAY}),
    "rmspropw": ("rmspropw", {}),
    "adamw": ("adamw", {}),
}
ETA = 0.01  # step size for the noise's size
SMALL = 0.005  # step size for closed forms, which are of leading order
SPREADS = (0.5, 1.0)  # the noise's deviations there
# rule, decay, r_1 (Adam)
FORMS = (
    ("rmspropw", 0.25, 0.0),
    ("rmspropw", 1.0, 0.0),
    ("adamw", 0.5, 1.0),
    ("adamw", 1.0, 1.0),
    ("adamw", 1.0, 4.0),
    ("coupled-rmsprop", 0.5, 0.0),
    ("coupled-adam", 0.5, 2.0),
    ("coupled-sign", 0.5, 0.0),
)
HEAVY = (0.1, 0.03, 0.01)  # step sizes
DOFS = (1.0, 1.5)
BINS, WIDTH = 24, 0.125  # of |Y|
PHASE_ETA, PHASE_START, PHASE_END = 0.01, 5.0, 10.0
_LOSS = {
    "t": Field((), "float64", "", "steps times eta"),
    "loss": Field((), "float64", "loss", "mean over paths"),
    "std": Field((), "float64", "loss", "over paths"),
    "x": Field((), "float64", "", "mean over paths"),
}


def plan(quick: bool) -> list[Job]:
    """The jobs; quick: few paths."""
    paths, relaxed, etas = (100, 0.1, HEAVY[:2]) if quick else (4000, RELAXED, HEAVY)
    jobs = []
    for name, (rule, changed) in NOISY.items():
        settings = {"rule": rule, "changed": changed, "sigmas": list(SIGMAS), "paths": paths, "relaxed": relaxed}
        jobs.append(Job(f"noise-{name}", noise, settings))
    for rule, decay, r1 in FORMS:
        settings = {"rule": rule, "decay": decay, "r1": r1, "paths": 2 * paths, "relaxed": relaxed}
        jobs.append(Job(f"form-{rule}-{decay:g}-{r1:g}", form, settings))
    for rule, dof in itertools.product(("sgd", "sign"), DOFS):
        settings = {"rule": rule, "dof": dof, "etas": list(etas), "paths": paths}
        jobs.append(Job(f"heavy-{rule}-{dof:g}", heavy, settings))
    return [*jobs, Job("phases", phases, {"paths": paths, "eta": 5 * PHASE_ETA if quick else PHASE_ETA})]


def noise(
    job: JobContext, rule: str, changed: Mapping[str, float], sigmas: Sequence[float], paths: int, relaxed: float
) -> list[dict[str, float]]:
    """Stationary loss of the solver on f = (x_1^2 + x_2^2 / 2) / 2 by the noise's standard deviation."""
    generator = torch.Generator().manual_seed(job.seed)
    found = []
    for number, sigma in enumerate(sigmas):
        problem = Quadratic(vector(*CURVATURES), GaussianNoise(vector(sigma, sigma).square()))
        sde = model(rule, problem, ETA, **changed)
        loss = problem.loss(_settle(sde, paths, relaxed, generator))
        row = {"sigma": sigma, "loss": float(loss.mean()), "stderr": float(loss.std()) / math.sqrt(paths)}
        found.append(row | {"sde": 0.5 * float((linearised(sde).covariance() * problem.H).sum())})
        job.progress(number + 1, len(sigmas))
    return found


def form(job: JobContext, rule: str, decay: float, r1: float, paths: int, relaxed: float) -> list[dict[str, float]]:
    """The solver's stationary variance in each coordinate, H and Sigma diagonal."""
    generator = torch.Generator().manual_seed(job.seed)
    problem = Quadratic(vector(*CURVATURES), GaussianNoise(vector(*SPREADS).square()))
    kind, name = rule.startswith("coupled-"), rule.removeprefix("coupled-")
    changed: dict[str, Any] = {"coupled" if kind else "decoupled": decay}
    if r1:
        changed["betas"] = (1 - SMALL * r1, 1 - SMALL)
    final = _settle(model(name, problem, SMALL, **changed), paths, relaxed, generator)
    squares = (final - final.mean(0)).square()
    variance, stderr = squares.mean(0) * paths / (paths - 1), squares.std(0) / math.sqrt(paths)
    return [
        {"h": h, "sigma": s, "variance": float(v), "stderr": float(e)}
        for h, s, v, e in zip(CURVATURES, SPREADS, variance, stderr, strict=True)
    ]


def heavy(job: JobContext, rule: str, dof: float, etas: Sequence[float], paths: int) -> list[dict[str, float]]:
    """Where the solver is on f = x^2 / 2 with Student's noise of scale 1 after 8 times of relaxation, and on its way.

    `largest` is the largest |x| of all paths at all steps, `variance` by the SDE (SignSGD alone has one).
    """
    generator = torch.Generator().manual_seed(job.seed)
    problem = Quadratic(vector(1.0), StudentNoise(vector(1.0), dof))
    found = []
    for number, eta in enumerate(etas):
        sde = model(rule, problem, eta)
        rate = problem.noise.density if rule == "sign" else 1.0
        start, steps = _interval(1.0, 0.5, paths, generator), round(8 / (rate * eta))
        ran = discrete(sde, start, steps, paths, generator=generator, trajectory=True)
        assert ran.trajectory is not None
        x = ran.final[0, :, 0].abs()
        quantiles = torch.quantile(x, torch.tensor([0.5, 0.99], dtype=torch.float64))
        low, high = torch.quantile(x, 0.5 + torch.tensor([-0.5, 0.5], dtype=torch.float64) / math.sqrt(paths))
        row = {"eta": eta, "median": float(quantiles[0]), "median_stderr": float(high - low) / 2}
        row |= {"quantile": float(quantiles[1]), "largest": float(ran.trajectory.abs().max())}
        row |= {"mean_square": float(x.square().mean()), "mean_square_stderr": float(x.square().std()) / paths**0.5}
        if rule == "sign":
            row["variance"] = float(linearised(sde).covariance()[0, 0])
        found.append(row)
        job.progress(number + 1, len(etas))
    return found


def phases(job: JobContext, paths: int, eta: float) -> dict[str, Any]:
    """SignSGD and its SDE on f = x^2 / 2 with noise N(0, 1) from x = 5: losses, and the solver's drift by |Y|."""
    generator = torch.Generator().manual_seed(job.seed)
    sde = SignSGD(Quadratic(vector(1.0), GaussianNoise(vector(1.0))), eta)
    steps = round(PHASE_END / eta)
    start = _interval(PHASE_START, eta, paths, generator)
    solver = discrete(sde, start, steps, paths, generator=generator, trajectory=True)
    job.progress(1, 2)
    model_ = integrate(sde, start, eta / 10, 10 * steps, paths, generator=generator, every=10)
    with job.trace(eta=eta, paths=paths) as trace:
        for name, ran in (("solver", solver), ("sde", model_)):
            trace.declare(name, _LOSS)
            for i in range(0, steps + 1, 5):
                loss, x = ran.statistics["loss"], ran.statistics["x"]
                row = {"loss": float(loss.mean[i]), "std": float(loss.variance[i].sqrt()), "x": float(x.mean[i, 0])}
                trace.record(name, i, t=float(ran.times[i]), **row)
    assert solver.trajectory is not None
    X = solver.trajectory[..., 0]
    towards = -torch.sign(X[:-1]) * (X[1:] - X[:-1]) / eta
    bins = (X[:-1].abs() / math.sqrt(2) / WIDTH).long()
    rows = []
    for k in range(BINS):
        drift = towards[bins == k]
        if len(drift) > 1:
            row = {"drift": float(drift.mean()), "stderr": float(drift.std()) / math.sqrt(len(drift))}
            rows.append({"low": k * WIDTH, "high": (k + 1) * WIDTH} | row)
    return {"eta": eta, "bins": rows}


def _settle(sde: SDE, paths: int, relaxed: float, generator: torch.Generator) -> Tensor:
    """Points of the solver's paths from 0 once the slowest direction has had time to settle, `(paths, n)`."""
    steps = math.ceil(relaxed / (float(linearised(sde).rates().min()) * sde.eta))
    return discrete(sde, torch.zeros(2), steps, paths, generator=generator, every=steps).final[0]


def _interval(centre: float, width: float, paths: int, generator: torch.Generator) -> Tensor:
    """Points uniform in an interval, `(paths, 1)`: from a single one, steps of the same length stay on a lattice."""
    return centre + width * (2 * torch.rand(paths, 1, generator=generator, dtype=torch.float64) - 1)
