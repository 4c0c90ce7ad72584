"""The SSCN run: problems, jobs cut short, criteria on made-up results, (-m slow) the reduced run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import ROOT, check_committed, check_needs, check_page, committed, reduced

from probes import Trace
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs import sscn
from runs.engine.claims import Results
from runs.sscn import data, jobs, peer_claims, plan, point_claims, problems, schedule_claims, size_claims


def run(steps: float | None, **changed: Any) -> dict[str, Any]:
    """What a job keeps of a run that came to every level after that many steps, or to none."""
    levels = [] if steps is None else [f"{level:g}" for level in jobs.LEVELS]
    spent = {"steps": steps, "seconds": (steps or 0) / 10, "coordinates": 7.0 * (steps or 0)}
    return {
        "to": dict.fromkeys(levels, spent),
        "estimate": {level: {"steps": steps, "norm": 1e-8} for level in levels},
        "accepted": 3,
        "steps": 9,
        "seconds": 50.0,
        "coordinates": 1e9,
        "M": 2.0,
        "gradient_norm": 1e-8,
        "least_norm": 1e-8,
        "loss": 0.5,
        "lambda_min": 0.1,
        "lambda_error": 1e-9,
        "whole_steps": 2,
    } | changed


def results(**changed: float | None) -> Results:
    """All jobs; SSCN of size tau took 1000 / tau steps, n one step, all others 100, but those given (with _ for -)."""
    made = {}
    for job in plan.plan(False):
        size = job.settings["size"]
        steps = 1000 / size if job.settings["solver"] in ("doubling", "ratio") else 100.0
        steps = 1.0 if job.settings["solver"] == "cubic" else steps
        took = changed.get(job.name.replace("-", "_").replace(".", "_"), steps)
        starts = job.settings["starts"]
        made[job.name] = JobResult({"problem": job.settings["problem"], "runs": [run(took)] * starts}, Path("none.h5"))
    return Results(made)


def jobs_like(*parts: str) -> list[str]:
    """The names of the jobs that contain all of these, as `results` takes them."""
    return [
        job.name.replace("-", "_").replace(".", "_") for job in plan.plan(False) if all(p in job.name for p in parts)
    ]


def all_of(steps: float | None, *parts: str) -> dict[str, float | None]:
    return dict.fromkeys(jobs_like(*parts), steps)


SLOW_N = {f"{p}_cubic": 1e4 for p in plan.PROBLEMS}
FIRST_ORDER = all_of(1e3, "cd") | all_of(1e3, "rsrnm") | all_of(1e3, "-gd") | all_of(1e3, "lbfgs")
# by claim: what makes it hold, what makes it fail
MADE: list[tuple[Any, dict[str, float | None], dict[str, float | None]]] = [
    (size_claims.any_size, {}, {"nci60_doubling_500": None}),
    (size_claims.published, {}, {"nci60_ratio_50": None}),
    (size_claims.robust, {}, {"cauchy_doubling_16": None}),
    (size_claims.fewer, {}, {"mnist_doubling_57": 100.0}),
    (size_claims.fewer, {"nci60_cubic": None}, {"madelon_cubic": 1e3}),
    (size_claims.in_seconds, SLOW_N, {"mnist_cubic": 1e-3}),
    (
        size_claims.in_seconds,
        SLOW_N | {"nci60_cubic": None},
        SLOW_N | {"nci60_cubic": None} | all_of(None, "nci60-doubling"),
    ),
    (size_claims.in_coordinates, SLOW_N, {"pairs_cubic": 1e-3}),
    (schedule_claims.growing, SLOW_N, SLOW_N | {"pairs_linear": 1e5}),
    (schedule_claims.adaptive, SLOW_N, SLOW_N | all_of(None, "mnist-adaptive")),
    (schedule_claims.scheduled, SLOW_N | all_of(1e-3, "linear"), SLOW_N),
    (point_claims.second_order, {}, {"mlp_saddle_doubling_100": None}),
    (point_claims.tight, {}, {"leukemia_doubling_50": None}),
    (point_claims.tight_published, {}, {"leukemia_ratio_50": None}),
    (peer_claims.in_steps, FIRST_ORDER, FIRST_ORDER | {"cancer_cd_10": 5.0}),
    (peer_claims.in_seconds, FIRST_ORDER, FIRST_ORDER | {"pairs_cd_n": 1e-3}),
    (peer_claims.in_coordinates, FIRST_ORDER, FIRST_ORDER | {"mnist_cd_28": 1e-3}),
    (peer_claims.weak, FIRST_ORDER, FIRST_ORDER | {"weak_cd_kept_n": 1e-3}),
    (peer_claims.gradient_descent, FIRST_ORDER, FIRST_ORDER | {"nci60_gd": 1e-3}),
    (peer_claims.random_subspaces, FIRST_ORDER, FIRST_ORDER | {"digits_rsrnm_unit_20": 1e-3}),
    (peer_claims.lbfgs, FIRST_ORDER, FIRST_ORDER | {"mnist_lbfgs": 1e-3}),
]


@pytest.mark.parametrize(("claim", "good", "bad"), MADE)
def test_rules_say_yes_and_no(claim: Any, good: dict[str, float | None], bad: dict[str, float | None]) -> None:
    for changed, holds in ((good, True), (bad, False)):
        found = claim.measure(results(**changed))
        assert found.holds is holds, found.measured
        json.dumps(found.numbers, allow_nan=False)


def test_every_claim_is_tried() -> None:
    assert {id(claim) for claim in sscn.EXPERIMENT.claims} == {id(claim) for claim, _, _ in MADE}


def test_second_order_points() -> None:
    """lambda_min, less its error, against the root of the gradient's norm, 1e-4 here."""
    for changed, holds in (
        ({"lambda_min": -0.9e-4}, True),
        ({"lambda_min": -1.1e-4}, False),
        ({"lambda_error": "inf"}, False),
    ):
        made = results()
        made.jobs["lse-doubling-100"].data["runs"][0].update(changed)
        assert point_claims.second_order.measure(made).holds is holds
    made = results(lse_doubling_100=None)  # a run that did not arrive says nothing
    made.jobs["lse-doubling-100"].data["runs"][0]["lambda_min"] = -1.0
    assert point_claims.second_order.measure(made).holds


def test_adaptive_sizes_leave_coordinates_out() -> None:
    made = results(**SLOW_N)
    for name, job in made.jobs.items():
        if "adaptive" in name:
            job.data["runs"][0]["whole_steps"] = 9  # all steps
    assert schedule_claims.adaptive.measure(made).holds is False


def test_problems() -> None:
    sizes = {"cancer": 30, "lse": 500, "tiny": 60, "mlp": 610, "cauchy": 65, "geman-mcclure": 65, "digits": 61}
    for name, n in sizes.items():
        first, second = problems.make(name, 3), problems.make(name, 3)
        assert torch.equal(first.closure(), second.closure())
        assert first.n == n  # three pixels of digits are always white
        exact = torch.cat([g.reshape(-1) for g in torch.autograd.grad(first.closure(), first.parameters)]).norm()
        assert first.gradient_norm() == pytest.approx(float(exact), rel=1e-10)
    for name in ("cancer", "cauchy", "geman-mcclure"):
        made = problems.make(name, 0)
        top = float(torch.linalg.eigvalsh(made.closure.blocks(torch.arange(made.n))[1])[-1])  # type: ignore[attr-defined]
        assert 0.02 * made.smoothness < top <= made.smoothness
    lse = problems.make("lse", 0)
    with torch.no_grad():
        lse.parameters[0].zero_()
    assert lse.gradient_norm() < 1e-14
    saddle = problems.make("mlp-saddle", 0)
    assert saddle.gradient_norm() < 1e-15
    assert saddle.lowest()[0] < -0.1
    x = data.standardise(np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 8.0]]))
    np.testing.assert_allclose(x, [[-1, -1], [1, 1]])


def test_the_smallest_eigenvalue_is_found_either_way(monkeypatch: Any) -> None:
    made = problems.make("tiny", 0)
    dense, _ = made.lowest()
    monkeypatch.setattr(problems, "DENSE", 1)
    lowest, error = made.lowest()
    assert abs(lowest - dense) <= error + 1e-10
    assert error < 1e-3


def context(path: Path, name: str = "job") -> JobContext:
    return JobContext(name, 3, path / f"{name}.h5", lambda done, planned: None)


SOLVERS = sorted({job.settings["solver"] for job in plan.plan(False)})


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_job(tmp_path: Path, solver: str) -> None:
    settings: dict[str, Any] = {"problem": "tiny", "solver": solver, "size": 20, "seconds": 60.0, "every": 2, "c": 1e-4}
    found = jobs.descend(context(tmp_path), steps=5, starts=2, **settings)
    json.dumps(found, allow_nan=False)
    assert [r["steps"] for r in found["runs"]] == [5, 5]
    for r in found["runs"]:
        assert r["loss"] < r["first_loss"]
        assert r["ended"] == "steps"
    with Trace.open(tmp_path / "job.h5") as trace:
        rows, looks = trace["steps-1"], trace["gradient-1"]
        assert list(looks["step"]) == [0, 2, 4, 5]
        assert rows["loss"][0] == pytest.approx(found["runs"][1]["first_loss"], rel=1e-12)
        assert looks["norm"][-1] == found["runs"][1]["gradient_norm"]
        assert (np.diff(rows["seconds"]) > 0).all()
        if solver in ("doubling", "ratio", "script"):
            assert list(rows["coordinates"]) == [420.0 * k for k in range(1, 6)]
            assert np.isfinite(looks["estimate"][1:]).all()


def test_a_job_ends_at_its_target(tmp_path: Path) -> None:
    """The estimate of a subset gets there before the whole gradient does."""
    settings: dict[str, Any] = {"steps": 3000, "seconds": 60.0, "every": 1, "starts": 1}
    found = jobs.descend(context(tmp_path), "tiny", "doubling", 20, **settings)["runs"][0]
    assert found["ended"] == "1e-09"
    assert set(found["to"]) == set(found["estimate"]) == {f"{level:g}" for level in jobs.LEVELS}
    assert found["to"]["1e-06"]["steps"] <= found["to"]["1e-09"]["steps"] == found["steps"]
    assert found["gradient_norm"] <= 1e-9
    assert found["estimate"]["1e-09"]["steps"] < found["steps"]
    assert found["estimate"]["1e-09"]["norm"] > 1e-9
    near = jobs.descend(context(tmp_path), "tiny", "doubling", 20, **settings, until=1e-4)["runs"][0]
    assert near["ended"] == "0.0001"
    assert near["steps"] == found["to"]["0.0001"]["steps"]
    short = jobs.descend(context(tmp_path), "tiny", "gd", 0, steps=100, seconds=0.0, every=7, starts=1)["runs"][0]
    assert (short["ended"], short["steps"]) == ("seconds", 1)


def test_one_subset_for_all_steps_does_not_arrive(tmp_path: Path) -> None:
    found = jobs.descend(context(tmp_path), "tiny", "frozen", 20, steps=200, seconds=60.0, every=50, starts=1)["runs"][
        0
    ]
    assert found["gradient_norm"] > 1e-2


def test_jobs_are_those_that_the_claims_need() -> None:
    full, quick = plan.plan(False), plan.plan(True)
    assert [job.name for job in full] == [job.name for job in quick]
    assert not {job.settings["problem"] for job in quick} & set(plan.REAL)
    assert len({(job.stream, job.settings["problem"]) for job in full}) == len(plan.PROBLEMS) + 1  # one start each
    check_needs(sscn.EXPERIMENT)


def test_own_data(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from sklearn.datasets import dump_svmlight_file

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 8)), np.where(rng.random(30) > 0.5, 1, -1)
    dump_svmlight_file(X, y, str(tmp_path / "own.svm"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "FILE_SECONDS", 0.05)
    sscn.command(["--file", "own.svm"])
    printed = capsys.readouterr().out
    assert "own.svm" in printed
    for solver in ("doubling-1", "ratio-1", "cubic", "cd-1", "gd", "lbfgs"):
        assert solver in printed
    (tmp_path / "bad.svm").write_text("1 2 3 is not the format\n")
    dump_svmlight_file(X, np.arange(30), str(tmp_path / "many.svm"))
    for name, said in (("bad.svm", "LIBSVM"), ("many.svm", "30 different labels"), ("none.svm", "No such file")):
        with pytest.raises(SystemExit) as ended:
            sscn.command(["--file", name])
        assert ended.value.code == 1
        assert said in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        sscn.command(["--quick", "--file"])
    assert ended.value.code == 2


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(sscn.EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)


def test_the_documents_have_the_committed_table() -> None:
    check_page(sscn.EXPERIMENT)
    overview = (ROOT / "docs/experiments.md").read_text()
    assert f"| `sscn` | {round(committed(sscn.EXPERIMENT)[0]['seconds'] / 60)} |" in overview
    assert "](sscn.png)" in overview


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(sscn.EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
        assert one["control"] is None or one["control"]["holds"] is False, one
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {f"{p}.png" for p in (*plan.PROBLEMS, "sscn")}
    assert math.isfinite(report["seconds"])
