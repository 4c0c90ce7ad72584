"""The claims of `runs.scion`, each with the rule that decides it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Results, Verdict, claim
from runs.scion.jobs import BATCH, BATCHES, GRIDS, NETWORKS, RADII

Sizes = dict[int, float]  # smallest loss by batch size

CHANCE = math.log(10.0)  # the loss that knows nothing, which a run that diverged counts as
ABSTRACT = "arXiv 2603.21191, abstract: at a fixed token budget larger batches help first, then saturate, then hurt"
BALL = 1.21  # of the largest singular value that Newton-Schulz leaves, in place of 1
WINDOW = 2  # values of the grid on each side of the best: factors of 16


def losses(results: Results, job: str) -> dict[float, float]:
    """Mean over seeds of the final training loss by step size."""
    runs = results.data(job)[job]["runs"]
    return {run["lr"]: statistics.fmean(_told(loss) for loss in run["loss"]) for run in runs}


def best(results: Results, job: str) -> tuple[float, float]:
    """The smallest of these losses, and its step size."""
    found = losses(results, job)
    lr = min(found, key=lambda lr: found[lr])
    return found[lr], lr


def accuracy(results: Results, job: str) -> float:
    """The largest mean over seeds of the test accuracy over step sizes."""
    return max(statistics.fmean(run["accuracy"]) for run in results.data(job)[job]["runs"])


def _told(loss: float | None) -> float:
    return CHANCE if loss is None else min(loss, CHANCE)


def by_batch(results: Results) -> dict[str, dict[int, tuple[float, float]]]:
    """Smallest loss and its step size by batch size, for each network."""
    return {
        network: {b: best(results, name) for b in BATCHES if results.data(name := f"{network}-batch-{b}")}
        for network in NETWORKS
    }


def _written(values: dict[Any, float], digits: int = 3) -> str:
    return ", ".join(f"{key}: {short(value, digits)}" for key, value in values.items())


def _batches(name: str, rule: str, holds: Callable[[Sizes], bool], say: Callable[[Results, Sizes, str], str]) -> Any:
    """A claim on the smallest loss by batch size, which must hold on every network."""

    @claim(name, literature=ABSTRACT, criterion=rule, needs="*-batch-*")
    def judge(results: Results) -> Verdict:
        found = {n: {b: loss for b, (loss, _) in sizes.items()} for n, sizes in by_batch(results).items()}
        said = "; ".join(f"{n}: {say(results, sizes, n)}" for n, sizes in found.items())
        kept = {n: {str(b): value for b, value in sizes.items()} for n, sizes in found.items()}
        return Verdict(all(holds(sizes) for sizes in found.values()), said, kept)

    return judge


def _within(sizes: Sizes) -> list[int]:
    """Batch sizes whose loss is within 25 % of the least."""
    return [b for b, loss in sizes.items() if loss <= 1.25 * min(sizes.values())]


def _all(results: Results, sizes: Sizes, network: str) -> str:
    tested = {b: accuracy(results, f"{network}-batch-{b}") for b in sizes}
    return f"loss by batch size {_written(sizes)}, test accuracy {_written(tested)}"


helps = _batches(
    "larger batches help first",
    "on both networks some batch above 4 has at most 0.8 times the final training loss of batch 4, each at its best "
    "step size",
    lambda sizes: min(sizes.values()) <= 0.8 * sizes[min(sizes)],
    _all,
)
saturates = _batches(
    "then saturate",
    "on both networks the batch sizes whose loss is within 25 % of the least span a factor of 4 at least",
    lambda sizes: max(_within(sizes)) >= 4 * min(_within(sizes)),
    lambda results, sizes, n: f"batch sizes {', '.join(map(str, _within(sizes)))}",
)
hurts = _batches(
    "then hurt",
    "on both networks batch 1024 has at least twice the loss of the best batch",
    lambda sizes: sizes[max(sizes)] >= 2 * min(sizes.values()),
    lambda results, sizes, n: f"{short(sizes[max(sizes)] / min(sizes.values()), 3)} times the loss",
)


@claim(
    "the best step size grows with the batch",
    literature="own question (arXiv 2603.21191, abstract: the theory predicts the best step size; its formula was not "
    "at hand)",
    criterion="on both networks the least-squares slope of log2 of the best step size over log2 of the batch size is "
    "above 0.1",
    needs="*-batch-*",
)
def step_sizes(results: Results) -> Verdict:
    """Slopes and best step sizes."""
    found = {n: {b: lr for b, (_, lr) in sizes.items()} for n, sizes in by_batch(results).items()}
    slopes = {
        n: float(np.polyfit(np.log2(list(sizes)), np.log2(list(sizes.values())), 1)[0]) for n, sizes in found.items()
    }
    said = "; ".join(f"{n}: slope {short(slopes[n], 2)}, {_written(sizes)}" for n, sizes in found.items())
    kept = {n: {"slope": slopes[n]} | {str(b): lr for b, lr in sizes.items()} for n, sizes in found.items()}
    return Verdict(all(slope > 0.1 for slope in slopes.values()), "best lr by batch size, " + said, kept)


@claim(
    "mu of the mu-KL condition stays away from 0",
    literature="the condition ‖∇f‖_dual ≥ μ (f - f*) under which arXiv 2603.21191 proves its results (abstract)",
    criterion="in every run, batch 32 and all images, the loss falls to a tenth of its first value at least and the "
    "smallest ratio ‖∇f‖_dual / f seen (while f is above 1e-5, its rounding) is at least half of the first one",
    needs="*-mu-*",
)
def away_from_zero(results: Results) -> Verdict:
    """First, smallest and last ratios, and the exponent of the dual norm in the loss."""
    said, kept, holds = [], {}, []
    for name, data in results.data("*-mu-*").items():
        runs = data["runs"]
        first, least, last = ([pick(run["mu"]) for run in runs] for pick in (_first, min, _last))
        falls = [run["gap"][-1] / run["gap"][0] for run in runs]
        slopes = [float(np.polyfit(np.log(run["gap"]), np.log(run["total"]), 1)[0]) for run in runs]
        holds += [m >= 0.5 * f and fall <= 0.1 for m, f, fall in zip(least, first, falls, strict=True)]
        kept[name] = {"first": first, "least": least, "last": last, "fall": falls, "exponent": slopes}
        said.append(
            f"{name}: first {short(min(first), 2)}, least {short(min(least), 2)}, last {short(min(last), 2)}, loss "
            f"down to {short(max(falls), 2)} of the first, exponent {short(statistics.fmean(slopes), 2)}"
        )
    text = "; ".join(said) + " (smallest of the seeds; exponent: of the dual norm as a power of the loss, fitted)"
    return Verdict(all(holds), text, kept)


def _first(values: list[float]) -> float:
    return values[0]


def _last(values: list[float]) -> float:
    return values[-1]


def sensitivity(results: Results, job: str) -> float | None:
    """Mean over step sizes within 16 times the best of (loss - least loss); None where the grid does not reach."""
    values = list(losses(results, job).values())
    at = values.index(min(values))
    if not WINDOW <= at < len(values) - WINDOW:
        return None
    return statistics.fmean(values[at - WINDOW : at + WINDOW + 1]) - values[at]


@claim(
    "less sensitive to the step size than others",
    literature="own question; the measure is that of Wortsman et al. (arXiv 2309.14322) on training losses",
    criterion="on both networks at batch 32 the mean of (loss - least loss) over the five step sizes within 16 times "
    "the best is smaller for Scion than for SGD with momentum 0.9, Adam and SignSGD",
    needs="*-solver-*",
)
def robust(results: Results) -> Verdict:
    """The measure by solver."""
    found = {n: {s: sensitivity(results, f"{n}-solver-{s}") for s in GRIDS} for n in NETWORKS}
    said = "; ".join(
        f"{n}: " + ", ".join(f"{s} {'grid too short' if v is None else short(v, 3)}" for s, v in values.items())
        for n, values in found.items()
    )
    known = [{s: v for s, v in values.items() if v is not None} for values in found.values()]
    if any(len(values) < len(GRIDS) for values in known):
        return Verdict(None, said, found)
    return Verdict(all(min(values, key=lambda s: values[s]) == "scion" for values in known), said, found)


@claim(
    "a lower training loss than others",
    literature="own question; arXiv 2502.07529 reports speed-ups over Adam on larger networks",
    criterion="on both networks at batch 32 Scion's smallest final training loss over its nine step sizes is below "
    "those of SGD with momentum 0.9, Adam and SignSGD over theirs",
    needs="*-solver-*",
)
def lower(results: Results) -> Verdict:
    """Losses with their step sizes, and accuracies."""
    found = {n: {s: best(results, f"{n}-solver-{s}") for s in GRIDS} for n in NETWORKS}
    said = "; ".join(
        f"{n}: "
        + ", ".join(
            f"{s} {short(loss, 3)} at lr {short(lr, 2)} ({short(accuracy(results, f'{n}-solver-{s}'), 3)})"
            for s, (loss, lr) in values.items()
        )
        for n, values in found.items()
    )
    holds = all(min(values, key=lambda s: values[s]) == "scion" for values in found.values())
    kept = {n: {s: loss for s, (loss, _) in values.items()} for n, values in found.items()}
    return Verdict(holds, said + " (in brackets: best test accuracy)", kept)


LARGE = f"radius-{max(RADII):g}"


@claim(
    "a ball of radius 20 costs nothing, and holds",
    literature="constrained iterates stay in the ball, a decoupled weight decay (arXiv 2502.07529); the comparison is "
    "an own question",
    criterion=f"on both networks at batch 32 the best test accuracy with radius 20 is at least that without a "
    f"constraint less 0.01, and no layer ends outside of {BALL} radii at any step size",
    needs=[f"*-batch-{BATCH}", "*-radius-*"],
)
def ball(results: Results) -> Verdict:
    """Accuracies, losses and the largest norms in units of the radius."""
    said, kept, holds = [], {}, []
    for n in NETWORKS:
        jobs = {"none": f"{n}-batch-{BATCH}"} | {f"{r:g}": f"{n}-radius-{r:g}" for r in RADII}
        rows = {r: (accuracy(results, job), best(results, job)[0], _largest(results, job)) for r, job in jobs.items()}
        said.append(
            f"{n}: "
            + ", ".join(
                f"{r}: accuracy {short(a, 3)}, loss {short(loss, 3)}, largest norm {short(top, 3)}"
                for r, (a, loss, top) in rows.items()
            )
        )
        kept[n] = {r: list(row) for r, row in rows.items()}
        large = rows[f"{max(RADII):g}"]
        holds.append(large[0] >= rows["none"][0] - 0.01 and large[2] <= BALL)
    return Verdict(all(holds), "by radius, " + "; ".join(said), kept)


def _largest(results: Results, job: str) -> float:
    ends = [top for run in results.data(job)[job]["runs"] for top in run["largest"]]
    return max(math.inf if top is None else top for top in ends)


@claim(
    "Newton-Schulz does as well as the exact SVD",
    literature="five steps of Newton-Schulz stand for U Vᵀ (arXiv 2502.07529)",
    criterion="on both networks at batch 32 the smallest losses differ by less than 25 %, the best test accuracies by "
    "less than 0.01 and the best step sizes by a factor of 2 at most",
    needs=[f"*-batch-{BATCH}", "*-exact"],
)
def newton_schulz(results: Results) -> Verdict:
    """Both, beside one another."""
    said, kept, holds = [], {}, []
    for n in NETWORKS:
        jobs = (f"{n}-batch-{BATCH}", f"{n}-exact")
        (loss, lr), (exact, exact_lr) = (best(results, job) for job in jobs)
        a, b = (accuracy(results, job) for job in jobs)
        holds.append(max(loss, exact) < 1.25 * min(loss, exact) and abs(a - b) < 0.01 and 0.5 <= lr / exact_lr <= 2)
        said.append(
            f"{n}: loss {short(loss, 3)} at {short(lr, 2)} against {short(exact, 3)} at {short(exact_lr, 2)}, accuracy "
            f"{short(a, 3)} against {short(b, 3)}"
        )
        kept[n] = {"newton-schulz": [loss, lr, a], "exact": [exact, exact_lr, b]}
    return Verdict(all(holds), "; ".join(said), kept)


CLAIMS = (helps, saturates, hurts, step_sizes, away_from_zero, robust, lower, ball, newton_schulz)
