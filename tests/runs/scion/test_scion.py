"""The Scion run: jobs cut short, criteria on made-up results, what is committed, (-m slow) the reduced run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from experiment_checks import check_committed, check_needs, check_page, reduced
from torch.nn import functional as F

from landscape.norms import dual_norm, norm
from probes import Trace
from probes.digits import build_network, digits
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs import scion
from runs.engine.claims import ClaimResult, Results
from runs.scion import claims, jobs


def results(**changed: Any) -> Results:
    """All jobs; a batch's loss is |log2 B - 5| / 10 + 0.1 at a step size that grows with B, ten times that elsewhere.

    Of the solvers Scion is best and flattest. `changed`: data by job, with _ for -.
    """
    made = {}
    for job in jobs.plan(False):
        lrs = job.settings.get("lrs", [])
        if "-batch-" in job.name:
            least = 0.1 + abs(math.log2(job.settings["batch"]) - 5) / 10
            at = int(math.log2(job.settings["batch"])) - 2
            ends = [least if i == min(at, len(lrs) - 1) else 10 * least for i in range(len(lrs))]
        elif "-solver-" in job.name:
            flat = 0.1 if job.name.endswith("scion") else 0.2
            ends = [flat * (1 + abs(i - 4)) for i in range(len(lrs))]
        else:
            ends = [0.1 if lr == 0.25 else 0.5 for lr in lrs]
        runs = [
            {"lr": lr, "loss": [end, end], "accuracy": [0.9, 0.9], "largest": [1.1, 1.0]}
            for lr, end in zip(lrs, ends, strict=True)
        ]
        if "-mu-" in job.name:
            gap = [2.0, 1.0, 0.1]
            runs = [{"step": [0.0, 1.0, 2.0], "mu": [2.0, 1.5, 3.0], "gap": gap, "total": [4.0, 1.5, 0.3]}] * 2
        made[job.name] = JobResult(changed.get(job.name.replace("-", "_"), {"runs": runs}), Path("none.h5"))
    return Results(made)


def flat(value: float, lrs: Any = jobs.LRS, at: float = 0.25, **more: Any) -> dict[str, Any]:
    """A job whose loss is `value` at one step size, 2 elsewhere."""
    rows = [
        {"lr": lr, "loss": [value if lr == at else 2.0] * 2, "accuracy": [0.9] * 2, "largest": [1.0] * 2} | more
        for lr in lrs
    ]
    return {"runs": rows}


def judged(claim: Any, **changed: Any) -> ClaimResult:
    return claim.measure(results(**changed))


def test_claims_on_batches() -> None:
    """Made-up losses: 0.4 at 4 and 0.1 at 32 up to 0.6 at 1024."""
    assert judged(claims.helps).holds
    assert judged(claims.helps, mlp_batch_4=flat(0.12)).holds is False
    assert judged(claims.saturates).holds is False  # 16 and 64 have twice the loss of 32
    level = {f"{n}_batch_{b}": flat(0.11) for n in jobs.NETWORKS for b in (64, 128)}
    assert judged(claims.saturates, **level).holds
    assert judged(claims.hurts).holds
    assert judged(claims.hurts, cnn_batch_1024=flat(0.15)).holds is False
    found = judged(claims.step_sizes)
    assert found.holds
    assert found.numbers["mlp"]["slope"] == pytest.approx(1.0, abs=0.02)
    same = {f"cnn_batch_{b}": flat(0.1) for b in jobs.BATCHES}
    assert judged(claims.step_sizes, **same).holds is False
    lost = flat(0.1, loss=[None, 5.0])  # diverged counts as chance, and so does what is worse
    assert claims.best(results(mlp_batch_4=lost), "mlp-batch-4")[0] == pytest.approx(math.log(10))


def test_claims_on_mu() -> None:
    found = judged(claims.away_from_zero)
    assert found.holds
    assert found.numbers["mlp-mu-32"]["least"] == [1.5, 1.5]
    rows = {"step": [0.0, 1.0], "mu": [2.0, 0.9], "gap": [2.0, 0.1], "total": [4.0, 0.09]}
    assert judged(claims.away_from_zero, cnn_mu_32={"runs": [rows]}).holds is False
    exponent = judged(claims.away_from_zero, cnn_mu_32={"runs": [rows]}).numbers["cnn-mu-32"]["exponent"]
    assert exponent == [pytest.approx(math.log(4 / 0.09) / math.log(20))]
    high = rows | {"mu": [2.0, 1.9], "gap": [2.0, 0.3]}
    assert judged(claims.away_from_zero, cnn_mu_32={"runs": [high]}).holds is False


def test_claims_beside_other_solvers() -> None:
    found = judged(claims.robust)
    assert found.holds
    assert found.numbers["mlp"]["scion"] == pytest.approx(0.1 * (2 + 1 + 0 + 1 + 2) / 5)
    lrs = [run["lr"] for run in results().data("mlp-solver-adam")["mlp-solver-adam"]["runs"]]
    level = flat(2.0, lrs)
    edge = judged(claims.robust, mlp_solver_adam=flat(0.1, lrs, lrs[1]))
    assert edge.holds is None
    assert "adam grid too short" in edge.measured
    assert judged(claims.robust, mlp_solver_adam=level).holds is None  # the first of equal ones is the best
    level["runs"][4]["loss"] = [1.99, 1.99]
    assert judged(claims.robust, mlp_solver_adam=level).holds is False
    assert judged(claims.lower).holds
    assert judged(claims.lower, cnn_solver_adam=flat(0.05, lrs, lrs[4])).holds is False


def test_claims_on_variants() -> None:
    assert judged(claims.ball).holds
    assert judged(claims.ball, mlp_radius_5=flat(0.1, largest=[2.0, 9.0])).holds
    assert judged(claims.ball, mlp_radius_20=flat(0.1, largest=[1.0, 1.3])).holds is False
    assert judged(claims.ball, mlp_radius_20=flat(0.1, accuracy=[0.88, 0.89])).holds is False
    assert judged(claims.ball, mlp_radius_20=flat(0.1, largest=[1.0, None])).holds is False
    base = {f"{n}_batch_32": flat(0.11) for n in jobs.NETWORKS}
    assert judged(claims.newton_schulz, **base).holds
    assert judged(claims.newton_schulz, **base, mlp_exact=flat(0.2)).holds is False
    assert judged(claims.newton_schulz, **base, mlp_exact=flat(0.1, at=1.0)).holds is False
    assert judged(claims.newton_schulz, **base, cnn_exact=flat(0.1, accuracy=[0.92, 0.92])).holds is False


def context(path: Path) -> JobContext:
    return JobContext("job", 3, path / "job.h5", lambda done, planned: None)


@pytest.mark.parametrize("solver", list(jobs.GRIDS))
@pytest.mark.parametrize("network", jobs.NETWORKS)
def test_a_job(tmp_path: Path, network: str, solver: str) -> None:
    lr = {"sign": 2.0**-7, "adam": 2.0**-7}.get(solver, 2.0**-3)
    settings = {"network": network, "batch": 64, "epochs": 2, "seeds": 2, "solver": solver}
    found = jobs.sweep(context(tmp_path), lrs=[lr, 1e30], **settings)
    json.dumps(found, allow_nan=False)
    assert found["steps"] == 42
    good, bad = found["runs"]
    assert max(good["loss"]) < 2.0
    assert min(good["accuracy"]) > 0.3
    assert good["loss"][0] != good["loss"][1]
    assert all(loss is None or loss > 2.0 for loss in bad["loss"])
    again = jobs.sweep(context(tmp_path), lrs=[lr], **settings)
    assert again["runs"][0] == good


def test_constrained_and_exact_jobs(tmp_path: Path) -> None:
    settings = {"network": "mlp", "batch": 64, "epochs": 1, "seeds": 1, "solver": "scion", "lrs": [0.5]}
    held = jobs.sweep(context(tmp_path), **settings, radius=1.5, exact=True)["runs"][0]
    free = jobs.sweep(context(tmp_path), **settings, exact=True)["runs"][0]
    assert held["largest"][0] <= 1.0 + 1e-6
    assert free["largest"][0] > 1.5
    model = build_network(jobs.NETWORK["cnn"], 0)
    solver = jobs.make("scion", model, 0.5, 4.0)
    assert [group["lr"] * group["scale"] for group in solver.param_groups] == pytest.approx([0.5, 5.0])
    assert [p.shape for p in solver.param_groups[1]["params"]] == [(10, 64)]


def test_the_ratio_is_that_of_the_solvers_ball(tmp_path: Path) -> None:
    found = jobs.follow(context(tmp_path), network="mlp", batch=128, lr=2.0**-4, epochs=1, seeds=2)
    json.dumps(found, allow_nan=False)
    run = found["runs"][1]
    assert run["step"][-1] == found["steps"] == 10
    model = build_network(jobs.NETWORK["mlp"], 4)
    x, y = digits().train
    loss = F.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    names = [name for name, _ in model.named_parameters()]
    total = sum(
        10 * float(dual_norm(g, "sign")) if name == "5.weight" else float(dual_norm(g))
        for name, g in zip(names, gradients, strict=True)
    )
    assert run["total"][0] == pytest.approx(total, rel=1e-4)
    assert run["mu"][0] == pytest.approx(total / float(loss.detach()), rel=1e-4)
    assert run["gap"][-1] < run["gap"][0]
    with Trace.open(tmp_path / "job.h5") as trace:
        assert list(trace["seed-1"]["mu"]) == run["mu"]
    assert float(norm(model.get_parameter("5.weight").detach(), "sign")) > 0


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(scion.EXPERIMENT)
    assert all(job.stream == job.settings["network"] for job in jobs.plan(False))  # one start, one order of batches


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(scion.EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)


def test_the_document_has_the_committed_table() -> None:
    check_page(scion.EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(scion.EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    assert {path.name for path in (tmp_path / "quick").glob("*.png")} == {"scion.png"}
