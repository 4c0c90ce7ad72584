"""The Scion run: one pass, its jobs cut short, every rule on made-up results, what is committed, (-m slow) reduced."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from experiment_checks import check_committed, check_needs, check_page, reduced
from torch.nn import functional as F

from landscape.norms import dual_norm, norm
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import Results
from runs.scion import EXPERIMENT, criteria, jobs, known, probing, training
from solvers import batch_rule
from solvers.first_order.batch_rule import Settings

CLAIMS = {one.name: one for one in EXPERIMENT.claims}


def rows(least: float, at: float, lrs: Any, error: float = 0.001, width: float = 0.02) -> list[dict[str, Any]]:
    """Losses of two seeds by step size: a parabola in log2 of it, least at `at`."""
    means = [least + width * math.log2(lr / at) ** 2 for lr in lrs]
    made = zip(lrs, means, strict=True)
    return [{"lr": lr, "loss": [m - error, m + error], "accuracy": [0.8, 0.8], "batch": 1} for lr, m in made]


def along(**changed: Any) -> dict[str, Any]:
    """A run with constants that settle, a variance like 1 / B and a dual norm like 1 + 3 loss."""
    looks = range(probing.LOOKS)
    row = {"loss": 0.5, "dual": 2.0, "L": 5e3, "batch_L": 2e4, "rho": 10.0, "sigma": 3.0}
    sizes = {b: 1 / b for b in (8, 16, 32, 64)}
    moment = {"random": sizes, "sorted": {b: b**-0.2 for b in sizes}}
    found = {
        "rows": [row | {"distance": 1.0 - i / len(looks)} for i in looks],
        "pairs": [(0.3 + 0.01 * (7 * i % 30), 1 + 3 * (0.3 + 0.01 * (7 * i % 30)) + 0.01 * (i % 3)) for i in range(60)],
        "variance": [moment] * 3,
    }
    return found | changed


def results(losses: dict[int, float] | None = None, steps: dict[int, float] | None = None, **changed: Any) -> Results:
    """All jobs: a U in the batch with a plateau, steps that stop growing; `changed`: data by job, _ for -."""
    losses = {16: 0.37, 32: 0.352, 64: 0.3411, 128: 0.34, 256: 0.35, 512: 0.37, 1024: 0.412} | (losses or {})
    steps = {16: 2e-3, 32: 4e-3, 64: 8e-3, 128: 16e-3, 256: 20e-3, 512: 21e-3, 1024: 22e-3} | (steps or {})
    made: dict[str, Any] = {}
    for b, loss in losses.items():
        made[f"batch-{b}"] = rows(loss, steps[b], [steps[b] * 1.5**k for k in (-1, 0, 1)])
    for i, b in enumerate(jobs.LONG):
        made[f"steps-{b}"] = rows(0.6 - 0.03 * i, 0.01, [0.01])
    made["adam-64"] = rows(0.36, 0.001, [0.001])
    made["constants"] = [along()]
    made["softplus"] = [
        {"momentum": a, "steps": k, "loss": 1e-3, "error": [0.5 * limit(a, k)] * k, "room": 0.1}
        for a in known.MOMENTA
        for k in known.LENGTHS
    ]
    made |= {name.replace("_", "-"): data for name, data in changed.items()}
    return Results({name: JobResult(data, Path("none.h5")) for name, data in made.items()})


def limit(momentum: float, steps: int) -> float:
    """The least of Lemma 2's bounds along a run."""
    settings = Settings(steps, 1, known.C / steps, momentum)
    return batch_rule.mean_error(settings, known.CONSTANTS, known.RADIUS, steps)


def refused() -> Iterator[tuple[str, dict[str, Any]]]:
    """For every rule, made-up results to which it says no."""
    falling = {16: 0.339}
    yield "larger batches help first", {"losses": falling}
    yield "larger batches help first", {"batch_16": rows(0.37, 2e-3, [2e-3], error=0.2)}
    yield "then saturate", {"losses": {64: 0.345, 256: 0.345}}
    yield "then hurt", {"batch_1024": rows(0.341, 0.022, [0.022], error=0.01)}
    yield "the rise is at most linear", {"losses": {1024: 0.5}}
    yield "the rise is at most linear", {"losses": {1024: 0.36}}
    yield "the best step size stops growing with the batch", {"steps": {256: 32e-3, 512: 64e-3, 1024: 128e-3}}
    flat = {"random": {8: 1.0, 16: 0.7, 32: 0.5}, "sorted": {8: 1.0, 16: 1.0}}
    yield "the variance of a batch falls like 1 / B", {"constants": [along(variance=[flat])]}
    rising = [row | {"sigma": 3.0 + i} for i, row in enumerate(along()["rows"])]
    rising[-1] = rising[-1] | {"sigma": 40.0}
    yield "the variance settles", {"constants": [along(), along(rows=rising)]}
    yield (
        "mu-KL: the dual norm rises with the loss",
        {"constants": [along(pairs=[(x, -d) for x, d in along()["pairs"]])]},
    )
    high = [row | {"error": [2 * e for e in row["error"]]} for row in results().one("softplus")]
    yield (
        "Lemma 2 and the bound (26) hold",
        {"softplus": [row | {"error": [2.1 * e for e in row["error"]]} for row in high]},
    )
    yield "Lemma 2 and the bound (26) hold", {"softplus": [row | {"loss": 1e6} for row in results().one("softplus")]}
    far = [row | {"L": 1e-6} for row in along()["rows"]]
    yield "the rule's batch needs no factor", {"constants": [along(rows=far)]}
    yield "a lower test loss than Adam", {"adam_64": rows(0.3411, 0.001, [0.001])}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_rule_says_yes(name: str) -> None:
    found = CLAIMS[name].measure(results())
    assert found.holds, found.measured
    if found.control is not None:
        assert found.control.holds is False, found.control.measured
    json.dumps(found.numbers)


@pytest.mark.parametrize(("name", "changed"), list(refused()))
def test_a_rule_says_no(name: str, changed: dict[str, Any]) -> None:
    found = CLAIMS[name].measure(results(**changed))
    assert found.holds is False, found.measured


def test_every_claim_is_refused_by_something() -> None:
    assert {name for name, _ in refused()} == set(CLAIMS)
    assert all(one.control is not None for one in EXPERIMENT.claims if one.source != "own")


def test_best_step_sizes() -> None:
    assert criteria.best_lr(rows(0.3, 0.0023, [0.001, 0.002, 0.004])) == pytest.approx(0.0023)
    assert criteria.best_lr(rows(0.3, 0.0001, [0.001, 0.002])) == 0.001
    assert criteria.edge(rows(0.3, 0.0001, [0.001, 0.002, 0.004]))
    lost = rows(0.3, 0.002, [0.001, 0.002, 0.004])
    lost[0]["loss"] = [None, 0.3]
    assert criteria.best_lr(lost) == 0.002
    assert criteria.mean_error([None, 0.3]) == (math.inf, 0.0)
    assert criteria.straight([1, 2, 3], [1.0, 2.0, 3.0]) == pytest.approx((1.0, 1.0))


# -- jobs ----------------------------------------------------------------------------------------------------------


def context(path: Path) -> JobContext:
    return JobContext("job", 3, path / "job.h5", lambda done, planned: None)


def test_one_pass() -> None:
    """Every image at most once; a step size that is constant, then falls; batches of each stage."""
    stages = [Settings(400, 8, 0.1, 0.2), Settings(600, 16.4, 0.05, 0.2)]
    found = list(training.steps("digits", stages, 0))
    assert [len(s.labels) for s in found] == [8] * 50 + [16] * 37
    assert [found[i].lr for i in (0, 49, 50)] == pytest.approx([0.1, 0.1, 0.05])
    last = found[-1]
    assert last.lr == pytest.approx(0.05 * (1 - last.seen / 1000) / 0.28)
    assert [found[i].momentum for i in (0, 1)] == [1.0, 0.2]
    seen = torch.cat([s.inputs for s in found]).unique(dim=0)
    assert len(seen) == 992
    other = next(training.steps("digits", stages, 1))
    assert not torch.equal(other.inputs, found[0].inputs)


def test_a_scan(tmp_path: Path) -> None:
    runs = [vars(Settings(512, 32, lr)) for lr in (1e-3, 1e-2)]
    found = jobs.scan(context(tmp_path), runs, 1, 2, {"data": "digits"})
    json.dumps(found, allow_nan=False)
    assert [len(row["loss"]) for row in found] == [1, 2]
    assert found[1]["loss"][0] < found[0]["loss"][0] < math.log(10)


def test_the_iterates_stay_in_the_ball() -> None:
    """Lemma 1 on the network, up to the singular values that Newton-Schulz leaves; radii are twice the start's."""
    setup = training.Setup("digits")
    model = setup.network(0)
    for name, p in model.named_parameters():
        kind = "sign" if name == "4.weight" else "auto"
        assert 2 * float(norm(p.detach(), kind)) < (training.HEAD if kind == "sign" else training.RADIUS), name
    model = training.train(setup, [Settings(1344, 16, 0.3)], 0)
    for name, p in model.named_parameters():
        kind, radius = ("sign", training.HEAD) if name == "4.weight" else ("auto", 1.21 * training.RADIUS)
        assert float(norm(p.detach(), kind)) <= radius, name


def test_constants_along_a_run(tmp_path: Path) -> None:
    settings = vars(Settings(512, 16, 2e-3))
    (run,) = probing.follow(context(tmp_path), settings, 1, {"data": "digits"}, 256, 64)
    json.dumps(run, allow_nan=False)
    assert len(run["rows"]) == probing.LOOKS
    assert [*run["variance"][0]["random"]] == ["8", "16", "32"]
    first = next(training.steps("digits", [Settings(**settings)], 3))
    model = training.Setup("digits").network(3)
    loss = F.cross_entropy(model(first.inputs), first.labels)
    pieces = torch.autograd.grad(loss, list(model.parameters()))
    dual = sum(s * float(dual_norm(g, kind)) for g, (kind, s) in zip(pieces, probing.NORMS, strict=True))
    assert run["pairs"][0] == pytest.approx((float(loss.detach()), dual), rel=1e-4)


def test_lemma_1_on_the_known_loss() -> None:
    found = known.run(Settings(60, 1, known.C / 60, 0.1), 2, 0)
    assert found["room"] >= -1e-9
    assert len(found["error"]) == 60


# -- the experiment ------------------------------------------------------------------------------------------------


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)
    assert all(job.stream == "run" for job in jobs.plan(False) if job.run is jobs.scan)


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not any("not measured" in one.measured for one in found)


def test_the_document_has_the_committed_table() -> None:
    check_page(EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    assert {path.name for path in (tmp_path / "quick").glob("*.png")} == {"scion.png"}
