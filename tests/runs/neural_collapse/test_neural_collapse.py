"""Neural collapse by optimizer: criteria on made-up runs, tiny parts, a killed sweep, and (-m slow) the reduced run."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import ROOT, check_committed, check_needs, check_page, committed, reduced

from landscape.collapse import predict_nc0
from probes import Trace
from probes.sweep.jobs import Job, JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import Results, all_hold
from runs.engine.experiment import Experiment
from runs.neural_collapse import EXPERIMENT, criteria, side_by_side, signs, theory, trend_claims
from runs.neural_collapse import jobs as collapse_jobs
from runs.neural_collapse import optimizer_claims as claims
from runs.neural_collapse import theory_claims as theorems
from runs.neural_collapse.models import NETWORKS, OPTIMIZERS, make_optimizer, step_schedule
from runs.shared.tables import falling


class MadeUp(Results):
    """Results that are given."""

    def __init__(self, jobs: dict[str, dict[str, Any]]) -> None:
        super().__init__({name: JobResult(data, Path(f"{name}.h5")) for name, data in jobs.items()})


def grid(*rows: dict[str, Any]) -> MadeUp:
    """A result for each row, under the names that the plan gives."""
    named = {}
    for row in rows:
        seed = f"-s{row['seed']}" if row.get("seed") else ""
        named[f"grid-{row['network']}-{row['optimizer']}-m{row['momentum']:g}-d{row['decay']:g}{seed}"] = row
    return MadeUp(named)


def run(optimizer: str, nc0: float = 1.0, nc3: float = 0.5, **more: Any) -> dict[str, Any]:
    metrics = {"nc0": nc0, "nc0_normalized": 0.1, "nc1": 0.1, "nc2": 0.3, "nc3": nc3, "nc4": 1.0, "accuracy": 1.0}
    settings = {key: more.pop(key) for key in ("network", "momentum", "decay", "loss", "seed", "share") if key in more}
    metrics |= more
    base = {"network": "mlp", "optimizer": optimizer, "momentum": 0.9, "decay": 5e-3, "loss": 0.1, "nc4_test": 0.95}
    return base | {"start": metrics | {"nc1": 10.0}, "train": metrics, "test": metrics} | settings


def test_numbers() -> None:
    assert falling([3.0, 2.0, 1.0])
    assert not falling([3.0, 2.0, 2.0])
    assert all_hold([True, None, False]) is False
    assert all_hold([True, None]) is None
    assert all_hold([]) is None
    assert all_hold([True, True]) is True
    assert criteria.in_order({"a": 1.0, "b": 2.0, "c": 3.0}, ["a", "b"], ["c"])
    assert criteria.in_order({"a": 1.0, "b": 4.0, "c": 3.0}, ["a", "b"], ["c"]) is False
    assert criteria.in_order({"a": 1.0}, ["a"], ["c"]) is None
    x = np.linspace(0, 5, 20)
    assert criteria.regression(x, 0.2 * x + 1) == pytest.approx((0.2, 1.0, 1.0))
    noise = np.array([1.0, -1.0] * 10)
    slope, _, explained = criteria.regression(x, noise)
    assert abs(slope) < 0.1
    assert explained < 0.05
    assert criteria.ordered({"SGD": 0.5, "Adam": 0.01}) == "Adam 0.01 < SGD 0.5"


def order(**values: float) -> list[dict[str, Any]]:
    return [run(optimizer, value, value) for optimizer, value in values.items()]


def test_order() -> None:
    paper = order(SGD=0.01, Adam=0.3, SGDW=0.5, Signum=0.7, AdamW=5.0, SignumW=30.0)
    for claim in (claims.nc0_order, claims.nc3_order):
        assert claim.measure(grid(*paper)).holds
    assert "SGD 0.01 < Adam 0.3 < SGDW 0.5" in claims.nc0_order.measure(grid(*paper)).measured
    swapped = order(SGD=0.4, Adam=0.3, SGDW=0.5, Signum=0.7, AdamW=5.0, SignumW=30.0)
    assert claims.nc0_order.measure(grid(*swapped)).holds is False
    assert claims.nc3_order.measure(grid(*swapped)).holds  # SGD and Adam may change places
    for place in ({"Adam": 6.0}, {"AdamW": 31.0}):
        wrong = [
            row | {"train": row["train"] | {"nc3": place.get(row["optimizer"], row["train"]["nc3"])}} for row in paper
        ]
        assert claims.nc3_order.measure(grid(*wrong)).holds is False
    other = [row | {"network": "cnn"} for row in swapped]
    assert claims.nc0_order.measure(grid(*paper, *other)).holds is False  # every network
    untrained = [run("SGD", 9.0, accuracy=0.98, seed=1)]
    assert claims.nc0_order.measure(grid(*paper, *untrained)).holds  # does not count
    assert claims.nc0_order.measure(grid(*paper[1:], run("SGD", 0.01, accuracy=0.98))).holds is None
    assert claims.nc0_order.measure(grid(*paper[1:])).holds is None
    # means over seeds are geometric
    assert criteria.means([run("SGD", 1.0), run("SGD", 4.0, seed=1)], "nc0")["SGD"] == pytest.approx(2.0)


def test_best_runs() -> None:
    rows = [
        run("SGD", 0.1, 0.2, decay=0.05),
        run("SGD", 3.0, 0.9, decay=0.0),
        run("SGDW", 0.2, 0.1, decay=0.05),
        run("Adam", 0.5, 0.3),
        run("AdamW", 5.0, 0.6),
        run("AdamW", 0.1, 0.9, decay=0.5),
    ]
    assert claims.best_order.measure(grid(*rows)).holds
    assert claims.best_order.measure(grid(*rows, run("AdamW", 5.0, 0.25, decay=5.0))).holds is False


def test_kinds_of_decay() -> None:
    without = [run(name, 10.0, decay=0.0) for name in ("SGD", "Adam", "Signum")]
    good = [run("SGD", 0.1), run("Adam", 0.5), run("Signum", 1.0), run("AdamW", 2.0, decay=5.0), run("SignumW", 20.0)]
    assert claims.coupled_falls.measure(grid(*without, *good)).holds
    found = claims.decoupled_stays.measure(grid(*without, *good))
    assert found.holds
    assert "AdamW × 0.2 (λ = 5)" in found.measured
    assert claims.coupled_falls.measure(grid(*without, *good, run("Adam", 2.0, decay=0.05))).holds is False
    # the largest decay at which the run counts
    lost = run("Adam", 2.0, decay=0.05, accuracy=0.5)
    assert claims.coupled_falls.measure(grid(*without, *good, lost)).holds
    assert claims.decoupled_stays.measure(grid(*without, run("AdamW", 0.9), run("SignumW", 9.0))).holds is False
    assert claims.coupled_falls.measure(grid(*good)).holds is None


def test_what_holds_in_all_runs() -> None:
    assert claims.nc1_small.measure(grid(run("SGD"), run("Adam"))).holds
    assert claims.nc1_small.measure(grid(run("SGD"), run("Adam", nc1=0.6))).holds is False
    assert claims.nc4_holds.measure(grid(run("SGD"), run("Adam"))).holds
    assert claims.nc4_holds.measure(grid(run("SGD"), run("Adam", nc4=0.98))).holds is False
    free = run("SGD", decay=0.0)
    assert claims.kept.measure(grid(free)).holds
    moved = free | {"start": free["start"] | {"nc0": 1.001}}
    assert claims.kept.measure(grid(moved)).holds is False


def test_momentum() -> None:
    rows = [
        run("SGD", nc0, nc3, momentum=m, loss=loss)
        for m, nc0, nc3, loss in ((0.0, 1.0, 0.8, 0.2), (0.7, 0.5, 0.6, 0.12), (0.9, 0.1, 0.4, 0.1))
    ]
    assert trend_claims.accelerates.measure(grid(*rows)).holds
    assert trend_claims.equal_loss.measure(grid(*rows)).holds
    assert trend_claims.equal_loss.measure(grid(*rows[:2], rows[2] | {"loss": 0.05})).holds is False
    assert trend_claims.equal_loss.measure(grid(*rows[:2], run("SGD", 0.3, 0.4))).holds is False
    assert trend_claims.accelerates.measure(grid(*rows[:2], run("SGD", 0.1, 0.7))).holds is False
    assert trend_claims.equal_loss.measure(grid(*rows[:2])).holds is None


def test_from_adamw_to_adam() -> None:
    def between(*values: float, accuracy: float = 0.97) -> MadeUp:
        rows = [run("", v, v, nc2=v, share=i / 5) for i, v in enumerate(values)]
        rows[-1]["test"] = rows[-1]["test"] | {"accuracy": accuracy}
        rows[0]["test"] = rows[0]["test"] | {"accuracy": 0.97}
        return MadeUp({f"between-{row['share']:g}-s0": row for row in rows})

    assert trend_claims.between_falls.measure(between(3.0, 2.0, 1.0)).holds
    assert trend_claims.between_falls.measure(between(3.0, 1.0, 1.1)).holds is False
    assert trend_claims.between_stays.measure(between(3.0, 2.0, accuracy=0.979)).holds
    assert trend_claims.between_stays.measure(between(3.0, 2.0, accuracy=0.95)).holds is False
    assert trend_claims.between_stays.measure(MadeUp({})).holds is None


def test_necessity_and_regression() -> None:
    small = [run("SGD", 0.1, 0.4, decay=d) for d in range(12)]
    assert trend_claims.necessary.measure(grid(*small)).holds
    assert trend_claims.necessary.measure(grid(*small[:5])).holds is None  # too few to tell
    counter = run("Adam", 1.0, 0.45, nc0_normalized=0.6)
    assert trend_claims.necessary.measure(grid(*small, counter)).holds is False
    broken = run("Adam", 1.0, 0.9, nc0_normalized=2.9)  # more than sqrt(10) * 0.9
    assert trend_claims.necessary.measure(grid(*small, broken)).holds is False
    line = [run("SGD", math.exp(i), 0.5 + 0.1 * i, decay=i) for i in range(5)]
    found = trend_claims.regressed.measure(grid(*line))
    assert found.holds
    assert "0.100 (log10: 0.230), R² 1.00" in found.measured
    assert (
        trend_claims.regressed.measure(
            grid(*[r | {"train": r["train"] | {"nc3": -r["train"]["nc3"]}} for r in line])
        ).holds
        is False
    )


def test_theorems_on_made_up_runs() -> None:
    def of(name: str, **data: Any) -> MadeUp:
        return MadeUp({name: data})

    phase = {
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
    assert theorems.three_phases.measure(of("theory-sign-coupled", runs=[phase])).holds
    for change in ({"first_a": 9}, {"turns": 3}, {"last": 1.0}, {"peak_step": 0}):
        assert theorems.three_phases.measure(of("theory-sign-coupled", runs=[phase, phase | change])).holds is False
    assert theorems.floor.measure(of("theory-sign-coupled", runs=[phase])).holds
    for wrong in (0.0, 5.0):
        floors = [phase, phase | {"alpha_over_bound": wrong}]
        assert theorems.floor.measure(of("theory-sign-coupled", runs=floors)).holds is False
    ends = [{"name": "SGD-0", "factor": f, "vanished": f < 1, "diverged": f > 1} for f in (0.99, 1.01)]
    assert theorems.bounds.measure(of("theory-stability", runs=ends)).holds
    assert theorems.bounds.measure(of("theory-stability", runs=[ends[0], ends[1] | {"diverged": False}])).holds is False
    errors = {"SGD-0.9": 1e-12, "SGDW-0": 1e-12, "SGDW-0.9": 1e-12}

    def both(**network: float) -> MadeUp:
        made = {"theory-model": errors, "theory-network": errors | {k.replace("_", "-"): v for k, v in network.items()}}
        return MadeUp(
            {n: {"steps": 9, "runs": [{"name": k, "error": v} for k, v in e.items()]} for n, e in made.items()}
        )

    for claim, own, other in (
        (theorems.heavy_ball, "SGD-0.9", "SGDW-0.9"),
        (theorems.geometric, "SGDW-0.9", "SGD-0.9"),
    ):
        assert claim.measure(both()).holds
        assert claim.measure(both(**{own: 1e-9})).holds is False
        assert claim.measure(both(**{other: 1e-9})).holds
    small, large = ({"name": "SGD-0", "error": error} for error in (1e-7, 2e-6))
    assert theorems.scheduled.measure(of("theory-schedule", runs=[small, small])).holds
    assert theorems.scheduled.measure(of("theory-schedule", runs=[small, large])).holds is False
    for values, holds in (([1.485, 0.305], True), ([1.485, 0.33], False), ([1.46, 0.31], False)):
        cells = of("theory-heat-map", momenta=[0.0, 0.9], values=values, paper=[1.48, 0.31])
        assert theorems.heat_map.measure(cells).holds is holds
    end = {"classes": 3, "last": 1.0, "error": 0.0, "limit_error": 1e-13, "falls": 0.0}
    assert theorems.limit.measure(of("theory-sign-decoupled", runs=[end])).holds
    for change in ({"limit_error": 1e-11}, {"falls": 1e-11}):
        assert theorems.limit.measure(of("theory-sign-decoupled", runs=[end, end | change])).holds is False
    arrived = {"peak": 100.0, "last": 1e-5, "error": 1e-7, "a": 9.0, "b": 1.0}
    assert theorems.arrives.measure(of("theory-sign-decaying", **arrived)).holds
    for change in ({"last": 1e-3}, {"error": 1e-5}):
        assert theorems.arrives.measure(of("theory-sign-decaying", **(arrived | change))).holds is False


def test_formulas() -> None:
    """The theorems' closed forms against the recursions of `predict_nc0`, and the fixed point against its equation."""
    for rule, kind in (("SGD", "sgd"), ("SGDW", "sgdw")):
        for momentum in theory.MOMENTA:
            rates = [theory.LR] * 300
            expected = predict_nc0(kind, rates, weight_decay=theory.DECAY, momentum=momentum, nc0_initial=1.0)  # type: ignore[arg-type]
            np.testing.assert_allclose(theory.formula(rule, momentum, 300), expected, rtol=1e-12)
    a, b = signs.fixed_point(1e-3)
    assert a == pytest.approx(9 * b)
    assert b == pytest.approx(1 / (30 * (math.exp((a + b) / 3) + 9)) / 1e-3)
    assert signs.first_fall(np.array([0.0, 1.0, 2.0, 1.0])) == 2
    assert signs.first_fall(np.array([0.0, 1.0])) == 1


def context(folder: Path, name: str) -> JobContext:
    return JobContext(name, 5, folder / f"{name}.h5", lambda done, planned: None)


def test_tiny_theorems(tmp_path: Path) -> None:
    found = theory.network(context(tmp_path, "network"), steps=12, schedule="steps")
    assert len(found["runs"]) == 6
    assert max(one["error"] for one in found["runs"]) < 1e-12
    with Trace.open(tmp_path / "network.h5") as trace:
        assert len(trace["SGD-0.9"]["value"]) == 13
    decoupled = signs.sign_decoupled(context(tmp_path, "signs"), classes=[3], eta=0.4, decay=0.5, steps=200)
    assert decoupled["runs"][0]["limit_error"] < 1e-12
    assert decoupled["runs"][0]["limit"] == pytest.approx(math.sqrt(3) / 0.5)


@pytest.mark.parametrize("network", NETWORKS)
def test_tiny_runs(tmp_path: Path, network: str) -> None:
    settings: Any = {"network": network, "optimizer": "SGD", "momentum": 0.5, "decay": 0.1, "steps": 10}
    found = collapse_jobs.train(context(tmp_path, network), **settings)
    rates = step_schedule(0.1, 10)
    expected = predict_nc0("sgd", rates, weight_decay=0.1, momentum=0.5, nc0_initial=found["start"]["nc0"])
    assert found["train"]["nc0"] == found["test"]["nc0"] == pytest.approx(expected[-1], rel=1e-4)
    with Trace.open(tmp_path / f"{network}.h5") as trace:
        assert trace["train"]["step"].tolist() == list(range(11))
        assert trace["test"]["samples"].tolist() == [450] * 11
        assert trace["train"]["nc3"][-1] == found["train"]["nc3"]
    assert found["train"]["nc1"] != found["test"]["nc1"]


def test_all_optimizers_move_by_their_decay() -> None:
    """On a constant gradient of zero, only the decay moves: decoupled by 1 - lr lam, coupled as the rule takes it."""
    coupled = {"SGD": 1 - 0.1 * 0.5, "Adam": 1 - 0.1, "Signum": 1 - 0.1}
    for optimizer in OPTIMIZERS:
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        mover = make_optimizer(optimizer, [weight], 0.1, 0.0, 0.5)
        weight.grad = torch.zeros_like(weight)
        mover.step()
        assert weight.item() == pytest.approx(coupled.get(optimizer, 1 - 0.1 * 0.5), rel=1e-6), optimizer


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)
    seeds = {job.seed(0) for job in EXPERIMENT.plan(False) if job.name.startswith("grid-mlp")}
    assert len(seeds) == collapse_jobs.SEEDS  # all cells of a network start alike


# -- a killed sweep ------------------------------------------------------------------------------------------

TINY = {"network": "mlp", "momentum": 0.9, "decay": 5e-3, "steps": 20}


def sweep(kind: str) -> Experiment:
    """Training runs as in the grid, or jobs that need none of torch's optimizers, whose import takes seconds."""
    if kind == "grid":
        jobs = [Job(f"grid-{name}", collapse_jobs.train, TINY | {"optimizer": name}, "mlp-0") for name in OPTIMIZERS]
    else:
        jobs = [Job(f"heat-map-{i}", theory.heat_map, {"decay": 1e-3 * i}) for i in range(1, 21)]
    return Experiment("sweep", "A sweep.", lambda quick: jobs, ())


def stamps(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "full" / "jobs").glob("[!.]*.json")}


@pytest.mark.parametrize("kind", ["heat-map", pytest.param("grid", marks=pytest.mark.slow)])
def test_a_killed_sweep_goes_on(tmp_path: Path, kind: str) -> None:
    words = [sys.executable, __file__, kind, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/helpers")])}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not stamps(tmp_path):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    finished = stamps(tmp_path)
    planned = sorted(job.name for job in sweep(kind).plan(False))
    assert 0 < len(finished) < len(planned)
    sweep(kind).run(tmp_path)
    begun = [name for name, stamp in stamps(tmp_path).items() if finished.get(name) != stamp]
    assert sorted([*finished, *begun]) == planned  # nothing that was finished was written again


# -- what is committed ---------------------------------------------------------------------------------------


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not [c.name for c in found if c.holds is None]


def test_the_page_has_the_committed_tables() -> None:
    page = check_page(EXPERIMENT)
    assert side_by_side(committed(EXPERIMENT)[1]) in page
    overview = (ROOT / "docs/experiments.md").read_text()
    assert "](neural-collapse.png)" in overview
    assert (ROOT / "docs" / "neural-collapse-trends.png").stat().st_size > 10_000


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path, 120)
    found = {one["name"]: one for one in report["claims"]}
    for claim in theorems.CLAIMS:
        assert found[claim.name]["holds"] is True, found[claim.name]
    assert all(optimizer in found["NC0 by optimizer"]["measured"] for optimizer in OPTIMIZERS)
    for one in report["claims"]:
        assert "the rule failed" not in one["measured"], one
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"training.png", "theorems.png", "trends.png"}


if __name__ == "__main__":
    sweep(sys.argv[1]).run(Path(sys.argv[2]))
