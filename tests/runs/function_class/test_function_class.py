"""The function-class run: criteria on made-up rows, parts of the jobs, the committed results, (-m slow) the run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import ROOT, check_committed, check_needs, check_page, reduced

from landscape.regularity import Trajectory, alpha_beta
from probes import Field, Trace
from probes.instruments.function_class import trajectory
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import ClaimResult, Results
from runs.function_class import EXPERIMENT, claims, criteria, jobs, theory
from runs.function_class import exact_claims as exact
from runs.shared.tables import falling


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
    """Results whose traces are trajectories, by job; the whole loss has the same rows unless given."""

    def __init__(self, runs: dict[str, list[Trajectory]], full: dict[str, list[Trajectory]] | None = None) -> None:
        data = {n: {"runs": [{"seed": s, "loss": 0.5} for s in range(len(ts))]} for n, ts in runs.items()}
        super().__init__({name: JobResult(found, Path(f"{name}.h5")) for name, found in data.items()})
        self.runs, self.full = runs, full or runs

    def trace(self, name: str) -> Any:
        parts = {f"seed-{s}": Rows(t) for s, t in enumerate(self.runs[name])}
        return _Opened(parts | {f"seed-{s}-full": Rows(t) for s, t in enumerate(self.full[name])})


class _Opened(dict):  # type: ignore[type-arg]
    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run(beta: float, *, excess: float = 1.0, cosine: list[float] | None = None) -> Trajectory:
    """A run whose smallest beta at gap 0.1 is `beta` (0 for any negative number), set by its step 1."""
    drop = np.full(10, 1.0)
    inner = np.full(10, 0.2)
    inner[1] = 0.1 - beta * excess
    if cosine is not None:
        inner = np.array(cosine)
    return Trajectory(inner, excess + drop, np.full(10, excess), 0.0, np.ones(10), np.ones(10))


def judged(claim: Any, betas: dict[str, list[float]]) -> ClaimResult:
    return claim.measure(MadeUp({name: [run(b) for b in values] for name, values in betas.items()}))


def test_orders() -> None:
    assert falling([3, 2, 1])
    assert not falling([3, 3, 1])
    assert criteria.rises_then_falls([1, 2, 1])
    assert criteria.rises_then_falls([1, 2, 4, 3])
    for values in ([1, 2, 3], [3, 2, 1], [1, 3, 2, 4], [1, 2, 2, 1]):
        assert not criteria.rises_then_falls(values), values
    assert criteria.number(1.234567) == 1.2346
    assert criteria.number(math.inf) == "inf"
    t = run(1.0)
    assert criteria.first_part(t, 0.2).tolist() == [True, True] + [False] * 8


def test_the_smallest_pair_is_that_of_all_seeds() -> None:
    results = MadeUp({"mlp-16": [run(1.0), run(3.0), run(-1.0)]})
    found = criteria.smallest(results, "mlp-16")
    assert found.beta == pytest.approx(3.0)
    assert found.seeds == pytest.approx((1.0, 3.0, 0.0))
    assert (found.vacuous, found.steps, found.sigma2) == (3, 10, 0.5)
    assert str(found) == "3 (0 … 3)"
    broken = MadeUp({"mlp-16": [run(1.0, excess=0.0, cosine=[-1.0] * 10)]})
    kept = criteria.as_json({"a": criteria.smallest(broken, "mlp-16")})["a"]
    assert kept["beta"] == "inf"
    assert kept["vacuous"] == 0
    json.dumps(kept, allow_nan=False)


def test_sizes() -> None:
    up_down = {f"mlp-{w}": [b, b / 2] for w, b in zip((16, 32, 64), (1.0, 3.0, 2.0), strict=True)}
    found = judged(claims.wide, up_down)
    assert found.holds
    assert "16: 1 (0.5 … 1); 32: 3" in found.measured
    assert "vacuous in 6 of 6 runs" in found.measured
    assert judged(claims.wide, {f"mlp-{w}": [float(w)] for w in (1, 2, 3)}).holds is False
    assert judged(claims.wide, {f"mlp-{w}": [-1.0] for w in (1, 2, 3)}).holds is None  # 0 everywhere
    halved = {f"batch-{b}": [1.0 / b] for b in (1, 2, 4)}
    assert judged(claims.batch, halved).holds
    assert judged(claims.noise_batch, halved).holds
    assert "0.5; 2: 0.25; 4: 0.125" in judged(claims.noise_batch, halved).measured
    for claim, name in ((claims.deep, "depth"), (claims.batch, "batch"), (claims.noise_width, "mlp")):
        assert judged(claim, {f"{name}-{size}": [1.0 / size] for size in (1, 2, 4)}).holds
    for claim in (claims.deep, claims.batch, claims.noise_width, claims.noise_depth, claims.noise_batch):
        name = claim.needs[0].removesuffix("*")
        assert judged(claim, {f"{name}{size}": [b] for size, b in ((1, 1.0), (2, 0.5), (4, 0.6))}).holds is False
    assert judged(claims.channels, {f"cnn-{c}": [b] for c, b in ((4, 1.0), (8, 3.0), (16, 2.0))}).holds
    assert judged(claims.channels, {f"cnn-{c}": [b] for c, b in ((4, 3.0), (8, 2.0), (16, 2.5))}).holds is False
    order = {"optimizer-adam": [1.0], "optimizer-momentum": [2.0], "optimizer-sgd": [3.0]}
    assert judged(claims.optimizer, order).holds
    assert judged(claims.optimizer, order | {"optimizer-sgd": [1.5]}).holds is False


def networks(**changed: list[Trajectory]) -> MadeUp:
    names = ("mlp-1", "cnn-1", "depth-1", "batch-1", "optimizer-sgd", "lstm", "transformer")
    return MadeUp({name: [run(1.0)] for name in names} | changed)


def test_all_networks() -> None:
    found = claims.works.measure(networks())
    assert found.holds
    assert "7 of 7 configurations; vacuous in 7 of 7 runs, so only the size of β" in found.measured
    none = [run(1.0, excess=0.0, cosine=[-1.0] * 10)]
    assert claims.works.measure(networks(lstm=none)).holds is False
    assert claims.language.measure(networks(lstm=[run(5.0)], transformer=[run(2.0)])).holds
    assert claims.language.measure(networks(lstm=[run(5.0)])).holds is False
    assert claims.pointing.measure(networks()).holds is False  # one of ten rows is negative
    straight = {name: [run(-1.0)] for name in networks().runs}
    assert claims.pointing.measure(MadeUp(straight)).holds
    assert claims.outliers.measure(networks()).holds is False  # 1 % of ten rows is none


def test_competitors() -> None:
    early = [-0.1, 0.1] + [0.5] * 8
    assert claims.plateau.measure(networks(lstm=[run(0, cosine=early)])).holds
    assert claims.plateau.measure(networks(lstm=[run(0, cosine=early), run(0, cosine=[0.5] * 10)])).holds is False
    assert claims.plateau.measure(networks(lstm=[run(0, cosine=[*early[:-1], -0.1])])).holds is False
    flat = run(0.0)
    flat = Trajectory(flat.inner, flat.loss, flat.final_loss, 0.0, np.full(10, 1e-4), flat.distance)
    assert claims.pl.measure(networks(lstm=[flat])).holds
    assert claims.pl.measure(networks()).holds is False
    bad = run(0.0, cosine=[-0.1] * 5 + [0.1] * 5)
    steep = Trajectory(bad.inner, bad.loss, bad.final_loss, 0.0, np.full(10, 1e-3), bad.distance)
    assert exact.saddle.measure(MadeUp({"half-space": [steep, flat]})).holds
    assert exact.saddle.measure(MadeUp({"half-space": [flat]})).holds is False
    assert exact.half_space.measure(MadeUp({"half-space": [run(5e3)]})).holds
    assert exact.half_space.measure(MadeUp({"half-space": [run(5.0)]})).holds is False


def context(path: Path, name: str = "job") -> JobContext:
    return JobContext(name, 3, path / f"{name}.h5", lambda done, planned: None)


def test_examples_and_theorem(tmp_path: Path) -> None:
    found = {
        name: theory.example(context(tmp_path, name), name, theory.GAPS[name], 29, [[-6.0, 8.0]])
        for name in theory.GAPS
    }
    results = Results({f"example-{n}": JobResult(d, tmp_path / f"{n}.h5") for n, d in found.items()})
    assert exact.toys.measure(results).holds
    found["6"]["regions"][0]["least_margin"] = -1.0
    assert exact.toys.measure(results).holds is False
    with Trace.open(tmp_path / "6.h5") as trace:
        t = trajectory(trace["plane-0"])
    assert alpha_beta(t, 1.0).beta == pytest.approx(found["6"]["regions"][0]["beta"], rel=1e-12)
    settings = {"part": 1.0, "runs": 20, "horizons": [1, 5]}
    made = {rule: theory.theorem(context(tmp_path, rule), rule, **settings) for rule in ("constant", "decreasing")}
    results = Results({f"theorem-{r}-1": JobResult(d, tmp_path / f"{r}.h5") for r, d in made.items()})
    assert exact.one_step.measure(results).holds
    assert exact.bounds.measure(results).holds
    made["constant"]["rows"][1]["bound"] = 0.0
    made["constant"]["tightest"] = -1e-3
    assert exact.one_step.measure(results).holds is False
    assert exact.bounds.measure(results).holds is False


def test_claims_on_exact_constants_by_hand() -> None:
    def of(**data: Any) -> Results:
        return Results({name.replace("_", "-"): JobResult(found, Path("none.h5")) for name, found in data.items()})

    def examples(first: float, *sixth: float) -> Results:
        regions = [{"region": [-6.0, 8.0], "beta": beta} for beta in sixth]
        return of(example_1={"regions": [{"beta": first}]}, example_6={"regions": regions})

    assert exact.tight.measure(examples(1.9585, 19.0625)).holds
    assert exact.tight.measure(examples(1.96, 19.0625)).holds is False
    assert exact.tight.measure(examples(1.9585, 19.06)).holds is False
    assert exact.region.measure(examples(0.0, 20.0, 19.0, 17.0)).holds
    assert exact.region.measure(examples(0.0, 20.0, 21.0, 17.0)).holds is False
    assert exact.region.measure(examples(0.0, 20.0, 19.5, 18.1)).holds is False

    def ends(*measured: float) -> Results:
        rows = {f"theorem_constant_{i}": {"rows": [{"measured": 9.0, "neighbourhood": 2.0}]} for i in range(2)}
        for made, value in zip(rows.values(), measured, strict=True):
            made["rows"].append({"measured": value, "neighbourhood": 2.0})
        return of(**rows)

    assert exact.neighbourhood.measure(ends(0.01, 0.21)).holds
    assert exact.neighbourhood.measure(ends(1.0, 0.19)).holds is False


def test_half_space_rows_are_those_of_the_samples(tmp_path: Path) -> None:
    theory.half_space(context(tmp_path), steps=30, paths=1)
    with Trace.open(tmp_path / "job.h5") as trace:
        t, full = trajectory(trace["seed-0"]), trajectory(trace["seed-0-full"])
    problem = theory.problems.half_space(seed=0)
    rng = np.random.default_rng((3, 0))
    chosen = rng.integers(40, size=30)
    x = [4 * (v := rng.standard_normal(2)) / np.linalg.norm(v)]
    for i in chosen:
        x.append(x[-1] - 0.25 * problem.gradients(x[-1][None])[i, 0])
    values = np.array([problem.values(p[None])[i, 0] for p, i in zip(x, chosen, strict=False)])
    np.testing.assert_allclose(t.loss, values, rtol=1e-12)
    np.testing.assert_allclose(t.infimum, problem.infimum[chosen])
    np.testing.assert_allclose(full.loss, [problem.values(p[None]).mean() for p in x[:-1]], rtol=1e-12)


@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "sgd"), ("lstm", "normalized"), ("transformer", "adamw")])
def test_a_job_measures_the_run_that_it_repeats(tmp_path: Path, network: str, optimizer: str, monkeypatch: Any) -> None:
    data = jobs.text(4) if network != "mlp" else tuple(part[:64] for part in jobs.digits().train)
    small = type("Small", (), {"train": data})
    monkeypatch.setattr(jobs, "text", lambda: data)
    monkeypatch.setattr(jobs, "digits", lambda: small)
    size = 2 if network != "mlp" else 32
    found = jobs.train(
        context(tmp_path),
        network,
        size=8,
        batch=size,
        epochs=2,
        optimizer=optimizer,
        lr=0.01,
        schedule="one-cycle",
        seeds=2,
        every=2,
    )
    assert [made["seed"] for made in found["runs"]] == [0, 1]
    with Trace.open(tmp_path / "job.h5") as trace:
        assert list(trace["seed-1"]["step"]) == [0, 1, 2, 3]
        assert list(trace["seed-1-full"]["step"]) == [0, 2]
        t = trajectory(trace["seed-1-full"])
        np.testing.assert_allclose(t.final_loss, found["runs"][1]["loss"], rtol=1e-6)
        assert t.loss[0] == pytest.approx(found["runs"][1]["first_loss"], rel=1e-6)


def test_parts_of_the_jobs() -> None:
    for schedule in ("fixed", "cosine", "one-cycle", "warm-cosine", "power"):
        factors = [jobs.factor(schedule, step, 100) for step in range(100)]
        assert max(factors) == pytest.approx(1.0, abs=1e-9)
        assert min(factors) > 0
    x = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = jobs.Normalized(iter([x]), 0.5)
    x.grad = torch.tensor([6.0, 8.0])
    optimizer.step()
    torch.testing.assert_close(x.detach(), torch.tensor([2.7, 3.6]))
    inputs, targets = jobs.text(3)
    assert inputs.flatten()[1:].tolist() == targets.flatten()[:-1].tolist()
    net = jobs.build_network(lambda: jobs.Transformer(8), 0)
    changed = inputs.clone()
    changed[:, 20] += 1
    same = (net(inputs) - net(changed)).abs().amax(dim=(0, 1))
    assert same[:20].max() == 0 < same[20:].min()  # a byte is seen by those after it alone


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)


def test_the_documents_have_the_committed_table() -> None:
    check_page(EXPERIMENT)
    overview = (ROOT / "docs/experiments.md").read_text()
    assert "](function-class.png)" in overview


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    found = {one["name"]: one for one in report["claims"]}
    for name in ("the toy examples are α-β", "the pairs are nearly tight", "SGD: the one-step inequality"):
        assert found[name]["holds"] is True
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"maps.png", "frontiers.png", "plateaus.png", "theorems.png"}
