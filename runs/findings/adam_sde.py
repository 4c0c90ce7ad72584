"""Adam's SDE at the time 0."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runs.findings.finding import Finding, Seen, number
from solvers.diffusion import Adam, Quadratic, discrete, integrate

ETAS, PATHS, FINER = (0.2, 0.1, 0.05), 20_000, 10
RATES = 2.0, 1.0  # (1 - beta_i) / eta
LATER, END = 0.6, 1.6


def measure() -> Seen:
    """How far the mean of the SDE is from the solver's at one time, by where the SDE starts."""
    found = {eta: _distances(eta) for eta in ETAS}
    names = [f"m = v = 0, t = η / {FINER}", "the first step, t = η", f"the solver's paths at t = {LATER}"]
    columns = [[found[eta][i] for eta in ETAS] for i in range(len(names))]
    powers = [math.log(line[0] / line[-1]) / math.log(ETAS[0] / ETAS[-1]) for line in columns]
    rows = [
        (name, *map(number, line), f"{power:.2f}") for name, line, power in zip(names, columns, powers, strict=True)
    ]
    again = powers[0] < 0.75 and powers[1] < 0.75 and powers[2] > 0.8
    return Seen(("starts from", *(f"η = {eta}" for eta in ETAS), "power of η"), rows, again)


def _distances(eta: float) -> list[float]:
    problem = Quadratic(torch.tensor([1.0, 0.5]).double(), torch.tensor([0.25, 1.0]).double())
    x0 = torch.tensor([2.0, 1.5], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    betas = 1 - RATES[0] * eta, 1 - RATES[1] * eta
    sde = Adam(problem, eta, betas=betas, eps=0.1, moment_noise=False, lookahead=False)

    def solver(end: float) -> Tensor:
        steps = round(end / eta)
        return discrete(sde, x0, steps, PATHS, generator=generator, every=steps).final

    def mean(state: Tensor, begin: float) -> Tensor:
        dt = eta / FINER
        steps = round((END - begin) / dt)
        start = state, begin
        return integrate(sde, x0, dt, steps, PATHS, generator=generator, every=steps, start=start).final[0].mean(0)

    end = solver(END)[0].mean(0)
    starts = (sde.begin(x0.expand(PATHS, 2).clone()), eta / FINER), (solver(eta), eta), (solver(LATER), LATER)
    return [float((mean(*start) - end).norm()) for start in starts]


FINDING = Finding(
    "adam-sde",
    "arXiv 2411.15958 (Compagnoni et al. 2024)",
    "the SDE of Adam with bias correction approximates it weakly to order 1",
    "from a fixed later time it does; at t = 0 it is 0/0, and started there, or from the first step, the error falls "
    "as a smaller power of η",
    measure,
)
