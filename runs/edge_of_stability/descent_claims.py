"""The claims of `runs.edge_of_stability` on full-batch gradient descent, each with the rule that decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from runs.edge_of_stability import jobs
from runs.edge_of_stability.criteria import (
    ABOVE,
    COHEN,
    HIGH,
    LOW,
    Array,
    at_edge,
    long_run,
    losses_of,
    plateau,
    ratios_of,
    reached,
    rounded_lists,
    share_raised,
    stretch,
)
from runs.engine.claims import Control, Results, Verdict, claim, every

SQUARE, ENTROPY, SMALL = ("square-*", "fewer-square-*"), ("entropy-*", "fewer-entropy-*"), f"square-{jobs.SMALL}-0"
BOTH = (*SQUARE, *ENTROPY)
LARGE = f"square-{jobs.RATES['square'][0]}-0"


def _decline(judge: Callable[..., Verdict], results: Results) -> Verdict:
    """The rule of `sharpens` on the second half of the runs with cross-entropy."""
    return judge(results, {n: r[len(r) // 2 :] for n, r in ratios_of(results, *ENTROPY).items()})


@claim(
    "gradient descent sharpens",
    source="text",
    literature="progressive sharpening: as long as the sharpness is below 2/η it tends to rise, over architectures and "
    f"tasks ({COHEN}, introduction and section 3.1)",
    criterion="every run, with the square loss and with cross-entropy, starts below 2/η, and reaches it or rises to "
    "more than twice its first sharpness",
    needs=BOTH,
    control=Control("the second half of the runs with cross-entropy, when their loss is nearly 0", _decline),
)
def sharpens(results: Results, ratios: dict[str, Array] | None = None) -> Verdict:
    ratios = ratios_of(results, *BOTH) if ratios is None else ratios
    return every(
        ratios,
        lambda r: bool(r[0] < 1 and (reached(r) is not None or r.max() > 2 * r[0])),
        lambda name, r: f"{name}: {r[0]:.2f} → {r.max():.2f}",
        numbers=rounded_lists(ratios),
        before="η λmax / 2, first → largest: ",
    )


def _other_bands(judge: Callable[..., Verdict], results: Results) -> Verdict:
    """The rule of `stays` around 1/eta and around 3/eta."""
    found = {name: judge(results, unit) for name, unit in (("1/η", 0.5), ("3/η", 1.5))}
    told = "; ".join(f"in units of {name}: {verdict.measured}" for name, verdict in found.items())
    return Verdict(any(verdict.holds for verdict in found.values()), told)


@claim(
    "sharpness stays at 2/η",
    source="abstract",
    literature=f"once there, it hovers right at 2/η or just above; no number ({COHEN}, abstract and Fig. 1)",
    criterion="in every run with the square loss that reaches 2/η the median of η λmax / 2 over the last third is in "
    f"[{LOW}, {ABOVE}] (changed after the run, from {HIGH}: at the largest step size it stays a fifth above 2/η)",
    needs=SQUARE,
    control=Control("the same band around 1/η, and around 3/η", _other_bands),
)
def stays(results: Results, unit: float = 1.0) -> Verdict:
    ratios = ratios_of(results, *SQUARE)
    plateaus = {name: plateau(r) / unit for name, r in ratios.items() if reached(r) is not None}
    if not plateaus:
        return Verdict(None, "no run reached 2/η")
    return every(plateaus, lambda p: at_edge(p, ABOVE), lambda name, value: f"{name}: {value:.3f}")


@claim(
    "the loss falls in the long run only",
    source="abstract",
    literature=f"the loss is non-monotone over short times and falls consistently over long ones ({COHEN})",
    criterion="in every run that reaches 2/η, from the first to the last measurement with η λmax / 2 ≥ "
    f"{LOW}: at least 5 % of the steps raise the loss, and its mean over the last fifth is below half of that over the "
    "first fifth (changed after the run: it was to the end, where cross-entropy on 1,000 images is long below 2/η)",
    needs=BOTH,
    control=Control(
        f"η = {jobs.SMALL}, which does not reach 2/η, from its start", lambda judge, results: judge(results, (SMALL,))
    ),
)
def falls(results: Results, patterns: Sequence[str] = BOTH) -> Verdict:
    found = {}
    for name, ratios in ratios_of(results, *patterns).items():
        if reached(ratios) is not None or patterns is not BOTH:
            losses = losses_of(results, name, stretch(ratios) if patterns is BOTH else slice(None))
            found[name] = {"raised": share_raised(losses), "drop": long_run(losses)}
    return every(
        found,
        lambda run: run["raised"] >= 0.05 and run["drop"] < 0.5,
        lambda name, run: f"{name}: {run['raised']:.0%}, loss × {run['drop']:.2g}",
        before="steps that raise it: ",
    )


@claim(
    "a small step size stays stable",
    source="text",
    literature=f"below 2/η gradient descent lowers the loss at every step: the descent lemma ({COHEN}, section 2)",
    criterion=f"at η = {jobs.SMALL} the sharpness never reaches 2/η and no step raises the loss (by more than 1e-6 of "
    "it)",
    needs=(SMALL, LARGE),
    control=Control(f"η = {jobs.RATES['square'][0]}", lambda judge, results: judge(results, LARGE)),
)
def stable(results: Results, name: str = SMALL) -> Verdict:
    ratio, raised = ratios_of(results, name)[name], share_raised(losses_of(results, name))
    told = f"largest η λmax / 2: {ratio.max():.2f}; steps that raise the loss: {raised:.1%}"
    return Verdict(bool(ratio.max() < 1 and raised == 0), told, {"largest": float(ratio.max()), "raised": raised})


@claim(
    "cross-entropy: at 2/η, until the loss is nearly 0",
    source="text",
    literature="with cross-entropy too the sharpness rises to 2/η and stays about there; it falls at the end, when the "
    f"loss nears 0 ({COHEN}; from memory of the text)",
    criterion="in every run that reaches 2/η: of the measurements until the loss is below 5 % of its first value, "
    f"those from the first to the last with η λmax / 2 ≥ {LOW} are at least a tenth, their median is ≥ {LOW}, and the "
    f"run ends below {LOW} and 5 % (changed after the run: it was a tenth of the whole run, which goes on long after "
    "the fall; one start on 1,000 images has 8 of 81)",
    needs=ENTROPY,
    control=Control("the square loss", lambda judge, results: judge(results, SQUARE), SQUARE),
)
def entropy(results: Results, patterns: Sequence[str] = ENTROPY) -> Verdict:
    found = {}
    for name, ratios in ratios_of(results, *patterns).items():
        if reached(ratios) is None:
            continue
        with results.trace(name) as trace:
            losses = losses_of(results, name)[np.asarray(trace["sharpness"]["step"])]
        near = losses < 0.05 * losses[0]
        early = ratios[: int(np.argmax(near)) if near.any() else len(near)]
        there, loss = early[stretch(early)], float(losses[-1] / losses[0])
        middle = float(np.median(there)) if len(there) else 0.0
        found[name] = {"share": len(there) / len(early), "median": middle, "last": float(ratios[-1]), "loss": loss}
    return every(
        found,
        lambda run: run["share"] >= 0.1 and run["median"] >= LOW > run["last"] and run["loss"] < 0.05,
        lambda name, run: (
            f"{name}: {run['share']:.0%} of them, median {run['median']:.2f}, last {run['last']:.2f}, "
            f"loss × {run['loss']:.2g}"
        ),
    )


CLAIMS = (sharpens, stays, falls, stable, entropy)
