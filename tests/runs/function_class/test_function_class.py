"""The function-class run: rules on made-up results, the committed results, (-m slow) the run itself."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_checks import ROOT, check_committed, check_needs, check_page, reduced

from landscape.regularity import Trajectory
from probes import Field
from probes.sweep.work import JobResult
from runs.engine.claims import Claim, ClaimResult, Results
from runs.function_class import EXPERIMENT, criteria
from runs.function_class import exact_claims as exact
from runs.function_class import path_claims as paths
from runs.function_class import size_claims as sizes


class Rows:
    """Records made of a trajectory."""

    def __init__(self, t: Trajectory) -> None:
        names = ("inner", "loss", "final_loss", "infimum", "grad_norm", "distance")
        self.columns = {name: getattr(t, name) for name in names}
        self.columns |= {"step": t.steps, "rounding": np.full(len(t), t.rounding)}
        self.fields = {name: Field() for name in names}

    def read(self) -> dict[str, Any]:
        return self.columns


class MadeUp(Results):
    """Results whose traces are trajectories, by configuration, one for each seed; the whole loss has the same rows."""

    def __init__(self, runs: Mapping[str, Sequence[Trajectory]], losses: Mapping[str, float] | None = None) -> None:
        self.runs = {f"{name}-seed-{s}": t for name, ts in runs.items() for s, t in enumerate(ts)}
        found = {job: {"loss": (losses or {}).get(job.rpartition("-seed-")[0], 0.5)} for job in self.runs}
        super().__init__({job: JobResult(data, Path(f"{job}.h5")) for job, data in found.items()})

    def trace(self, name: str) -> Any:
        return _Opened({group: Rows(self.runs[name]) for group in ("batch", "whole")})


class _Opened(dict):  # type: ignore[type-arg]
    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run(beta: float, *, excess: float = 1.0, cosine: list[float] | None = None, slope: float = 1.0) -> Trajectory:
    """A run whose smallest beta at gap 0.1 is `beta` (0 for any negative number), set by its step 1."""
    drop = np.full(10, 1.0)
    inner = np.full(10, 0.2)
    inner[1] = 0.1 - beta * excess
    if cosine is not None:
        inner = np.array(cosine)
    return Trajectory(inner, excess + drop, np.full(10, excess), 0.0, np.full(10, slope), np.ones(10))


def rule(claim: Claim) -> Claim:
    """The claim as it would be judged in the paper's own setup."""
    return dataclasses.replace(claim, other_setup="")


def judged(claim: Claim, betas: Mapping[str, Sequence[float]], **losses: float) -> ClaimResult:
    named = {name.replace("_", "-"): loss for name, loss in losses.items()}
    return rule(claim).measure(MadeUp({name: [run(b) for b in values] for name, values in betas.items()}, named))


def refused(found: ClaimResult) -> bool:
    return found.control is not None and found.control.holds is False


def test_trends_over_seeds() -> None:
    made = criteria.trend([[3.0, 3.0, 3.0], [2.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    assert made.each == pytest.approx((-1.0, -1.0, -0.5))
    assert made.mean == pytest.approx(-5 / 6)
    assert made.high == pytest.approx(-5 / 6 + 4.3027 * (1 / 12**0.5) / 3**0.5, abs=1e-3)
    assert criteria.trend([[1.0, 1.0], [1.0, 1.0]]).each == (0.0, 0.0)
    assert criteria.trend([[2.0], [1.0]]).high == 1.0  # one seed tells nothing
    assert criteria.peak_inside([1, 2, 1])
    assert criteria.peak_inside([2, 2, 1])
    for values in ([1, 2, 3], [3, 2, 1], [1, 2]):
        assert not criteria.peak_inside(values), values
    assert criteria.number(math.inf) == "inf"
    assert criteria.first_part(run(1.0), 0.2).tolist() == [True, True] + [False] * 8


def test_the_smallest_pair_of_all_seeds() -> None:
    results = MadeUp({"mlp-16": [run(1.0), run(3.0), run(-1.0)]})
    found = criteria.smallest_of(results, "mlp-*")["mlp-16"]
    assert found.seeds == pytest.approx((1.0, 3.0, 0.0))
    assert (found.beta, found.median) == pytest.approx((3.0, 1.0))
    assert found.floors == pytest.approx((0.5, 1.5, 0.0))
    assert found.turned[0] == pytest.approx(0.3)  # 0.1 + 0.2 at the other steps
    assert found.vacuous == 3
    broken = criteria.smallest_of(MadeUp({"a": [run(1.0, excess=0.0, cosine=[-1.0] * 10)]}), "*")
    kept = criteria.as_json(broken)["a"]
    assert (kept["seeds"], kept["vacuous"]) == (["inf"], 0)
    json.dumps(kept, allow_nan=False)


UP_DOWN = {32: (1.0, 0.9), 128: (3.0, 2.0), 512: (2.0, 2.5)}


@pytest.mark.parametrize(("claim", "name"), [(sizes.wide, "mlp"), (sizes.channels, "cnn")])
def test_up_then_down(claim: Claim, name: str) -> None:
    falls = {f"{name}_{size}": 1.0 / size for size in UP_DOWN}
    found = judged(claim, {f"{name}-{size}": betas for size, betas in UP_DOWN.items()}, **falls)
    assert found.holds
    assert refused(found)
    assert "1 of 2 seeds alone" in found.measured
    assert judged(claim, {f"{name}-{size}": (float(size),) * 2 for size in UP_DOWN}).holds is False
    assert judged(claim, {f"{name}-{size}": (1.0 / size,) * 2 for size in UP_DOWN}).holds is False
    assert judged(claim, {f"{name}-{size}": (-1.0,) * 2 for size in UP_DOWN}).holds is None  # 0 everywhere


@pytest.mark.parametrize(
    "claim", [sizes.deep, sizes.batch, sizes.noise_width, sizes.noise_depth, sizes.noise_batch], ids=lambda c: c.name
)
def test_tendencies_down(claim: Claim) -> None:
    name = claim.needs[0].removesuffix("-*")

    def of(*betas: Sequence[float]) -> ClaimResult:
        return judged(claim, {f"{name}-{size}": values for size, values in zip((1, 2, 4, 8), betas, strict=True)})

    found = of((4.0, 4.1, 4.2), (3.0, 3.1, 2.0), (1.0, 3.0, 1.0), (0.5, 0.1, 1.1))
    assert found.holds  # a seed or two may have neighbours out of order
    assert refused(found)
    assert of((1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (4.0, 4.0, 4.0)).holds is False
    assert of((1.0, 4.0, 2.0), (2.0, 1.0, 4.0), (3.0, 2.0, 1.0), (4.0, 3.0, 3.0)).holds is False
    assert of((-1.0,) * 3, (-1.0,) * 3, (-1.0,) * 3, (-1.0,) * 3).holds is None


def test_optimizers_by_medians() -> None:
    def of(adam: float, momentum: float, sgd: float) -> ClaimResult:
        named = {"adam": adam, "momentum": momentum, "sgd": sgd}
        whole = {
            n: Trajectory(np.full(10, 0.1 - b), [2.0] * 10, [1.0] * 10, 0.0, [1.0] * 10, [1.0] * 10)
            for n, b in named.items()
        }
        return rule(sizes.optimizer).measure(MadeUp({f"optimizer-{n}": [t, t] for n, t in whole.items()}))

    found = of(1.0, 2.0, 3.0)
    assert found.holds
    assert refused(found)
    assert of(1.0, 2.0, 2.0).holds
    assert of(2.0, 1.0, 3.0).holds is False
    assert of(-1.0, -1.0, -1.0).holds is None


def every_network(**changed: list[Trajectory]) -> MadeUp:
    names = "mlp-32", "mlp-128", "batch-64", "lstm", "cnn-4", "depth-1", "optimizer-sgd", "transformer"
    return MadeUp({name: [run(-1.0, cosine=[5.0] * 10)] * 2 for name in names} | changed)


def test_all_networks() -> None:
    found = paths.works.measure(every_network())
    assert found.holds
    assert refused(found)
    assert "vacuous in 16 of 16 runs, f_k(x_K) = 0 at some step of 0" in found.measured
    none = [run(1.0, excess=0.0, cosine=[-1.0] * 10)]
    assert paths.works.measure(every_network(lstm=none)).holds is False
    assert paths.works.measure(every_network(lstm=[run(3.0)])).holds is False  # turned around, it needs less
    found = paths.language.measure(every_network(lstm=[run(5.0)]))
    assert found.holds
    assert refused(found)
    assert paths.language.measure(every_network(lstm=[run(1.0)], **{"mlp-32": [run(2.0)]})).holds is False
    found = paths.pointing.measure(every_network())
    assert found.holds
    assert refused(found)
    assert paths.pointing.measure(every_network(lstm=[run(1.0)])).holds is False  # one of ten rows is negative
    assert paths.outliers.measure(every_network()).holds is False


def test_plateau() -> None:
    straight, early = [0.5] * 10, [-0.1, 0.1] + [0.5] * 8
    dips, none = run(0, cosine=early), run(0, cosine=straight)
    other = {"batch-64": [none]}
    found = rule(paths.plateau).measure(every_network(lstm=[dips, dips, none], **other))
    assert found.holds is False  # the mean of -0.1, -0.1 and 0.5
    found = rule(paths.plateau).measure(every_network(lstm=[dips, dips], **other))
    assert found.holds
    assert refused(found)
    assert "negative in 2 of 2" in found.measured
    late = run(0, cosine=[*early[:-1], -0.6])
    assert rule(paths.plateau).measure(every_network(lstm=[late, late], **other)).holds is False


def test_pl_constants() -> None:
    def of(*slopes: float) -> MadeUp:
        t, high = run(0.0), np.linspace(1.0, 0.001, 10)  # above f(x_K) = 1
        return every_network(lstm=[Trajectory(t.inner, 1 + high, t.final_loss, 0.0, np.array(slopes), t.distance)] * 2)

    found = paths.pl.measure(of(0.1, *[0.5] * 9))
    assert found.holds
    assert paths.pl.measure(of(0.1, *[0.5] * 7, 0.1, 0.1)).control.holds is False  # type: ignore[union-attr]
    assert paths.pl.measure(of(*[1.0] * 9, 0.001)).holds is False
    assert paths.pl.measure(of(0.9, 0.9, *[0.1] * 8)).holds is False


# -- what has exact constants ----------------------------------------------------------------------------------------


def of_jobs(**data: Any) -> Results:
    return Results({name.replace("_", "-"): JobResult(found, Path("none.h5")) for name, found in data.items()})


def test_examples_and_remark() -> None:
    def of(least: float, without: float, beta: float = 2.0) -> Results:
        row = {"pair": [3.0, 2.0], "least_margin": least, "without_beta": without, "beta": beta, "vacuous": True}
        return of_jobs(example_1=row, remark_ridges=row)

    found = exact.examples.measure(of(0.1, -0.1), quick=True)
    assert found.holds
    assert refused(found)
    assert exact.examples.measure(of(-0.1, -0.1)).holds is False
    assert exact.examples.measure(of(0.1, 0.1)).control.holds is True  # type: ignore[union-attr]
    found = exact.remark.measure(of(0.0, 0.0, 1.9999), quick=True)
    assert found.holds
    assert refused(found)
    assert exact.remark.measure(of(0.0, 0.0, 1.9)).holds is False
    assert exact.remark.measure(of(-0.1, 0.0, 2.0)).holds is False


def test_half_space() -> None:
    def one(beta: float, away: int, mu: float) -> dict[str, Any]:
        return {"beta": beta, "most": 0.1, "away": away, "highest": 0.2 * away, "mu": mu}

    def of(*runs: dict[str, Any]) -> Results:
        return of_jobs(half_space_sigmoid={"runs": list(runs)}, half_space_logistic={"runs": [one(0.4, 0, 0.1)]})

    for claim in (exact.saddle, exact.half_space):
        found = claim.measure(of(one(5e4, 3, 1e-6), one(1.0, 0, 1e-2)))
        assert found.holds
        assert refused(found)
        assert claim.measure(of(one(3e4, 3, 1e-3), one(1.0, 0, 1e-6))).holds is False
    assert exact.saddle.measure(of(one(1.0, 0, 1e-6))).holds is False


RULES = {
    "constant": (exact.sgd, {"lr": 0.05, "distance": 2.0}),
    "decreasing": (exact.sgd, {"lr": 0.05, "distance": 2.0}),
    "decsps": (exact.dec_sps, {"cap": 0.1, "diameter": 2.0, "scale": 2.0}),
    "adagrad": (exact.adagrad, {"lr": 1.0, "b0": 13.0, "largest": 3.0, "smallest": 1.0, "distance": 2.0}),
}


@pytest.mark.parametrize("rule", RULES)
def test_bounds_of_theorems(rule: str) -> None:
    claim, promise = RULES[rule]
    c = {"alpha": 0.66, "beta": 0.16, "smoothness": 3.0, "sigma2": 0.17, "positivity2": 0.0}

    def of(*measured: float) -> Results:
        rows = [{"steps": k, "measured": m, "stderr": 0.01} for k, m in zip((1, 100), measured, strict=True)]
        return of_jobs(
            **{f"theorem_{rule}_1": {"rule": rule, "constants": c, "promise": promise, "first": 3.0, "rows": rows}}
        )

    found = claim.measure(of(3.0, 0.1), quick=True)
    assert found.holds
    assert refused(found)
    assert "bound over measured: " in found.measured
    assert claim.measure(of(3.0, 1e3)).holds is False


def test_one_step_and_neighbourhood() -> None:
    c = {"alpha": 0.66, "beta": 0.16}
    data = {"constants": c, "points": 10, "tightest": 0.9, "largest_gap": 1.7}
    found = exact.one_step.measure(of_jobs(theorem_constant_1=data), quick=True)
    assert found.holds
    assert refused(found)
    assert exact.one_step.measure(of_jobs(theorem_constant_1=data | {"largest_gap": 0.4})).holds is False

    def ends(*measured: float) -> Results:
        rows = {
            f"theorem_constant_{i}": {"rows": [{"measured": m, "neighbourhood": 2.0}]} for i, m in enumerate(measured)
        }
        return of_jobs(**rows)

    assert exact.neighbourhood.measure(ends(0.01, 0.21)).holds
    assert exact.neighbourhood.measure(ends(1.0, 0.19)).holds is False


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)
    for c in found:
        assert c.control is not None or not c.published, c.name


def test_the_documents_have_the_committed_table() -> None:
    check_page(EXPERIMENT)
    overview = (ROOT / "docs/experiments.md").read_text()
    assert "](function-class.png)" in overview


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    found = {one["name"]: one for one in report["claims"]}
    for name in ("the examples are α-β", "Remark 1: the exact pair", "SGD: the one-step inequality"):
        assert found[name]["holds"] is True
        assert found[name]["control"]["holds"] is False
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"overview.png", "maps.png", "frontiers.png"}
