"""The claims of `runs.neural_collapse` on tables: optimizers at one setting, the best runs of the grid, NC1, NC4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runs.engine.claims import Claim, Control, Results, Source, Verdict, claim, every
from runs.neural_collapse.criteria import (
    ACCURACY,
    COUNT,
    EXCHANGED,
    PAPER,
    best,
    by_optimizer,
    chosen,
    counting,
    in_order,
    interval,
    medians,
    ordered,
    rank_correlation,
    runs,
    shuffled,
    values,
)
from runs.neural_collapse.jobs import MOMENTUM, SETTING, SETTING_OF
from runs.neural_collapse.training import Row

NC1_LEFT, UNRELATED = 0.05, 0.5
NETWORKS = {"resnet": "ResNet with batch norm", "mlp": "MLP without batch norm"}
TABLE = {
    network: f"{NETWORKS[network]}, λ = {decay:g}, momentum {MOMENTUM}, {steps} steps, rates "
    + ", ".join(f"{name} {lr:g}" for name, lr in SETTING.items())
    for network, (decay, steps) in SETTING_OF.items()
}


def setting(results: Results, network: str, exchanged: bool = False) -> dict[str, list[Row]]:
    """The counting runs at the setting, by optimizer."""
    return by_optimizer(
        chosen(counting(runs(results, f"setting-{network}-*")), decay=SETTING_OF[network][0]), exchanged
    )


def _order(metric: str, network: str, source: Source, literature: str, *groups: Sequence[str]) -> Claim:
    said = " < ".join(" and ".join(group) for group in groups)
    own = "" if source == "table" else ", no batch norm"

    @claim(
        f"{metric.upper()} by optimizer{own}",
        source=source,
        literature=literature,
        criterion=f"{TABLE[network]}: median {metric.upper()} of 3 seeds, {said}; {COUNT}",
        needs=f"setting-{network}-*",
        control=EXCHANGED,
    )
    def judge(results: Results, exchanged: bool = False) -> Verdict:
        found = medians(setting(results, network, exchanged), metric)
        return Verdict(in_order(found, *groups), ordered(found), found)

    return judge


_NC0 = (["SGD"], ["Adam"], ["AdamW"], ["SignumW"])
_NC3 = (["SGD", "Adam"], ["AdamW"], ["SignumW"])
nc0_order = _order(
    "nc0",
    "resnet",
    "table",
    f"at one setting SGD 2e-4 < Adam 0.34 < SGDW 0.55 < Signum 0.78 < AdamW 5.33 < SignumW 3186 ({PAPER}, Table 2)",
    *_NC0,
)
nc3_order = _order(
    "nc3",
    "resnet",
    "table",
    f"Adam 0.29 < SGD 0.35 < Signum 0.58 < AdamW 0.78 < SGDW 0.80 < SignumW 1.40 ({PAPER}, Table 2)",
    *_NC3,
)
nc0_own = _order("nc0", "mlp", "own", f"does the order of {PAPER}, Table 2, need batch norm?", *_NC0)
nc3_own = _order("nc3", "mlp", "own", f"does the order of {PAPER}, Table 2, need batch norm?", *_NC3)


# -- the best run of each optimizer --------------------------------------------------------------------------


def best_runs(results: Results, exchanged: bool = False) -> dict[str, Row]:
    """Of each optimizer's counting runs in the grid the one with the lowest NC3."""
    return {name: best(own) for name, own in by_optimizer(counting(runs(results, "grid-*")), exchanged).items()}


def spread(results: Results) -> float:
    """Two standard deviations of NC3 over seeds at the setting, pooled over optimizers."""
    found = [values(own, "nc3") for own in setting(results, "resnet").values()]
    return 2 * float(np.sqrt(np.mean([own.var(ddof=1) for own in found if len(own) > 1])))


def _setting_of(row: Row) -> str:
    return f"{row['lr']:g}/{row['momentum']:g}/{row['decay']:g}"


_GRID = "the ResNet's grid of 3 rates × 3 momenta × decays, one run each"


@claim(
    "best runs by optimizer: NC0",
    source="table",
    literature="of each optimizer's 108 runs the one with the lowest NC3: NC0 SGD 1.5e-5, SGDW 1.5e-4 (both below what "
    f"float32 resolves) < Adam 0.12 < AdamW 8.09 ({PAPER}, Tables 3, 5)",
    criterion=f"{_GRID}: NC0 of SGD and SGDW < Adam < AdamW; {COUNT}",
    needs="grid-*",
    control=EXCHANGED,
)
def best_nc0(results: Results, exchanged: bool = False) -> Verdict:
    rows = best_runs(results, exchanged)
    found = {name: float(row["train"]["nc0"]) for name, row in rows.items()}
    cells = ", ".join(f"{name} {_setting_of(row)}" for name, row in rows.items())
    kept = {name: {key: row[key] for key in ("lr", "momentum", "decay", "train")} for name, row in rows.items()}
    holds = in_order(found, ["SGD", "SGDW"], ["Adam"], ["AdamW"])
    return Verdict(holds, f"{ordered(found)}; at rate/momentum/decay {cells}", kept)


@claim(
    "best runs by optimizer: NC3",
    source="table",
    literature=f"of the same runs NC3: SGDW 0.10 < SGD 0.13 < Adam 0.17 < AdamW 0.49 ({PAPER}, Table 3)",
    criterion=f"{_GRID}: NC3 of SGD and SGDW < Adam < AdamW, where a difference below 2 standard deviations over the "
    f"seeds of one setting is a tie and passes; AdamW's is more than that above all three; {COUNT}",
    needs=["grid-*", "setting-resnet-*"],
    control=EXCHANGED,
)
def best_nc3(results: Results, exchanged: bool = False) -> Verdict:
    found = {name: float(row["train"]["nc3"]) for name, row in best_runs(results, exchanged).items()}
    tie = spread(results)
    holds = in_order(found, ["SGD", "SGDW"], ["Adam"], ["AdamW"], slack=tie)
    apart = in_order(found, ["SGD", "SGDW", "Adam"], ["AdamW"], slack=-tie)
    return Verdict(None if holds is None else holds and apart, f"{ordered(found)}; ties within {tie:.3f}", found)


# -- NC1 and NC4 ---------------------------------------------------------------------------------------------


def _nc1(results: Results, network: str) -> Verdict:
    found = {}
    for name, rows in setting(results, network).items():
        found[name] = float(np.median(values(rows, "nc1") / np.array([row["start"]["nc1"] for row in rows])))
    return every(found, lambda left: left <= NC1_LEFT, lambda name, left: f"{name} {left:.1%}", before="NC1 / start: ")


@claim(
    "NC1 is small in all",
    source="table",
    literature=f"all six optimizers bring NC1 down by more than 95 % (95.7 % at least: {PAPER}, Table 2)",
    criterion=f"{TABLE['resnet']}: NC1 ends at {NC1_LEFT:.0%} of its start or less, median of 3 seeds, "
    f"with every optimizer; {COUNT}",
    needs="setting-resnet-*",
    control=Control("the MLP, without batch norm", lambda judge, results: judge(results, "mlp"), ("setting-mlp-*",)),
)
def nc1_small(results: Results, network: str = "resnet") -> Verdict:
    return _nc1(results, network)


@claim(
    "NC1 is small in all, no batch norm",
    source="own",
    literature=f"does what {PAPER}, Table 2, says of NC1 need batch norm?",
    criterion=f"{TABLE['mlp']}: the same",
    needs="setting-mlp-*",
)
def nc1_own(results: Results) -> Verdict:
    return _nc1(results, "mlp")


@claim(
    "NC4 comes with training accuracy",
    source="text",
    literature=f"NC4, on test features, holds consistently when training accuracy nears 100 % ({PAPER}, Sec. 4.2, "
    "Eq. 11)",
    criterion="over all runs of the ResNet's grid, whether they count or not, NC4 on test images (with the means of "
    "training) has a positive rank correlation with the training accuracy, also at the lower end of its 95 % interval",
    needs="grid-*",
    control=Control("training accuracies shuffled among the runs", lambda judge, results: judge(results, True)),
)
def nc4_tendency(results: Results, shuffle: bool = False) -> Verdict:
    rows = runs(results, "grid-*")
    accuracy, agree = values(rows, "accuracy"), np.array([row["nc4_test"] for row in rows])
    accuracy = shuffled(accuracy) if shuffle else accuracy
    rho = rank_correlation(accuracy, agree)
    low, high = interval(lambda i: rank_correlation(accuracy[i], agree[i]), len(rows))
    told = f"{rho:.2f} ({low:.2f} … {high:.2f}) over {len(rows)} runs"
    counted = agree[accuracy >= ACCURACY]
    told += f"; where training accuracy is {ACCURACY:.0%} NC4 is {np.median(counted):.1%} in the median, "
    told += f"{counted.min():.1%} at least, else {np.median(agree[accuracy < ACCURACY]):.1%} in the median"
    return Verdict(low > 0, told, {"rho": rho, "low": low, "high": high})


@claim(
    "NC4 says little of NC1 to NC3",
    source="figure",
    literature=f"largely uncorrelated with NC1, NC2 and NC3, all six optimizers together ({PAPER}, Fig. 57)",
    criterion="over the counting runs of the ResNet's grid the rank correlation of NC4 on test images with each of "
    f"NC1, NC2, NC3 is at most {UNRELATED:g} in size",
    needs="grid-*",
    control=Control("NC0 in the place of NC4", lambda judge, results: judge(results, "nc0")),
)
def nc4_unrelated(results: Results, metric: str = "nc4_test") -> Verdict:
    rows = counting(runs(results, "grid-*"))
    look = [row["train"].get(metric, row.get(metric)) for row in rows]
    found = {name.upper(): rank_correlation(look, values(rows, name)) for name in ("nc1", "nc2", "nc3")}
    seen = "; runs of larger NC1 agree less" if found["NC1"] < -UNRELATED else ""
    return every(
        found,
        lambda rho: abs(rho) <= UNRELATED,
        lambda name, rho: f"{name} {rho:.2f}",
        after=f", {len(rows)} runs{seen}",
    )


CLAIMS = (nc0_order, nc3_order, best_nc0, best_nc3, nc1_small, nc4_tendency, nc4_unrelated, nc0_own, nc3_own, nc1_own)
