"""The NGN run: its small problems beside the solvers of the repository, theorems step by step, (-m slow) all of it."""

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
from runs import ngn
from runs.ngn import bounds, convex, jobs, toys
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
    A, b = toys.regression("columns")
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
    for reading, axis in (("rows", 1), ("columns", 0)):
        A, b = toys.regression(reading)
        np.testing.assert_allclose(np.linalg.norm(A, axis=axis), 442**-0.5, rtol=1e-12)
        assert b @ b == pytest.approx(1)
    A, b = (t * 442**0.5 for t in toys.regression("range"))
    for t in (A, b):
        np.testing.assert_allclose([t.min(axis=0), t.max(axis=0)], [np.zeros(t.shape[1:]), np.ones(t.shape[1:])])


def test_two_noisy_functions() -> None:
    toy = two_functions()
    assert bounds.constants(toy, 0.5).beta == pytest.approx(0.163338, rel=2e-4)
    assert bounds.constants(toy, 1.0).beta == pytest.approx(2.164732, rel=2e-4)
    path = bounds.noisy_paths(toy, "ngn-sqrt", 0.3, 6, 5, 7)
    rng = np.random.default_rng(7)
    x = np.full(5, 4.0)
    for k in range(6):
        centres = np.where(rng.integers(2, size=5) == 1, 1.0, -1.0)
        f, g = (x - centres) ** 2 / 2 + np.sin(x) ** 2, x - centres + np.sin(2 * x)
        rate = 0.3 / math.sqrt(k + 1)
        x = x - rate / (1 + rate * g * g / (2 * f)) * g
        np.testing.assert_allclose(path[k + 1], x, rtol=1e-12)


@pytest.mark.parametrize(("solver", "spec"), [("ngn", "ngn"), ("sps", "sps:c=2.0,lower_bound=")])
def test_its_steps_are_those_of_the_solvers(solver: str, spec: str) -> None:
    toy = two_functions()
    path = bounds.noisy_paths(toy, solver, 0.3, 20, 1, 3)[:, 0]
    x = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    moves = make(short.spec(spec + (f"{float(toy.infimum[0])!r}" if spec.endswith("=") else "")), [x], 0.3)
    rng = np.random.default_rng(3)
    for k in range(20):
        centre = 1.0 if rng.integers(2, size=1)[0] else -1.0
        step(moves, lambda centre=centre: ((x - centre) ** 2 / 2 + (1 - torch.cos(2 * x)) / 2).sum())
        assert path[k + 1] == pytest.approx(float(x.detach()), rel=1e-9)


# -- convex sums -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [convex.least_squares(), convex.logistic()], ids=["squares", "logistic"])
def test_convex_sums(problem: convex.Sum) -> None:
    """Gradients by differences, the minimiser by its gradient, L by the curvature of each f_i, f_i >= offset."""
    x, every = np.random.default_rng(1).standard_normal((50, 5)), np.arange(50)
    f, g = problem.terms(x, every)
    for j in range(5):
        h = 1e-5 * np.eye(5)[j]
        slope = (problem.terms(x + h, every)[0] - problem.terms(x - h, every)[0]) / 2e-5
        np.testing.assert_allclose(g[:, j], slope, rtol=1e-5, atol=1e-7)
    assert f.min() >= convex.OFFSET
    at = np.repeat(problem.minimiser[None], 50, axis=0)
    np.testing.assert_allclose(problem.terms(at, every)[1].mean(axis=0), 0, atol=1e-12)
    assert problem.terms(at, every)[0].mean() == pytest.approx(problem.minimum)
    change = np.linalg.norm(problem.terms(x, every)[1] - problem.terms(at, every)[1], axis=1)
    assert (change <= problem.smoothness * np.linalg.norm(x - at, axis=1)).all()


@pytest.mark.parametrize("c", [1e-3, 0.01, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_the_step_from_which_the_constants_follow(c: float, share: float) -> None:
    """E |z_{k+1} - x*|^2 over all samples at random x_k, x_{k-1}; at lam = 0 of the bound `constant` without it."""
    problem = convex.least_squares()
    L, lam = problem.smoothness, share * float(convex.largest_lam(c * problem.smoothness))
    rng = np.random.default_rng(2)
    for scale in (0.1, 1.0, 10.0):
        x, before = problem.minimiser + scale * rng.standard_normal((2, 5))
        z, a = x + lam * (x - before), c * L
        every = np.repeat(x[None], 50, axis=0)
        after = z - convex.ngn_step(problem, every, np.arange(50), c)
        moved = ((after - problem.minimiser) ** 2).sum(axis=1).mean()
        gap, last = problem.value(np.stack([x, before])) - problem.minimum
        noise = (6 * c * a / (1 + 2 * a) + 2 * c * lam) * problem.sigma2
        noise += 2 * c * a * max(2 * a - 1, 0.0) / convex.growth(a) * problem.offset
        limit = ((z - problem.minimiser) ** 2).sum() - 2 * c / convex.growth(a) * gap + 2 * c * lam * last + noise
        assert moved <= limit * (1 + 1e-12)


def test_the_averaged_form_is_ngn_m() -> None:
    problem, lam, c = convex.least_squares(), 0.6, 0.05
    found = convex.descend(problem, np.full(30, c), np.full(30, lam), 1, 4)
    x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    solver = make(short.spec(f"ngn:momentum={lam / (1 + lam)}"), [x], c)
    rng, rows, targets = np.random.default_rng(4), torch.from_numpy(problem.rows), torch.from_numpy(problem.targets)
    for k in range(30):
        assert problem.value(x.detach().numpy()[None])[0] - problem.minimum == pytest.approx(found[k], abs=1e-9)
        i = int(rng.integers(50, size=1)[0])
        step(solver, lambda i=i: (rows[i] @ x - targets[i]).square() / 2 + problem.offset)


def test_any_step_size() -> None:
    problem = convex.least_squares()
    assert bounds.largest(problem, 1e6, 0.9, 50, 0, adaptive=True) < 1e4
    assert bounds.largest(problem, 10.0, 0.9, 200, 0, adaptive=False) == math.inf


def test_a_square_system() -> None:
    """NGN-M of the repository takes the same steps; all of f is left at first."""
    rng = np.random.default_rng(5)
    M, y, cs = rng.standard_normal((6, 6)), rng.standard_normal(6), [0.3, 0.2, 0.1, 0.05]
    x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    solver = make(short.spec("ngn-m"), [x], 1.0)
    losses = []
    for c in [*cs, 0.0]:
        solver.param_groups[0]["lr"] = c
        losses.append(step(solver, lambda: (torch.from_numpy(M) @ x - torch.from_numpy(y)).square().sum() / 2))
    np.testing.assert_allclose(toys.residuals(M, y, cs), np.array(losses) / losses[0], rtol=1e-10)


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
    settings: dict[str, Any] = {"problem": "digits_mlp", "lrs": [0.1, 1e6], "number": 1, "steps": 12, "batch": 32}
    found = jobs.train(context(tmp_path), solver="momo", **settings)["rows"]
    json.dumps(found, allow_nan=False)
    assert [(r["lr"], r["seed"]) for r in found] == [(0.1, 1), (1e6, 1)]
    assert found[0]["first_test_accuracy"] == found[1]["first_test_accuracy"] < found[0]["test_accuracy"]
    with Trace.open(tmp_path / "job.h5") as trace:
        rows = trace["runs"]
        assert rows["loss"].shape == (2, 12)
        assert rows["share"][0].mean() == pytest.approx(np.mean([*found[0]["share"]["tenths"]]), rel=0.1)
    assert found[0]["share"]["capped"] == found[0]["share"]["near"] == 1.0
    again = jobs.train(context(tmp_path, "again"), solver="ngn-md1", **settings)["rows"]
    assert again[0]["first_loss"] == found[0]["first_loss"]
    assert again[0]["share"]["capped"] == 0.0
    assert len(again[0]["metric"]) == 3
    lost = jobs.train(context(tmp_path, "lost"), solver="sgd-m", **settings)["rows"][1]
    assert lost["diverged"]
    assert lost["share"] is None


@pytest.mark.parametrize("spec", ["adam", "momo-adam", "ngn-md1"])
def test_the_step_of_each_entry(spec: str) -> None:
    """After one step on a single entry step / D times the gradient is what it moved by, but for momentum."""
    w = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    solver = make(short.spec(spec), [w], 0.01)
    step(solver, lambda: w.square().sum() / 2)
    (size,) = jobs.effective(solver, 0.01) or []
    moved = 0.1 * size * 3.0 if spec == "ngn-md1" else size * 3.0  # D keeps no trace of the bias
    assert 3.0 - float(w.detach()) == pytest.approx(moved, rel=1e-6)


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
    load = jobs.NETWORKS["fashion"]
    assert load.grid("ngn-md1") == load.grid("adam") == [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    assert load.grid("ngn-m") == load.grid("momo") == [1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0]
    decayed = [job.settings for job in jobs.plan(False) if job.name.startswith("text-ngn-md1-")]
    assert all(set(s["lrs"]) <= set(jobs.NETWORKS["text"].grid("ngn-md1")) for s in decayed)


# -- the experiment --------------------------------------------------------------------------------------------------


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(ngn.EXPERIMENT)
    on_networks = [job for job in jobs.plan(False) if job.run is jobs.train]
    assert all(job.stream == job.name.partition("-")[0] for job in on_networks)  # one start for all solvers
    patterns = [pattern for claim in ngn.EXPERIMENT.claims for pattern in claim.needs]
    assert all(any(fnmatchcase(j.name, p) for p in patterns) for j in jobs.plan(False))


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(ngn.EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)
    assert all(c.control for c in found if c.published and c.holds)


def test_the_page_has_the_committed_table() -> None:
    check_page(ngn.EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(ngn.EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    names = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert names == {"sensitivity.png", "steps.png", "toys.png"}
