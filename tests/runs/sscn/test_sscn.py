"""The SSCN run: problems, jobs cut short, criteria on made-up results, (-m slow) the reduced run."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import ROOT, check_committed, check_page, committed, reduced

from probes import Trace
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs import sscn
from runs.engine.claims import ClaimResult, Results
from runs.sscn import claims, jobs, peer_claims, problems


def run(steps: float | None, **changed: Any) -> dict[str, Any]:
    """What a job keeps of a run that came to every level after that many steps, or to none."""
    reached = (
        {}
        if steps is None
        else {
            f"{level:g}": {"steps": steps, "seconds": steps / 10, "coordinates": 7.0 * steps} for level in jobs.LEVELS
        }
    )
    return {
        "to": reached,
        "accepted": 3,
        "steps": 9,
        "M": 2.0,
        "gradient_norm": 1e-9,
        "least_norm": 1e-9,
        "loss": 0.5,
        "lambda_min": 0.1,
        "lambda_error": 1e-9,
    } | changed


def results(**changed: float | None) -> Results:
    """All jobs; every one took 100 steps but those given (with _ for -), and larger sizes fewer."""
    made = {}
    for job in jobs.plan(False):
        tail = job.name.rpartition("-")[2]
        steps = 1000 / int(tail) if "doubling" in job.name else 1e-3 if job.name.endswith("cubic") else 100.0
        steps = changed.get(job.name.replace("-", "_"), steps)
        data = {"problem": job.settings["problem"], "runs": [run(steps)]}
        made[job.name] = JobResult(data, Path("none.h5"))
    return Results(made)


def judged(claim: Any, **changed: float | None) -> ClaimResult:
    return claim.measure(results(**changed))


def test_claims_on_steps() -> None:
    assert judged(claims.any_size).holds
    found = judged(claims.any_size, duke_doubling_500=None)
    assert found.holds is False
    assert "duke-doubling-500 ‖∇f‖ 1e-09, f 0.5 (3 of 9 steps taken, M 2)" in found.measured
    assert judged(claims.published).holds
    assert judged(claims.published, duke_doubling_500=None).holds
    assert judged(claims.published, duke_ratio_50=None).holds is False
    assert judged(claims.fewer).holds
    assert judged(claims.fewer, duke_cubic=1e9).holds  # Krylov, not one of the sizes
    assert judged(claims.fewer, lse_cubic=1e9).holds is False
    assert judged(claims.tight).holds
    assert judged(claims.tight, duke_doubling_50=5000).holds
    for steps in (5001, None):
        assert judged(claims.tight, duke_doubling_50=steps).holds is False
    assert judged(claims.tight_published).holds
    assert judged(claims.tight_published, duke_ratio_500=5001).holds is False


def test_claims_beside_other_solvers() -> None:
    assert judged(claims.in_seconds).holds is False  # the whole space needs next to none here
    whole: dict[str, float | None] = {f"{p}_cubic": 1e4 for p in ("cancer", "digits", "lse", "gisette")}
    assert judged(claims.in_coordinates, **whole).holds
    assert judged(claims.in_coordinates, **(whole | {"lse_cubic": 1.0})).holds is False
    assert judged(claims.growing, gisette_cubic=101, lse_cubic=101).holds
    assert judged(claims.growing, gisette_cubic=101, lse_cubic=101, gisette_adaptive=None).holds is False
    assert judged(claims.growing, gisette_cubic=101, lse_cubic=101, gisette_adaptive_tight=None).holds
    assert judged(claims.scheduled).holds is False
    assert judged(claims.scheduled, gisette_linear=1e-6, lse_exponential=1e-6).holds
    assert judged(peer_claims.coordinate_descent).holds is False  # 1000 / 3 steps to 100
    slow: dict[str, float | None] = {job.name.replace("-", "_"): None for job in jobs.plan(False) if "-cd-" in job.name}
    assert judged(peer_claims.coordinate_descent, **slow).holds
    assert judged(peer_claims.random_subspaces).holds is False
    late: dict[str, float | None] = {k.replace("cd", m): 1e3 for k in slow for m in ("rsrnm", "rsrnm_unit")}
    assert judged(peer_claims.random_subspaces, **late).holds
    assert judged(peer_claims.lbfgs).holds is False
    assert judged(peer_claims.lbfgs, **{f"{p}_lbfgs": None for p in jobs.LINEAR}).holds
    assert judged(peer_claims.gradient_descent, **{f"{p}_gd": 1e3 for p in jobs.LINEAR}).holds
    for problem in jobs.LINEAR:  # on one of them it is faster
        assert judged(peer_claims.gradient_descent, **{f"{problem}_gd": 1e-6}).holds is False


def test_second_order() -> None:
    assert judged(claims.second_order).holds
    for changed in ({"lambda_min": -1e-5}, {"lambda_error": "inf"}):
        made = results()
        made.jobs["lse-doubling-50"].data["runs"][0].update(changed)
        assert claims.second_order.measure(made).holds is False
    made = results(lse_doubling_50=None)  # a run that did not arrive says nothing
    made.jobs["lse-doubling-50"].data["runs"][0]["lambda_min"] = -1.0
    assert claims.second_order.measure(made).holds


def test_problems() -> None:
    for name in ("cancer", "lse", "tiny", "mlp"):
        first, second = problems.make(name, 3), problems.make(name, 3)
        assert torch.equal(first.closure(), second.closure())
        assert first.n == {"cancer": 30, "lse": 200, "tiny": 60, "mlp": 610}[name]
    digits = problems.make("digits", 0)
    assert digits.n == 61  # three pixels are always white
    w = digits.parameters[0].detach()
    assert 0 <= float(w.min()) < float(w.max()) <= 1
    top = float(torch.linalg.eigvalsh(digits.closure.blocks(torch.arange(61))[1])[-1])  # type: ignore[attr-defined]
    assert 0.1 * digits.smoothness < top <= digits.smoothness
    lse = problems.make("lse", 0)
    with torch.no_grad():
        lse.parameters[0].zero_()
    assert lse.gradient_norm() < 1e-14
    x = problems.standardise(np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 8.0]]))
    np.testing.assert_allclose(x, [[-1, -1], [1, 1]])


def test_the_smallest_eigenvalue_is_found_either_way(monkeypatch: Any) -> None:
    made = problems.make("tiny", 0)
    dense, _ = made.lowest()
    monkeypatch.setattr(problems, "DENSE", 1)
    lowest, error = made.lowest()
    assert abs(lowest - dense) <= error + 1e-10
    assert error < 1e-6


def context(path: Path, name: str = "job") -> JobContext:
    return JobContext(name, 3, path / f"{name}.h5", lambda done, planned: None)


SOLVERS = (*jobs.RULES, *jobs.SCHEDULES, "cubic", "krylov", "cd", "rsrnm", "rsrnm-unit", "gd", "lbfgs")


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_job(tmp_path: Path, solver: str) -> None:
    settings: dict[str, Any] = {"problem": "tiny", "solver": solver, "size": 20, "seconds": 60.0, "every": 2}
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
        if solver in jobs.RULES:
            assert list(rows["coordinates"]) == [420.0 * k for k in range(1, 6)]


def test_a_job_ends_at_its_target(tmp_path: Path) -> None:
    found = jobs.descend(context(tmp_path), "tiny", "cubic", 0, steps=100, seconds=60.0, every=1, starts=1)["runs"][0]
    assert found["ended"] == "1e-9"
    assert set(found["to"]) == {f"{level:g}" for level in jobs.LEVELS}
    assert found["to"]["1e-06"]["steps"] <= found["to"]["1e-09"]["steps"] == found["steps"]
    assert found["gradient_norm"] <= 1e-9
    short = jobs.descend(context(tmp_path), "tiny", "gd", 0, steps=100, seconds=0.0, every=7, starts=1)["runs"][0]
    assert (short["ended"], short["steps"]) == ("seconds", 1)


def test_jobs_are_those_that_the_claims_need() -> None:
    full, quick = jobs.plan(False), jobs.plan(True)
    assert [job.name for job in full] == [job.name for job in quick]
    assert all(job.stream == job.settings["problem"] for job in full)  # one start, one sequence of subsets
    for claim in sscn.EXPERIMENT.claims:
        for pattern in claim.needs:
            assert any(fnmatchcase(job.name, pattern) for job in full), (claim.name, pattern)


def test_own_data(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from sklearn.datasets import dump_svmlight_file

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((30, 8)), np.where(rng.random(30) > 0.5, 1, -1)
    dump_svmlight_file(X, y, str(tmp_path / "own.svm"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "FILE_SECONDS", 0.05)
    sscn.command(["--data", "own.svm"])
    printed = capsys.readouterr().out
    assert "own.svm" in printed
    for solver in ("doubling-1", "ratio-1", "cubic", "cd-1", "gd", "lbfgs"):
        assert solver in printed
    (tmp_path / "bad.svm").write_text("1 2 3 is not the format\n")
    dump_svmlight_file(X, np.arange(30), str(tmp_path / "many.svm"))
    for name, said in (("bad.svm", "LIBSVM"), ("many.svm", "30 different labels"), ("none.svm", "No such file")):
        with pytest.raises(SystemExit) as ended:
            sscn.command(["--data", name])
        assert ended.value.code == 1
        assert said in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        sscn.command(["--quick", "--data"])
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
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {f"{p}.png" for p in (*jobs.PROBLEMS, "sizes")}
    assert math.isfinite(report["seconds"])
