"""The edge of stability: its criteria on made-up data, its pages, and (-m slow) the reduced run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import check_committed, check_page, reduced

from landscape import Hessian, Objective
from landscape.spectra import eigsh, trace
from probes.digits import build_network
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.edge_of_stability import EXPERIMENT, criteria
from runs.edge_of_stability import claims as edge
from runs.edge_of_stability import jobs as edge_jobs
from runs.engine.claims import ClaimResult, Results


class MadeUp(Results):
    """Results whose traces are dictionaries."""

    def __init__(self, jobs: dict[str, dict[str, Any]], traces: dict[str, dict[str, Any]] | None = None) -> None:
        super().__init__({name: JobResult(data, Path(f"{name}.h5")) for name, data in jobs.items()})
        self.traces = traces or {}

    def trace(self, name: str) -> Any:
        return _Opened(self.traces[name])


class _Opened(dict):  # type: ignore[type-arg]
    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def descent(ratios: list[float], losses: list[float], rate: float = 0.5) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job's data and trace: `ratios` are eta/2 times the sharpness, one for each 10 losses."""
    values = np.array(ratios) * 2 / rate
    return {"rate": rate}, {
        "sharpness": {"step": np.arange(len(ratios)) * 10, "value": values},
        "loss": {"step": np.arange(len(losses)), "value": np.array(losses)},
    }


def judged(claim: Any, jobs: dict[str, tuple[dict[str, Any], dict[str, Any]]]) -> ClaimResult:
    results = MadeUp({n: job[0] for n, job in jobs.items()}, {n: job[1] for n, job in jobs.items()})
    return claim.measure(results)


def test_numbers() -> None:
    assert criteria.reached(np.array([0.2, 0.9, 1.0, 0.8])) == 2
    assert criteria.reached(np.array([0.2, 0.9])) is None
    assert criteria.plateau(np.array([9.0, 9, 9, 9, 9, 9, 1, 2, 3])) == 2.0
    assert criteria.share_raised(np.array([3.0, 2, 2, 2.5, 1])) == 0.25
    assert criteria.share_raised(np.array([1.0])) == 0.0
    assert criteria.long_run(np.array([4.0, 4, 3, 3, 3, 3, 3, 3, 1, 1])) == 0.25


def test_gradient_descent() -> None:
    zigzag = [(2.0 if i % 2 else 1.0) * 0.9 ** (i / 4) for i in range(120)]
    smooth = [0.9**i for i in range(120)]
    edge_run = [0.2, 0.6, *([1.02] * 10)]
    good = {"gd-0.5": descent(edge_run, zigzag), "gd-0.05": descent([0.1, 0.2, 0.3] * 4, smooth)}
    assert judged(edge.sharpens, good).holds
    assert judged(edge.stays, good).holds
    assert judged(edge.falls, good).holds
    assert judged(edge.stable, good).holds
    assert "0.5: 1.020" in judged(edge.stays, good).measured
    flat = {"gd-0.5": descent([0.2] * 12, smooth)}
    assert judged(edge.sharpens, flat).holds is False
    assert judged(edge.stays, flat).holds is None  # no run got there
    assert judged(edge.stays, {"gd-0.5": descent([0.2, 1.1, *([1.3] * 10)], zigzag)}).holds is False
    assert judged(edge.stays, {"gd-0.5": descent([0.2, 1.1, *([0.7] * 10)], zigzag)}).holds is False
    assert judged(edge.falls, {"gd-0.5": descent(edge_run, smooth)}).holds is False  # falls at each step
    assert judged(edge.falls, {"gd-0.5": descent(edge_run, [1.0, 2.0] * 60)}).holds is False  # does not fall
    assert judged(edge.stable, {"gd-0.05": descent([0.1] * 12, zigzag)}).holds is False
    brief = {"entropy-1": descent([0.2, 1.1, *([0.5] * 10)], smooth)}
    assert judged(edge.entropy, brief).holds is False
    assert judged(edge.entropy, {"entropy-1": descent([0.2, 1.1, 1.0, *([0.5] * 9)], smooth)}).holds


def sgd(sharpness: float, batch: float) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"rate": 2.0}, {
        "sharpness": {"value": np.full(9, sharpness)},
        "batch-sharpness": {"value": np.full(9, batch)},
    }


def test_mini_batches() -> None:
    good = {"sgd-4": sgd(0.4, 1.0), "sgd-64": sgd(0.8, 1.1), "sgd-256": sgd(1.0, 0.99), "gd-0.4": sgd(1.02, 0.0)}
    assert judged(edge.batch_sharpness, good).holds
    assert judged(edge.below, good).holds  # 256 is more than a tenth of the data
    assert judged(edge.flatter, good).holds
    assert judged(edge.batch_sharpness, good | {"sgd-4": sgd(0.4, 0.7)}).holds is False
    assert judged(edge.below, good | {"sgd-4": sgd(0.8, 0.7)}).holds is False
    assert judged(edge.below, good | {"sgd-4": sgd(1.1, 1.12)}).holds is False
    assert judged(edge.flatter, good | {"sgd-4": sgd(0.9, 1.0)}).holds is False


def test_spectrum() -> None:
    def job(classes: int, count: int, gap: float) -> dict[str, Any]:
        return {"classes": classes, "outliers": [0, count], "gap": [1.0, gap]}

    for claim, data in ((edge.classes, "digits"), (edge.clusters, "blobs")):
        assert claim.measure(MadeUp({f"{data}-3": job(3, 2, 2.0), f"{data}-5": job(5, 5, 1.6)})).holds
        assert claim.measure(MadeUp({f"{data}-3": job(3, 2, 2.0), f"{data}-5": job(5, 7, 1.6)})).holds is False
        assert claim.measure(MadeUp({f"{data}-3": job(3, 2, 1.2)})).holds is False
    nodes = np.array([[[0.0, 5.0, 10.0]] * 2] * 2)
    weights = np.array([[[0.96, 0.02, 0.02], [0.94, 0.03, 0.03]], [[0.5, 0.3, 0.2]] * 2])

    class Group(dict):  # type: ignore[type-arg]
        read = dict.copy

    trace = {"density": Group(nodes=nodes, weights=weights), "spectrum": Group(values=np.array([[10.0], [10.0]]))}
    results = MadeUp({"digits-3": {}}, {"digits-3": trace})
    assert criteria.masses_at_zero(results, "digits-3") == [pytest.approx((0.95, 0.01)), pytest.approx((0.5, 0.0))]
    assert edge.bulk.measure(results).holds is False


def test_minima() -> None:
    def run(trace: float, **more: Any) -> dict[str, Any]:
        return {"ratio": 2.0, "rate": 0.1, "kept": True, "trace": trace, "stderr": 0.5, **more}

    gone = {"ratio": 4.0, "rate": 0.2, "kept": False, "epochs": 1}
    minimum = {"rate": 0.2, "sharpness": 10.0, "trace": 60.0, "stderr": 0.5, "loss": 0.0}

    def kept(*runs: dict[str, Any]) -> ClaimResult:
        return edge.kept.measure(MadeUp({"keep": minimum | {"runs": list(runs)}, "scratch-0.1": run(9.0)}))

    assert kept(run(20.9), gone).holds  # within two standard errors of 2 / 0.1
    assert "× 4 → diverged" in kept(run(19.0), gone).measured
    assert kept(run(21.1)).holds is False
    assert edge.unbounded.measure(MadeUp({"keep": minimum})).holds
    assert edge.unbounded.measure(MadeUp({"keep": minimum | {"trace": 10.5}})).holds is False
    assert edge.unbounded.measure(MadeUp({"keep": minimum | {"sharpness": 12.0}})).holds is False


def test_the_square_loss_is_the_one_of_the_theory() -> None:
    """At a fitted sample the Hessian is the outer product of the output's gradient: its trace is |gradient|^2."""
    model = build_network(lambda: edge_jobs.network(1), 0)
    x, _ = edge_jobs.images()
    with torch.no_grad():
        fitted = model(x[:1])
    objective = Objective(model.double(), edge_jobs.half_square, (x[:1].double(), fitted.double()))
    gradient = torch.autograd.grad(model(x[:1].double())[0, 0], list(model.parameters()))
    square = float(sum(g.square().sum() for g in gradient))
    assert eigsh(Hessian(objective), 1, tol=1e-6).values[0] == pytest.approx(square, rel=1e-6)
    found = trace(Hessian(objective), matvecs=30)
    assert abs(found.value - square) <= 3 * found.stderr + 1e-6 * square


def test_batches_go_through_the_data() -> None:
    x = torch.arange(10.0).unsqueeze(1)
    seen = [y for _, y in edge_jobs.batches(x, torch.arange(10), 4, 5, seed=1)]
    assert [len(y) for y in seen] == [4] * 5
    for epoch in (seen[:2], seen[2:4]):
        assert torch.cat(epoch).unique().numel() == 8  # the rest of an epoch is left out
    again = [y for _, y in edge_jobs.batches(x, torch.arange(10), 4, 5, seed=1)]
    assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))


def test_jobs_are_those_that_the_claims_need(tmp_path: Path) -> None:
    from fnmatch import fnmatchcase

    for quick in (False, True):
        names = [job.name for job in edge_jobs.plan(quick)]
        for claim in EXPERIMENT.claims:
            for pattern in claim.needs:
                known = any(fnmatchcase(name, pattern) for name in names)
                assert known or (quick and pattern == f"gd-{edge_jobs.SGD_RATE}"), (claim.name, pattern)


def test_a_short_descent(tmp_path: Path) -> None:
    context = JobContext("gd", 3, tmp_path / "gd.h5", lambda done, planned: None)
    found = edge_jobs.descend(context, loss="square", rate=0.1, steps=4, every=2)
    assert found["parameters"] == 8970
    from probes import Trace

    with Trace.open(tmp_path / "gd.h5") as trace:
        assert trace["sharpness"]["step"].tolist() == [0, 2, 4]
        assert trace["sharpness"]["threshold"].tolist() == [20.0] * 3
        losses = trace["loss"]["value"]
    assert len(losses) == 5
    assert (np.diff(losses) < 0).all()
    # the same weights, by hand
    model, (x, y) = build_network(lambda: edge_jobs.network(10), 3), edge_jobs.images()
    with torch.no_grad():
        assert losses[0] == pytest.approx(float(edge_jobs.half_square(model(x), edge_jobs.one_hot(y))))


def test_the_committed_results_are_of_these_claims() -> None:
    report, _ = check_committed(EXPERIMENT)
    assert report["environment"]["packages"]["torch"]


def test_the_documents_have_the_committed_table() -> None:
    check_page(EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, printed = reduced(EXPERIMENT, tmp_path)
    text = " ".join(printed.split())
    assert all(word in text for found in report["claims"] for word in found["name"].split())
    assert {found["name"]: found["holds"] for found in report["claims"]}["a small step size stays stable"] is True
    for found in report["claims"]:
        assert "the rule failed" not in found["measured"], found
        assert not any(isinstance(v, float) and math.isnan(v) for v in found["numbers"].values())
    for job in edge_jobs.plan(True):
        assert (tmp_path / "quick" / "jobs" / f"{job.name}.h5").stat().st_size > 1000
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"gradient-descent.png", "sgd.png", "minima.png", "outliers.png", "density-digits-3.png"}
