"""Block heterogeneity: networks, step sizes by block against theory, the claims on made-up results, jobs cut short."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from landscape import Hessian, Objective
from probes.digits import digits
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import Results
from runs.second_order import heterogeneity as jobs
from runs.second_order import heterogeneity_claims as claims
from runs.second_order.heterogeneity_networks import Case, blocks, case, scaled_mlp


def small(scale: float, shown: int = 8) -> Objective:
    x, y = digits().train
    network = Case(lambda: scaled_mlp(scale), lambda: ((x[:shown], y[:shown]), (x[:1], y[:1])), 4, shown)
    return jobs.drawn(network, 5)


def test_scaled_layers_are_the_same_function_with_other_curvature() -> None:
    x = digits().test[0][:5]
    plain, scaled = small(1.0), small(4.0)
    torch.testing.assert_close(plain.model(x), scaled.model(x))
    v = torch.randn(plain.size, generator=jobs.seeded(0))
    for part, factor in (("1.weight", 16.0), ("3.weight", 1 / 16)):
        at = plain.slices[part]
        u = torch.zeros(plain.size)
        u[at] = v[at]
        expected, found = factor * (Hessian(plain) @ u)[at], (Hessian(scaled) @ u)[at]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_step_sizes_by_block_undo_the_scales() -> None:
    """theta = W / c has c^2 times the curvature: a step size in inverse proportion moves c theta as before."""
    x, y = digits().train
    ends = []
    for scale in (1.0, 4.0):
        objective = small(scale)
        norms = {"a": scale**2, "b": 2 / scale**2, "c": 3 * scale**2, "d": 4 / scale**2}
        optimizer = jobs.make("block-sgd", objective, 0.05, norms)
        for _ in range(3):
            jobs.update(optimizer, lambda o=objective: torch.nn.functional.cross_entropy(o.model(x[:8]), y[:8]))  # type: ignore[misc]
        ends.append(objective.model(x[:5]).detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-4)


def test_step_sizes_are_in_inverse_proportion_and_dealt() -> None:
    objective = small(1.0)
    norms = {"a": 1.0, "b": 4.0, "c": 16.0, "d": 64.0}  # of geometric mean 8
    rates = [group["lr"] for group in jobs.make("block-sgd", objective, 0.5, norms).param_groups]
    assert rates == pytest.approx([4.0, 1.0, 0.25, 0.0625])
    dealt = [group["lr"] for group in jobs.make("dealt-sgd", objective, 0.5, norms).param_groups]
    assert dealt == pytest.approx([1.0, 0.25, 0.0625, 4.0])


def test_layer_norms_are_those_of_the_dense_blocks() -> None:
    x, y = digits().train
    network = Case(lambda: scaled_mlp(2.0), lambda: ((x[:6], y[:6]), (x[:1], y[:1])), 4, 6)
    found = jobs.layer_norms(network, 5, 6, 0.05)
    H = Hessian(jobs.drawn(network, 5))
    dense = H.restrict("7.weight").to_dense()
    assert found["7"] == pytest.approx(float(torch.linalg.eigvalsh(dense.double()).abs().max()), rel=0.06)
    assert len(found) == 4


def test_blocks_are_matrices_with_query_key_and_value_apart() -> None:
    names = list(blocks("vit", jobs.drawn(case("vit"), 0, 4)).layout)
    assert len(names) == 14  # patches, six in each of two blocks, the head
    assert sum("query" in name or "key" in name or "value" in name for name in names) == 6
    assert not any("bias" in name or "place" in name or "first" in name for name in names)
    assert len(blocks("cnn", jobs.drawn(case("cnn"), 0, 4)).layout) == 5


def test_networks_are_of_about_the_same_size() -> None:
    sizes = [jobs.drawn(case(name), 0, 4).size for name in ("cnn", "vit")]
    assert max(sizes) < 1.2 * min(sizes)


def test_spectra_in_short(tmp_path: Path) -> None:
    """No scale of a layer changes what is in units of its own tenth eigenvalue."""
    context = JobContext("job", 3, tmp_path / "job.h5", lambda done, planned: None)
    runs = []
    for scale in (1, 4):
        found = jobs.spectra(context, f"mlp-{scale}", seeds=1, probes=2, steps=6, shown=8)
        json.dumps(found, allow_nan=False)
        runs += found["runs"]
        assert all(0 < runs[-1][choice]["mean"] < 1 for choice in jobs.WIDTHS)
        assert runs[-1]["code"]["sigma"] == pytest.approx(10**-2.5)
    plain, scaled = runs
    assert plain["tenth"]["mean"] == pytest.approx(scaled["tenth"]["mean"], rel=1e-3)
    assert plain["code"]["mean"] != pytest.approx(scaled["code"]["mean"], rel=1e-2)


def test_training_in_short(tmp_path: Path) -> None:
    context = JobContext("job", 3, tmp_path / "job.h5", lambda done, planned: None)
    rates = {"sgd": [0.01, 1e6], "adam": [0.01], "block-sgd": [0.01]}
    losses = jobs.training(context, "mlp-1", rates, steps=45, seeds=1, shown=8)["losses"]
    json.dumps(losses, allow_nan=False)
    assert losses["sgd"]["1e+06"] == [None]
    network = case("mlp-1")
    objective, late = jobs.drawn(network, 3), []
    optimizer = torch.optim.Adam(objective.model.parameters(), 0.01)
    for step, (x, y) in enumerate(jobs.batches(*network.data()[0], network.batch, 45, 3), start=1):
        jobs.update(optimizer, lambda x=x, y=y: torch.nn.functional.cross_entropy(objective.model(x), y))  # type: ignore[misc]
        late += [objective.value()] if step in (5, 15, 25, 35, 45) else []
    assert losses["adam"]["0.01"] == [pytest.approx(sum(late) / 5, rel=1e-5)]


# -- claims --------------------------------------------------------------------------------------------------

MEANS = {"cnn": 0.1, "cnn-again": 0.1, "vit": 0.2, "text": 0.2, "mlp-1": 0.1, "mlp-2": 0.2, "mlp-4": 0.3}
WORSE = {"cnn": 1.0, "vit": 3.0, "text": 1.5, "mlp-1": 1.0, "mlp-2": 1.5, "mlp-4": 2.0}  # SGD's loss over Adam's


def results(means: Any = None, worse: Any = None, block: float = 0.5, dealt: float = 1.0, at: str = "0.03") -> Results:
    """Distances and losses of these, the least loss of SGD at a step size; floors are 0.01."""
    means, worse = MEANS | (means or {}), WORSE | (worse or {})
    made: dict[str, Any] = {}
    for name, mean in means.items():
        level = {"code": mean, "range": mean, "tenth": 0.15 if name.startswith("mlp") else mean}
        runs = [
            {choice: {"mean": m + 0.001 * seed, "stderr": 0.01, "floor": 0.01} for choice, m in level.items()}
            for seed in range(3)
        ]
        made[f"heterogeneity-{name}"] = {"runs": runs}
    for name, factor in worse.items():
        mlp = name.startswith("mlp")
        change = {"sgd": factor, "adam": 1.0, "block-sgd": 1.0 if mlp else factor * block, "dealt-sgd": factor * dealt}
        losses: dict[str, dict[str, list[Any]]] = {}
        for method, level in change.items():
            best = at if method == "sgd" else "0.03"
            rows = {lr: 1.0 if lr == best else 9.0 for lr in ("0.01", "0.03", "0.1")}
            losses[method] = {lr: [level * high * (1 + 0.01 * seed) for seed in range(3)] for lr, high in rows.items()}
            losses[method]["0.1"][1:] = [None, None]
        made[f"training-{name}"] = {"losses": losses}
    return Results({name: JobResult(data, Path("none.h5")) for name, data in made.items()})


def test_claims_and_their_controls_on_made_up_results() -> None:
    for claim in claims.CLAIMS:
        found = claim.measure(results())
        assert found.holds, (claim.name, found.measured)
        assert found.control is None or found.control.holds is False, (claim.name, found.control)


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        (claims.beyond_noise, {"means": {"text": 0.025}}),
        (claims.code, {"means": {"vit": 0.1}}),
        (claims.tenth, {"means": {"vit": 0.05}}),
        (claims.loses, {"worse": {"text": 1.05}}),
        (claims.par, {"worse": {"cnn": 1.3}}),
        (claims.loses_more, {"worse": {"cnn": 3.0}}),
        (claims.by_block, {"block": 1.0}),
        (claims.scaled, {"means": {"mlp-4": 0.1}}),
        (claims.scaled_gap, {"worse": {"mlp-2": 2.5}}),
        (claims.scaled_gap, {"worse": {"mlp-1": 2.0, "mlp-2": 2.001, "mlp-4": 1.9}}),
    ],
)
def test_claims_can_fail(claim: Any, changed: dict[str, Any]) -> None:
    assert claim.measure(results(**changed)).holds is False


def test_a_step_size_at_an_end_of_the_grid_tells_nothing() -> None:
    for claim in (claims.loses, claims.par, claims.loses_more, claims.by_block, claims.scaled_gap):
        found = claim.measure(results(at="0.01"))
        assert found.holds is None, claim.name
    assert "at an end of the grid" in claims.loses.measure(results(at="0.01")).measured


def test_step_sizes_are_tuned_by_the_median_and_divergence_is_the_worst() -> None:
    lr, losses, end = claims.tuned(results(), "vit", "sgd")
    assert (lr, end) == (0.03, False)
    assert losses == pytest.approx([3.0, 3.03, 3.06])
    low, high = claims.interval(claims.gaps(results(), "vit"))
    assert low == pytest.approx(math.log(3.0))
    assert high == pytest.approx(math.log(3.0))
