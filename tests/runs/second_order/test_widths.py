"""Steps by width: scales of networks and solvers, moves by hand, the claims on made-up results, a job cut short."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from landscape import KFAC, Objective
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import Results
from runs.second_order import widths
from runs.second_order import widths_claims as claims


@pytest.mark.parametrize("solver", ["kfac", "shampoo"])
def test_parametrisations_are_one_at_the_smallest_width(solver: str) -> None:
    runs = [widths.trained(solver, name, 64, 1, 3) for name in widths.PARAMETRISATIONS]
    assert all(run == runs[0] for run in runs)


def test_scales_of_the_last_layer() -> None:
    for last, expected in ((0.0, 1 / 16), (-0.5, 1 / 32)):  # 1 / 16 = 256^-1/2, times (256 / 64)^-1/2
        model = widths.network(256, last, 0)
        assert float(model[4].weight.detach().std()) == pytest.approx(expected, rel=0.05)  # type: ignore[union-attr]
        assert float(model[2].weight.detach().std()) == pytest.approx(1 / 16, rel=0.02)  # type: ignore[union-attr]


@pytest.mark.parametrize(("last", "powers"), [(-0.5, widths.MU_DAMPING), (0.0, (0.0, 1.0, 1.0))])
def test_dampings_go_with_the_blocks(last: float, powers: tuple[float, ...]) -> None:
    """The powers of the derivation: traces of the blocks of two widths, which are theirs but for a spread of 40 %."""
    x, y = widths.batch(0)
    traces = []
    for width in (64, 512):
        K = KFAC(Objective(widths.network(width, last, 0), nn.CrossEntropyLoss(), (x, y), check=False))
        traces.append([block.trace for block in K.factored().blocks])
    for small, large, power in zip(*traces, powers, strict=True):
        assert abs(math.log(large / small) - power * math.log(8)) < math.log(1.4)


@pytest.mark.parametrize("solver", ["kfac", "shampoo"])
def test_scaled_steps_are_as_long_at_four_times_the_width(solver: str) -> None:
    def ratios(name: str) -> list[float]:
        wide, narrow = (widths.trained(solver, name, width, 1, 3)["moves"][0] for width in (256, 64))
        return [large / small for large, small in zip(wide, narrow, strict=True)]

    assert all(0.8 < ratio < 1.25 for ratio in ratios("mu"))
    assert ratios("standard")[0] < 0.7


def test_each_layer_has_its_step_size_and_damping() -> None:
    x, y = widths.batch(0)
    objective = Objective(widths.network(64, 0.0, 0), nn.CrossEntropyLoss(), (x, y), check=False)
    kfac = widths.make("kfac", objective, [1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    shampoo = widths.make("shampoo", objective, [1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    shapes = [p.shape for p in objective.leaves()]
    for solver, damping in ((kfac, "damping"), (shampoo, "eps")):
        assert [group["params"][0].shape for group in solver.param_groups] == shapes
        assert [(g["lr"], g[damping]) for g in solver.param_groups] == [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)]


def test_moves_are_those_of_the_layers_before_their_activations(tmp_path: Path) -> None:
    context = JobContext("job", 3, tmp_path / "job.h5", lambda done, planned: None)
    found = widths.moves(context, "shampoo", 64, seeds=1, steps=2)
    json.dumps(found, allow_nan=False)
    (run,) = found["runs"]["standard"]
    assert run["losses"][0] > run["losses"][-1]
    x, y = widths.batch(3)
    model = widths.network(64, 0.0, 3)
    start = x @ model[0].weight.detach().T  # type: ignore[union-attr]
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y))
    solver = widths.make("shampoo", objective, [widths.RATE["shampoo"]] * 3, [widths.DAMPING["shampoo"]] * 3)
    for step in range(2):
        solver.step(lambda: nn.functional.cross_entropy(model(x), y))
        moved = (x @ model[0].weight.detach().T - start).abs().mean()  # type: ignore[union-attr]
        assert run["moves"][step][0] == pytest.approx(float(moved), rel=1e-5)


def results(**powers: Any) -> Results:
    """Moves that are n to these powers by layer, of solver and parametrisation, with little noise by seed."""
    made: dict[str, Any] = {}
    for job in widths.plan(False):
        solver, width = job.settings["solver"], job.settings["width"]
        runs = {}
        for name in widths.PARAMETRISATIONS:
            plain = {"standard": claims.STANDARD[solver], "standard-damping": claims.STANDARD[solver]}
            constant = (-0.5, 0.0, 0.0) if name == "constant-damping" else (0.0, 0.0, 0.0)
            power = powers.get(f"{solver}_{name}".replace("-", "_"), plain.get(name, constant))
            runs[name] = [
                {"moves": [[0.3 * width**p * (1 + 0.01 * seed * width / 1024) for p in power]] * widths.STEPS}
                for seed in range(5)
            ]
        made[job.name] = {"width": width, "runs": runs}
    return Results({name: JobResult(data, Path("none.h5")) for name, data in made.items()})


def test_claims_and_their_controls_on_made_up_results() -> None:
    for claim in claims.CLAIMS:
        found = claim.measure(results())
        assert found.holds, claim.name
        assert found.control is not None
        assert found.control.holds is False, claim.name


def test_slopes_are_exact_for_powers() -> None:
    found = claims.slopes(results(kfac_mu=(0.3, -0.7, 0.0)), "kfac", "mu", 1)
    for (low, high), power in zip(found.values(), (0.3, -0.7, 0.0), strict=True):
        assert low < power + 0.005
        assert high > power - 0.005
        assert high - low < 0.02


@pytest.mark.parametrize(
    ("claim", "changed"),
    [
        (claims.kfac, {"kfac_mu": (0.0, 0.0, 0.16)}),
        (claims.kfac, {"kfac_mu": (-0.16, 0.0, 0.0)}),
        (claims.shampoo, {"shampoo_mu": (0.0, 0.2, 0.0)}),
        (claims.standard_kfac, {"kfac_standard": (-0.5, -0.3, 0.0)}),
        (claims.standard_damping, {"kfac_standard_damping": (-0.7, -0.5, 0.0)}),
        (claims.standard_shampoo, {"shampoo_standard": (-0.5, 0.0, 0.7)}),
        (claims.damping_kfac, {"kfac_constant_damping": (-0.14, 0.0, 0.0)}),
        (claims.damping_shampoo, {"shampoo_constant_damping": (0.5, -0.5, -0.5)}),
    ],
)
def test_claims_can_fail(claim: Any, changed: dict[str, Any]) -> None:
    assert claim.measure(results(**changed)).holds is False


def test_the_interval_is_that_of_seeds() -> None:
    """Two seeds of slopes 1 and -1: mean 0, t(1) = 12.7 times 1."""
    x = [64, 128]
    made = {
        f"widths-kfac-{n}": {"width": n, "runs": {"mu": [{"moves": [[float(n)] * 3]}, {"moves": [[1.0 / n] * 3]}]}}
        for n in x
    }
    found = claims.slopes(Results({k: JobResult(v, Path("none.h5")) for k, v in made.items()}), "kfac", "mu", 1)
    assert found["first"] == pytest.approx((-12.706, 12.706), rel=1e-3)
    assert torch.tensor(list(found.values())).unique(dim=0).shape[0] == 1
