"""Errors of K-FAC: what is measured against plain algebra, the claims on made-up results, a job cut short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from landscape import GaussNewton, Objective
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import ClaimResult, Results
from runs.second_order import errors, factors
from runs.second_order import factors_claims as claims


def random_block(out: int, inner: int, seed: int = 0) -> torch.Tensor:
    """A positive semi-definite matrix."""
    X = torch.randn(out * inner, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X @ X.T


def test_the_best_product_is_that_of_the_singular_values() -> None:
    block = random_block(3, 4)
    found = errors.products(block, (3, 4))
    T = torch.stack([block[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(-1) for i in range(3) for j in range(3)])
    least = torch.linalg.svdvals(T)[1:].square().sum().sqrt()
    assert float((block - found["best"]).norm()) == pytest.approx(float(least), rel=1e-10)
    cut = block.reshape(3, 4, 3, 4)
    B, A = torch.einsum("iaja->ij", cut), torch.einsum("iaib->ab", cut)
    torch.testing.assert_close(found["shampoo"], torch.kron(B, A) / block.trace())
    product = torch.kron(random_block(3, 1), random_block(1, 4))
    for near in errors.products(product, (3, 4)).values():
        torch.testing.assert_close(near, product)


def test_a_random_basis_keeps_the_trace_and_the_size_below() -> None:
    block = random_block(3, 4)
    found = errors.in_random_basis(block, (3, 4), torch.Generator().manual_seed(1))
    assert float(found.trace()) == pytest.approx(float(block.trace()))
    assert float((block - found).square().sum()) == pytest.approx(float(block.square().sum() - found.square().sum()))


def test_shares_between_layers() -> None:
    pair = [errors.Layer(torch.tensor([[0, 1]])), errors.Layer(torch.tensor([[2]]))]
    G = torch.tensor([[4.0, 1.0, 2.0], [1.0, 1.0, 0.0], [2.0, 0.0, 2.0]], dtype=torch.float64)
    found = errors.between_layers(G, pair, [0.0])
    assert found["plain"] == [pytest.approx((4 / 8) / (4 / 8 + 1 / 4))]
    inverse = torch.linalg.inv(G)
    C = inverse.square() / torch.outer(inverse.diagonal(), inverse.diagonal())
    assert found["inverse"] == [pytest.approx(float((C[0, 2] + C[1, 2]) / (C[0, 1] + C[0, 2] + C[1, 2])))]
    apart = errors.between_layers(torch.block_diag(G[:2, :2], G[2:, 2:]), pair, [0.1])
    assert apart == {"plain": [0.0], "inverse": [0.0]}


def test_what_is_measured_of_a_network() -> None:
    x, y = factors.data()
    objective = Objective(factors.network([16, 4, 10], 0), torch.nn.CrossEntropyLoss(), (x[:20], y[:20]), check=False)
    found = errors.measure(objective, torch.Generator().manual_seed(0), [0.1])
    json.dumps(found, allow_nan=False)
    G = GaussNewton(objective).to_dense()
    between = G[:68, 68:].norm() * 2**0.5 / G.norm()  # 4 units with 17 weights each come first
    assert found["left out"] == pytest.approx(float(between), rel=1e-8)
    assert found["best"] <= min(found["kfac"], found["shampoo"])
    assert found["ekfac"] <= found["kfac"] < found["random"]
    norms = [float(layer.of(G).norm()) for layer in errors.layers(objective)]
    total = sum((e * norm) ** 2 for e, norm in zip(found["layers"], norms, strict=True)) / sum(n**2 for n in norms)
    assert found["kfac"] == pytest.approx(total**0.5)
    assert found["layers"] == pytest.approx(errors.block_errors(objective))


def state(error: float, **changed: Any) -> dict[str, Any]:
    made = {
        "kfac": error,
        "ekfac": error / 2,
        "best": error / 1.05,
        "shampoo": error / 1.01,
        "random": 2.0,
        "trace": 0.0,
    }
    return (
        made
        | {"left out": 0.6, "plain": [0.5], "inverse": [0.3], "top": 1.5, "first": 1.1, "spectral": error}
        | changed
    )


def results(size: Any = lambda job: 1.0, **changed: Any) -> Results:
    """K-FAC's error grows with depth and training, falls with width; `changed` is of every network after training."""
    made: dict[str, Any] = {}
    for job in factors.plan(False):
        if job.name == "factors-exact":
            cases = dict.fromkeys(("one image", "one layer, square loss", "deep linear, square loss"), 1e-15)
            cases |= dict.fromkeys(("two images", "one layer, cross-entropy", "deep ReLU, square loss"), 0.1)
            made[job.name] = {"runs": [cases, cases]}
            continue
        depth, width = len(job.settings["hidden"]), job.settings["hidden"][0]
        error = 0.1 * depth / width * size(job.name)
        runs = [{"before": state(e), "after": state(2 * e, **changed)} for e in (error, 1.1 * error, 0.9 * error)]
        made[job.name] = {"runs": runs}
    return Results({name: JobResult(data, Path("none.h5")) for name, data in made.items()})


def judged(claim: Any, found: Results) -> ClaimResult:
    return claim.measure(found)


def test_claims_hold_on_made_up_results() -> None:
    for claim in claims.CLAIMS:
        found = judged(claim, results())
        assert found.holds, claim.name
        assert found.control is None or found.control.holds is False, claim.name


@pytest.mark.parametrize(
    ("claim", "name"),
    [(claims.one, "one image"), (claims.single, "one layer, square loss"), (claims.linear, "deep linear, square loss")],
)
def test_exact_cases_can_fail(claim: Any, name: str) -> None:
    found = results()
    found.one("factors-exact")["runs"][1] = found.one("factors-exact")["runs"][0] | {name: 1e-5}
    assert judged(claim, found).holds is False


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        (claims.corrected, {"ekfac": 9.0}),
        (claims.corrected, {"trace": 1e-6}),
        (claims.trained, {"kfac": 1e-9}),
        (claims.trained, {"spectral": 1e-9}),
        (claims.left_out, {"left out": 1e-9}),
        (claims.inverses, {"inverse": [0.51]}),
        (claims.shampoo, {"best": 1e-9}),
        (claims.kfac, {"best": 1e-9}),
        (claims.eigenvalues, {"top": 2.1}),
    ],
)
def test_claims_can_fail(claim: Any, changed: dict[str, Any]) -> None:
    assert judged(claim, results(**changed)).holds is False


def test_orders_can_fail() -> None:
    assert judged(claims.deeper, results(lambda job: 0.1 if job == "factors-depth-4" else 1.0)).holds is False
    assert judged(claims.wider, results(lambda job: 9.0 if job == "factors-width-20" else 1.0)).holds is False


def test_a_job(tmp_path: Path) -> None:
    context = JobContext("job", 3, tmp_path / "job.h5", lambda done, planned: None)
    found = factors.errors(context, hidden=[4], seeds=2, images=20, steps=60)
    json.dumps(found, allow_nan=False)
    first, second = found["runs"]
    assert first["before"]["kfac"] != second["before"]["kfac"]
    assert first["loss"] < 2.1  # ln 10 = 2.3 is chance
    assert factors.errors(context, hidden=[4], seeds=1, images=20, steps=60)["runs"] == [first]
