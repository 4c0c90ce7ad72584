"""The claims of `runs.edge_of_stability` on mini-batches: batch sharpness, and what becomes of the sharpness."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from runs.edge_of_stability import jobs
from runs.edge_of_stability.criteria import ANDREYEV, HIGH, LOW, at_edge, plateau, ratios_of, smoothed
from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.shared.tables import listed, rising

BATCH, SLOW, FULL = "batch-sharpness", "slow-16", f"square-{jobs.SGD_RATE}-0"
COMPARED = tuple(f"sgd-{batch}" for batch in jobs.BATCHES)


def plateaus_of(results: Results, *patterns: str, group: str = "sharpness") -> dict[str, float]:
    """The median over the last third of each run, in units of 2/eta."""
    return {name: plateau(ratios) for name, ratios in ratios_of(results, *patterns, group=group).items()}


def _came_down(run: dict[str, Any]) -> bool:
    return bool(run["loss"] <= jobs.STOP * run["first"])


@claim(
    "SGD: batch sharpness at 2/η",
    source="abstract",
    literature="the mean curvature of mini-batches along their own gradients settles at 2/η; their code's notes: below "
    f"it where the step size is too small for the problem ({ANDREYEV})",
    criterion=f"at step sizes near the largest that train, on {jobs.SGD_COUNT:,} images, until the loss is at "
    f"{jobs.STOP:.0%} of its first value: the median of η · batch sharpness / 2 over the last third, then over the "
    f"starts, is in [{LOW}, {HIGH}]; runs whose steps run out before are shown and not judged (after the first run, in "
    "which all did, those with batches of 16 got twice as many steps)",
    needs=("edge-*", SLOW),
    control=Control(
        f"η = {jobs.SMALL}, batches of 16, too small to get there",
        lambda judge, results: judge(results, {SLOW: plateaus_of(results, SLOW, group=BATCH)[SLOW]}),
    ),
)
def batch_sharpness(results: Results, judged: dict[str, float] | None = None) -> Verdict:
    plateaus = plateaus_of(results, "edge-*", group=BATCH) if judged is None else judged
    if judged is None:
        judged = {name: value for name, value in plateaus.items() if _came_down(results.one(name))}
    found: dict[str, list[float]] = {}
    for name, value in judged.items():
        found.setdefault(f"batches of {results.one(name)['batch']}", []).append(value)
    others = [f"{name}: {value:.2f}" for name, value in plateaus.items() if name not in judged]
    highest = [
        f"{smoothed(r).max():.2f}" for name, r in ratios_of(results, "edge-*", group=BATCH).items() if name in judged
    ]
    seen = f"; at its highest, as a median of five, it is {', '.join(highest)}" if highest else ""
    return every(
        found,
        lambda values: at_edge(float(np.median(values))),
        lambda batch, values: f"{batch}: {np.median(values):.2f} ({', '.join(f'{v:.2f}' for v in values)})",
        numbers=plateaus,
        after=seen + (f"; not judged: {', '.join(others)}" if others else ""),
    )


def _full(judge: Callable[..., Verdict], results: Results) -> Verdict:
    """The rule of `below` on full-batch gradient descent, whose batch sharpness is taken as 2/eta."""
    return judge(results, {"all": (plateaus_of(results, FULL)[FULL], 1.0)})


@claim(
    "SGD: λmax stays below",
    source="abstract",
    literature="λmax, generally smaller than the batch sharpness, is suppressed: below 2/η and below the batch "
    f"sharpness ({ANDREYEV})",
    criterion="in each of those runs the median of λmax over the last third is below 2/η and below that of the batch "
    "sharpness",
    needs=("edge-*", FULL),
    control=Control("the full batch, its batch sharpness taken as 2/η", _full),
)
def below(results: Results, pairs: dict[str, tuple[float, float]] | None = None) -> Verdict:
    if pairs is None:
        batch = plateaus_of(results, "edge-*", group=BATCH)
        pairs = {name: (value, batch[name]) for name, value in plateaus_of(results, "edge-*").items()}
    return every(
        pairs,
        lambda pair: bool(pair[0] < min(1.0, pair[1])),
        lambda name, pair: f"{name}: {pair[0]:.2f} (batch sharpness {pair[1]:.2f})",
        before="η λmax / 2: ",
    )


@claim(
    "SGD: smaller batches, flatter",
    source="abstract",
    literature=f"smaller batches favour flatter minima: the larger the batch, the higher λmax settles ({ANDREYEV})",
    criterion=f"at η = {jobs.SGD_RATE} on 5,000 images the median of λmax over the last third rises with each batch "
    f"size, {', '.join(map(str, jobs.BATCHES))}, all",
    needs=(*COMPARED, FULL),
    control=Control("before the first step", lambda judge, results: judge(results, slice(0, 1))),
)
def flatter(results: Results, part: slice | None = None) -> Verdict:
    ratios = ratios_of(results, *COMPARED) | ratios_of(results, FULL)
    values = {n: plateau(r) if part is None else float(r[part].mean()) for n, r in ratios.items()}
    told = listed({"all" if name == FULL else name: f"{value:.3f}" for name, value in values.items()})
    return Verdict(rising([round(v, 6) for v in values.values()]), f"η λmax / 2: {told}", values)


CLAIMS = (batch_sharpness, below, flatter)
