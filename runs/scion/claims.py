"""The claims of `runs.scion`, each with the rule that decides it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Claim, Results, Verdict, claim, every
from runs.scion.jobs import BATCH, BATCHES, GRIDS, NETWORKS, RADII

Sizes = dict[int, float]  # smallest loss by batch size

CHANCE = math.log(10.0)  # the loss that knows nothing, which a run that diverged counts as
ABSTRACT = "arXiv 2603.21191, abstract: at a fixed token budget larger batches help first, then saturate, then hurt"
BALL = 1.21  # of the largest singular value that Newton-Schulz leaves, in place of 1
WINDOW = 2  # values of the grid on each side of the best: factors of 16


def losses(results: Results, job: str) -> dict[float, float]:
    """Mean over seeds of the final training loss by step size."""

    def mean(found: list[float | None]) -> float:
        return statistics.fmean(CHANCE if loss is None else min(loss, CHANCE) for loss in found)

    return {run["lr"]: mean(run["loss"]) for run in results.one(job)["runs"]}


def best(results: Results, job: str) -> tuple[float, float]:
    """The smallest of these losses, and its step size."""
    lr, loss = min(losses(results, job).items(), key=lambda pair: pair[1])
    return loss, lr


def accuracy(results: Results, job: str) -> float:
    """The largest mean over seeds of the test accuracy over step sizes."""
    return max(statistics.fmean(run["accuracy"]) for run in results.one(job)["runs"])


def best_by_batch(results: Results) -> dict[str, dict[int, tuple[float, float]]]:
    """Smallest loss and its step size by batch size, for each network."""
    return {
        network: {b: best(results, name) for b in BATCHES if results.data(name := f"{network}-batch-{b}")}
        for network in NETWORKS
    }


def _text(values: dict[Any, float], digits: int = 3) -> str:
    return ", ".join(f"{key}: {short(value, digits)}" for key, value in values.items())


def _batches(name: str, rule: str, holds: Callable[[Sizes], bool], say: Callable[[Results, Sizes, str], str]) -> Claim:
    """A claim on the smallest loss by batch size, which must hold on every network."""

    @claim(name, source="abstract", literature=ABSTRACT, criterion=rule, needs="*-batch-*")
    def judge(results: Results) -> Verdict:
        found = {n: {b: loss for b, (loss, _) in sizes.items()} for n, sizes in best_by_batch(results).items()}
        kept = {n: {str(b): value for b, value in sizes.items()} for n, sizes in found.items()}
        return every(found, holds, lambda n, sizes: f"{n}: {say(results, sizes, n)}", numbers=kept)

    return judge


def _within(sizes: Sizes) -> list[int]:
    """Batch sizes whose loss is within 25 % of the least."""
    return [b for b, loss in sizes.items() if loss <= 1.25 * min(sizes.values())]


def _all(results: Results, sizes: Sizes, network: str) -> str:
    tested = {b: accuracy(results, f"{network}-batch-{b}") for b in sizes}
    return f"loss by batch size {_text(sizes)}, test accuracy {_text(tested)}"


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
    source="own",
    literature="own question (arXiv 2603.21191, abstract: the theory predicts the best step size; its formula was not "
    "at hand)",
    criterion="on both networks the least-squares slope of log2 of the best step size over log2 of the batch size is "
    "above 0.1",
    needs="*-batch-*",
)
def step_sizes(results: Results) -> Verdict:
    found = {n: {b: lr for b, (_, lr) in sizes.items()} for n, sizes in best_by_batch(results).items()}
    slopes = {n: float(np.polyfit(np.log2([*sizes]), np.log2([*sizes.values()]), 1)[0]) for n, sizes in found.items()}
    return every(
        slopes,
        lambda slope: slope > 0.1,
        lambda n, slope: f"{n}: slope {short(slope, 2)}, {_text(found[n])}",
        numbers={n: {"slope": slopes[n]} | {str(b): lr for b, lr in sizes.items()} for n, sizes in found.items()},
        before="best lr by batch size, ",
    )


@claim(
    "mu of the mu-KL condition stays away from 0",
    source="text",
    literature="the condition ‖∇f‖_dual ≥ μ (f - f*) under which arXiv 2603.21191 proves its results (abstract)",
    criterion="in every run, batch 32 and all images, the loss falls to a tenth of its first value at least and the "
    "smallest ratio ‖∇f‖_dual / f seen (while f is above 1e-5, its rounding) is at least half of the first one",
    needs="*-mu-*",
)
def away_from_zero(results: Results) -> Verdict:
    found = {name: _mu(data["runs"]) for name, data in results.data("*-mu-*").items()}

    def holds(seeds: dict[str, list[float]]) -> bool:
        pairs = zip(seeds["least"], seeds["first"], strict=True)
        return all(least >= 0.5 * first for least, first in pairs) and max(seeds["fall"]) <= 0.1

    def tell(name: str, seeds: dict[str, list[float]]) -> str:
        first, least, last = (short(min(seeds[key]), 2) for key in ("first", "least", "last"))
        fall, exponent = short(max(seeds["fall"]), 2), short(statistics.fmean(seeds["exponent"]), 2)
        told = f"first {first}, least {least}, last {last}, loss down to {fall} of the first, exponent {exponent}"
        return f"{name}: {told}"

    after = " (smallest of the seeds; exponent: of the dual norm as a power of the loss, fitted)"
    return every(found, holds, tell, after=after)


def _mu(runs: list[Any]) -> dict[str, list[float]]:
    """Of each seed: ratios, the last loss over the first, the power of the loss in the dual norm."""
    return {
        "first": [run["mu"][0] for run in runs],
        "least": [min(run["mu"]) for run in runs],
        "last": [run["mu"][-1] for run in runs],
        "fall": [run["gap"][-1] / run["gap"][0] for run in runs],
        "exponent": [float(np.polyfit(np.log(run["gap"]), np.log(run["total"]), 1)[0]) for run in runs],
    }


def sensitivity(results: Results, job: str) -> float | None:
    """Mean over step sizes within 16 times the best of (loss - least loss); None where the grid does not reach."""
    values = list(losses(results, job).values())
    at = values.index(min(values))
    if not WINDOW <= at < len(values) - WINDOW:
        return None
    return statistics.fmean(values[at - WINDOW : at + WINDOW + 1]) - values[at]


@claim(
    "less sensitive to the step size than others",
    source="own",
    literature="own question; the measure is that of Wortsman et al. (arXiv 2309.14322) on training losses",
    criterion="on both networks at batch 32 the mean of (loss - least loss) over the five step sizes within 16 times "
    "the best is smaller for Scion than for SGD with momentum 0.9, Adam and SignSGD",
    needs="*-solver-*",
)
def robust(results: Results) -> Verdict:
    found = {n: {s: sensitivity(results, f"{n}-solver-{s}") for s in GRIDS} for n in NETWORKS}
    known = all(None not in values.values() for values in found.values())

    def holds(values: dict[str, float | None]) -> bool | None:
        return _least({s: v for s, v in values.items() if v is not None}) == "scion" if known else None

    def tell(network: str, values: dict[str, float | None]) -> str:
        told = (f"{s} {'grid too short' if v is None else short(v, 3)}" for s, v in values.items())
        return f"{network}: {', '.join(told)}"

    return every(found, holds, tell)


@claim(
    "a lower training loss than others",
    source="own",
    literature="own question; arXiv 2502.07529 reports speed-ups over Adam on larger networks",
    criterion="on both networks at batch 32 Scion's smallest final training loss over its nine step sizes is below "
    "those of SGD with momentum 0.9, Adam and SignSGD over theirs",
    needs="*-solver-*",
)
def lower(results: Results) -> Verdict:
    found = {n: {s: best(results, f"{n}-solver-{s}") for s in GRIDS} for n in NETWORKS}

    def tell(network: str, values: dict[str, tuple[float, float]]) -> str:
        told = []
        for s, (loss, lr) in values.items():
            right = accuracy(results, f"{network}-solver-{s}")
            told.append(f"{s} {short(loss, 3)} at lr {short(lr, 2)} ({short(right, 3)})")
        return f"{network}: {', '.join(told)}"

    return every(
        {n: {s: loss for s, (loss, _) in values.items()} for n, values in found.items()},
        lambda losses: _least(losses) == "scion",
        lambda n, _: tell(n, found[n]),
        after=" (in brackets: best test accuracy)",
    )


def _least(values: Mapping[str, float]) -> str:
    return min(values, key=lambda name: values[name])


@claim(
    "a ball of radius 20 costs nothing, and holds",
    source="text",
    literature="constrained iterates stay in the ball, a decoupled weight decay (arXiv 2502.07529); the comparison is "
    "an own question",
    criterion=f"on both networks at batch 32 the best test accuracy with radius 20 is at least that without a "
    f"constraint less 0.01, and no layer ends outside of {BALL} radii at any step size",
    needs=[f"*-batch-{BATCH}", "*-radius-*"],
)
def ball(results: Results) -> Verdict:
    found: dict[str, dict[str, list[float]]] = {}
    for n in NETWORKS:
        jobs = {"none": f"{n}-batch-{BATCH}"} | {f"{r:g}": f"{n}-radius-{r:g}" for r in RADII}
        found[n] = {r: [accuracy(results, j), best(results, j)[0], _largest(results, j)] for r, j in jobs.items()}

    def holds(rows: dict[str, list[float]]) -> bool:
        (free, _, _), (ball, _, norm) = rows["none"], rows[f"{max(RADII):g}"]
        return ball >= free - 0.01 and norm <= BALL

    def tell(network: str, rows: dict[str, list[float]]) -> str:
        words = "{}: accuracy {}, loss {}, largest norm {}"
        return f"{network}: " + ", ".join(words.format(r, *(short(v, 3) for v in row)) for r, row in rows.items())

    return every(found, holds, tell, before="by radius, ")


def _largest(results: Results, job: str) -> float:
    return max(math.inf if top is None else top for run in results.one(job)["runs"] for top in run["largest"])


@claim(
    "Newton-Schulz does as well as the exact SVD",
    source="text",
    literature="five steps of Newton-Schulz stand for U Vᵀ (arXiv 2502.07529)",
    criterion="on both networks at batch 32 the smallest losses differ by less than 25 %, the best test accuracies by "
    "less than 0.01 and the best step sizes by a factor of 2 at most",
    needs=[f"*-batch-{BATCH}", "*-exact"],
)
def newton_schulz(results: Results) -> Verdict:
    found: dict[str, dict[str, list[float]]] = {}
    for n in NETWORKS:
        jobs = {"newton-schulz": f"{n}-batch-{BATCH}", "exact": f"{n}-exact"}
        found[n] = {way: [*best(results, job), accuracy(results, job)] for way, job in jobs.items()}

    def holds(ways: dict[str, list[float]]) -> bool:
        (loss, lr, right), (exact, exact_lr, exact_right) = ways.values()
        near = max(loss, exact) < 1.25 * min(loss, exact) and abs(right - exact_right) < 0.01
        return near and 0.5 <= lr / exact_lr <= 2

    def tell(network: str, ways: dict[str, list[float]]) -> str:
        losses = " against ".join(f"{short(loss, 3)} at {short(lr, 2)}" for loss, lr, _ in ways.values())
        accuracies = " against ".join(short(right, 3) for _, _, right in ways.values())
        return f"{network}: loss {losses}, accuracy {accuracies}"

    return every(found, holds, tell)


CLAIMS = (helps, saturates, hurts, step_sizes, away_from_zero, robust, lower, ball, newton_schulz)
