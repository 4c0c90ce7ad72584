"""The jobs of `runs.sscn`: one solver on one problem, from one or several starts.

Group `steps-0` of a trace has a row a step (f, tau, M, seconds and the sum of tau^2 + tau so far), `gradient-0` two
norms of the gradient at every few steps: that of the whole, and the running mean by which the authors' code stops.
Seconds are processor seconds of the steps alone (`time.process_time`), so that another process on the core does not
count; the gradient of the whole is looked at in between and not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from probes.sweep.jobs import JobContext
from probes.trace.layout import Field
from runs.sscn.movers import StepReport, mover
from runs.sscn.problems import Case, make

LEVELS = (1e-2, 1e-4, 1e-6, 1e-9)  # gradient norms that are looked for
LOOKED_AT = 1e-2  # gradient norm from which the smallest eigenvalue of the Hessian is found at the end

_STEP = {
    "loss": Field((), "float64", "loss", "f where the step began"),
    "seconds": Field((), "float64", "s", "CPU time of the steps so far, this one included"),
    "coordinates": Field((), "float64", "", "sum of tau^2 + tau so far, this step included"),
    "tau": Field((), "int64", "", "coordinates of the step"),
    "M": Field((), "float64", "", "of the next step; nan where the solver has none"),
    "accepted": Field((), "bool", "", "whether the step moved"),
    "stalled": Field((), "bool", "", "whether its promise was below the rounding of f"),
}
_LOOK = {
    "norm": Field((), "float64", "", "of the whole gradient after that many steps"),
    "estimate": Field((), "float64", "", "running mean of its norm in the subsets; nan where there are none"),
    "seconds": _STEP["seconds"],
    "coordinates": _STEP["coordinates"],
}


def descend(
    job: JobContext,
    problem: str,
    solver: str,
    size: int,
    steps: int,
    seconds: float,
    every: int,
    starts: int,
    until: float = LEVELS[-1],
    c: float = 0.0,
    file: str = "",
) -> dict[str, Any]:
    """Runs of one solver from several starts until ||g|| is `until`, or steps or seconds are used up.

    `file` tells apart the contents of files with one name.
    """
    runs = []
    with job.trace(problem=problem, solver=solver, size=size, c=c, file=file) as trace:
        for start in range(starts):
            seed = (job.seed + start) % 2**63
            mover(make("tiny", seed), solver, min(size, 30), seed, c or 1.0)()  # the first step of a process is slow
            made = make(problem, seed)
            trace.declare(f"steps-{start}", _STEP)
            trace.declare(f"gradient-{start}", _LOOK)

            def tell(step: int, start: int = start) -> None:
                job.progress(start * steps + step, starts * steps)

            move = mover(made, solver, size, seed, c)
            runs.append({"seed": seed} | _run(made, move, trace, start, steps, seconds, every, until, tell))
    return {"problem": problem, "solver": solver, "n": made.n, "samples": made.samples, "size": size, "runs": runs}


def _run(
    problem: Case,
    move: Callable[[], StepReport],
    trace: Any,
    start: int,
    steps: int,
    seconds: float,
    every: int,
    until: float,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    spent, coordinates, accepted, step, first = 0.0, 0.0, 0, 0, float(problem.closure().detach())
    norm = best = problem.gradient_norm()
    reached: dict[str, dict[str, float]] = {}
    estimated: dict[str, dict[str, float]] = {}
    M, ended, whole = math.nan, "steps", 0
    trace.record(f"gradient-{start}", 0, norm=norm, estimate=math.nan, seconds=0.0, coordinates=0.0)
    while step < steps:
        before = time.process_time()
        loss, tau, M, moved, stalled, cost, estimate = move()
        spent += time.process_time() - before
        coordinates += cost
        accepted += moved
        whole += tau == problem.n
        row = {"loss": loss, "seconds": spent, "coordinates": coordinates}
        trace.record(f"steps-{start}", step, **row, tau=tau, M=M, accepted=moved, stalled=stalled)
        step += 1
        tell(step)
        if not math.isfinite(loss):
            ended = "diverged"
            break
        for level in LEVELS:
            if estimate <= level and f"{level:g}" not in estimated:
                estimated[f"{level:g}"] = {"steps": step, "norm": problem.gradient_norm()}
        if step % every and step < steps and spent < seconds:
            continue
        norm = problem.gradient_norm()
        best = min(best, norm)
        look = {"norm": norm, "estimate": estimate, "seconds": spent, "coordinates": coordinates}
        trace.record(f"gradient-{start}", step, **look)
        here = {"steps": step, "seconds": round(spent, 5), "coordinates": coordinates}
        reached = {f"{level:g}": here for level in LEVELS if norm <= level} | reached
        if norm <= until or spent >= seconds:
            ended = f"{until:g}" if norm <= until else "seconds"
            break
    lowest, error = problem.lowest() if norm <= LOOKED_AT else (math.nan, math.inf)
    spending = {"steps": step, "seconds": round(spent, 4), "coordinates": coordinates, "accepted": accepted}
    losses = {"first_loss": first, "loss": float(problem.closure().detach())}
    found = {"gradient_norm": norm, "least_norm": best, "M": _plain(M), "lambda_min": _plain(lowest)}
    told = {"lambda_error": _plain(error), "whole_steps": whole, "to": reached, "estimate": estimated}
    return {"ended": ended} | spending | losses | found | told


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
