"""The claims on optimizers among those of `runs.neural_collapse`, each with the rule that decides it.

"Counting" runs classify at least 99 % of the training images rightly, as in the paper. The setting is decay 0.005 and
momentum 0.9 (beta1 for Adam) for all; means over seeds are geometric.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from probes.numbers import short
from runs.engine.claims import Results, Verdict, all_hold, claim, every
from runs.neural_collapse.criteria import (
    ACCURACY,
    PAPER,
    Row,
    by_network,
    by_optimizer,
    chosen,
    counting,
    decay_effect,
    in_order,
    means,
    ordered,
    runs,
)
from runs.neural_collapse.jobs import DECAY, MOMENTUM
from runs.neural_collapse.models import COUPLED, DECOUPLED

LARGE = 0.1  # of NC0 without decay
NC1_LEFT, NC4_LEAST = 0.05, 0.99
METRICS = ("nc0", "nc1", "nc2", "nc3", "nc4", "accuracy")  # what is told of train and test features
SETTING = f"at decay {DECAY} and momentum {MOMENTUM}"
COUNT = f"runs below {ACCURACY:.0%} train accuracy do not count"


def setting(results: Results) -> list[Row]:
    """The counting runs at the setting."""
    return chosen(counting(runs(results)), momentum=MOMENTUM, decay=DECAY)


def accuracies(rows: Sequence[Row]) -> str:
    """The range of train accuracies."""
    values = [row["train"]["accuracy"] for row in rows]
    return f"train accuracy {min(values):.1%} to {max(values):.1%}" if values else "no run counts"


def compare(results: Results, metric: str, *groups: Sequence[str]) -> Verdict:
    """The order of a metric at the setting, in every network."""
    rows = setting(results)
    found = by_network(rows)
    return every(
        {network: means(own, metric) for network, own in found.items()},
        lambda values: in_order(values, *groups),
        lambda network, values: f"{network}: {ordered(values)}",
        numbers={n: {side: means(own, metric, side) for side in ("train", "test")} for n, own in found.items()},
        after=f"; {accuracies(rows)}",
    )


@claim(
    "NC0 by optimizer",
    source="table",
    literature=f"at one setting SGD 2e-4 < Adam 0.34 < SGDW 0.55 < Signum 0.78 < AdamW 5.33 < SignumW 3186 ({PAPER}, "
    "table 2)",
    criterion=f"{SETTING} NC0 of SGD < Adam < AdamW < SignumW in every network; {COUNT}",
    needs="grid-*",
)
def nc0_order(results: Results) -> Verdict:
    verdict = compare(results, "nc0", ["SGD"], ["Adam"], ["AdamW"], ["SignumW"])
    rows = [row | {"test": row["test"] | {"nc4": row["nc4_test"]}} for row in setting(results)]
    numbers = {
        network: {side: {metric: means(own, metric, side) for metric in METRICS} for side in ("train", "test")}
        for network, own in by_network(rows).items()
    }
    return dataclasses.replace(verdict, numbers=numbers)


@claim(
    "NC3 by optimizer",
    source="table",
    literature=f"Adam 0.29 < SGD 0.35 < Signum 0.58 < AdamW 0.78 < SGDW 0.80 < SignumW 1.40 ({PAPER}, table 2)",
    criterion=f"{SETTING} NC3 of SGD and of Adam lies below that of AdamW, and that below SignumW's, in every network; "
    f"{COUNT}",
    needs="grid-*",
)
def nc3_order(results: Results) -> Verdict:
    return compare(results, "nc3", ["SGD", "Adam"], ["AdamW"], ["SignumW"])


@claim(
    "best runs by optimizer",
    source="table",
    literature="of each optimizer's runs the one with the lowest NC3: NC0 SGD 1.5e-5 < SGDW 1.5e-4 < Adam 0.12 < AdamW "
    f"8.09, NC3 SGDW 0.10 < SGD 0.13 < Adam 0.17 < AdamW 0.49 ({PAPER}, table 3)",
    criterion="both NC0 and NC3 of SGD and of SGDW lie below Adam's, and that below AdamW's, in every network; "
    f"{COUNT}",
    needs="grid-*",
)
def best_order(results: Results) -> Verdict:
    found = {
        network: {name: min(own, key=lambda row: row["train"]["nc3"]) for name, own in by_optimizer(rows).items()}
        for network, rows in by_network(counting(runs(results))).items()
    }
    values = {
        network: {metric: {n: float(row["train"][metric]) for n, row in own.items()} for metric in ("nc0", "nc3")}
        for network, own in found.items()
    }
    kept = ("momentum", "decay", "train", "test")
    return every(
        values,
        lambda own: all_hold(in_order(metric, ["SGD", "SGDW"], ["Adam"], ["AdamW"]) for metric in own.values()),
        lambda network, own: f"{network}: NC0 {ordered(own['nc0'])}, NC3 {ordered(own['nc3'])}",
        numbers={n: {name: {key: row[key] for key in kept} for name, row in own.items()} for n, own in found.items()},
    )


def effects(results: Results, optimizers: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What the largest decay does to NC0, by network and optimizer, at the setting's momentum."""
    rows = chosen(counting(runs(results)), momentum=MOMENTUM, seed=0)
    found = {f"{n} {o}": decay_effect(own, o) for n, own in by_network(rows).items() for o in optimizers}
    return {name: effect for name, effect in found.items() if effect is not None}


def tell_effect(name: str, effect: tuple[float, float]) -> str:
    """NC0 over that without decay, with the decay."""
    decay, ratio = effect
    return f"{name} × {short(ratio, 2)} (λ = {decay:g})"


@claim(
    "coupled decay brings NC0 down",
    source="figure",
    literature=f"with decay in the gradient NC0 falls as the decay grows, for SGD, Adam and Signum ({PAPER}, figure 1)",
    criterion=f"at momentum {MOMENTUM} and the largest decay whose run counts, NC0 is at most {LARGE} times that "
    "without decay, for each of the three in every network",
    needs="grid-*",
)
def coupled_falls(results: Results) -> Verdict:
    return every(effects(results, COUPLED), lambda effect: effect[1] <= LARGE, tell_effect)


@claim(
    "decoupled decay with Adam or signs does not",
    source="figure",
    literature=f"AdamW and SignumW keep a large NC0 at any decay (AdamW about 20 → 8 at decay 10: {PAPER}, figure 1)",
    criterion=f"at momentum {MOMENTUM} and the largest decay whose run counts, NC0 is more than {LARGE} times that "
    "without decay, for both in every network",
    needs="grid-*",
)
def decoupled_stays(results: Results) -> Verdict:
    found = effects(results, [name for name in DECOUPLED if name != "SGDW"])
    return every(found, lambda effect: effect[1] > LARGE, tell_effect)


@claim(
    "NC1 is small in all",
    source="table",
    literature=f"all optimizers bring NC1 down by more than 95 % (95.7 % at least: {PAPER}, table 2)",
    criterion=f"{SETTING} NC1 ends at {NC1_LEFT:.0%} of its start or less with every optimizer in every network",
    needs="grid-*",
)
def nc1_small(results: Results) -> Verdict:
    rows = [row | {"left": {"nc1": row["train"]["nc1"] / row["start"]["nc1"]}} for row in setting(results)]
    return every(
        by_network(rows),
        lambda own: all(row["left"]["nc1"] <= NC1_LEFT for row in own),
        lambda network, own: f"{network}: {ordered(means(own, 'nc1', 'left'))}",
        numbers={network: means(own, "nc1", "left") for network, own in by_network(rows).items()},
        before="NC1 / start: ",
    )


@claim(
    "NC4 holds in all",
    source="text",
    literature=f"head and nearest class mean agree whenever the training images are learned ({PAPER})",
    criterion=f"they agree on at least {NC4_LEAST:.0%} of the training images in every counting run",
    needs="grid-*",
)
def nc4_holds(results: Results) -> Verdict:
    rows = counting(runs(results))
    agree = [row["train"]["nc4"] for row in rows]
    fewer = sum(value < NC4_LEAST for value in agree)
    told = (
        f"least {min(agree):.1%}, {fewer} of {len(rows)} runs below {NC4_LEAST:.0%}; on test images with the means of "
        f"training {min(row['nc4_test'] for row in rows):.1%} to {max(row['nc4_test'] for row in rows):.1%}"
    )
    return Verdict(fewer == 0, told, {"least": min(agree), "runs": len(rows), "fewer": fewer})


@claim(
    "without decay SGD keeps NC0",
    source="figure",
    literature=f"at decay 0 NC0 is constant for SGD (1.75 throughout: {PAPER}, figure 5)",
    criterion="every run of SGD without decay ends within 1e-4 of its first NC0 (float32)",
    needs="grid-*-SGD-*",
    quick=True,
)
def kept(results: Results) -> Verdict:
    rows = chosen(runs(results), optimizer="SGD", decay=0.0)
    moved = {f"{r['network']} β = {r['momentum']:g}": abs(r["train"]["nc0"] / r["start"]["nc0"] - 1) for r in rows}
    return every(moved, lambda by: by <= 1e-4, lambda name, by: f"{name}: {by:.0e}", before="relative change: ")


CLAIMS = (nc0_order, nc3_order, best_order, coupled_falls, decoupled_stays, nc1_small, nc4_holds, kept)
