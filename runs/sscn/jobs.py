"""The jobs of `runs.sscn`: one solver on one problem, from one or several starts.

Group `steps-0` of a trace has a row a step (f, tau, M, seconds and the sum of tau^2 + tau so far), `gradient-0` the
norm of the whole gradient, looked at every few steps. Seconds are CPU seconds of the steps alone, so that another
process on the core does not count. A dense step in tau coordinates is counted as tau^2 + tau, also where it is tried
with several M; coordinate descent as tau, gradient methods as n, a Krylov step as n for each product.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.sscn.problems import Case, make
from solvers import RSRNM, SSCN, Adaptive, CoordinateDescent, CubicNewton, Exponential, Linear

LEVELS = (1e-2, 1e-4, 1e-6, 1e-9)  # gradient norms that are looked for
LOOKED_AT = 1e-2  # gradient norm from which the smallest eigenvalue of the Hessian is found at the end
RULES = ("doubling", "ratio")
SCHEDULES = ("exponential", "linear", "adaptive", "adaptive-tight")
SIZES = {
    "cancer": (3, 10),
    "digits": (6, 20),
    "lse": (20, 50, 100),
    "gisette": (20, 50, 100, 200),
    "duke": (50, 100, 200, 500),
    "mlp": (20, 100),
}
PROBLEMS = tuple(SIZES)
LINEAR = PROBLEMS[:-1]
# steps that SSCN may take, with the published number for duke; starts; steps from one look at the gradient to the next
STEPS = {"cancer": 4000, "digits": 4000, "lse": 3000, "gisette": 4000, "duke": 5000, "mlp": 600}
STARTS = {"cancer": 3, "digits": 3, "lse": 2}
EVERY = {"gisette": 5, "duke": 5, "lse": 2, "cancer": 2, "digits": 2}
FILE_SECONDS = 20.0  # of each solver on a file of the user
LR = 0.5  # of gradient descent on the network, where no smoothness is known

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
    "seconds": _STEP["seconds"],
    "coordinates": _STEP["coordinates"],
}


def plan(quick: bool) -> list[Job]:
    """Every problem with the solvers that stand beside one another on it; quick: all of them, cut short."""
    return [job for problem in ("duke", "gisette", "mlp", "lse", "digits", "cancer") for job in _jobs(problem, quick)]


def middle_size(problem: str) -> int:
    """The size in the middle of those of a problem; of two the larger one."""
    return SIZES[problem][len(SIZES[problem]) // 2]


def _jobs(problem: str, quick: bool) -> list[Job]:
    common = {"problem": problem, "every": EVERY.get(problem, 1), "starts": 1 if quick else STARTS.get(problem, 1)}
    steps, sizes, middle = STEPS[problem], SIZES[problem], middle_size(problem)
    wide = problem in ("duke", "gisette")
    most, first = 15.0 if problem == "mlp" else 60.0, 10.0 if wide else 5.0  # CPU seconds a start

    def job(name: str, solver: str, size: int, steps: int, seconds: float = 60.0, **changed: Any) -> Job:
        limits = {"steps": steps, "seconds": 0.15 if quick else seconds}
        settings = common | {"solver": solver, "size": size} | limits | changed
        return Job(f"{problem}-{name}", descend, settings, problem)

    made = [job(f"doubling-{tau}", "doubling", tau, steps, most) for tau in sizes[::-1]]
    if problem != "mlp":
        # a rejected step costs as much as another, so that a stall would take all the time there is
        made += [job(f"ratio-{tau}", "ratio", tau, steps, 25.0 if wide else 8.0) for tau in sizes[::-1]]
        made.append(job(f"rsrnm-{middle}", "rsrnm", middle, 4000, 12.0 if wide else 5.0))
        made.append(job(f"rsrnm-unit-{middle}", "rsrnm-unit", middle, 4000, 12.0 if wide else 5.0))
    if problem in ("gisette", "lse"):
        kinds = SCHEDULES if problem == "gisette" else SCHEDULES[:2]
        made += [job(name, name, 50 if problem == "gisette" else 20, steps, 12.0) for name in kinds]
    made.append(job("cubic", "krylov" if problem == "duke" else "cubic", 0, 300, min(most, 30.0), every=1))
    made += [job(f"cd-{tau}", "cd", tau, max(steps, 4000), first) for tau in (sizes[0], middle)]
    made.append(job("gd", "gd", 0, 20_000, first, every=10))
    made.append(job("lbfgs", "lbfgs", 0, 2000, first, every=1))
    return made


class StepReport(NamedTuple):
    """What is known of a step: the loss before it, its size tau, M of the next, and its cost in coordinates."""

    loss: float
    tau: int
    M: float
    accepted: bool
    stalled: bool
    cost: float


def mover(problem: Case, solver: str, size: int, seed: int) -> Callable[[], StepReport]:
    """The solver of that name on the problem: each call makes a step. Its subsets follow from the seed."""
    p, n = problem.parameters, problem.n
    generator = torch.Generator().manual_seed(seed)
    if solver == "gd":
        lr = LR if math.isnan(problem.smoothness) else 1 / problem.smoothness
        return _of_torch(torch.optim.SGD(p, lr=lr), problem)
    if solver == "lbfgs":
        exact = partial(torch.optim.LBFGS, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe")
        return _of_torch(exact(p, max_iter=1, max_eval=50, history_size=20), problem)
    tau, common = min(size, n), dict[str, Any](generator=generator)
    ways: dict[str, Callable[[], Any]] = {
        "doubling": lambda: SSCN(p, tau, rule="doubling", **common),
        "ratio": lambda: SSCN(p, tau, rule="ratio", **common),
        "exponential": lambda: SSCN(p, Exponential(size, 0.1, 0.02), rule="doubling", **common),
        "linear": lambda: SSCN(p, Linear(size, 1.0), rule="doubling", **common),
        "adaptive": lambda: SSCN(p, Adaptive(size, 10.0, 0.5), rule="doubling", **common),
        "adaptive-tight": lambda: SSCN(p, Adaptive(size, 1e-6, 0.5), rule="doubling", **common),
        "cubic": lambda: CubicNewton(p, tol=1e-8, **common),
        "krylov": lambda: CubicNewton(p, krylov=True, tol=1e-8, **common),
        "cd": lambda: CoordinateDescent(p, tau, keep=True, **common),
        "rsrnm": lambda: RSRNM(p, tau, **common),
        "rsrnm-unit": lambda: RSRNM(p, tau, scale=size**-0.5, **common),
    }
    if solver not in ways:
        raise ValueError(f"unknown solver {solver!r}")
    made = ways[solver]()

    def step() -> StepReport:
        made.step(problem.closure)
        it = made.last
        cost = {"krylov": n * it.products, "cd": it.size}.get(solver, it.size**2 + it.size)
        return StepReport(it.loss, it.size, it.M, it.accepted, it.stalled, float(cost))

    return step


def _of_torch(optimizer: torch.optim.Optimizer, problem: Case) -> Callable[[], StepReport]:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.closure()
        loss.backward()
        return loss

    def step() -> StepReport:
        loss = cast(Tensor, optimizer.step(cast(Any, closure)))
        return StepReport(float(loss.detach()), problem.n, math.nan, True, False, float(problem.n))

    return step


def descend(
    job: JobContext,
    problem: str,
    solver: str,
    size: int,
    steps: int,
    seconds: float,
    every: int,
    starts: int,
    file: str = "",
) -> dict[str, Any]:
    """Runs of one solver from several starts until ||g|| is 1e-9, or steps or seconds are used up.

    `file` tells apart the contents of files with one name.
    """
    runs = []
    with job.trace(problem=problem, solver=solver, size=size, file=file) as trace:
        for start in range(starts):
            seed = (job.seed + start) % 2**63
            mover(make("tiny", seed), solver, min(size, 30), seed)()  # the first step of a process is slow
            made = make(problem, seed)
            trace.declare(f"steps-{start}", _STEP)
            trace.declare(f"gradient-{start}", _LOOK)

            def tell(step: int, start: int = start) -> None:
                job.progress(start * steps + step, starts * steps)

            move = mover(made, solver, size, seed)
            runs.append({"seed": seed} | _run(made, move, trace, start, steps, seconds, every, tell))
    return {"problem": problem, "solver": solver, "n": made.n, "samples": made.samples, "size": size, "runs": runs}


def _run(
    problem: Case,
    move: Callable[[], StepReport],
    trace: Any,
    start: int,
    steps: int,
    seconds: float,
    every: int,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    spent, coordinates, accepted, step, first = 0.0, 0.0, 0, 0, float(problem.closure().detach())
    norm = best = problem.gradient_norm()
    reached: dict[str, dict[str, float]] = {}
    M, ended = math.nan, "steps"
    trace.record(f"gradient-{start}", 0, norm=norm, seconds=0.0, coordinates=0.0)
    while step < steps:
        before = time.process_time()
        loss, tau, M, moved, stalled, cost = move()
        spent += time.process_time() - before
        coordinates += cost
        accepted += moved
        row = {"loss": loss, "seconds": spent, "coordinates": coordinates}
        trace.record(f"steps-{start}", step, **row, tau=tau, M=M, accepted=moved, stalled=stalled)
        step += 1
        tell(step)
        if not math.isfinite(loss):
            ended = "diverged"
            break
        if step % every and step < steps and spent < seconds:
            continue
        norm = problem.gradient_norm()
        best = min(best, norm)
        trace.record(f"gradient-{start}", step, norm=norm, seconds=spent, coordinates=coordinates)
        here = {"steps": step, "seconds": round(spent, 5), "coordinates": coordinates}
        reached = {f"{level:g}": here for level in LEVELS if norm <= level} | reached
        if norm <= LEVELS[-1] or spent >= seconds:
            ended = "1e-9" if norm <= LEVELS[-1] else "seconds"
            break
    lowest, error = problem.lowest() if norm <= LOOKED_AT else (math.nan, math.inf)
    spending = {"steps": step, "seconds": round(spent, 4), "coordinates": coordinates, "accepted": accepted}
    losses = {"first_loss": first, "loss": float(problem.closure().detach())}
    found = {"gradient_norm": norm, "least_norm": best, "M": _plain(M), "lambda_min": _plain(lowest)}
    return {"ended": ended} | spending | losses | found | {"lambda_error": _plain(error), "to": reached}


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def of_file(problem: str, n: int, file: str) -> list[Job]:
    """The reduced set of solvers for a user's file with n features; `file` tells its contents."""
    sizes = sorted({max(1, n // 20), max(1, n // 5)})
    chosen: Mapping[str, tuple[str, int]] = {
        **{f"{rule}-{tau}": (rule, tau) for tau in sizes for rule in RULES},
        "cubic": ("cubic" if n <= 1500 else "krylov", 0),
        f"cd-{sizes[-1]}": ("cd", sizes[-1]),
        "gd": ("gd", 0),
        "lbfgs": ("lbfgs", 0),
    }
    common = {"problem": problem, "steps": 3000, "seconds": FILE_SECONDS, "every": 5, "starts": 1, "file": file}
    return [Job(f"file-{k}", descend, common | {"solver": s, "size": t}, "file") for k, (s, t) in chosen.items()]
