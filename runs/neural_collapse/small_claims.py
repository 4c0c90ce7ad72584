"""The claims of `runs.neural_collapse` on small problems: an MLP on separable data, and unconstrained features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.neural_collapse.criteria import PAPER, median
from runs.neural_collapse.separable import DECAYS, LONG, LR

LEFT, KEPT, STILL = 0.1, 0.9, 0.05
ORDER = 10.0  # "at least one order of magnitude"
Curves = dict[float, NDArray[np.float64]]  # by decay: NC0 `(looks, seeds)`
_SETTING = f"50-64-10, ten Gaussian clusters, 10,000 steps of {LR:g}, 5 an epoch, medians of 5 seeds"
_DECAYS = f"{_SETTING}, λ = {', '.join(f'{decay:g}' for decay in DECAYS)}"


def curves(results: Results, rule: str) -> Curves:
    """NC0 along training by decay."""
    return {run["decay"]: np.array(run["nc0"]) for run in results.one(f"separable-{rule}")["runs"]}


def published(found: Curves) -> Curves:
    """Those at the paper's decays."""
    return {decay: values for decay, values in found.items() if decay != LONG}


def up_and_down(values: NDArray[np.float64]) -> bool:
    """Whether the highest value of the median seed lies inside the run, and what is left at its end is little."""
    peaks = values.argmax(0)
    return bool(0 < np.median(peaks) < len(values) - 1 and ends(values) <= LEFT)


def ends(values: NDArray[np.float64]) -> float:
    """NC0 at the end over its maximum, the median over seeds."""
    return median(values[-1] / values.max(0))


def _tell(name: str, values: NDArray[np.float64]) -> str:
    peak = median(values.argmax(0)) / (len(values) - 1)
    return f"λ = {name}: maximum at {peak:.0%} of the run, end / maximum {ends(values):.3f}"


def _falls_back(rule: str, said: str, other: str) -> Claim:
    @claim(
        f"separable data, {rule}: NC0 rises, then falls",
        source="figure",
        literature=f"{said} ({PAPER}, Sec. 3.3, Fig. 9)",
        criterion=f"{_DECAYS}: at every λ the maximum of NC0 lies inside the run and at most {LEFT:g} of it is left "
        "at the end",
        needs=f"separable-{rule}",
        control=Control(other, lambda judge, results: judge(results, other), (f"separable-{other}",)),
    )
    def judge(results: Results, of: str = rule) -> Verdict:
        found = {f"{decay:g}": values for decay, values in published(curves(results, of)).items()}
        return every(found, up_and_down, _tell, numbers={name: ends(values) for name, values in found.items()})

    return judge


def _stays(rule: str, said: str, other: str) -> Claim:
    @claim(
        f"separable data, {rule}: NC0 settles above 0",
        source="figure",
        literature=f"{said} ({PAPER}, Sec. 3.3, Fig. 9)",
        criterion=f"{_DECAYS}: at every λ NC0 ends at {KEPT:g} of its maximum or more; and at λ = {LONG:g}, where "
        f"λ Σ lr = {LONG * LR * 1e4:g}, it also moves by less than {STILL:.0%} over the last tenth (λ = 0.5 at "
        "first, where AdamW's moved by 5.1%)",
        needs=f"separable-{rule}",
        control=Control(other, lambda judge, results: judge(results, other), (f"separable-{other}",)),
    )
    def judge(results: Results, of: str = rule) -> Verdict:
        given = curves(results, of)
        kept = {f"{decay:g}": ends(values) for decay, values in given.items()}
        told = ", ".join(f"λ = {name}: {value:.3f}" for name, value in kept.items())
        late = given.get(LONG, given[max(given)])
        late = late[-len(late) // 10 :]
        moved = median((late.max(0) - late.min(0)) / late.max(0))
        holds = all(value >= KEPT for value in kept.values()) and moved <= STILL
        seen = "" if moved <= STILL else ": not settled"
        told = f"end / maximum {told}; over the last tenth it moves by {moved:.1%}{seen}"
        return Verdict(holds, told, kept | {"last": moved})

    return judge


signs_fall = _falls_back("SignSGD", "not monotone: up, then down", "SignSGDW")
adam_falls = _falls_back("Adam", "as SignSGD, but smoother", "AdamW")
signs_stay = _stays("SignSGDW", "converges steadily to a positive value", "SignSGD")
adamw_stays = _stays("AdamW", "as SignSGDW, but smoother", "Adam")


@claim(
    "separable data: Adam is smoother than signs",
    source="text",
    literature=f"Adam and AdamW behave as SignSGD and SignSGDW do, but smoother ({PAPER}, Sec. 3.3)",
    criterion=f"{_SETTING}: at every λ of both the median change of log NC0 from one look (50 steps) to the next "
    "over the last fifth, less its trend, is smaller with Adam than with SignSGD, and with AdamW than with SignSGDW",
    needs=["separable-Adam*", "separable-Sign*"],
    control=Control("the two exchanged", lambda judge, results: judge(results, True)),
)
def smoother(results: Results, exchanged: bool = False) -> Verdict:
    found: dict[str, tuple[float, float]] = {}
    for rules in (("Adam", "SignSGD"), ("AdamW", "SignSGDW")):
        rough = [
            {decay: roughness(values) for decay, values in published(curves(results, rule)).items()} for rule in rules
        ]
        found |= {f"{rules[0]}, λ = {decay:g}": (value, rough[1][decay]) for decay, value in rough[0].items()}
    return every(
        found,
        lambda pair: pair[0] > pair[1] if exchanged else pair[0] < pair[1],
        lambda name, pair: f"{name}: {short(pair[0], 2)} against {short(pair[1], 2)}",
    )


def roughness(values: NDArray[np.float64]) -> float:
    """How much log NC0 moves from one look to the next over the last fifth, less its mean move, median over seeds."""
    moves = np.diff(np.log(values[-len(values) // 5 :]), axis=0)
    return median(np.median(np.abs(moves - moves.mean(0)), axis=0))


# -- unconstrained features ----------------------------------------------------------------------------------


def free_runs(results: Results, rule: str) -> list[dict[str, Any]]:
    """Those that classify all samples rightly."""
    return [run for run in results.one(f"free-{rule}")["runs"] if run["accuracy"] >= 1]


def _extremes(metric: str, least: Callable[..., float]) -> Callable[[Results, str], float]:
    return lambda results, rule: least(run[metric] for run in free_runs(results, rule))


@claim(
    "unconstrained features: AdamW stays an order of magnitude above",
    source="figure",
    literature=f"NC0 and NC3 of AdamW are at least an order of magnitude above those of Adam and of SGD with momentum "
    f"and decay, among runs of 100 % train accuracy ({PAPER}, App. D.4.2, Fig. 16)",
    criterion="d = 512, K = 10, N = 10,000, cross-entropy, momentum 0.9, rates 0.1 and 1, λ = 5e-4, 300 steps "
    f"of all data: the least NC0 and NC3 of AdamW's runs are at least {ORDER:g} times the largest of Adam's and SGD's",
    needs="free-*",
    control=Control("Adam in AdamW's place", lambda judge, results: judge(results, "Adam", ("SGD",))),
)
def unconstrained(results: Results, rule: str = "AdamW", others: tuple[str, ...] = ("Adam", "SGD")) -> Verdict:
    found = {}
    for other in others:
        for metric in ("nc0", "nc3"):
            low = _extremes(metric, min)(results, rule)
            found[f"{metric.upper()}, {rule} / {other}"] = low / _extremes(metric, max)(results, other)
    count = ", ".join(f"{name} {len(free_runs(results, name))}" for name in (rule, *others))
    return every(
        found,
        lambda factor: factor >= ORDER,
        lambda name, factor: f"{name} {short(factor, 3)}",
        after=f"; runs: {count}",
    )


CLAIMS = (signs_fall, adam_falls, signs_stay, adamw_stays, smoother, unconstrained)
