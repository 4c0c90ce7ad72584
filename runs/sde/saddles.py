"""Jobs on SAM and its kin: the drift that rho adds, saddle points without and with noise, the covariance there.

The saddle is that of f = (x^2 - y^2) / 2. Its gradient has the length of the point, so the drift of SAM is
-H (X + rho H X / |X|): along y it points to the saddle where |X| < rho.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.func import grad

from probes.sweep.jobs import Job, JobContext
from runs.sde.problems import BATCHES, make, model
from solvers.diffusion import (
    SAM,
    SDE,
    FiniteSum,
    GaussianNoise,
    Problem,
    Quadratic,
    directions,
    discrete,
    integrate,
    linearised,
)

RHO = 0.1
SADDLE = (1.0, -1.0)
RADII = (0.1, 0.3, 0.6, 0.9, 0.97, 1.03, 1.1, 1.5, 3.0)  # of the starts, in units of rho
ANGLES = 48
LEFT = 10 * RHO  # |y| from which a path has left the saddle
STEEP, FLAT = 1.25, 0.8  # rho of USAM around 1 / |lambda|
NOISES = (0.05, 0.25, 0.5, 0.75, 1.0, 2.0)  # deviation of the gradient's noise in units of rho
RAISES = (0.1, 0.03, 0.01, 0.003)  # rho for the drift


def plan(quick: bool) -> list[Job]:
    """The jobs; quick: few paths."""
    paths = 40 if quick else 200
    jobs = [Job(f"drift-{problem}", drift, {"problem": problem, "points": 5}) for problem in ("cancer", "network")]
    eta = 0.1 if quick else 0.02
    jobs.append(Job("saddle", saddle, {"eta": eta, "end": 40.0}))
    jobs += [
        Job(f"escape-{rule}", escape, {"rule": rule, "eta": eta, "end": 2.0 if quick else 20.0, "paths": paths})
        for rule in ("sgd", "sam", "usam", "dnsam")
    ]
    return [*jobs, Job("covariance", covariance, {"paths": 20_000 if quick else 2_000_000})]


def drift(job: JobContext, problem: str, points: int) -> dict[str, list[dict[str, float]]]:
    """What rho adds to the mean step of each rule, against the gradient of the regularised loss by autograd.

    Of "cancer" the mean is over all batches, of "network" the step is that of the full gradient.
    """
    at, x0 = make(problem)
    generator = torch.Generator().manual_seed(job.seed)
    X = x0 + 0.5 * torch.randn(points, at.n, generator=generator, dtype=torch.float64)
    draws = at.balanced(BATCHES, generator) if isinstance(at, FiniteSum) else torch.zeros(1, at.n, dtype=torch.float64)

    def gradients(x: Tensor) -> Tensor:
        return at.atoms(x[None], draws)[:, 0]

    penalties: dict[str, Any] = {
        "sam": lambda x: gradients(x).norm(dim=-1).mean(),
        "usam": lambda x: gradients(x).square().sum(-1).mean() / 2,
    }
    if problem == "network":  # of batches DNSAM's is not a gradient
        penalties["dnsam"] = penalties["sam"]
    found: dict[str, list[dict[str, float]]] = {rule: [] for rule in penalties}
    gradients_of = {rule: torch.stack([grad(penalty)(x) for x in X]) for rule, penalty in penalties.items()}
    for rule, expected in gradients_of.items():
        other = gradients_of["sam" if rule == "usam" else "usam"]
        for rho in RAISES:
            added = (_mean_step(model(rule, at, 1.0, rho=rho), at, X, draws) - at.gradient(X)) / rho
            errors = {"error": expected, "other": other}
            found[rule].append({"rho": rho} | {n: float((added - g).norm() / g.norm()) for n, g in errors.items()})
    return found


def _mean_step(sde: SDE, at: Problem, X: Tensor, draws: Tensor) -> Tensor:
    """The mean over all draws of the solver's step with eta = 1, from its own update."""
    steps = []
    for same in X[:, None].expand(-1, len(draws), -1):
        steps.append((same - sde.update(same[None], 0, lambda points: at.stochastic(points, draws))[0]).mean(0))
    return torch.stack(steps)


def saddle(job: JobContext, eta: float, end: float) -> list[dict[str, Any]]:
    """Full-batch solvers and their ODEs from circles around the saddle: what share ends there, and what share leaves.

    `inner` and `outer` are the shares that end at the saddle (within 2 eta rho) of starts with |X| < rho and with
    |y| > 1.05 rho.
    """
    problem = _at_saddle(0.0)
    angles = (torch.arange(ANGLES, dtype=torch.float64) + 0.5) * 2 * math.pi / ANGLES
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    cases = {"gd": ("sgd", None), "sam": ("sam", RHO), "usam-flat": ("usam", FLAT), "usam-steep": ("usam", STEEP)}
    radii = torch.tensor(RADII, dtype=torch.float64) * RHO
    X = (radii[:, None, None] * circle).flatten(0, 1)
    inner, outer = X.norm(dim=1) < RHO, X[:, 1].abs() > 1.05 * RHO
    found = []
    for name, (rule, rho) in cases.items():
        sde = model(rule, problem, eta, **({} if rho is None else {"rho": rho, "draws": 2}))
        steps = round(end / eta)
        solver = discrete(sde, X, steps, len(X), every=steps)
        ode = integrate(sde, X, eta / 2, 2 * steps, len(X), every=2 * steps, noise=0.0)
        for kind, ran in (("solver", solver), ("ode", ode)):
            found.append({"case": name, "kind": kind} | _shares(ran.final[0], 2 * eta * RHO, inner, outer))
        job.progress(len(found), 2 * len(cases))
    return found


def _shares(final: Tensor, near: float, inner: Tensor, outer: Tensor) -> dict[str, Any]:
    """What share of the paths ended nearer than that to the saddle, and what share left."""
    stayed, left = (final.norm(dim=1) <= near).double(), (final[:, 1].abs() >= LEFT).double()
    found = {"inner": stayed[inner].mean(), "outer": stayed[outer].mean(), "left": left.mean()}
    by_radius = stayed.view(len(RADII), ANGLES).mean(1).tolist()
    return {name: float(share) for name, share in found.items()} | {"by_radius": by_radius}


def escape(job: JobContext, rule: str, eta: float, end: float, paths: int) -> dict[str, Any]:
    """The share of paths from |X| = rho / 2 that left with noise in the gradient, solver and SDE (dt = eta).

    DNSAM's SDE is singular at the saddle: not run. `rate` is that of growth along y by the SDE linear at the saddle,
    for the rules that have one.
    """
    generator = torch.Generator().manual_seed(job.seed)
    rows = []
    for number, unit in enumerate(NOISES):
        sde = model(rule, _at_saddle(unit * RHO), eta, **({} if rule == "sgd" else {"rho": RHO}))
        steps = round(end / eta)
        angle = 2 * math.pi * torch.rand(paths, generator=generator, dtype=torch.float64)
        start = RHO / 2 * torch.stack([angle.cos(), angle.sin()], 1)
        ran = discrete(sde, start, steps, paths, generator=generator, every=steps)
        row: dict[str, Any] = {"noise": unit, "solver": _share_gone(ran.final[0])}
        if rule != "dnsam":
            modelled = integrate(sde, start, eta, steps, paths, generator=generator, every=steps)
            row |= {"sde": _share_gone(modelled.final[0]), "rate": -float(linearised(sde).rates().min())}
        rows.append(row)
        job.progress(number + 1, len(NOISES))
    return {"rule": rule, "paths": paths, "rows": rows}


def covariance(job: JobContext, paths: int) -> dict[str, Any]:
    """`step_covariances` as plain numbers."""
    squares, published, ours = step_covariances(paths, torch.Generator().manual_seed(job.seed))
    found = {"solver": squares.mean(0), "stderr": squares.std(0) / math.sqrt(paths)}
    found |= {"published": published.diagonal(), "psd": ours.diagonal()}
    lowest = {f"lowest_{k}": float(torch.linalg.eigvalsh(C)[0]) for k, C in (("published", published), ("psd", ours))}
    return {name: values.tolist() for name, values in found.items()} | lowest


def step_covariances(paths: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Of SAM's steps over eta at the saddle with s = rho: their squares `(paths, 2)`, and what two SDEs say.

    First the published covariance `(2, 2)`, then that of g + rho H g / ||g||, which is positive semi-definite.
    """
    problem = _at_saddle(RHO)
    assert isinstance(problem.noise, GaussianNoise)
    Sigma, H = problem.noise.covariance, problem.H
    sde = SAM(problem, 0.5, rho=RHO, generator=generator)
    z = problem.sample(paths, generator)
    steps = -sde.update(torch.zeros(1, paths, 2, dtype=torch.float64), 0, lambda X: problem.stochastic(X, z))[0] / 0.5
    cross = RHO * H @ directions(Sigma)[0]
    return steps.square(), Sigma + cross + cross.T, linearised(sde).Q / sde.eta


def _at_saddle(deviation: float) -> Quadratic:
    noise = GaussianNoise(torch.full((2,), deviation**2, dtype=torch.float64))
    return Quadratic(torch.tensor(SADDLE, dtype=torch.float64), noise)


def _share_gone(X: Tensor) -> float:
    """The share with |y| >= LEFT; a path that overflowed left too."""
    return float((~(X[:, 1].abs() < LEFT)).double().mean())
