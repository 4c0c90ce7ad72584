"""The claims of the NGN run on made-up results: each rule says yes, and no of what it must refuse; controls too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.sweep.work import JobResult
from runs.engine.claims import Claim, ClaimResult, Results
from runs.ngn import bound_claims, bounds, jobs, network_claims, score_claims, step_claims, toy_claims, toys

GOOD = {"ngn-m": 4, "ngn-md1": 4, "ngn": 3, "sgd-m": 1, "adam": 1}  # how many step sizes are good; others: 2
LOSSES = {"dec-0.001": 2.05, "dec-0.01": 1.9, "w-0.001": 2.051, "w-0.01": 1.902}


def rows(job: Any, *, score: float, good: int, lost: int = 0, **kept: Any) -> list[dict[str, Any]]:
    """Runs that reach `score` at `good` step sizes from the second on, else half of it; the last `lost` diverge."""
    lrs, number = job.settings["lrs"], job.settings["number"]
    made = []
    for i, lr in enumerate(lrs):
        gone = i >= len(lrs) - lost
        reached = (score if 1 <= i <= good else score / 2) + (0.01 if i == 1 else 0.0) - 1e-3 * number
        row = {"lr": lr, "first_loss": 3.0, "first_test_accuracy": 0.1, "first_test_loss": 3.1, "diverged": gone}
        row |= {"loss": 3.0 - 2.9 * reached, "test_accuracy": reached, "test_loss": 3.0 - reached} | kept
        row["test_loss"] += 0.1 * i if "test_loss" in kept else 0.0
        made.append(row | (dict.fromkeys(("loss", "test_accuracy", "test_loss", "share")) if gone else {}))
    return made


def trained(**changed: dict[str, Any]) -> Results:
    """All jobs on networks; `changed` by network and solver, such as `mnist_ngn_m`."""
    made = {}
    for job in jobs.plan(False):
        if job.run is jobs.train:
            name, solver = job.name.rpartition("-")[0], job.name.partition("-")[2].rpartition("-")[0]
            settings: dict[str, Any] = {"score": 0.9, "good": GOOD.get(solver, 2)}
            settings |= steps_of(solver) | changed.get(name.replace("-", "_"), {})
            if name.startswith("text-ngn-md1-"):
                settings = {"test_loss": LOSSES[solver.removeprefix("ngn-md1-")]} | settings
            made[job.name] = JobResult({"rows": rows(job, **settings)}, Path("none.h5"))
    return Results(made)


def steps_of(solver: str) -> dict[str, Any]:
    """NGN's steps fall; those of MoMo are at the cap half of the time; MDv1's are the smallest in each layer."""
    tenths = [0.8, *[0.2] * 9] if solver == "ngn-m" else [1.0] * 10
    near = 0.1 if solver == "ngn-m" else 1.0
    share = {"capped": 0.0 if solver == "ngn-m" else 0.5, "near": near, "largest": max(tenths), "tenths": tenths}
    return {"share": share, "metric": [0.1, 0.2, 0.3] if solver == "ngn-md1" else [1.0, 1.0, 1.0]}


def on_networks(claim: Claim, **changed: dict[str, Any]) -> ClaimResult:
    return claim.measure(trained(**changed))


SHORT, POOR = {"good": 1}, {"score": 0.8}
CASES: list[tuple[Claim, dict[str, Any]]] = [
    (network_claims.less_than_sgd, {"fashion_ngn_m": SHORT}),
    (network_claims.less_than_momo, {"fashion_ngn_m": SHORT}),
    (network_claims.less_than_adam, {"fashion_ngn_md1": SHORT}),
    (network_claims.less_than_momo_adam, {"fashion_momo_adam": {"good": 5}}),
    (network_claims.versions, {"fashion_ngn_md2": {"good": 5}}),
    (network_claims.mnist, {"mnist_ngn_m": SHORT}),
    (network_claims.text, {"text_ngn_m": SHORT}),
    (score_claims.good, {"fashion_momo": {"score": 0.92}}),
    (score_claims.good_mnist, {"mnist_sgd_m": {"score": 0.92}}),
    (score_claims.good_adaptive, {"fashion_ngn_md1": POOR}),
    (score_claims.versions_good, {"fashion_ngn_md2": {"score": 0.92}}),
    (score_claims.language, {"text_sgd_m": {"score": 0.95}}),
    (score_claims.wider, {"fashion_sgd_m": {"good": 5}}),
    (score_claims.wider_mnist, {"mnist_ngn_m": POOR}),
    (score_claims.wider_adaptive, {"fashion_adam": {"good": 5}}),
    (score_claims.lower, {"fashion_momo": {"good": 5}}),
    (score_claims.lower_adaptive, {"fashion_ngn_md1": SHORT}),
    (score_claims.beyond, {"mnist_ngn_m": SHORT}),
    (score_claims.beyond_adaptive, {"fashion_ngn_md1": SHORT}),
    (step_claims.capped, {"fashion_momo": steps_of("ngn-m")}),
    (step_claims.falling, {"fashion_ngn_m": steps_of("momo")}),
    (step_claims.layers, {"fashion_adam": {"metric": [1.0, 0.1, 1.0]}}),
    (step_claims.forms, {"text_ngn_md1_w_0.01": {"test_loss": 2.3}}),
    (step_claims.never, {"mnist_ngn_m": {"lost": 1}}),
]


@pytest.mark.parametrize(("claim", "changed"), CASES, ids=lambda case: case.name if isinstance(case, Claim) else "")
def test_claims_on_networks(claim: Claim, changed: dict[str, Any]) -> None:
    found = on_networks(claim)
    assert found.holds, found.measured
    assert found.control is None or found.control.holds is False, found.control
    assert on_networks(claim, **changed).holds is False


def test_a_run_that_was_lost_is_as_good_as_none() -> None:
    found = on_networks(network_claims.less_than_sgd, fashion_sgd_m={"good": 4, "lost": 1}).numbers["fashion"]
    assert found["ngn-m"][0] == pytest.approx((2 * 0.46 + 3 * 0.01) / 6)
    lower = 1e-3 * (jobs.SEEDS - 1) / 2
    assert found["sgd-m"][0] == pytest.approx((0.46 + 3 * 0.01 + 0.91 - lower - 0.1) / 6)


def test_undecided_weight_decay() -> None:
    assert on_networks(step_claims.improves).holds
    none = {f"text_ngn_md1_{f}_{d:g}": {"test_loss": 2.09} for f in jobs.FORMS for d in jobs.DECAYS}
    assert on_networks(step_claims.improves, **none).holds is None
    worse = {name: {"test_loss": 2.3} for name in none}
    assert on_networks(step_claims.improves, **worse).holds is False


# -- small problems --------------------------------------------------------------------------------------------------


def settled(claim: Claim, **data: Any) -> ClaimResult:
    named = {k.replace("__", "-"): JobResult(v, Path("none")) for k, v in data.items()}
    return claim.measure(Results(named))


def yes(found: ClaimResult) -> bool:
    """The claim holds, and its control does not."""
    return bool(found.holds) and found.control is not None and found.control.holds is False


def test_rosenbrock() -> None:
    steps = {f"{lr:g}": 10 for lr in toys.ROSENBROCK}
    lost = dict.fromkeys(steps, -1)
    ways = {
        "rosenbrock__ngn__m": {"steps": steps},
        "rosenbrock__sgd__m": {"steps": lost | {"0.001": 5, "0.01": 5}},
        "rosenbrock__sgd__m__torch": {"steps": lost | {"0.001": 5}},
        "rosenbrock__sgd__m__undamped": {"steps": lost | {"0.001": 5}},
    }
    assert yes(settled(toy_claims.rosenbrock_ngn, **ways))
    for missed in (None, -1):
        changed = ways | {"rosenbrock__ngn__m": {"steps": steps | {"1": missed}}}
        assert settled(toy_claims.rosenbrock_ngn, **changed).holds is False
    assert yes(settled(toy_claims.rosenbrock_sgd, **ways))
    late = ways | {"rosenbrock__sgd__m__torch": {"steps": lost | {"0.001": 5, "10": None}}}
    assert settled(toy_claims.rosenbrock_sgd, **late).holds is False


def test_quartic() -> None:
    def counts(heavy: dict[str, int], own: dict[str, int], last: int | None = 7) -> dict[str, Any]:
        theorem = {"ngn-m": [{"steps": 3}, {"steps": last}], "gdm": [{"steps": 3}, {"steps": -1}]}
        return {"counts": {"10": {"gdm": heavy, "ngn-m": own}}, "theorem": theorem}

    good = counts({"0.01": 690, "0.1": -1}, {"1": 300, "10": 269})
    assert yes(settled(toy_claims.quartic_counts, quartic=good))
    assert settled(toy_claims.quartic_counts, quartic=counts({"0.01": 690}, {"1": 200, "10": 269})).holds is False
    assert settled(toy_claims.quartic_counts, quartic=counts({"0.01": 688}, {"10": 269})).holds is False
    assert yes(settled(toy_claims.quartic_theorem, quartic=good))
    assert "in 3 to 7 steps" in settled(toy_claims.quartic_theorem, quartic=good).measured
    assert settled(toy_claims.quartic_theorem, quartic=counts({}, {}, last=None)).holds is False


def test_diabetes() -> None:
    def runs(to: list[int | None], largest: float | None) -> dict[str, Any]:
        return {
            lr: {"to_1e-2": k, "largest": largest if lr == "1000" else 1.0, "last": 0.0}
            for lr, k in zip(("1", "10", "100", "1000"), to, strict=True)
        }

    def found(own: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        versions = {"ngn-m": own, "version-2": second, "sgd-m": runs([50, 60, None, None], None)}
        return {f"diabetes__{reading}": {"runs": versions} for reading in toys.READINGS}

    fast, slow = runs([50, 40, 30, None], 9.0), runs([50, 60, 70, 80], 9.0)
    lost = runs([50, 40, 30, None], None)
    assert yes(settled(toy_claims.diabetes_accelerates, **found(fast, lost)))
    for own in (slow, lost):
        assert settled(toy_claims.diabetes_accelerates, **found(own, lost)).holds is False
    assert yes(settled(toy_claims.diabetes_version, **found(fast, lost)))
    for own, second in ((fast, fast), (lost, lost)):
        assert settled(toy_claims.diabetes_version, **found(own, second)).holds is False


def test_schedules() -> None:
    def found(tenth: float = 0.6, **ends: float) -> dict[str, Any]:
        values = {"1/sqrt(k)": 0.01, "1/sqrt(K)": 0.012, "1e-3": 0.05, "1e-4": 0.1} | ends
        left = {c: {"tenth": tenth if c == "1/sqrt(K)" else 0.5, "end": end} for c, end in values.items()}
        runs = [{"shift": r, "condition": 9.0, "steps": 1000, "left": left} for r in toys.SHIFTS]
        return {f"{scaled}__{i}": {"runs": runs} for scaled in toys.SCALES for i in range(toys.DRAWS)}

    for claim, changed in (
        (toy_claims.fastest, {"1/sqrt(K)": 0.009}),
        (toy_claims.competitive, {"1/sqrt(K)": 0.06}),
        (toy_claims.competitive, {"tenth": 0.4}),
        (toy_claims.too_small, {"1e-3": 0.015}),
    ):
        assert yes(settled(claim, **found()))
        missed = settled(claim, **found(**changed))
        assert missed.holds is False
        assert missed.measured.endswith("With s = 1 not for 4 of 4")


@pytest.mark.parametrize("number", ["4.3", "D.2", "D.5"])
def test_theorems(number: str) -> None:
    claim = {"4.3": bound_claims.any_c, "D.2": bound_claims.interpolated, "D.5": bound_claims.falling}[number]
    run = {"measured": 0.1, "bound": 1.0, "transient": 0.05, "noise": 0.95, "neighbourhood": 0.0, "steps": 1000}
    job = f"theorem-{number}"
    assert yes(claim.measure(Results({job: JobResult({"0.1": run}, Path("none"))})))
    above = Results({job: JobResult({"0.1": run, "1": run | {"measured": 1.1}}, Path("none"))})
    assert claim.measure(above).holds is False


def test_bounds_of_noisy_functions() -> None:
    def noisy(measured: float, late: float) -> dict[str, Any]:
        run = {"measured": measured, "late": late, "bound": 1.0, "transient": 0.01, "steps": 100}
        return {"runs": dict.fromkeys(("0.1", "1"), run)}

    made = {"noisy__sps": noisy(0.1, 0.2), "noisy__ngn": noisy(0.1, 0.2), "noisy__ngn__sqrt": noisy(0.1, 0.1)}
    assert yes(settled(bound_claims.noisy, **made))
    assert yes(settled(bound_claims.decreasing, **made))
    made["noisy__ngn__sqrt"] = noisy(1.1, 0.11)
    assert settled(bound_claims.noisy, **made).holds is False
    assert settled(bound_claims.decreasing, **made).holds is False


@pytest.mark.parametrize("solver", ["ngn", "ngn-m"])
def test_any_step(solver: str) -> None:
    claim = {"ngn": bound_claims.never, "ngn-m": bound_claims.never_momentum}[solver]

    def largest(most: float | None) -> dict[str, Any]:
        lost = dict.fromkeys((f"{c:g}" for c in bounds.ANY), None)
        own = {f"{c:g}": 1 + c for c in bounds.ANY} | {"10": most}
        return {
            name: {"smoothness": 2.0, "largest": {solver: own, "sgd": lost, "sgd-m": lost}} for name in bounds.CONVEX
        }

    assert yes(settled(claim, any__step=largest(21.0)))
    for most in (22.0, None):
        assert settled(claim, any__step=largest(most)).holds is False
