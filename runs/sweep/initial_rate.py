"""The maximal initial learning rate: the largest constant step size from a start that reaches a training accuracy.

    python -m runs.sweep.initial_rate --problem digits-mlp --solver sgd --accuracy 0.9 --steps 200 --seeds 3

After Iyer, Hanin, Rolnick (ICML 2023), who find it to be related to, but not inversely proportional to, the largest
eigenvalue of the Hessian at the start. Whether a rate reaches the accuracy is found by training: rates are doubled from
a first one while they do, or halved until one does, and the bracket is bisected in the logarithm to a factor. Success
need not end for good where it first does: what is found is an end of success among the rates that were tried. Beside it
stand 2 / lambda_max and the step along the gradient that raises the loss (2 / critical sharpness), both at the start.

Each seed draws weights and the order of the data, as in `runs.sweep`; problems and solvers have the same names.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from landscape import Hessian
from landscape.sharpness import critical_sharpness
from landscape.spectra import eigsh
from probes.errors import UserError, one_line
from probes.numbers import finite, plus_minus, short
from probes.sweep.problems import TrainingTask, build, evaluate
from probes.sweep.sweep import slug
from probes.sweep.training import Descent
from probes.views.tables import table
from runs.engine.experiment import OUT
from runs.engine.options import ending
from runs.sweep import problems, solvers


@dataclass(frozen=True)
class MaximalRate:
    """The end of success of one seed.

    Attributes:
        lower: the largest rate that reached the accuracy, with every larger one that was tried failing; 0 for none.
        upper: the smallest rate above it that did not; inf for none.
        runs: trainings.
        steps: of all of them, each a gradient of a mini-batch.
        converged: upper is at most `factor` times lower.
        seconds: for the trainings.
        edge: 2 / lambda_max of the whole training data at the start; inf where there is no positive eigenvalue.
        critical: 2 / critical sharpness there, the smallest step along the gradient that raises the loss.
        seed: of weights and order.
    """

    lower: float
    upper: float
    runs: int
    steps: int
    converged: bool
    seconds: float = 0.0
    edge: float = math.nan
    critical: float = math.nan
    seed: int = 0

    @property
    def value(self) -> float:
        """The geometric mean of the bracket; nan where it has an open end."""
        return math.sqrt(self.lower * self.upper) if self.lower > 0 and self.upper < math.inf else math.nan


def search(
    reaches: Callable[[float], tuple[bool, int]], start: float, factor: float = 1.1, max_runs: int = 30
) -> MaximalRate:
    """The bracket of the largest rate that succeeds, by doubling or halving from `start`, then bisection.

    Args:
        reaches: trains at a rate: whether it got there, and the steps made.
        start: the first rate.
        factor: of upper over lower, at the end.
        max_runs: trainings at most; what is known by then is returned, not converged.

    Raises:
        ValueError: start that is not positive, factor that is not above 1, no run.
    """
    if not (0 < start < math.inf and factor > 1 and max_runs >= 1):
        raise ValueError(f"start={start}, factor={factor}, max_runs={max_runs}: positive, above 1, at least 1")
    lower, upper, rate, runs, steps = 0.0, math.inf, start, 0, 0
    while runs < max_runs and not upper <= factor * lower:
        got_there, made = reaches(rate)
        runs, steps = runs + 1, steps + made
        if got_there:
            lower = rate
        else:
            upper = rate
        between = math.sqrt(lower * upper) if lower else upper / 2
        rate = 2 * lower if upper == math.inf else between
    return MaximalRate(lower, upper, runs, steps, upper <= factor * lower)


def trained(
    task: TrainingTask, spec: str, lr: float, steps: int, batch: int, accuracy: float, *, order: int, looks: int
) -> tuple[bool, int]:
    """Whether training from where the model stands reaches the accuracy over all training data, and the steps made.

    It is looked at `looks` times, evenly spaced, and training ends where it is reached or the loss is not finite.
    """
    descent, made, length = Descent(task, spec, lr, steps, batch, order=order), 0, max(steps // looks, 1)
    draws = task.draws(batch, steps, order)
    while made < steps:
        for _ in range(min(length, steps - made)):
            made += 1
            if not math.isfinite(descent.advance(next(draws))):
                return False, made
        if evaluate(task.objective)[1] >= accuracy:
            return True, made
    return False, made


def maximal_rate(
    problem: str,
    solver: str = "sgd",
    *,
    accuracy: float = 0.9,
    steps: int = 200,
    batch: int = 64,
    seed: int = 0,
    start: float | None = None,
    factor: float = 1.1,
    max_runs: int = 30,
    looks: int = 10,
) -> MaximalRate:
    """The maximal initial rate of a solver on a problem, from the weights that the seed draws.

    Args:
        problem, solver: names or module:function and module:Class, as in `Sweep`.
        accuracy: share of right answers over all training data that has to be reached.
        steps: of a training at most.
        batch: samples of a mini-batch; as many as there are, or more, is the whole data.
        start: the first rate; default 2 / lambda_max.
        factor, max_runs: as in `search`.
        looks: how often a training is looked at.

    Raises:
        UserError: as `build`, and for a problem without classes.
        ValueError: as `search`, and for an accuracy outside (0, 1], steps, batch or looks below 1.
    """
    if not 0 < accuracy <= 1 or min(steps, batch, looks) < 1:
        raise ValueError(f"accuracy={accuracy} is above 0 and at most 1; steps, batch and looks are at least 1")
    where, spec = problems.spec(problem), solvers.spec(solver)
    task = build(where, seed)
    if math.isnan(evaluate(task.objective)[1]):
        raise UserError(f"{problem} has no accuracy: its outputs are no logits with classes as targets", status=2)
    edge, critical = _at_the_start(task, seed)
    began = time.perf_counter()

    def reaches(rate: float) -> tuple[bool, int]:
        with torch.random.fork_rng(devices=[]):  # dropout draws the same numbers at each rate
            torch.manual_seed(seed)
            fresh = build(where, seed)  # the same weights
            return trained(fresh, spec, rate, steps, batch, accuracy, order=seed, looks=looks)

    first = start or next((one for one in (edge, critical) if math.isfinite(one)), 1.0)
    found = search(reaches, first, factor, max_runs)
    told = {"seconds": time.perf_counter() - began, "edge": edge, "critical": critical, "seed": seed}
    return MaximalRate(**asdict(found) | told)


def _at_the_start(task: TrainingTask, seed: int) -> tuple[float, float]:
    """2 / lambda_max, and the smallest step along the gradient that raises the loss."""
    H = Hessian(task.objective)
    top = float(eigsh(H, k=1, tol=1e-2, generator=torch.Generator().manual_seed(seed)).values[0])
    H.release()
    value = critical_sharpness(task.objective).value
    return (2 / top if top > 0 else math.inf), (2 / value if value > 0 else math.inf)


def main(words: Sequence[str]) -> None:
    """The command of the module."""
    parser = argparse.ArgumentParser(prog="python -m runs.sweep.initial_rate", description=str(__doc__).splitlines()[0])
    parser.add_argument("--problem", required=True, help=f"{', '.join(problems.PROBLEMS)} or FILE.py:FUNCTION")
    parser.add_argument("--solver", default="sgd", help=f"{', '.join(solvers.SOLVERS)} or module:Class, with options")
    parser.add_argument("--accuracy", type=float, default=0.9, help="on the training data, to be reached (default 0.9)")
    parser.add_argument("--steps", type=int, default=200, help="of a training at most (default 200)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", type=float, help="first rate (default: 2 / lambda_max)")
    parser.add_argument("--factor", type=float, default=1.1, help="of the bracket's ends (default 1.1)")
    parser.add_argument("--max-runs", type=int, default=30, help="trainings of a seed at most")
    parser.add_argument("-o", "--out", type=Path, help="JSON (default: runs/out/initial-rate/PROBLEM.json)")
    chosen = parser.parse_args(words)
    options = {name: getattr(chosen, name) for name in ("accuracy", "steps", "batch", "start", "factor", "max_runs")}
    with ending(Console(stderr=True)):
        try:
            found = [maximal_rate(chosen.problem, chosen.solver, seed=seed, **options) for seed in range(chosen.seeds)]
        except ValueError as error:
            raise UserError(one_line(error), status=2) from error
        file = chosen.out or OUT / "initial-rate" / f"{slug(chosen.problem)}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        settings = {"problem": chosen.problem, "solver": chosen.solver, **options}
        file.write_text(json.dumps(finite({"settings": settings, "seeds": [asdict(one) for one in found]}), indent=1))
        show(found, Console(width=None if sys.stdout.isatty() else 140))
        print(f"  {file}")


def show(found: Sequence[MaximalRate], console: Console) -> None:
    """A row for each seed."""
    caption = "± half of the bracket; 2 / λ₁ and critical step: at the start, on all training data"
    view = table(caption=caption)
    for heading in ("seed", "maximal rate", "2 / λ₁", "rate λ₁ / 2", "critical step", "runs", "steps", "converged"):
        view.add_column(heading, justify="right")
    for one in found:
        rate = plus_minus(one.value, (one.upper - one.lower) / 2) if math.isfinite(one.value) else _open(one)
        ends = rate, short(one.edge), short(one.value / one.edge), short(one.critical)
        view.add_row(str(one.seed), *ends, str(one.runs), str(one.steps), "yes" if one.converged else "no")
    console.print(view)


def _open(found: MaximalRate) -> str:
    """A bracket that was not closed."""
    return f"> {short(found.lower)}" if found.lower else f"< {short(found.upper)}"


if __name__ == "__main__":
    main(sys.argv[1:])
