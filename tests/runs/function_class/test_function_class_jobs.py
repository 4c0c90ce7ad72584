"""The jobs of the function-class run: examples, theorems, paths of SGD, runs of networks and their rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.regularity.measure import measure
from probes import Trace
from probes.digits import build_network, digits
from probes.instruments.function_class import trajectory
from probes.sweep.jobs import JobContext
from runs.function_class import examples as exact_jobs
from runs.function_class import networks, theorems, training


def context(path: Path, name: str = "job") -> JobContext:
    return JobContext(name, 3, path / f"{name}.h5", lambda done, planned: None)


@pytest.mark.parametrize("name", ["1", "4", "5", "saturations-2"])
def test_an_example(tmp_path: Path, name: str) -> None:
    found = exact_jobs.example(context(tmp_path), name, {"1": 29, "4": 4, "5": 200}.get(name, 400))
    assert found["least_margin"] >= 0 > found["without_beta"]
    assert found["beta"] <= found["pair"][1] * (1 + 1e-9)


def test_theorems_take_their_solvers(tmp_path: Path) -> None:
    made = theorems.theorem(context(tmp_path), "constant", part=1.0, runs=10, horizons=[1, 4])
    assert 0.8 < made["tightest"] <= 1.0
    assert made["largest_gap"] > theorems.GAP
    assert made["rows"][0]["bound"] == theorems.bound(made, 1).total > made["first"] == made["rows"][0]["measured"]
    for rule in ("decsps", "adagrad"):
        made = theorems.adaptive(context(tmp_path), rule, lr=1.0, runs=2, horizons=[1, 5])
        assert made["rows"][1]["measured"] < made["first"] == pytest.approx(4.51991486)
        assert made["rows"][1]["measured"] < made["rows"][1]["bound"]


def test_half_space_rows_are_those_of_the_samples(tmp_path: Path) -> None:
    made = exact_jobs.half_space(context(tmp_path), "sigmoid", steps=30, paths=1, every=10)
    with Trace.open(tmp_path / "job.h5") as trace:
        full = trajectory(trace["seed-0-full"])
    problem = exact_jobs.problems.half_space(seed=0)
    rng = np.random.default_rng((3, 0))
    chosen = rng.integers(40, size=30)
    x = [4 * (v := rng.standard_normal(2)) / np.linalg.norm(v)]
    for i in chosen:
        x.append(x[-1] - 0.25 * problem.gradients(x[-1][None])[i, 0])
    np.testing.assert_allclose(full.loss, [problem.values(p[None]).mean() for p in x[:-1:10]], rtol=1e-12)
    assert made["runs"][0]["loss"] == pytest.approx(problem.values(x[-1][None]).mean(), rel=1e-12)
    convex = exact_jobs.half_space(context(tmp_path), "logistic", steps=200, paths=1, every=100)["runs"][0]
    assert convex["away"] == 0


@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "sgd"), ("lstm", "normalized"), ("transformer", "adamw")])
def test_a_job_measures_the_run_that_it_repeats(
    tmp_path: Path, network: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digits().train if network == "mlp" else networks.load("descriptions")
    few: Callable[[], Any] = lambda: tuple(part[:8] for part in whole)  # noqa: E731
    monkeypatch.setitem(networks.DATA, "few", few)
    given: dict[str, Any] = {"size": 8, "batch": 4, "steps": 4, "lr": 0.01, "schedule": "one-cycle", "every": 2}
    found = training.train(context(tmp_path), network, data="few", optimizer=optimizer, seed=1, **given)
    with Trace.open(tmp_path / "job.h5") as trace:
        assert list(trace["batch"]["step"]) == [0, 1, 2, 3]
        assert list(trace["whole"]["step"]) == [0, 2]
        t = trajectory(trace["whole"])
    np.testing.assert_allclose(t.final_loss, found["loss"], rtol=1e-6)
    assert t.loss[0] == pytest.approx(found["first_loss"], rel=1e-6)


def test_a_row_is_that_of_the_library() -> None:
    x, y = (part[:16] for part in digits().train)
    model, end = (build_network(lambda: networks.NETWORKS["mlp"](8, 64), seed) for seed in (0, 1))
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    theta = Objective(end, nn.CrossEntropyLoss(), (x, y)).theta()
    expected = measure(Objective(model, nn.CrossEntropyLoss(), (x, y)), theta)
    assert vars(training.row(model, end, loss, (x, y))) == pytest.approx(vars(expected), rel=1e-5)


def test_steps() -> None:
    for schedule in ("fixed", "cosine", "one-cycle", "warm-cosine", "power"):
        factors = [networks.factor(schedule, step, 100) for step in range(100)]
        assert max(factors) == pytest.approx(1.0, abs=1e-9)
        assert min(factors) > 0
    x = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = networks.Normalized(iter([x]), 0.5)
    x.grad = torch.tensor([6.0, 8.0])
    optimizer.step()
    torch.testing.assert_close(x.detach(), torch.tensor([2.7, 3.6]))
