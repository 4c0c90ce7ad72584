"""The SDE run: problems, differences against closed forms, criteria on made-up results, (-m slow) the reduced run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import ROOT, check_committed, check_needs, check_page, committed, reduced

from probes import Trace
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.engine.claims import Results
from runs.sde import EXPERIMENT, claims, criteria, jobs, problems, saddle_claims, saddles, stationary
from runs.sde import finding_claims as findings
from solvers.diffusion import SGD, FiniteSum, GaussianNoise, Quadratic, discrete, integrate, linearised


def context(path: Path) -> JobContext:
    return JobContext("job", 3, path / "job.h5", lambda done, planned: None)


def made(**data: Any) -> Results:
    """Results of these jobs; _ stands for -."""
    return Results({name.replace("_", "-"): JobResult(found, Path("none.h5")) for name, found in data.items()})


def found(ratio: float | None = 1.0, error: float = 0.0, **changed: Any) -> dict[str, Any]:
    """What a job keeps of one SDE at one step size."""
    return {
        "paths": 4000,
        "error": error,
        "error_stderr": 1e-3,
        "scale": 1.0,
        "ratio": ratio,
        "ratio_stderr": 0.01,
        "low": ratio,
        "high": ratio,
    } | changed


def tracked(problem: str = "commuting", power: float = 1.0, constant: float = 0.3, **sdes: Any) -> dict[str, Any]:
    """A job's data: the means of its SDE differ by constant eta^power; by kind of SDE what else is found at all eta."""
    rows = []
    for eta in (0.2, 0.1, 0.05, 0.025):
        kinds = {"sde": 1.0, "none": None, "double": 0.5, "fast": 1.0, "quiet": 0.8, "published": 0.1} | sdes
        made = {kind: found(ratio, constant * eta ** (power * (kind != "fast"))) for kind, ratio in kinds.items()}
        same = {"solver": 1.0, "sde": 1.0, "stderr": 0.1, "ratio": 1.0}
        rows.append({"eta": eta, "sdes": made, "statistics": dict.fromkeys(jobs.STATISTICS, same)})
    return {"problem": problem, "rule": "sgd", "n": 2, "paths": 4000, "rows": rows}


def all_tracked(**changed: Any) -> Results:
    data = {f"track-{p}-{rule}": tracked(p) for p, rules in jobs.RULES_ON.items() for rule in rules}
    data |= {f"track-{name.replace('_', '-')}": value for name, value in changed.items()}
    return Results({name: JobResult(value, Path("none.h5")) for name, value in data.items()})


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)
    assert [job.name for job in jobs.plan(True)] == [job.name for job in jobs.plan(False)]


def test_problems() -> None:
    X = torch.tensor([[0.5, -0.2, 0.3], [1.0, 1.0, -1.0]], dtype=torch.float64)
    cancer, _ = problems.make("cancer")
    assert isinstance(cancer, FiniteSum)
    every = cancer.balanced(problems.BATCHES, torch.Generator().manual_seed(0))
    assert len(every) == problems.BATCHES == math.comb(12, 2)
    g = cancer.atoms(X, every)
    torch.testing.assert_close(g.mean(0), cancer.gradient(X))
    torch.testing.assert_close(g.var(0, correction=0), cancer.law(X).variance())
    rotated, x0 = problems.make("rotated")
    assert isinstance(rotated, Quadratic)
    H, S = rotated.H, rotated.noise.covariance
    assert float((H @ S - S @ H).norm()) > 0.1
    torch.testing.assert_close(torch.linalg.eigvalsh(H), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    assert x0.shape == (3,)
    network, x0 = problems.make("network")
    assert network.n == len(x0) == 35
    step = torch.zeros(35, dtype=torch.float64)
    step[7] = 1e-6
    slope = (network.loss((x0 + step)[None]) - network.loss((x0 - step)[None])) / 2e-6
    assert float(slope) == pytest.approx(float(network.gradient(x0[None])[0, 7]), rel=1e-6)
    with pytest.raises(ValueError, match="unknown problem"):
        problems.make("none")
    with pytest.raises(ValueError, match="unknown rule"):
        problems.model("none", rotated, 0.1)


def test_settings_scale_with_the_step_size() -> None:
    problem, _ = problems.make("commuting")
    for eta in (0.1, 0.025):
        adam: Any = problems.model("adamw", problem, eta)
        assert adam.r == pytest.approx((problems.R1, problems.R2))
        assert adam.decoupled == problems.DECAY
        sam: Any = problems.model("usam", problem, eta)
        assert sam.rho == pytest.approx(problems.RADIUS * eta**0.5)


def test_the_difference_is_that_of_exact_moments() -> None:
    """SGD with Gaussian noise: solver and Euler-Maruyama are linear, their moments known."""
    problem = Quadratic(torch.tensor([2.0, 0.5]), GaussianNoise(torch.tensor([0.25, 1.0])))
    x0, eta, steps, paths = torch.tensor([1.5, -1.5], dtype=torch.float64), 0.2, 5, 20_000
    sde = SGD(problem, eta)
    generator = torch.Generator().manual_seed(0)
    solver = discrete(sde, x0, steps, paths, generator=generator, trajectory=True)
    model = integrate(sde, x0, eta / 10, 10 * steps, paths, generator=generator, every=10, trajectory=True)
    told = jobs.difference(jobs._cloud(solver, 1), jobs._cloud(model, 1), x0)
    exact = linearised(sde)
    means = [torch.stack([exact.moments(x0, eta / k, k * n)[0] for n in range(1, steps + 1)]) for k in (1, 10)]
    root = math.sqrt(steps)
    assert told["error"] == pytest.approx(float((means[0] - means[1]).norm()) / root, abs=4 * told["error_stderr"])
    assert told["error_stderr"] < 0.003
    assert told["scale"] == pytest.approx(float((means[0] - x0).norm()) / root, rel=0.01)
    first, second = (exact.moments(x0, eta / k, k * steps)[1] for k in (1, 10))
    expected = float(first.trace() / second.trace())
    assert told["ratio"] == pytest.approx(expected, abs=4 * told["ratio_stderr"])
    values = torch.linalg.eigvals(torch.linalg.solve(second, first)).real
    assert told["low"] == pytest.approx(float(values.min()), abs=0.06)
    assert told["high"] == pytest.approx(float(values.max()), abs=0.06)


def test_euler_maruyama_at_the_solvers_step_is_sgd() -> None:
    """Why dt = eta is no test of SGD with Gaussian noise: normals and their negatives give the same paths."""
    problem = Quadratic(torch.tensor([2.0, 0.5]), GaussianNoise(torch.tensor([0.25, 1.0])))
    sde = SGD(problem, 0.1)
    X = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    xi = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    stepped = X + 0.1 * sde.drift(X[None])[0] + 0.1**0.5 * sde.diffusion(X[None], xi)[0]
    z = -problem.noise.root(xi)
    torch.testing.assert_close(stepped, sde.update(X[None], 0, lambda at: problem.stochastic(at, z))[0])


def test_no_difference_without_one(tmp_path: Path) -> None:
    X = torch.randn(4, 500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    Z = torch.randn(4, 500, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    told = jobs.difference(jobs.Cloud(X), jobs.Cloud(Z), torch.zeros(2, dtype=torch.float64))
    assert told["error"] <= 3 * told["error_stderr"]
    assert 0.8 < told["low"] < told["ratio"] < told["high"] < 1.25
    still = jobs.difference(jobs.Cloud(X), jobs.Cloud(torch.zeros_like(X)), torch.ones(2, dtype=torch.float64))
    assert still["ratio"] is None


def test_powers() -> None:
    eta = [0.2, 0.1, 0.05]
    p, stderr = criteria.power(eta, [3 * e**1.5 for e in eta], [1e-4] * 3)
    assert p == pytest.approx(1.5, abs=0.01)
    assert 0 < stderr < 0.05
    assert criteria.power(eta, [0.0, 0.0, 0.0], [1e-3] * 3)[1] == math.inf
    # against the errors that many draws show
    noise = 0.003 * np.random.default_rng(0).standard_normal((200, 3))
    drawn = [criteria.power(eta, row, [0.003] * 3) for row in (0.3 * np.array(eta) + noise).tolist()]
    assert float(np.std([d[0] for d in drawn])) == pytest.approx(float(np.mean([d[1] for d in drawn])), rel=0.3)
    p, stderr = criteria.slope([1, 2, 4], [1, 4, 16], [0.1, 0.4, 1.6])
    assert [p, stderr] == pytest.approx([2, 0.1 / math.log(2) / 2**0.5])
    assert list(criteria.line([0, 1, 2], [1, 3, 5])) == pytest.approx([2, 1])


def test_means_track_by_a_power() -> None:
    assert criteria.mean_tracks(tracked())
    assert criteria.mean_tracks(tracked(constant=0.9))
    assert not criteria.mean_tracks(tracked(power=0.3, constant=0.1))
    assert criteria.mean_tracks(tracked(constant=0.0))
    assert claims.means.measure(all_tracked()).holds
    missed = claims.means.measure(all_tracked(rotated_adam=tracked("rotated", power=0.3)))
    assert missed.holds is False
    assert missed.measured.endswith("Missed by rotated-adam")


def test_covariances_and_controls() -> None:
    assert claims.covariances.measure(all_tracked()).holds
    assert claims.covariances.measure(all_tracked(commuting_sgd=tracked(sde=1.3))).holds is False
    refused = claims.covariances.measure(all_tracked()).control
    assert refused is not None
    assert (refused.holds, refused.measured) == (False, "0 of 34 pass")
    passing = claims.covariances.measure(all_tracked(rotated_sgd=tracked("rotated", double=0.9))).control
    assert passing is not None
    assert (passing.holds, passing.measured) == (True, "1 of 34 pass: rotated-sgd (double)")
    assert claims.moment_noise.measure(all_tracked()).holds
    for changed in ({"quiet": 0.99}, {"sde": 0.8}):
        assert claims.moment_noise.measure(all_tracked(rotated_adam=tracked("rotated", **changed))).holds is False
    assert claims.finite_sum.measure(all_tracked()).holds
    assert claims.finite_sum.measure(all_tracked(cancer_sam=tracked("cancer", sde=0.7))).holds is False
    assert claims.finite_sum.measure(all_tracked(cancer_sam=tracked("cancer", power=0.3))).holds is False
    assert claims.network.measure(all_tracked(network_sam=tracked("network", sde=0.7))).holds is False
    assert claims.network.measure(all_tracked(cancer_sam=tracked("cancer", sde=0.7))).holds


def noisy(power: float, least: float = 1.0) -> list[dict[str, float]]:
    return [{"sigma": s, "loss": least * s**power, "stderr": 0.01 * least * s**power} for s in stationary.SIGMAS]


def test_claims_on_the_noise() -> None:
    assert findings.noise.measure(made(noise_sgd=noisy(2), noise_sign=noisy(1))).holds
    assert findings.noise.measure(made(noise_sgd=noisy(2), noise_sign=noisy(1.2))).holds is False
    kept = {"noise_rmspropw": noisy(0.1, 1e-3), "noise_adamw": noisy(0.1, 1e-3), "noise_sgd_decay": noisy(2)}
    kept |= {"noise_adam": noisy(1), "noise_adam_coupled": noisy(1)}
    assert findings.bounded.measure(made(**kept)).holds
    assert findings.bounded.measure(made(**(kept | {"noise_adamw": noisy(1)}))).holds is False
    assert findings.bounded.measure(made(**(kept | {"noise_adamw": noisy(0.1, 1.0)}))).holds is False


@pytest.mark.parametrize(("rule", "decay", "r1"), stationary.FORMS)
def test_closed_forms_are_those_of_the_linear_sde(rule: str, decay: float, r1: float) -> None:
    eta, H, spread = 1e-4, torch.tensor(stationary.CURVATURES), torch.tensor(stationary.SPREADS)
    kind, name = ("coupled" if "coupled" in rule else "decoupled"), rule.removeprefix("coupled-")
    changed: dict[str, Any] = {kind: decay} | ({"betas": (1 - eta * r1, 1 - eta)} if r1 else {})
    exact = linearised(problems.model(name, Quadratic(H, GaussianNoise(spread.square())), eta, **changed)).covariance()
    for i, (h, s) in enumerate(zip(stationary.CURVATURES, stationary.SPREADS, strict=True)):
        assert findings.closed_form(rule, decay, r1, h, s, eta) == pytest.approx(float(exact[i, i]), rel=2e-3)


def test_claims_on_closed_forms_and_tails() -> None:
    def rows(rule: str, decay: float, r1: float, factor: float) -> list[dict[str, float]]:
        forms = [(h, s, factor * findings.closed_form(rule, decay, r1, h, s)) for h, s in ((1.0, 0.5), (0.5, 1.0))]
        return [{"h": h, "sigma": s, "variance": v, "stderr": 0.01 * v} for h, s, v in forms]

    forms = {f"form-{r}-{d:g}-{r1:g}": rows(r, d, r1, 1.0) for r, d, r1 in stationary.FORMS}
    assert findings.forms.measure(made(**forms)).holds
    assert findings.forms.measure(made(**(forms | {"form-adamw-1-1": rows("adamw", 1, 1, 2.0)}))).holds is False
    near = [{"mean_square": v, "mean_square_stderr": 0.01 * v, "variance": v, "largest": 2.0} for v in (0.1, 0.03)]
    far = [row | {"largest": 50.0} for row in near]
    assert findings.heavy_sign.measure(made(**{"heavy-sign-1": near, "heavy-sign-1.5": near})).holds
    assert findings.heavy_sign.measure(made(**{"heavy-sign-1": near, "heavy-sign-1.5": far})).holds is False

    def medians(power: float) -> list[dict[str, float]]:
        made = [(eta, eta**power) for eta in stationary.HEAVY]
        return [{"eta": e, "median": m, "median_stderr": 0.02 * m, "largest": 1e3 * m} for e, m in made]

    assert findings.heavy_sgd.measure(made(**{"heavy-sgd-1": medians(0), "heavy-sgd-1.5": medians(1 / 3)})).holds
    for first, second in ((0.5, 1 / 3), (0.0, 0.5)):
        held = findings.heavy_sgd.measure(made(**{"heavy-sgd-1": medians(first), "heavy-sgd-1.5": medians(second)}))
        assert held.holds is False


def test_phases(tmp_path: Path) -> None:
    """A short run: the drift is Erf, the paper's line holds near 0 alone, and both laws are told apart."""
    data = stationary.phases(context(tmp_path), paths=400, eta=0.05)
    results = Results({"phases": JobResult(data, tmp_path / "job.h5")})
    found = findings.phases.measure(results)
    assert found.numbers["erf"] < 0.06
    assert found.numbers["sign"] < 0.04
    ends = [(k / 8, (k + 1) / 8) for k in range(24)]
    exact = [{"low": a, "high": b, "drift": findings._mean_erf(a, b)} for a, b in ends]
    found = findings.phases.measure(made(phases={"bins": exact}))
    assert found.holds
    assert found.control is not None
    assert found.control.holds is False
    line = [b | {"drift": min((b["low"] + b["high"]) / math.pi**0.5, 1.0)} for b in exact]
    assert findings.phases.measure(made(phases={"bins": line})).holds is False
    decay = findings.decay.measure(results)
    for root, fit, _, _ in decay.numbers.values():
        assert root == pytest.approx(-math.sqrt(0.5), rel=0.05)
        assert fit > 0.999


class Decay(Results):
    """The job of the phases with the same path of solver and SDE, but what is changed of the solver's."""

    def __init__(self, slope: float = 1.0, rate: float = math.sqrt(2 / math.pi), bend: float = 0.0) -> None:
        super().__init__({"phases": JobResult({}, Path("none.h5"))})
        self.rows = {"solver": self.path(slope, rate, bend), "sde": self.path(1.0, math.sqrt(2 / math.pi), 0.0)}

    @staticmethod
    def path(slope: float, rate: float, bend: float) -> dict[str, Any]:
        """x falls by `slope` a time unit down to Y = 1/4, then at the rate."""
        t, low = np.linspace(0, 10, 4001), 0.25 * math.sqrt(2)
        x = stationary.PHASE_START - slope * t - bend * t**2
        begin = t[(x <= low).argmax()]
        x = np.where(t < begin, x, low * np.exp(-rate * (t - begin)))
        return {"t": t, "x": x, "loss": x**2 / 2}

    def trace(self, name: str) -> Any:
        return nullcontext(self.rows)


def test_claim_on_the_decay_of_sign_descent() -> None:
    assert findings.decay.measure(Decay()).holds
    for changed in ({"slope": 1.06}, {"slope": 0.94}, {"rate": 0.7}, {"rate": 0.9}, {"slope": 0.9, "bend": 0.05}):
        found = findings.decay.measure(Decay(**changed))
        assert found.holds is False, found.measured


def test_saddles(tmp_path: Path) -> None:
    results = made(saddle=saddles.saddle(context(tmp_path), eta=0.2, end=40.0))
    assert saddle_claims.saddle.measure(results).holds
    assert saddle_claims.saddle_usam.measure(results).holds
    for row in results.jobs["saddle"].data:
        row["inner"], row["left"] = 0.9, 0.9
    assert saddle_claims.saddle.measure(results).holds is False
    assert saddle_claims.saddle_usam.measure(results).holds is False
    ran = saddles.escape(context(tmp_path), "sam", 0.1, 1.0, 20)["rows"]
    for row in ran:  # the rate of the linear SDE is that of the claim
        assert row["rate"] == pytest.approx(1 - math.sqrt(math.pi / 8) / row["noise"], rel=1e-6)


def test_claims_on_noise_at_the_saddle() -> None:
    def shares(rule: str, left: Callable[[float], float]) -> dict[str, Any]:
        rows = [{"noise": s, "solver": left(s), "sde": left(s)} for s in saddles.NOISES]
        return {"rule": rule, "paths": 200, "rows": rows}

    gone, held = (lambda s: 1.0), (lambda s: float(s > 0.6))
    data = {"escape_sgd": shares("sgd", gone), "escape_usam": shares("usam", gone), "escape_sam": shares("sam", held)}
    data["escape_dnsam"] = shares("dnsam", lambda s: 0.5)
    assert saddle_claims.freed.measure(made(**data)).holds
    assert saddle_claims.dnsam.measure(made(**data)).holds
    assert saddle_claims.freed.measure(made(**(data | {"escape_sam": shares("sam", gone)}))).holds is False
    assert saddle_claims.dnsam.measure(made(**(data | {"escape_dnsam": shares("dnsam", held)}))).holds is False


def test_covariance_at_the_saddle_and_drift(tmp_path: Path) -> None:
    results = made(covariance=saddles.covariance(context(tmp_path), 200_000))
    assert saddle_claims.whole.measure(results).holds
    assert saddle_claims.published.measure(results).holds is False
    data = {"solver": [1.0, 2.0], "stderr": [1e-4, 1e-4], "psd": [1.009, 1.985], "published": [9.0, 9.0]}
    assert saddle_claims.whole.measure(made(covariance=data)).holds
    assert saddle_claims.whole.measure(made(covariance=data | {"psd": [1.009, 1.96]})).holds is False
    results = made(drift_network=saddles.drift(context(tmp_path), "network", 2))
    assert saddle_claims.drift.measure(results).holds

    def rows(power: float, last: float) -> list[dict[str, float]]:
        errors = [(rho, last * (rho / saddles.RAISES[-1]) ** power) for rho in saddles.RAISES]
        return [{"rho": rho, "error": error, "other": 1.0} for rho, error in errors]

    assert saddle_claims.drift.measure(made(drift_cancer={"sam": rows(1, 0.01)})).holds
    for wrong in (rows(0.8, 0.01), rows(1, 0.03)):
        found = saddle_claims.drift.measure(made(drift_cancer={"sam": rows(1, 0.01), "usam": wrong}))
        assert found.holds is False


@pytest.mark.parametrize(("problem", "rule"), [("commuting", "adam"), ("rotated", "sam"), ("cauchy", "sign")])
def test_a_job(tmp_path: Path, problem: str, rule: str) -> None:
    data = jobs.track(context(tmp_path), problem, rule, [0.2, 0.1], 50, 0.4, {})
    json.dumps(data, allow_nan=False)
    assert set(data["rows"][0]["sdes"]) >= {"sde", "none", "double"}
    assert ("quiet" in data["rows"][0]["sdes"]) == (rule == "adam")
    with Trace.open(tmp_path / "job.h5") as trace:
        times = [0.2, 0.3, 0.4] if rule == "adam" else [0, 0.1, 0.2, 0.3, 0.4]
        np.testing.assert_allclose(trace["solver-0.1"]["t"], times)
        assert trace["sde-0.1"]["t"][-1] == pytest.approx(0.4)
        if rule != "adam":  # whose paths are random where they start
            assert trace["solver-0.1"]["loss_mean"][0] == pytest.approx(trace["none-0.2"]["loss_mean"][0], rel=1e-12)


def test_jobs_of_stationary_states(tmp_path: Path) -> None:
    for found in (
        stationary.noise(context(tmp_path), "sign", {}, [1.0], 100, 0.05),
        stationary.form(context(tmp_path), "coupled-adam", 0.5, 2.0, 100, 0.05),
        stationary.heavy(context(tmp_path), "sgd", 1.5, [0.1], 100),
        stationary.heavy(context(tmp_path), "sign", 1.0, [0.1], 100),
    ):
        assert found
        json.dumps(found, allow_nan=False)


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)


def test_the_documents_have_the_committed_table() -> None:
    check_page(EXPERIMENT)
    overview = (ROOT / "docs/experiments.md").read_text()
    assert f"| `sde` | {round(committed(EXPERIMENT)[0]['seconds'] / 60)} |" in overview
    assert "](sde.png)" in overview


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {f"{p}.png" for p in (*jobs.RULES_ON, "sheet")}
