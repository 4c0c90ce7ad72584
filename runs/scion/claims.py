"""The claims of `runs.scion` on batch sizes, each with the rule that decides it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Control, Results, Verdict, claim
from runs.scion.criteria import LIMIT, above, best_losses, best_lr, edge, exponent, least, straight
from runs.scion.jobs import BATCHES, BUDGET, STEPS
from runs.shared.tables import listed

PAPER = "arXiv 2603.21191"
NEEDS = "batch-*"
LARGE = (256, 512, 1024)
RISE = 1.5  # of slopes between neighbours, where Table 1's rise by 1.4
Losses = dict[int, tuple[float, float]]


def told(losses: Losses) -> str:
    """`batch: loss +- error`."""
    return ", ".join(f"{b}: {loss:.4f} ± {error:.4f}" for b, (loss, error) in losses.items())


def _numbers(losses: Losses) -> dict[str, list[float]]:
    return {str(b): list(pair) for b, pair in losses.items()}


def _shape(results: Results, chosen: Callable[[Results], Losses], holds: Callable[[Losses], bool], say: Any) -> Verdict:
    losses = chosen(results)
    return Verdict(holds(losses), f"{say(losses)}; test loss by batch size {told(losses)}", _numbers(losses))


def _every(results: Results) -> Losses:
    return best_losses(results)


@claim(
    "larger batches help first",
    source="table",
    literature=f"{PAPER}, Table 1: validation loss 3.4258 to 3.3706 from batch 64 to 256, 1.6 % (Cor. 4.1: regime 1)",
    criterion="the best batch is not the smallest one, whose test loss is above it by more than 2 standard errors",
    needs=NEEDS,
    control=Control(
        "batches from 256 on, behind the plateau",
        lambda judge, results: judge(results, lambda r: {b: x for b, x in best_losses(r).items() if b in LARGE}),
    ),
)
def helps(results: Results, chosen: Callable[[Results], Losses] = _every) -> Verdict:
    def excess(losses: Losses) -> float:
        return above(losses[min(losses)], losses[least(losses)])

    def say(losses: Losses) -> str:
        gain = 100 * (losses[min(losses)][0] / losses[least(losses)][0] - 1)
        return f"best {least(losses)}, smallest {gain:.1f} % above, {short(excess(losses), 2)} standard errors"

    return _shape(results, chosen, lambda losses: excess(losses) > 2, say)


@claim(
    "then saturate",
    source="text",
    literature=f"{PAPER}, Sec. 6.3, Table 1: almost the same at batch 256 and 512 (0.2 %)",
    criterion="twice or half the best batch has a test loss within 0.5 % of its",
    needs=NEEDS,
    control=Control("around the largest batch", lambda judge, results: judge(results, largest=True)),
)
def saturates(results: Results, largest: bool = False) -> Verdict:
    losses = best_losses(results)
    at = max(losses) if largest else least(losses)
    near = {b: losses[b][0] / losses[at][0] for b in (at // 2, 2 * at) if b in losses}
    said = listed({f"{b}": f"{100 * (ratio - 1):+.2f} %" for b, ratio in near.items()})
    alike = any(1 / LIMIT <= ratio <= LIMIT for ratio in near.values())
    return Verdict(alike, f"beside {at}: {said}", {str(b): ratio for b, ratio in near.items()})


@claim(
    "then hurt",
    source="table",
    literature=f"{PAPER}, Table 1: +8 % from batch 256 to 4096, at 319 steps (Cor. 4.1: regime 3)",
    criterion="the test loss of the largest batch, with at least 50 steps in one pass, is above that of the best by "
    "more than 2 standard errors",
    needs=NEEDS,
    control=Control(
        f"{STEPS} steps at every batch size, in place of one pass",
        lambda judge, results: judge(results, lambda r: best_losses(r, "steps-")),
        ("steps-*",),
    ),
)
def hurts(results: Results, chosen: Callable[[Results], Losses] = _every) -> Verdict:
    def excess(losses: Losses) -> float:
        return above(losses[max(losses)], losses[least(losses)])

    def say(losses: Losses) -> str:
        rise = 100 * (losses[max(losses)][0] / losses[least(losses)][0] - 1)
        return f"best {least(losses)}, {max(losses)}: {rise:+.1f} %, {short(excess(losses), 2)} standard errors"

    return _shape(results, chosen, lambda found: excess(found) > 2 and max(found) * 50 <= BUDGET, say)


@claim(
    "the rise is at most linear",
    source="theorem",
    literature=f"{PAPER}, Cor. 4.1 (3): in regime 3 the error that is proven is linear in the batch; in Table 1 the "
    "slope rises by 1.4 from 512 to 4096",
    criterion=f"from batch 256 on the line of test loss over batch has R² > 0.95, and the slope from 512 to 1024 is at "
    f"most {RISE} times that from 256 to 512",
    needs=NEEDS,
    control=Control("over -1 / B, of which a rise like B is none", lambda judge, results: judge(results, power=-1.0)),
)
def linear(results: Results, power: float = 1.0) -> Verdict:
    losses = best_losses(results)
    x, y = [math.copysign(b**power, power) for b in LARGE], [losses[b][0] for b in LARGE]
    fit, ratio = straight(x, y)
    slopes = np.diff(y) / np.diff(x)
    rise = float(slopes[1] / slopes[0]) if slopes.min() > 0 else math.inf
    said = f"R² {fit:.3f}, slopes {', '.join(short(float(s), 2) for s in slopes)}: {short(rise, 2)} times"
    return Verdict(fit > 0.95 and rise <= RISE, said, {"r2": fit, "slopes": slopes.tolist(), "largest_ratio": ratio})


@claim(
    "the best step size stops growing with the batch",
    source="table",
    literature=f"{PAPER}, Table 1, Sec. 6.3: at fixed tokens the best step stabilizes (by a parabola 1.8e-4 at 128, "
    "3.35e-4 at 512, 3.4e-4 ... 3.5e-4 up to 4096)",
    criterion="the power of the batch in the best step size is, from 256 to 1024, less than half that from 16 to 128",
    needs=NEEDS,
    control=Control(
        "steps that grow like the batch, (8) read at a fixed budget",
        lambda judge, results: judge(results, {b: 1e-5 * b for b in BATCHES}),
    ),
)
def stabilizes(results: Results, given: dict[int, float] | None = None) -> Verdict:
    jobs = {b: results.one(f"batch-{b}") for b in BATCHES}
    found = given or {b: best_lr(rows) for b, rows in jobs.items()}
    early, late = (
        exponent([b for b in found if b in of], [lr for b, lr in found.items() if b in of])
        for of in ([b for b in found if b <= 128], LARGE)
    )
    cut = [] if given else [str(b) for b, rows in jobs.items() if edge(rows)]
    after = f" (at the edge of what was tried: {', '.join(cut)})" if cut else ""
    if late >= 0.5 * early:
        after += f"; it grows to the end, where {STEPS} steps are left; Table 1's largest batch leaves 319"
    steps = listed({b: f"{short(lr, 2)} × {BUDGET // b} steps = {lr * (BUDGET // b):.2g}" for b, lr in found.items()})
    said = f"powers {short(early, 2)}, {short(late, 2)}; best step size by batch {steps}{after}"
    return Verdict(
        late < 0.5 * early, said, {"early": early, "late": late, "lr": {str(b): x for b, x in found.items()}}
    )


CLAIMS = (helps, saturates, hurts, linear, stabilizes)
