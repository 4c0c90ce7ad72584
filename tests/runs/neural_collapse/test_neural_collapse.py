"""Neural collapse by optimizer: tiny parts of the jobs, what is committed, and (-m slow) the reduced run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import ROOT, check_committed, check_needs, check_page, reduced
from torch import nn

from landscape.collapse import predict_nc0
from probes import Trace
from probes.digits import build_network
from probes.sweep.jobs import JobContext
from runs.neural_collapse import EXPERIMENT, separable, signs, theory
from runs.neural_collapse import jobs as collapse_jobs
from runs.neural_collapse.data import images
from runs.neural_collapse.models import NETWORKS, OPTIMIZERS, make_optimizer, step_schedule
from runs.neural_collapse.training import centred_means, measure
from runs.neural_collapse.trend_claims import between_stays


def context(folder: Path, name: str) -> JobContext:
    return JobContext(name, 5, folder / f"{name}.h5", lambda done, planned: None)


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)
    planned = EXPERIMENT.plan(False)
    assert len({job.seed(0) for job in planned if job.name.startswith("grid-")}) == 1  # all cells start alike
    assert sum(len(job.settings["cells"]) for job in planned if job.name.startswith("grid-")) == 135


@pytest.mark.parametrize("network", NETWORKS)
def test_tiny_runs(tmp_path: Path, network: str) -> None:
    """NC0 follows the theorem with the network's own schedule, and NC1 is measured on balanced classes."""
    found = collapse_jobs.run(context(tmp_path, network), network, "digits", 10, "SGD", 0.1, 0.5, 0.1, looks=2)
    rates = step_schedule(0.1, 10)
    expected = predict_nc0("sgd", rates, weight_decay=0.1, momentum=0.5, nc0_initial=found["start"]["nc0"])
    assert found["train"]["nc0"] == pytest.approx(expected[-1], rel=1e-4)
    assert [look["step"] for look in found["along"]] == [0, 5]
    assert found["along"][0] == {"step": 0} | found["start"]
    assert found["singular"]["weight"][-1] < found["singular_start"]["weight"][-1]
    assert np.linalg.norm(found["singular"]["weight"]) == pytest.approx(found["train"]["weight_norm"], rel=1e-5)
    assert found["singular"]["means"][-1] == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_decay_sgd_keeps_nc0(tmp_path: Path, momentum: float) -> None:
    """Lemma E.5: gradients never move it, on any network."""
    found = collapse_jobs.run(context(tmp_path, "kept"), "mlp", "digits", 30, "SGD", 0.1, momentum, 0.0)
    assert found["train"]["nc0"] == pytest.approx(found["start"]["nc0"], rel=1e-5)
    assert found["train"]["nc3"] < found["start"]["nc3"]


def test_nc4_is_of_test_features_by_the_means_of_training() -> None:
    """Against its definition, the paper's Eq. 11."""
    sets = images("digits")
    model = build_network(lambda: NETWORKS["mlp"](8), 3)
    assert isinstance(model, nn.Sequential)
    found = measure(model, sets)
    with torch.no_grad():
        features, held = model[:-1](sets[0][0]), model[:-1](sets[1][0])
        means = torch.stack([features[sets[0][1] == k].mean(0) for k in range(10)])
        agree = (held @ model[-1].weight.T).argmax(1) == torch.cdist(held, means).argmin(1)
        assert centred_means(features, sets[0][1]).sum(0).abs().max() < 1e-4
    assert found["nc4_test"] == pytest.approx(float(agree.float().mean()))
    assert found["nc4_test"] != found["train"]["nc4"]


def test_a_run_that_diverges_says_so(tmp_path: Path) -> None:
    found = collapse_jobs.run(context(tmp_path, "mlp"), "mlp", "digits", 10, "SGD", 1e9, 0.5, 0.0)
    assert found["diverged"] is True
    assert "train" not in found


def test_images_are_balanced() -> None:
    (x, y), (other, labels) = images("digits")
    assert torch.bincount(y).tolist() == [80] * 10
    assert x.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert len(other) == len(labels)


def test_all_optimizers_move_by_their_decay() -> None:
    """On a constant gradient of zero, only the decay moves: decoupled by 1 - lr lam, coupled as the rule takes it."""
    coupled = {"SGD": 1 - 0.1 * 0.5, "Adam": 1 - 0.1, "Signum": 1 - 0.1}
    for optimizer in OPTIMIZERS:
        weight = torch.ones(1, dtype=torch.float64, requires_grad=True)
        mover = make_optimizer(optimizer, [weight], 0.1, 0.0, 0.5)
        weight.grad = torch.zeros_like(weight)
        mover.step()
        assert weight.item() == pytest.approx(coupled.get(optimizer, 1 - 0.1 * 0.5), rel=1e-6), optimizer


# -- small problems ------------------------------------------------------------------------------------------


def test_seeds_of_separable_data_do_not_meet() -> None:
    """All seeds at once move as each of them alone does."""
    generator = torch.Generator().manual_seed(0)
    both = separable.networks(2, generator)
    x, y = torch.randn(2, 30, separable.INPUTS, generator=generator), torch.arange(30) % 10
    alone = [[weight[i : i + 1].detach().clone().requires_grad_() for weight in both] for i in range(2)]
    for given, inputs in ((both, x), *((one, x[i : i + 1]) for i, one in enumerate(alone))):
        optimizer = separable.rule_of("Adam", given, 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            separable.loss(inputs, y, given).backward()
            optimizer.step()
    for i, one in enumerate(alone):
        torch.testing.assert_close(both[2][i], one[2][0], rtol=1e-4, atol=1e-6)
    assert not torch.equal(both[2][0], both[2][1])


def test_tiny_small_problems(tmp_path: Path) -> None:
    """SGD obeys the recursion there too: on separable data, and with free features."""
    job = context(tmp_path, "small")
    (run,) = separable.separable(job, "SGD", [5e-3], seeds=2, steps=20, every=10)["runs"]
    rates = [separable.LR] * 20
    for start, _, end in zip(*run["nc0"], strict=True):
        expected = predict_nc0("sgd", rates, weight_decay=5e-3, nc0_initial=start)
        assert end == pytest.approx(expected[-1], rel=1e-5)
    found = separable.free(job, "SGD", [0.5], [0.0, 0.1], samples=40, width=12, steps=30)["runs"]
    rates = step_schedule(0.5, 30)
    expected = predict_nc0("sgd", rates, weight_decay=0.1, momentum=0.9, nc0_initial=found[0]["nc0"])
    assert found[1]["nc0"] == pytest.approx(expected[-1], rel=1e-3)


# -- theory --------------------------------------------------------------------------------------------------


def test_fixed_points() -> None:
    a, b = signs.fixed_point(1e-3)
    assert a == pytest.approx(9 * b)
    assert b == pytest.approx(1 / (30 * (math.exp((a + b) / 3) + 9)) / 1e-3)
    a, b = signs.fixed_point(1e-3, printed=True)
    assert b == pytest.approx(1 / (30 * (math.exp((a + b) / 9) + 9)) / 1e-3)
    assert signs.first_fall(np.array([0.0, 1.0, 2.0, 1.0])) == 2
    assert signs.first_fall(np.array([0.0, 1.0])) == 1


def test_tiny_signs(tmp_path: Path) -> None:
    decoupled = signs.sign_decoupled(context(tmp_path, "signs"), classes=[3], eta=0.4, decay=0.5, steps=200)
    assert decoupled["runs"][0]["limit_error"] < 1e-12
    assert decoupled["runs"][0]["limit"] == pytest.approx(math.sqrt(3) / 0.5)
    with Trace.open(tmp_path / "signs.h5") as trace:
        assert len(trace["classes-3"]["value"]) == 201
    both = signs.sign_coupled(context(tmp_path, "coupled"), etas=[0.5], decay=0.1, path=10.0)
    assert both["decoupled"][0]["last"] > both["runs"][0]["last"]


def test_the_printed_map_has_its_shape() -> None:
    assert all(len(row) == len(theory.HEAT_DECAYS) for row in theory.HEAT_MAP.values())
    assert sum(map(len, theory.HEAT_MAP.values())) == 56


# -- what is committed ---------------------------------------------------------------------------------------


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert {c.name for c in found if c.holds is None} <= {between_stays.name}


def test_the_page_has_the_committed_tables() -> None:
    check_page(EXPERIMENT)
    assert "](neural-collapse.png)" in (ROOT / "docs/experiments.md").read_text()
    for part in ("decay", "trends", "small", "theorems"):
        assert (ROOT / "docs" / f"neural-collapse-{part}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path, 120)
    found: dict[str, Any] = {one["name"]: one for one in report["claims"]}
    for claim in EXPERIMENT.claims:
        if claim.quick:
            assert found[claim.name]["holds"] is True, found[claim.name]
    for one in report["claims"]:
        assert "the rule failed" not in one["measured"], one
    pictures = {path.stem for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"training", "decay", "trends", "small", "theorems"}
