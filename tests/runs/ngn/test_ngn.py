"""The NGN run: its small problems beside the solvers of the repository, criteria on made-up results, (-m slow) all."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import check_committed, check_needs, check_page, reduced

from landscape.regularity.examples import two_functions
from probes import Trace
from probes.sweep.jobs import JobContext
from probes.sweep.solvers import make, step
from probes.sweep.work import JobResult
from runs import ngn
from runs.engine.claims import ClaimResult, Results
from runs.ngn import claims, jobs, toys
from runs.ngn import network_claims as networks
from runs.shared import transformers
from runs.sweep import solvers as short

# -- small problems beside the solvers -------------------------------------------------------------------------------


@pytest.mark.parametrize(("lr", "start"), [(0.01, 10.0), (10.0, 10.0), (1e4, 1.0)])
def test_the_written_out_descent_is_that_of_the_solver(lr: float, start: float) -> None:
    x = torch.tensor([start], dtype=torch.float64, requires_grad=True)
    solver = make(short.spec("ngn-m"), [x], lr)
    steps = 0
    while step(solver, lambda: (x**2 + x**4).sum()) >= toys.SOLVED:
        steps += 1
    assert steps == toys.descent(start, lr, 0.9, 100_000, adaptive=True)


def test_descents_that_do_not_arrive() -> None:
    assert toys.descent(10.0, 1.0, 0.9, 1000, adaptive=False) == -1
    assert toys.descent(10.0, 1e-4, 0.9, 1000, adaptive=True) is None


@pytest.mark.parametrize(
    ("version", "spec", "scale"), [("ngn-m", "ngn-m", 1.0), ("sgd-m", "torch.optim:SGD:momentum=0.9", 0.1)]
)
def test_the_written_out_regression_is_that_of_the_solver(version: str, spec: str, scale: float) -> None:
    A, b = toys.regression("columns-sum")
    found = toys.heavy_ball(A, b, 1.0, 60, version)
    x = torch.zeros(A.shape[1], dtype=torch.float64, requires_grad=True)
    solver = make(short.spec(spec), [x], scale)
    matrix, target = torch.from_numpy(A), torch.from_numpy(b)
    losses = [step(solver, lambda: (matrix @ x - target).square().sum() / 2) for _ in range(61)]
    np.testing.assert_allclose(found, losses, rtol=1e-9)


def test_version_2_takes_its_step_from_the_mean() -> None:
    """Its first steps by hand: the mean is 0.1 g, then 0.9 (0.1 g) + 0.1 g'."""
    A, b = np.array([[2.0]]), np.array([3.0])
    x, before, mean, losses = 0.0, 0.0, 0.0, []
    for _ in range(4):
        f, g = (2 * x - 3) ** 2 / 2, 2 * (2 * x - 3)
        losses.append(f)
        mean = 0.9 * mean + 0.1 * g
        x, before = x - 0.1 * (5 / (1 + 5 * mean**2 / (2 * f))) * g + 0.9 * (x - before), x
    np.testing.assert_allclose(toys.heavy_ball(A, b, 5.0, 3, "version-2"), losses)


def test_readings_of_normalised() -> None:
    for reading in toys.READINGS:
        A, b = toys.regression(reading)
        scale = 1.0 if reading.endswith("sum") else 442**-0.5
        lengths = np.linalg.norm(A, axis=1 if reading.startswith("rows") else 0)
        np.testing.assert_allclose(lengths, scale, rtol=1e-12)
        assert b @ b == pytest.approx(442 * scale**2)


def test_two_noisy_functions() -> None:
    toy = two_functions()
    assert toys.constants(toy, 0.5).beta == pytest.approx(0.163338, rel=2e-4)
    assert toys.constants(toy, 1.0).beta == pytest.approx(2.164732, rel=2e-4)
    path = toys.noisy_path("ngn", 0.3, "sqrt", 6, 7)
    centres = 2.0 * np.random.default_rng(7).integers(2, size=6) - 1
    x = 4.0
    for k, centre in enumerate(centres):
        f, g = (x - centre) ** 2 / 2 + math.sin(x) ** 2, x - centre + math.sin(2 * x)
        rate = 0.3 / math.sqrt(k + 1)
        x -= rate / (1 + rate * g * g / (2 * f)) * g
        assert path[k + 1] == pytest.approx(x, rel=1e-12)
    assert np.abs(path).max() < 20


def context(path: Path, name: str = "job") -> JobContext:
    return JobContext(name, 3, path / f"{name}.h5", lambda done, planned: None)


def test_rosenbrock(tmp_path: Path) -> None:
    z = torch.tensor([-1.2, 1.0], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(toys.valley(z), z)
    assert float(toys.valley(z).detach()) == pytest.approx(24.2)  # the classical start
    np.testing.assert_allclose(g, [-215.6, -88.0])
    found = toys.rosenbrock(context(tmp_path), "sgd-m-undamped", 30)["steps"]
    assert found["0.001"] is None
    assert found["100"] == -1
    with Trace.open(tmp_path / "job.h5") as trace:
        assert list(trace["lr-0.001"]["step"]) == [0, 20]
        assert trace["lr-0.001"]["loss"][0] == pytest.approx(24.2)


# -- networks --------------------------------------------------------------------------------------------------------


def test_a_job_on_a_network(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"problem": "digits-mlp", "lrs": [0.1, 1e6], "seeds": 2, "steps": 4, "batch": 32}
    found = jobs.sensitivity(context(tmp_path), solver="sgd-m", **settings)
    json.dumps(found, allow_nan=False)
    assert [(r["lr"], r["seed"]) for r in found["rows"]] == [(0.1, 0), (0.1, 1), (1e6, 0), (1e6, 1)]
    assert found["rows"][0]["first_loss"] == found["rows"][2]["first_loss"] != found["rows"][1]["first_loss"]
    with Trace.open(tmp_path / "job.h5") as trace:
        rows = trace["runs"]
        assert rows["loss"].shape == (4, 4)
        assert np.isfinite(rows["loss"][:2]).all()
        assert rows["last"][0] == found["rows"][0]["loss"]
    again = jobs.sensitivity(context(tmp_path, "again"), solver="ngn-m", **settings)
    assert again["rows"][0]["first_loss"] == found["rows"][0]["first_loss"]


def test_the_text_and_its_network() -> None:
    (x, y), (held, _) = transformers.text()
    assert x.shape == (transformers.TRAINED, transformers.WINDOW)
    assert len(held) == transformers.TESTED
    assert torch.equal(x.flatten()[1:], y.flatten()[:-1])
    assert torch.equal(held[0, 0], y[-1, -1])
    net = transformers.ByteTransformer()
    changed = x[:1].clone()
    changed[0, 20:] = 7
    with torch.no_grad():
        before, after = net(x[:1]), net(changed)
    assert before.shape == (1, 256, 32)
    torch.testing.assert_close(before[..., :20], after[..., :20])  # no look ahead
    assert not torch.allclose(before[..., 20:], after[..., 20:])


def test_grids() -> None:
    for solver in ("adam", "momo-adam", "ngn-md1", "ngn-md2", "ngn-md1-w"):
        assert (jobs.grid(solver)[0], jobs.grid(solver)[-1]) == (1e-4, 1.0)
    for solver in ("sgd-m", "momo", "ngn-m", "ngn", "ngn-d", "sps"):
        assert (jobs.grid(solver)[0], jobs.grid(solver)[-1]) == (0.01, 100.0)


# -- claims on made-up results ---------------------------------------------------------------------------------------


def rows(solver: str, least: float, width: int, accuracy: float, diverged: int = 0) -> list[dict[str, Any]]:
    """Losses of 1 but for `least` at `width` step sizes in the middle; the last `diverged` end in nan."""
    grid = jobs.grid(solver)
    chosen = range((len(grid) - width) // 2, (len(grid) - width) // 2 + width)
    made = []
    for i, lr in enumerate(grid):
        for seed in range(3):
            lost = i >= len(grid) - diverged
            loss = None if lost else (least if i in chosen else 1.0) + 1e-3 * seed
            made.append(
                {
                    "solver": solver,
                    "lr": lr,
                    "seed": seed,
                    "first_loss": 2.0,
                    "loss": loss,
                    "diverged": lost,
                    "test_accuracy": accuracy + 1e-3 * seed * seed,
                    "test_loss": least + 0.01 * seed,
                }
            )
    return made


def results(**changed: dict[str, Any]) -> Results:
    """All jobs of networks: NGN's own good at five step sizes, the others at three."""
    made = {}
    for job in jobs.plan(False):
        if job.run is not jobs.sensitivity:
            continue
        solver = job.name.partition("-")[2]
        settings = {"least": 0.1, "width": 5 if solver in ("ngn-m", "ngn-md1") else 3, "accuracy": 0.95}
        settings |= changed.get(job.name.replace("-", "_"), {})
        made[job.name] = JobResult({"rows": rows(solver, **settings)}, Path("none.h5"))
    return Results(made)


def judged(claim: Any, **changed: dict[str, Any]) -> ClaimResult:
    return claim.measure(results(**changed))


def test_claims_on_sensitivity_and_ranges() -> None:
    for claim, job in (
        (networks.less_than_sgd, "cnn_ngn_m"),
        (networks.less_than_momo, "vit_ngn_m"),
        (networks.less_than_adam, "mlp_ngn_md1"),
        (networks.less_than_momo_adam, "cnn_ngn_md1"),
    ):
        assert judged(claim).holds
        assert judged(claim, **{job: {"width": 2}}).holds is False
        assert judged(claim, text_ngn_m={"width": 1}, text_ngn_md1={"width": 1}).holds  # reported, not judged
    found = judged(networks.less_than_sgd).numbers["mlp"]
    assert found["ngn-m"][0] == pytest.approx(0.9 * 4 / 9)  # four of nine step sizes are 0.9 above the best
    assert found["sgd-m"][0] == pytest.approx(0.9 * 6 / 9)
    assert judged(networks.ranges).holds
    assert judged(networks.ranges).numbers["vit"] == pytest.approx({"sgd-m": 1.0, "momo": 1.0, "ngn-m": 2.0}, abs=1e-3)
    assert judged(networks.ranges, text_momo={"width": 6}).holds is False
    assert judged(networks.ranges_adaptive, text_adam={"width": 5}).holds
    for other in ("adam", "momo_adam"):
        assert judged(networks.ranges_adaptive, **{f"text_{other}": {"width": 6}}).holds is False


def test_claims_at_the_best_step_size() -> None:
    assert judged(networks.good).holds
    assert judged(networks.good, cnn_ngn_m={"accuracy": 0.9}).holds is False
    assert judged(networks.good_adaptive, cnn_ngn_m={"accuracy": 0.9}).holds
    assert judged(networks.good_adaptive, vit_momo_adam={"accuracy": 0.96}).holds is False
    assert networks.difference(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 4.0])) == pytest.approx((0, 3**-0.5))


def test_claims_on_divergence_versions_text_and_decay() -> None:
    assert judged(networks.never).holds
    assert judged(networks.never, mlp_sgd_m={"diverged": 2}, mlp_ngn_d={"diverged": 1}).holds
    found = judged(networks.never, cnn_ngn={"diverged": 1})
    assert found.holds is False
    assert "NGN 3 of 54 (3)" in found.measured
    assert judged(networks.versions).holds
    assert judged(networks.versions, mlp_ngn_md2={"least": 0.05, "width": 1}).holds is False
    assert judged(networks.text_model).holds
    assert judged(networks.text_model, text_adam={"least": 0.05}).holds is False
    assert judged(networks.text_model, text_adam={"width": 6}).holds is False
    assert judged(networks.decay).holds
    assert judged(networks.decay, text_ngn_md1_w={"least": 0.2}).holds is False
    assert judged(networks.decay, text_ngn_md1_dec={"diverged": 1}).holds is False


def settled(claim: Any, **data: Any) -> ClaimResult:
    return claim.measure(Results({k.replace("__", "-"): JobResult(v, Path("none")) for k, v in data.items()}))


def test_claims_on_small_problems() -> None:
    steps = {f"{lr:g}": 10 for lr in toys.ROSENBROCK}
    assert settled(claims.rosenbrock_ngn, rosenbrock__ngn__m={"steps": steps}).holds
    assert settled(claims.rosenbrock_ngn, rosenbrock__ngn__m={"steps": steps | {"1": None}}).holds is False
    assert settled(claims.rosenbrock_ngn, rosenbrock__ngn__m={"steps": steps | {"1": -1}}).holds is False
    lost = dict.fromkeys(steps, -1)
    ways = {
        "rosenbrock__sgd__m": {"steps": lost | {"0.001": 5, "0.01": 5}},
        "rosenbrock__sgd__m__torch": {"steps": lost | {"0.001": 5}},
        "rosenbrock__sgd__m__undamped": {"steps": lost | {"0.001": 5}},
    }
    assert settled(claims.rosenbrock_sgd, **ways).holds
    late = ways | {"rosenbrock__sgd__m__torch": {"steps": lost | {"0.001": 5, "10": None}}}
    assert settled(claims.rosenbrock_sgd, **late).holds is False

    def counts(heavy: dict[str, int], own: dict[str, int]) -> dict[str, Any]:
        return {"counts": {"10": {"gdm": heavy, "ngn-m": own}}, "theorem": [{"steps": 3}, {"steps": 7}]}

    good = counts({"0.01": 690, "0.1": -1}, {"1": 300, "10": 269})
    assert settled(claims.quartic_counts, quartic=good).holds
    assert settled(claims.quartic_counts, quartic=counts({"0.01": 690}, {"1": 200, "10": 269})).holds is False
    assert settled(claims.quartic_counts, quartic=counts({"0.01": 688}, {"10": 269})).holds is False
    assert "in 3 to 7 steps" in settled(claims.quartic_theorem, quartic=good).measured
    good["theorem"].append({"steps": None})
    assert settled(claims.quartic_theorem, quartic=good).holds is False


def test_claims_on_regression_and_noise() -> None:
    def runs(to: list[int | None], largest: float | None) -> dict[str, Any]:
        return {
            lr: {"to_1e-2": k, "largest": largest if lr == "1000" else 1.0, "last": 0.0}
            for lr, k in zip(("1", "10", "100", "1000"), to, strict=True)
        }

    same = {
        "ngn-m": runs([50, 60, 70, 80], 9.0),
        "version-2": runs([50, 60, 70, 80], 9.0),
        "sgd-m": runs([50, 60, 70, 80], 9.0),
    }
    data = {f"diabetes__{reading.replace('-', '__')}": {"runs": same} for reading in toys.READINGS}
    assert settled(claims.diabetes_accelerates, **data).holds is False
    assert settled(claims.diabetes_version, **data).holds is False
    data["diabetes__rows__sum"] = {"runs": same | {"ngn-m": runs([50, 40, 30, None], 9.0)}}
    assert settled(claims.diabetes_accelerates, **data).holds
    data["diabetes__rows__mean"] = {"runs": same | {"version-2": runs([50, 40, 30, None], None)}}
    assert settled(claims.diabetes_version, **data).holds
    data["diabetes__columns__sum"] = {"runs": same | {"ngn-m": runs([50, 60, 70, 80], None)}}
    assert settled(claims.diabetes_version, **data).holds is False
    assert settled(claims.diabetes_accelerates, **data).holds is False

    def noisy(least: float, late: float) -> dict[str, Any]:
        return {"runs": {lr: {"least": least, "late": late, "bound": 1.0} for lr in ("0.1", "1")}}

    made = {"noisy__sps": noisy(0.1, 0.2), "noisy__ngn": noisy(0.1, 0.2), "noisy__ngn__sqrt": noisy(0.1, 0.1)}
    assert settled(claims.bounds_hold, **made).holds
    assert settled(claims.decreasing, **made).holds
    made["noisy__ngn__sqrt"] = noisy(1.1, 0.11)
    assert settled(claims.bounds_hold, **made).holds is False
    assert settled(claims.decreasing, **made).holds is False


# -- the experiment --------------------------------------------------------------------------------------------------


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(ngn.EXPERIMENT)
    on_networks = [job for job in jobs.plan(False) if job.run is jobs.sensitivity]
    assert all(job.stream == job.name.partition("-")[0] for job in on_networks)  # one start for all solvers
    patterns = [pattern for claim in ngn.EXPERIMENT.claims for pattern in claim.needs]
    used = [j.name for j in jobs.plan(False) if any(fnmatchcase(j.name, p) for p in patterns)]
    assert {j.name for j in jobs.plan(False)} - set(used) == {"mlp-sps", "cnn-sps", "mlp-ngn-d"}  # in pictures alone


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(ngn.EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)


def test_the_page_has_the_committed_table() -> None:
    check_page(ngn.EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(ngn.EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    assert {path.name for path in (tmp_path / "quick").glob("*.png")} == {"sensitivity.png", "toys.png"}
