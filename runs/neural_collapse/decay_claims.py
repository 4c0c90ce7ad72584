"""The claims of `runs.neural_collapse` on weight decay: how much of it, coupled or decoupled, and what W keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from landscape.collapse import predict_nc0
from probes.numbers import short
from runs.engine.claims import Control, Results, Verdict, all_hold, claim, every
from runs.neural_collapse.criteria import (
    COUNT,
    EXCHANGED,
    OTHER_KIND,
    PAPER,
    by_optimizer,
    chosen,
    counting,
    interval,
    median,
    medians,
    rank_correlation,
    runs,
    values,
)
from runs.neural_collapse.jobs import LONG, SEEDS, SETTING_OF
from runs.neural_collapse.models import COUPLED, OPTIMIZERS, family, step_schedule
from runs.neural_collapse.optimizer_claims import TABLE, best_runs, setting
from runs.neural_collapse.training import Row

LARGE = 0.1  # of NC0 without decay
DECOUPLED = ("AdamW", "SignumW")
Pairs = list[tuple[list[float], list[float]]]  # of one rate and momentum: decays, and a metric at each


def by_decay(results: Results, optimizer: str, metric: str) -> Pairs:
    """A metric of the counting runs by decay at each rate and momentum of the grid where there are two or more."""
    rows = counting(runs(results, "grid-*"))
    own = chosen(rows, optimizer=optimizer)
    if optimizer not in COUPLED:
        own = [*chosen(rows, optimizer=family(optimizer), decay=0.0), *own]
    cells = dict.fromkeys((row["lr"], row["momentum"]) for row in own)
    found: Pairs = []
    for lr, momentum in cells:
        cell = sorted(chosen(own, lr=lr, momentum=momentum), key=lambda row: float(row["decay"]))
        if len(cell) > 1:
            found.append(([row["decay"] for row in cell], values(cell, metric).tolist()))
    return found


def tendency(pairs: Pairs, shuffle: bool = False) -> tuple[float, float, float]:
    """The mean over cells of the rank correlation of a metric with the decay, and its 95 % interval over cells."""
    each = []
    for number, (decays, found) in enumerate(pairs):
        order = np.random.default_rng(number).permutation(len(decays)) if shuffle else np.arange(len(decays))
        each.append(rank_correlation(np.array(decays)[order], found))
    numbers = np.array(each)
    return float(numbers.mean()), *interval(lambda i: float(numbers[i].mean()), len(numbers))


@claim(
    "larger decay, lower NC0 and NC3",
    source="text",
    literature=f"with all optimizers the metrics fall as the decay grows ({PAPER}, Sec. 3.2, Fig. 1, 3)",
    criterion="the ResNet's grid: at each rate and momentum the rank correlation of NC0 and NC3 with the decay over "
    f"the runs that count; its mean over rates and momenta is negative with its 95 % interval for each of six; {COUNT}",
    needs="grid-*",
    control=Control("decays shuffled at each rate and momentum", lambda judge, results: judge(results, True)),
)
def falls(results: Results, shuffle: bool = False) -> Verdict:
    found = {
        f"{optimizer} {metric.upper()}": tendency(by_decay(results, optimizer, metric), shuffle)
        for optimizer in OPTIMIZERS
        for metric in ("nc0", "nc3")
    }
    return every(found, lambda rho: rho[2] < 0, lambda name, rho: f"{name} {rho[0]:.2f} ({rho[1]:.2f} … {rho[2]:.2f})")


def left_of_nc0(results: Results, names: Sequence[str]) -> dict[str, tuple[Row, float]]:
    """Of each optimizer the best run, and its NC0 over that of the run without decay at the same rate and momentum."""
    rows, found = runs(results, "grid-*"), {}
    for name, row in best_runs(results).items():
        if name in names:
            (without,) = chosen(rows, optimizer=family(name), lr=row["lr"], momentum=row["momentum"], decay=0.0)
            found[name] = row, float(row["train"]["nc0"] / without["train"]["nc0"])
    return found


@claim(
    "coupled decay brings NC0 down",
    source="figure",
    literature=f"with decay in the gradient NC0 falls by orders of magnitude, for SGD, Adam and Signum ({PAPER}, "
    "Sec. 3.2, Fig. 1, 3, Table 3)",
    criterion=f"the run with the lowest NC3 of each in the ResNet's grid has at most {LARGE:g} of the NC0 of the run "
    f"without decay at the same rate and momentum; {COUNT}",
    needs="grid-*",
    control=Control("AdamW and SignumW", lambda judge, results: judge(results, DECOUPLED)),
)
def coupled_falls(results: Results, names: Sequence[str] = COUPLED) -> Verdict:
    return every(
        left_of_nc0(results, names),
        lambda found: found[1] <= LARGE,
        lambda name, found: f"{name} × {short(found[1], 2)} (λ = {found[0]['decay']:g})",
        numbers={name: left for name, (_, left) in left_of_nc0(results, names).items()},
    )


def _alone() -> float:
    """What decoupled decay alone leaves of NC0 in the long runs."""
    rates = step_schedule(LONG["lr"], int(LONG["steps"]))
    return float(predict_nc0("sgdw", rates, weight_decay=LONG["decay"], nc0_initial=1.0)[-1])


@claim(
    "decoupled decay with Adam or signs does not",
    source="figure",
    literature=f"AdamW and SignumW keep a large NC0 at any decay, up to 10 ({PAPER}, Sec. 3.2, Fig. 1, 3)",
    criterion=f"ResNet, λ = {LONG['decay']:g}, rate {LONG['lr']:g}, {LONG['steps']} steps, λ Σ lr = "
    f"{LONG['decay'] * sum(step_schedule(LONG['lr'], int(LONG['steps']))):.1f}: NC0 ends above {LARGE:g} of its start, "
    f"median of {SEEDS} seeds; {COUNT}",
    needs="long-*",
    control=Control("what the decay alone leaves, Π (1 − lr λ)", lambda judge, results: judge(results, _alone())),
)
def decoupled_stays(results: Results, alone: float | None = None) -> Verdict:
    rows = by_optimizer(counting(runs(results, "long-*")))
    found = {
        name: median([row["train"]["nc0"] / row["start"]["nc0"] for row in rows.get(name, [])]) for name in DECOUPLED
    }
    if alone is not None:
        found = dict.fromkeys(found, alone)
    accuracy = ", ".join(f"{min(values(own, 'accuracy')):.1%}" for own in rows.values())
    return every(
        found,
        lambda left: None if math.isnan(left) else left > LARGE,
        lambda name, left: f"{name} × {short(left, 2)}",
        after=f"; least train accuracies {accuracy}",
    )


@claim(
    "Adam collapses further than AdamW, Signum than SignumW",
    source="figure",
    literature=f"NC0 and NC3 of AdamW lie above Adam's throughout, SignumW's above Signum's, while SGD and SGDW stay "
    f"close ({PAPER}, Fig. 1, 3)",
    criterion="the ResNet's grid, runs with decay: median NC0 and NC3 of AdamW are above Adam's and of SignumW above "
    f"Signum's, and the gap of NC3 between SGDW and SGD is smaller than both; {COUNT}",
    needs="grid-*",
    control=EXCHANGED,
)
def kinds(results: Results, exchanged: bool = False) -> Verdict:
    rows = [row for row in counting(runs(results, "grid-*")) if row["decay"] > 0]
    found = {metric: medians(by_optimizer(rows, exchanged), metric) for metric in ("nc0", "nc3")}
    gaps = {name: found["nc3"][other] - found["nc3"][name] for name, other in OTHER_KIND.items()}
    apart = all_hold(found[m][f"{name}W"] > found[m][name] for m in found for name in ("Adam", "Signum"))
    close = abs(gaps["SGD"]) < min(gaps["Adam"], gaps["Signum"])
    told = "; ".join(
        f"{name}: NC0 {short(found['nc0'][name], 2)}, NC3 {found['nc3'][name]:.2f}" for name in found["nc0"]
    )
    return Verdict(apart and close, told, {**found, "gaps": gaps})


# -- singular values -----------------------------------------------------------------------------------------

FOUR = ("SGD", "SGDW", "Adam", "AdamW")


@claim(
    "the smallest singular value of W",
    source="text",
    literature="under AdamW it and NC0 increase, under Adam it goes to a small non-zero value, under SGD and SGDW to 0 "
    f"({PAPER}, Fig. 19, runs of Table 5)",
    criterion=f"best runs of the ResNet's grid: it ends above its start with AdamW; over the mean of W's ten it ends "
    f"at most at {LARGE:g} of its start with SGD and SGDW, and SGD, SGDW < Adam < AdamW",
    needs="grid-*",
    control=EXCHANGED,
)
def smallest(results: Results, exchanged: bool = False) -> Verdict:
    rows = {name: row for name, row in best_runs(results, exchanged).items() if name in FOUR}
    if len(rows) < len(FOUR):
        return Verdict(None, "too few optimizers have a run that counts")
    ends = {name: row["train"]["ratio"] for name, row in rows.items()}
    starts = {name: row["start"]["ratio"] for name, row in rows.items()}
    last = rows["AdamW"]["singular"]["weight"][-1]
    first = rows["AdamW"]["singular_start"]["weight"][-1]
    vanish = all(ends[name] <= LARGE * starts[name] for name in ("SGD", "SGDW"))
    order = max(ends["SGD"], ends["SGDW"]) < ends["Adam"] < ends["AdamW"]
    told = ", ".join(f"{name} {short(ends[name], 2)}" for name in FOUR)
    told = f"smallest / mean from {starts['SGD']:.2f} to {told}; with AdamW the smallest goes {first:.2f} → {last:.2f}"
    return Verdict(last > first and vanish and order, told, {"start": starts, "end": ends, "adamw": [first, last]})


@claim(
    "singular values of the class means grow",
    source="text",
    literature=f"the non-zero singular values of the centred means grow throughout, and differ ({PAPER}, Fig. 7)",
    criterion=f"{TABLE['resnet']}: with SGD, SGDW, Adam and AdamW each of the nine ends above its start, median of 3 "
    f"seeds; {COUNT}",
    needs="setting-resnet-*",
    control=Control("the tenth, which the centring keeps at 0", lambda judge, results: judge(results, slice(9, 10))),
)
def means_grow(results: Results, which: slice = slice(0, 9)) -> Verdict:
    found = {}
    for name, rows in setting(results, "resnet").items():
        if name in FOUR:
            each = [np.array(row["singular"]["means"][which]) / row["singular_start"]["means"][0] for row in rows]
            starts = [
                np.array(row["singular_start"]["means"][which]) / row["singular_start"]["means"][0] for row in rows
            ]
            least = np.median([(e - s).min() for e, s in zip(each, starts, strict=True)])
            found[name] = float(least)
    return every(
        found,
        lambda grown: grown > 1e-3,
        lambda name, grown: f"{name} {short(grown, 2)}",
        before="least growth over the largest at the start: ",
    )


# -- without batch norm --------------------------------------------------------------------------------------


@claim(
    "coupled decay brings NC0 down, no batch norm",
    source="own",
    literature=f"does what {PAPER}, Fig. 1, 3, shows need batch norm?",
    criterion=f"{TABLE['mlp']}: NC0 with decay is at most {LARGE:g} of that without, medians of 3 seeds, "
    f"for SGD, Adam and Signum; {COUNT}",
    needs="setting-mlp-*",
)
def coupled_own(results: Results) -> Verdict:
    rows = counting(runs(results, "setting-mlp-*"))
    found = {}
    for name in COUPLED:
        with_, without = (
            median(values(chosen(rows, optimizer=name, decay=decay), "nc0")) for decay in (SETTING_OF["mlp"][0], 0.0)
        )
        found[name] = with_ / without
    return every(
        found, lambda left: None if math.isnan(left) else left <= LARGE, lambda name, left: f"{name} × {short(left, 2)}"
    )


CLAIMS = (falls, coupled_falls, decoupled_stays, kinds, smallest, means_grow, coupled_own)
