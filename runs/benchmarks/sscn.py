"""Seconds of SSCN to a gradient norm of 1e-6 on logistic regression, beside a plain numpy loop of the same method.

    python -m runs.benchmarks.sscn [--quick] [--tau 100,500] [--rule ratio --steps 200] [--out FILE.json]

The problem has the shape of the gisette data (N = 6000, n = 5000; random features, standardised) with the non-convex
regulariser of arXiv 2406.16666 (weight 0.1). The loop computes loss, gradient and block from the data at every step,
as published implementations do, with numpy's eigh and the same sub-problem; it keeps the data by rows. Both take the
same subsets, start at M = 1 and follow the same rule, so that they make the same steps. They alternate in stretches;
the true gradient, of all coordinates, is looked at between stretches and is not counted.

The rule is "doubling" unless said otherwise: with "ratio", the published one, M falls to its floor on the many subsets
without negative curvature and neither comes to the target on these data (`runs.sscn`); compare a number of steps then.
"""

from __future__ import annotations

import math
import resource
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.table import Table

from landscape.clock import stopwatch
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from solvers import SSCN, NonConvex, linear_model
from solvers.second_order.acceptance import Rule

TARGET = 1e-6
WEIGHT = 0.1
STRETCH = 20  # steps between two looks at the gradient
MOST = 6000  # steps

Array = np.ndarray[Any, np.dtype[np.float64]]


def problem(samples: int, features: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Standardised features `(N, n)`, labels of a noisy linear rule, and a uniform start."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((samples, features))
    X = (X - X.mean(0)) / X.std(0)
    y = (X @ rng.standard_normal(features) / math.sqrt(features) + 0.5 * rng.standard_normal(samples) > 0).astype(float)
    return X, y, rng.random(features)


class Loop:
    """The published loop in plain numpy: everything anew from the data at each step."""

    def __init__(self, X: Array, y: Array, start: Array, tau: int, generator: torch.Generator, rule: Rule) -> None:
        self.X, self.y, self.w, self.tau, self.generator = X, y, start.copy(), tau, generator
        self.M, self.rule = 1.0, rule

    def value(self, w: Array) -> float:
        """f(w)."""
        z = self.X @ w
        return float(np.mean(np.logaddexp(0, z) - self.y * z) + WEIGHT * np.sum(w**2 / (1 + w**2)))

    def gradient(self) -> Array:
        """Of all coordinates."""
        w = self.w
        p = 1 / (1 + np.exp(-(self.X @ w)))
        return np.asarray(self.X.T @ (p - self.y) / len(self.y) + WEIGHT * 2 * w / (1 + w**2) ** 2)

    def step(self) -> None:
        """One subset, and trial points as the rule wants them."""
        w, n = self.w, len(self.w)
        S = torch.randperm(n, generator=self.generator)[: self.tau].sort().values.numpy()
        f = self.value(w)
        p = 1 / (1 + np.exp(-(self.X @ w)))
        XS = self.X[:, S]
        at = w[S]
        g = XS.T @ (p - self.y) / len(self.y) + WEIGHT * 2 * at / (1 + at**2) ** 2
        H = (XS.T * (p * (1 - p))) @ XS / len(self.y) + np.diag(WEIGHT * (2 - 6 * at**2) / (1 + at**2) ** 3)
        values, U = np.linalg.eigh(H)
        for _ in range(40):
            h = -U @ cubic(U.T @ g, values, self.M)
            decrease = -(g @ h + 0.5 * h @ (H @ h) + self.M / 6 * np.linalg.norm(h) ** 3)
            trial = w.copy()
            trial[S] += h
            change = f - self.value(trial)
            if self.rule == "doubling" and change < decrease:
                self.M *= 2
                continue
            rho = change / decrease
            good = self.rule == "doubling" or rho >= 0.9
            self.w = trial if good or (rho >= 0.05 and change >= 0) else w
            self.M = max(self.M / 2, 1e-10) if good else self.M if rho >= 0.05 else 1.5 * self.M
            return


def cubic(c: Array, values: Array, M: float) -> Array:
    """The minimiser (its negative) in the eigenbasis, by Newton on the shifted secular equation (no hard case)."""
    base = max(0.0, -values[0])
    gap = values - values[0] if base > 0 else values
    size, a = float(np.linalg.norm(c)), abs(values[0])
    d = M * size / (a + math.sqrt(a * a + 2 * M * size))
    for _ in range(100):
        s = c / (gap + d)
        norm, lam = float(np.linalg.norm(s)), base + d
        if abs(norm - 2 * lam / M) <= 1e-13 * norm:
            break
        slope = float(np.sum(s * s / (gap + d))) / norm**3 + M / (2 * lam**2)
        d = max(d - (1 / norm - M / (2 * lam)) / slope, 0.1 * d)
    return np.asarray(c / (gap + d))


def race(samples: int, features: int, tau: int, target: float, rule: Rule = "doubling", most: int = MOST) -> Row:
    """Both to the target or to `most` steps, in alternation: seconds, steps, and the gradient norm they came to."""
    X, y, start = problem(samples, features)
    loop = Loop(X, y, start, tau, torch.Generator().manual_seed(1), rule)
    model = linear_model(X, y, "logistic", NonConvex(WEIGHT), start=start)
    solver = SSCN([model.weight], tau, rule=rule, generator=torch.Generator().manual_seed(1))
    ways: dict[str, tuple[Callable[[], object], Callable[[], Any]]] = {  # a step, and the gradient's norm
        "numpy loop": (loop.step, lambda: np.linalg.norm(loop.gradient())),
        "SSCN": (lambda: solver.step(model), lambda: torch.autograd.grad(model(), model.weight)[0].norm()),
    }
    times, norms = {name: list[float]() for name in ways}, dict.fromkeys(ways, math.inf)
    while any(norms[name] > target and len(times[name]) < most for name in ways):
        for name, (step, norm) in ways.items():
            if norms[name] > target:
                times[name] += [stopwatch(step, torch.device("cpu"))[0] for _ in range(STRETCH)]
                norms[name] = float(norm())
    row: Row = {"samples": samples, "features": features, "tau": tau, "rule": rule, "target": target}
    for name, seconds in times.items():
        row[name] = {"steps": len(seconds), "seconds": sum(seconds)}
        row[name] |= {"median_step": statistics.median(seconds), "norm": norms[name]}
    theirs, ours = row["numpy loop"], row["SSCN"]
    row |= {"ratio": theirs["seconds"] / ours["seconds"], "step_ratio": theirs["median_step"] / ours["median_step"]}
    return row | {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    headings = "N x n", "tau", "rule", "steps", "seconds", "ms a step (median)", "ratio", "ratio of medians"
    cells = []
    for row in rows:
        both = [row["numpy loop"], row["SSCN"]]
        steps = " / ".join(str(way["steps"]) for way in both)
        seconds = " / ".join(f"{way['seconds']:.1f}" for way in both)
        medians = " / ".join(f"{1e3 * way['median_step']:.2f}" for way in both)
        shape, ratios = f"{row['samples']} x {row['features']}", (f"{row[k]:.2f}" for k in ("ratio", "step_ratio"))
        cells.append((shape, str(row["tau"]), row["rule"], steps, seconds, medians, *ratios))
    return command.table("seconds to the target, numpy loop / SSCN", headings, cells)


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    rule = {"choices": ("doubling", "ratio"), "default": "doubling"}
    steps = {"type": int, "default": MOST, "help": "at most so many, for the ratio of steps alone"}
    more: Row = {"tau": {"default": "100,500"}, "rule": rule, "steps": steps}
    chosen = command.arguments(words, __doc__, quick="a small problem", **more)
    samples, features = (60, 40) if chosen.quick else (6000, 5000)
    sizes = [10, 20] if chosen.quick else [int(tau) for tau in chosen.tau.split(",")]
    rows = [race(samples, features, tau, TARGET, chosen.rule, chosen.steps) for tau in sizes]
    console.print(table(rows))
    command.write(chosen, "sscn", rows=rows)


if __name__ == "__main__":
    main()
