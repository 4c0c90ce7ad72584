"""Every rule of `runs.neural_collapse` says yes to results that it should, and no to others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes.sweep.work import JobResult
from runs.engine.claims import Claim, Results
from runs.neural_collapse import EXPERIMENT, criteria, theory
from runs.neural_collapse import decay_claims as decays
from runs.neural_collapse import optimizer_claims as tables
from runs.neural_collapse import small_claims as small
from runs.neural_collapse import theory_claims as theorems
from runs.neural_collapse import trend_claims as trends
from runs.neural_collapse.jobs import DECAYS, MAP_DECAYS, MAP_MOMENTA, SETTING_OF, SHARES

Row = dict[str, Any]


def made(**jobs: Any) -> Results:
    """Results that are given; `_` in a name is `-`."""
    return Results({k.replace("_", "-"): JobResult(v, Path(f"{k}.h5")) for k, v in jobs.items()})


def run(optimizer: str = "SGD", nc0: float = 1.0, nc3: float = 0.5, **more: Any) -> Row:
    """A run that counts; what is no setting goes into its metrics at the end."""
    outside = ("lr", "momentum", "decay", "share", "loss", "nc4_test", "accuracy_test", "singular")
    row = {
        "optimizer": optimizer,
        "lr": 0.1,
        "momentum": 0.9,
        "decay": SETTING_OF["resnet"][0],
        "loss": 0.1,
        "nc4_test": 0.95,
    }
    row |= {"accuracy_test": 0.8, "singular": {"weight": [2.0] * 10, "means": [2.0] * 9 + [0.0]}}
    row |= {key: more.pop(key) for key in outside if key in more}
    metrics = {"nc0": nc0, "nc0_normalized": 0.1, "nc1": 0.1, "nc2": 0.3, "nc3": nc3, "nc4": 1.0, "accuracy": 1.0}
    metrics |= {"ratio": 0.5} | more
    start = {"nc0": 1.0, "nc0_normalized": 0.9, "nc1": 10.0, "nc2": 1.0, "nc3": 1.4, "ratio": 0.5}
    first = {"weight": [1.0] * 10, "means": [1.0] * 9 + [0.0]}
    return row | {"start": start, "train": metrics, "singular_start": first}


def with_runs(name: str, rows: list[Row]) -> Results:
    return made(**{name: {"runs": rows}})


ORDER = {"SGD": 0.01, "Adam": 0.3, "SGDW": 0.5, "Signum": 0.7, "AdamW": 5.0, "SignumW": 30.0}


def at_setting(network: str = "resnet", **changed: float) -> Results:
    decay = SETTING_OF[network][0]
    rows = [run(name, value, value / 30, decay=decay) for name, value in (ORDER | changed).items()]
    return with_runs(f"setting_{network}_s0", rows)


def grid(change: Callable[[Row], Row] = lambda row: row, **best: float) -> Results:
    """A grid in which NC0 and NC3 fall with the decay to `best` (or ORDER), beside three seeds of a setting."""
    jobs: dict[str, Any] = {}
    for number, (name, decays_of) in enumerate(DECAYS.items()):
        end, most = (ORDER | {"SGDW": 0.1} | best)[name], max(decays_of)
        rows = []
        for momentum in (0.5, 0.9):
            for decay in decays_of:
                nc0 = 60 * (end / 60) ** (decay / most)
                nc3 = 0.3 + 0.1 * math.log10(nc0) + 0.001 * number
                nc4, ratio = 0.9 + 0.01 * (len(rows) * (number + 2) % 5), min(0.6, nc0 / 20)
                more = {"ratio": ratio, "nc1": nc3, "nc2": nc3 + 0.1, "nc4_test": nc4}
                rows.append(run(name, nc0, nc3, momentum=momentum, decay=decay, **more))
        lost = run(name, accuracy=0.5 + 0.1 * number, nc4_test=0.5 + 0.05 * number, momentum=0.95, decay=most)
        jobs[f"grid_{name}_lr0.1"] = {"runs": [change(row) for row in [*rows, lost]]}
    for seed in range(3):
        jobs[f"setting_resnet_s{seed}"] = {"runs": [run("SGD", 0.1, 0.3 + 0.01 * seed)]}
    return made(**jobs)


def on_map(**changed: Callable[[float], float]) -> Results:
    """NC2, NC3 and the loss by x = decay / (1 - momentum)."""
    law: dict[str, Callable[[float], float]] = {
        "nc2": lambda x: 0.6 - 0.5 * x**0.3,
        "nc3": lambda x: 0.7 - 0.4 * x**0.3,
        "loss": lambda x: 0.1,
    }
    law |= changed
    rows = []
    for momentum in MAP_MOMENTA:
        for decay in MAP_DECAYS:
            values = {name: of(decay / (1 - momentum)) for name, of in law.items()}
            rows.append(run(momentum=momentum, decay=decay, **values))
    return with_runs("map_s0", rows)


def on_the_way(values: list[float], tests: float = 0.8, seeds: int = 2) -> Results:
    rows = [
        run("", v, v, nc2=v, share=share, accuracy_test=0.8 if share else tests)
        for share, v in zip(SHARES, values, strict=True)
    ]
    return made(between_s0={"runs": rows}, **({"between_s1": {"runs": rows}} if seeds > 1 else {}))


def curves(rule: str, up_and_down: bool, rough: float = 0.0) -> dict[str, Any]:
    """NC0 that rises to 10, and stays or falls to 0.1."""
    t = np.linspace(0, 1, 101)
    path = np.where(t < 0.3, 1 + 30 * t, 10 * np.exp(-6.5 * (t - 0.3)) if up_and_down else 10.0)
    path = path * np.exp(rough * (-1.0) ** np.arange(101))
    lam = [5e-4, 1e-3, 5e-3, *([0.5] if rule.endswith("W") else [])]
    return {"rule": rule, "runs": [{"decay": d, "nc0": np.stack([path, path], 1).tolist()} for d in lam]}


def separable(**changed: dict[str, Any]) -> Results:
    given = {"SignSGD": (True, 0.02), "Adam": (True, 0.001), "SignSGDW": (False, 0.02), "AdamW": (False, 0.001)}
    jobs = {f"separable_{rule}": curves(rule, *shape) for rule, shape in given.items()}
    return made(**(jobs | {f"separable_{rule}": data for rule, data in changed.items()}))


def free(adamw: float) -> Results:
    levels = {"Adam": 0.01, "SGD": 0.1, "AdamW": adamw}
    rows = {f"free_{k}": {"runs": [{"nc0": v, "nc3": v, "accuracy": 1.0}]} for k, v in levels.items()}
    return made(**rows)


def heat(off: float) -> Results:
    cells = np.array(list(theory.HEAT_MAP.values()))
    right, wrong = cells.copy(), cells + 0.1
    right[3, 4] += off
    return made(theory_heat_map={"sgd": right.tolist(), "sgdw": wrong.tolist()})


PHASE = {
    "eta": 0.1,
    "first_b": 10,
    "first_a": 50,
    "steps": 90,
    "turns": 20,
    "peak": 60.0,
    "peak_step": 10,
    "last": 0.1,
    "alpha_over_bound": 1.0,
}
LIMITED = {"classes": 3, "last": 1.0, "limit": 1.0, "falls": 0.0}
ARRIVED = {"peak": 100.0, "last": 1e-5, "a": 9.0, "b": 1.0, "fixed": [9.0, 1.0], "printed": [8.0, 0.9]}


def phases(**changed: float) -> Results:
    return made(theory_sign_coupled={"runs": [PHASE, PHASE | changed], "decoupled": [PHASE | {"last": 60.0}]})


def arrived(**changed: float) -> Results:
    return made(theory_sign_decaying=ARRIVED | changed)


def long(left: float, accuracy: float = 1.0) -> Results:
    return with_runs("long_s0", [run("AdamW", 2.0, accuracy=accuracy), run("SignumW", left)])


def table3(**nc3: float) -> Results:
    """One run of each optimizer in the grid, and seeds that differ by 0.02."""
    rows = {f"grid_{k}_lr1": {"runs": [run(k, v, v)]} for k, v in nc3.items()}
    seeds = {f"setting_resnet_s{i}": {"runs": [run(nc3=0.3 + 0.01 * i)]} for i in range(3)}
    return made(**rows, **seeds)


def small_values(last: float) -> Results:
    weight = [2.0] * 9 + [last]
    ratios = {"SGD": 1e-4, "SGDW": 1e-3, "Adam": 0.1, "AdamW": 0.6}
    singular = {"weight": weight, "means": []}
    return made(**{f"grid_{k}_lr1": {"runs": [run(k, ratio=v, singular=singular)]} for k, v in ratios.items()})


def grown(means: list[float]) -> Results:
    rows = [run(name, singular={"weight": [], "means": means}) for name in decays.FOUR]
    return with_runs("setting_resnet_s0", rows)


def kept_by_mlp(adam: float) -> Results:
    ends = {"SGD": 0.01, "Adam": adam, "Signum": 0.05}
    rows = [run(name, end, decay=SETTING_OF["mlp"][0]) for name, end in ends.items()]
    rows += [run(name, decay=0.0) for name in ends]
    return with_runs("setting_mlp_s0", rows)


FALLING = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
KINDS = {"SGD": 0.2, "SGDW": 0.22, "Adam": 0.2, "AdamW": 0.4, "Signum": 0.3, "SignumW": 0.5}
PAPERS = {"SGD": 0.15, "SGDW": 0.10, "Adam": 0.14, "AdamW": 0.49}
CASES: list[tuple[Claim, Results, Results]] = [  # the rule, results that it accepts, results that it does not
    (theorems.heat_map, heat(0.005), heat(0.007)),
    (
        theorems.limit,
        made(theory_sign_decoupled={"runs": [LIMITED]}),
        made(theory_sign_decoupled={"runs": [LIMITED | {"last": 1 + 1e-11}]}),
    ),
    *(
        (theorems.three_phases, phases(), phases(**changed))
        for changed in ({"first_a": 9}, {"turns": 3}, {"last": 1.0}, {"peak_step": 0})
    ),
    *((theorems.floor, phases(), phases(alpha_over_bound=wrong)) for wrong in (0.0, 5.0)),
    *((theorems.arrives, arrived(), arrived(**changed)) for changed in ({"last": 1e-3}, {"a": 9.001})),
    (small.signs_fall, separable(), separable(SignSGD=curves("SignSGD", False))),
    (small.adam_falls, separable(), separable(Adam=curves("Adam", False))),
    (small.signs_stay, separable(), separable(SignSGDW=curves("SignSGDW", True))),
    (small.adamw_stays, separable(), separable(AdamW=curves("AdamW", True))),
    (small.smoother, separable(), separable(Adam=curves("Adam", True, 0.1))),
    (small.unconstrained, free(1.1), free(0.9)),
    (tables.nc0_order, at_setting(), at_setting(SGD=0.4)),
    (tables.nc3_order, at_setting(SGD=0.4), at_setting(Adam=6.0)),
    (tables.nc0_own, at_setting("mlp"), at_setting("mlp", AdamW=31.0)),
    (tables.nc3_own, at_setting("mlp"), at_setting("mlp", AdamW=31.0)),
    (tables.best_nc0, grid(), grid(SGDW=0.4)),
    (tables.best_nc3, table3(**PAPERS), table3(**PAPERS | {"SGD": 0.2})),
    (tables.best_nc3, table3(**PAPERS), table3(**PAPERS | {"AdamW": 0.15})),
    (tables.nc1_small, at_setting(), with_runs("setting_resnet_s0", [run(), run("Adam", nc1=0.6)])),
    (tables.nc1_own, at_setting("mlp"), with_runs("setting_mlp_s0", [run("Adam", nc1=0.6, decay=0.002)])),
    (tables.nc4_tendency, grid(), grid(lambda row: row | {"nc4_test": 1 - row["nc4_test"]})),
    (tables.nc4_unrelated, grid(), grid(lambda row: row | {"nc4_test": -row["train"]["nc3"]})),
    (decays.falls, grid(), grid(Signum=61.0)),
    (decays.coupled_falls, grid(), grid(Signum=6.1)),
    (decays.decoupled_stays, long(0.11), long(0.09)),
    (decays.kinds, table3(**KINDS), table3(**KINDS | {"Adam": 0.5})),
    (decays.kinds, table3(**KINDS), table3(**KINDS | {"SGDW": 0.4})),
    (decays.smallest, small_values(1.1), small_values(0.9)),
    (decays.means_grow, grown([1.1] * 9 + [0.0]), grown([3.0] * 8 + [0.9, 0.0])),
    (decays.coupled_own, kept_by_mlp(0.09), kept_by_mlp(0.11)),
    (trends.accelerates, on_map(), on_map(nc3=lambda x: 0.5 + 0.1 * x)),
    (trends.equal_loss, on_map(), on_map(loss=lambda x: x)),
    (trends.equal_loss, on_map(), on_map(nc2=lambda x: 0.3)),
    (
        trends.one_number,
        on_map(),
        with_runs(
            "map_s0",
            [
                run(nc3=nc3, momentum=m, decay=d)
                for m, d, nc3 in ((0.5, 0.0, 0.7), (0.5, 0.01, 0.6), (0.875, 0.0025, 0.4))
            ],
        ),
    ),
    (trends.between_falls, on_the_way(FALLING), on_the_way([*FALLING[:-1], 2.02])),
    (trends.between_falls, on_the_way([*FALLING[:-1], 2.005]), on_the_way(FALLING[::-1])),
    (trends.between_stays, on_the_way(FALLING, 0.795), on_the_way(FALLING, 0.78)),
    (trends.bounded, grid(), with_runs("setting_mlp_s0", [run(nc3=0.5, nc0_normalized=1.6)])),
    (trends.regressed, grid(), grid(lambda row: row | {"train": row["train"] | {"nc3": -row["train"]["nc3"]}})),
]


@pytest.mark.parametrize(("claim", "good", "bad"), CASES, ids=lambda value: getattr(value, "name", ""))
def test_the_rule_can_say_both(claim: Claim, good: Results, bad: Results) -> None:
    for results, holds in ((good, True), (bad, False)):
        found = claim.measure(results)
        assert found.holds is holds, found.measured


def test_every_claim_has_such_results() -> None:
    assert {case[0].name for case in CASES} == {claim.name for claim in EXPERIMENT.claims}
    assert not [c.name for c in EXPERIMENT.claims if c.source not in ("own", "derived") and c.control is None]


def test_runs_that_do_not_count() -> None:
    assert tables.nc0_order.measure(at_setting()).control.holds is False  # type: ignore[union-attr]
    lost = [run(name, value, accuracy=0.98 if name == "SGD" else 1.0) for name, value in ORDER.items()]
    assert tables.nc0_order.measure(with_runs("setting_resnet_s0", lost)).holds is None
    assert decays.decoupled_stays.measure(long(0.5, accuracy=0.9)).holds is None
    assert trends.between_stays.measure(on_the_way(FALLING, 0.78, seeds=1)).holds is None
    assert criteria.runs(with_runs("long_s0", [{"diverged": True}]), "long-*") == []


def test_numbers() -> None:
    assert criteria.in_order({"a": 1.0, "b": 2.0, "c": 3.0}, ["a", "b"], ["c"])
    assert criteria.in_order({"a": 1.0, "b": 4.0, "c": 3.0}, ["a", "b"], ["c"]) is False
    assert criteria.in_order({"a": 1.0, "b": 4.0, "c": 3.0}, ["a", "b"], ["c"], slack=1.1)
    assert criteria.in_order({"a": 1.0}, ["a"], ["c"]) is None
    assert criteria.not_rising([3.0, 3.005, 2.0])
    assert not criteria.not_rising([3.0, 3.02, 2.0])
    assert not criteria.not_rising([3.0, 3.0])
    assert criteria.rank_correlation([1, 2, 3], [1, 4, 9]) == pytest.approx(1.0)
    assert criteria.rank_correlation([1, 2, 3, 4], [1, 1, 2, 2]) == pytest.approx(2 / 5**0.5)
    assert math.isnan(criteria.rank_correlation([1, 2], [1, 1]))
    low, high = criteria.interval(lambda i: float(np.arange(100)[i].mean()), 100)
    assert low == pytest.approx(49.5 - 1.96 * 2.9, abs=1)
    assert high == pytest.approx(49.5 + 1.96 * 2.9, abs=1)
    x = np.linspace(0, 5, 20)
    assert criteria.regression(x, 0.2 * x + 1) == pytest.approx((0.2, 1.0, 1.0))
    assert criteria.ordered({"SGD": 0.5, "Adam": 0.01}) == "Adam 0.01 < SGD 0.5"
