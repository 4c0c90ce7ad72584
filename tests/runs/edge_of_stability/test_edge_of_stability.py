"""The edge of stability: its rules and their controls on made-up results, its jobs, its pages, (-m slow) the run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment_checks import check_committed, check_needs, check_page, reduced

from landscape import Hessian, Objective
from landscape.spectra import eigsh, trace
from probes import Trace
from probes.sweep.jobs import JobContext
from probes.sweep.work import JobResult
from runs.edge_of_stability import EXPERIMENT, criteria, data, jobs, minima, spectra, training
from runs.edge_of_stability import descent_claims as descent
from runs.edge_of_stability import minima_claims as kept
from runs.edge_of_stability import spectrum_claims as spectrum
from runs.edge_of_stability import stochastic_claims as stochastic
from runs.engine.claims import Claim, Results
from runs.shared.training import half_square, one_hot

Made = tuple[dict[str, Any], dict[str, Any]]  # a job's data and its trace


class MadeUp(Results):
    """Results whose traces are dictionaries."""

    def __init__(self, made: dict[str, Made]) -> None:
        super().__init__({name: JobResult(job[0], Path(f"{name}.h5")) for name, job in made.items()})
        self.traces = {name: job[1] for name, job in made.items()}

    def trace(self, name: str) -> Any:
        return _Opened(self.traces[name])


class _Opened(dict):  # type: ignore[type-arg]
    read = dict.copy

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def answers(claim: Claim, made: dict[str, Made]) -> tuple[bool | None, bool | None]:
    """What the rule says, and what it says of the claim's control."""
    found = claim.measure(MadeUp(made))
    assert "the rule failed" not in found.measured, found.measured
    assert found.control is not None
    assert "the rule failed" not in found.control.measured, found.control.measured
    return found.holds, found.control.holds


# -- gradient descent ----------------------------------------------------------------------------------------

ZIGZAG = [(2.0 if i % 2 else 1.0) * 0.9 ** (i / 4) for i in range(120)]
SMOOTH = [0.9**i for i in range(120)]
EDGE = [0.2, 0.6, *([1.02] * 10)]
LOW = [0.1, 0.1, *np.linspace(0.1, 0.3, 10)]
BRIEF = [0.2, 0.6, 1.1, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]


def run(ratios: Any, losses: list[float], rate: float = 0.5) -> Made:
    """`ratios` are eta/2 times the sharpness, one for each 10 losses."""
    values = np.array(ratios).reshape(-1, 1) * 2 / rate
    sharpness = {"step": np.arange(len(ratios)) * 10, "values": values}
    return {"rate": rate}, {"sharpness": sharpness, "loss": {"step": np.arange(len(losses)), "value": np.array(losses)}}


def descents(square: Any = EDGE, loss: Any = ZIGZAG, entropy: Any = BRIEF, entropy_loss: Any = ZIGZAG) -> Any:
    made = {"square-0.4-0": run(square, loss), "fewer-square-0": run(EDGE, ZIGZAG), descent.SMALL: run(LOW, SMOOTH)}
    return made | {"entropy-0.3-0": run(entropy, entropy_loss)}


NEARLY = [loss / (1 if i < 110 else 40) for i, loss in enumerate(ZIGZAG)]


@pytest.mark.parametrize(
    ("claim", "changed", "expected"),
    [
        (descent.sharpens, {}, True),
        (descent.sharpens, {"square": [0.2] * 12}, False),
        (descent.sharpens, {"square": [1.2, *EDGE[1:]]}, False),
        (descent.stays, {}, True),
        (descent.stays, {"square": [0.2, 1.1, *([1.35] * 10)]}, False),
        (descent.stays, {"square": [0.2, 1.1, *([0.7] * 10)]}, False),
        (descent.falls, {"entropy": EDGE}, True),
        (descent.falls, {"entropy": EDGE, "loss": SMOOTH}, False),
        (descent.falls, {"entropy": EDGE, "loss": [1.0, 2.0] * 60}, False),
        (descent.stable, {}, True),
        (descent.entropy, {"entropy_loss": NEARLY}, True),
        (descent.entropy, {}, False),  # the loss is not near 0
        (descent.entropy, {"entropy": EDGE, "entropy_loss": NEARLY}, False),  # it does not fall
        (descent.entropy, {"entropy": [*([0.2] * 10), 1.1, 0.5], "entropy_loss": NEARLY}, False),  # a moment only
        (descent.entropy, {"entropy": LOW}, None),  # it does not get there
    ],
)
def test_gradient_descent(claim: Claim, changed: Any, expected: bool | None) -> None:
    assert answers(claim, descents(**changed)) == (expected, False)


def test_gradient_descent_that_the_small_step_size_fails() -> None:
    for ratios, losses in ((EDGE, SMOOTH), (LOW, ZIGZAG)):
        assert answers(descent.stable, descents() | {descent.SMALL: run(ratios, losses)})[0] is False


def test_numbers() -> None:
    assert criteria.reached(np.array([0.2, 0.9, 1.0, 0.8])) == 2
    assert criteria.reached(np.array([0.2, 0.9])) is None
    assert criteria.stretch(np.array([0.2, 1.0, 0.5, 0.96, 0.3])) == slice(1, 4)
    assert criteria.stretch(np.array([0.2, 0.3])) == slice(0, 0)
    assert criteria.smoothed(np.array([1.0, 9.0, 2.0, 3.0, 4.0])).tolist() == [2.0, 2.5, 3.0, 3.5, 3.0]
    assert criteria.plateau(np.array([9.0, 9, 9, 9, 9, 9, 1, 2, 3])) == 2.0
    assert criteria.share_raised(np.array([3.0, 2, 2, 2.5, 1])) == 0.25
    assert criteria.long_run(np.array([4.0, 4, 3, 3, 3, 3, 3, 3, 1, 1])) == 0.25
    rho, low = criteria.correlation([1, 1, 2, 2, 3, 3], [1, 2, 3, 4, 5, 6])
    assert rho == pytest.approx(0.956, abs=1e-3)
    assert 0 < low < rho
    assert math.isnan(criteria.correlation([1, 2, 3, 4], [5, 5, 5, 5])[0])


# -- SGD -----------------------------------------------------------------------------------------------------


def sgd(batch: int, sharpness: float, along: float, loss: float = 0.02) -> Made:
    values = np.linspace(0.1, sharpness, 4).tolist() + [sharpness] * 8
    made = {"sharpness": {"values": np.array(values)[:, None]}, "batch-sharpness": {"value": np.full(12, along)}}
    return {"rate": 2.0, "batch": batch, "first": 1.0, "loss": loss}, made


def stochastics(**changed: Made) -> dict[str, Made]:
    """The full batch settles at 1.02 with a rate of 2."""
    made = {f"edge-8-{n}": sgd(8, 0.4, along) for n, along in enumerate((0.8, 1.0, 1.1))}
    made |= {"edge-16-0": sgd(16, 0.5, 1.1), "slow-16": sgd(16, 0.1, 0.1)}
    made |= {f"sgd-{batch}": sgd(batch, s, 0.8) for batch, s in ((16, 0.5), (64, 0.8), (256, 0.9))}
    return made | {stochastic.FULL: run([0.1, 0.6, *([1.02] * 10)], ZIGZAG, 2.0)} | changed


@pytest.mark.parametrize(
    ("claim", "changed", "expected"),
    [
        (stochastic.batch_sharpness, {}, True),
        (stochastic.batch_sharpness, {"edge-16-0": sgd(16, 0.5, 0.8)}, False),
        (stochastic.batch_sharpness, {"edge-16-0": sgd(16, 0.5, 1.3)}, False),
        (stochastic.below, {}, True),
        (stochastic.below, {"edge-8-0": sgd(8, 0.9, 0.8)}, False),
        (stochastic.below, {"edge-8-0": sgd(8, 1.05, 1.1)}, False),
        (stochastic.flatter, {}, True),
        (stochastic.flatter, {"sgd-16": sgd(16, 0.85, 1.0)}, False),
        (stochastic.flatter, {"sgd-256": sgd(256, 1.1, 1.0)}, False),
    ],
)
def test_mini_batches(claim: Claim, changed: dict[str, Made], expected: bool) -> None:
    assert answers(claim, stochastics(**changed)) == (expected, False)


def test_a_run_that_diverged_or_did_not_come_down_is_not_judged() -> None:
    for loss in (0.03, math.inf, math.nan):
        made = stochastics(**{f"edge-8-{n}": sgd(8, 0.4, 0.6, loss) for n in (0, 1)})
        assert answers(stochastic.batch_sharpness, made) == (True, False)
        assert "edge-8-0: 0.60, edge-8-1: 0.60" in stochastic.batch_sharpness.measure(MadeUp(made)).measured
    made = {name: sgd(8, 0.4, 1.0, 0.03) if name.startswith("edge") else job for name, job in stochastics().items()}
    assert answers(stochastic.batch_sharpness, made) == (None, False)


# -- minima --------------------------------------------------------------------------------------------------


def keeping(sgd_end: float | None, gd_end: float | None = 4.0, sharpness: float = 0.2) -> dict[str, Made]:
    """A start at the bound and one at four times 2/eta, whose ends are in units of it; None: diverged."""

    def end(value: float | None) -> dict[str, Any]:
        return {"kept": False} if value is None else {"kept": True, "trace": value * 2, "stderr": 0.05}

    runs = [
        {"ratio": ratio, "rate": 1.0, "sgd": end(s), "gd": end(g)}
        for ratio, s, g in ((1.0, 1.0, 1.0), (4.0, sgd_end, gd_end))
    ]
    return {"keep-0": ({"sharpness": 2 * sharpness, "runs": runs}, {})}


@pytest.mark.parametrize(
    ("claim", "made", "expected"),
    [
        (kept.kept, keeping(0.5), (True, False)),
        (kept.kept, keeping(1.04), (True, False)),  # within two standard errors
        (kept.kept, keeping(1.2), (False, False)),
        (kept.kept, keeping(None), (False, False)),  # none is left to say it of
        (kept.unbounded, keeping(0.5), (True, False)),
        (kept.unbounded, keeping(0.5, 0.9), (False, False)),
        (kept.unbounded, keeping(0.5, None), (False, False)),
        (kept.unbounded, keeping(0.5, sharpness=1.1), (False, False)),  # no start is stable
    ],
)
def test_minima(claim: Claim, made: dict[str, Made], expected: tuple[bool, bool]) -> None:
    assert answers(claim, made) == expected


# -- spectra -------------------------------------------------------------------------------------------------


def spectral(data: str, number: int, width: int, outliers: int, share: float = 0.9) -> Made:
    """So many eigenvalues at 1, the rest of thirty at 0.1, and a share at zero of width^2 parameters."""
    values = np.array([[1.0] * outliers + [0.1] * (30 - outliers)])
    density = {"nodes": np.array([[[0.0, 1.0]] * 2]), "weights": np.array([[[share, 1 - share]] * 2])}
    told = {"data": data, "classes": number, "width": width, "parameters": width**2}
    return told, {"spectrum": {"values": values}, "density": _Opened(density)}


def spectra_of(**changed: Made) -> dict[str, Made]:
    grid = [("digits", 10, width, 6) for width in (32, 64, 128)] + [("clusters", 5, width, 5) for width in (32, 64)]
    grid += [("clusters", number, 128, number) for number in (2, 3, 5, 10)]
    made = {f"{d}-{k}-{w}-{n}": spectral(d, k, w, count) for d, k, w, count in grid for n in range(2)}
    return made | changed


BOTH = ("digits-10-128-0", "digits-10-128-1")


@pytest.mark.parametrize(
    ("claim", "changed", "expected"),
    [
        (spectrum.bulk, {}, True),
        (spectrum.bulk, {name: spectral("digits", 10, 128, 6, 0.7) for name in BOTH}, False),
        (spectrum.scales, {}, True),
        (spectrum.scales, {name: spectral("digits", 10, 128, 6, 0.3) for name in BOTH}, False),  # too few in the bulk
        (spectrum.scales, {name: spectral("digits", 10, 128, 2) for name in BOTH}, False),  # other outliers
        (spectrum.moves, {}, True),
        (spectrum.moves, {f"clusters-10-128-{n}": spectral("clusters", 10, 128, 2) for n in (0, 1)}, False),
        (spectrum.moves, {f"clusters-10-128-{n}": spectral("clusters", 10, 128, 10, 0.6) for n in (0, 1)}, False),
        (spectrum.classes, {}, True),
        (spectrum.classes, {f"clusters-10-128-{n}": spectral("clusters", 10, 128, 8) for n in (0, 1)}, False),
    ],
)
def test_spectra(claim: Claim, changed: dict[str, Made], expected: bool) -> None:
    assert answers(claim, spectra_of(**changed)) == (expected, False)


def test_the_share_is_of_what_is_near() -> None:
    made = MadeUp({"one": spectral("digits", 10, 32, 3, 0.8)})
    assert criteria.share_near(made, "one") == pytest.approx(0.8)
    assert criteria.share_near(made, "one", 1.0) == pytest.approx(0.2)
    assert criteria.share_near(made, "one", 0.5) == 0.0


# -- jobs ----------------------------------------------------------------------------------------------------


def context(folder: Path, name: str) -> JobContext:
    return JobContext(name, 3, folder / f"{name}.h5", lambda done, planned: None)


def test_the_square_loss_is_the_one_of_the_theory() -> None:
    """At a fitted sample the Hessian is the outer product of the output's gradient: its trace is |gradient|^2."""
    model = data.start(64, 64, 1, seed=0)
    x, _ = data.images("digits", 1)
    x = x + 1
    with torch.no_grad():
        fitted = model(x)
    objective = Objective(model.double(), half_square, (x.double(), fitted.double()))
    gradient = torch.autograd.grad(model(x.double())[0, 0], list(model.parameters()))
    square = float(sum(g.square().sum() for g in gradient))
    assert eigsh(Hessian(objective), 1, tol=1e-6).values[0] == pytest.approx(square, rel=1e-6)
    found = trace(Hessian(objective), matvecs=30)
    assert abs(found.value - square) <= 3 * found.stderr + 1e-6 * square


def test_data() -> None:
    x, y = data.images("digits", 50)
    assert x.shape == (50, 64)
    assert y.shape == (50,)
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(64), rtol=0, atol=1e-6)
    points, labels = data.clusters(3, 9, 1)
    assert points.shape == (9, 64)
    assert labels.tolist() == [0, 1, 2] * 3
    assert torch.equal(points, data.clusters(3, 9, 1)[0])
    assert not torch.equal(points, data.clusters(3, 9, 2)[0])
    whole, small = (data.start(4, 3, scale=s, seed=5) for s in (1.0, 0.5))
    assert all(torch.equal(0.5 * a, b) for a, b in zip(whole.parameters(), small.parameters(), strict=True))
    assert data.odd(torch.tensor([2, 3])).tolist() == [[-1.0], [1.0]]


def test_a_short_descent(tmp_path: Path) -> None:
    small = {"data": "digits", "count": 100, "width": 16, "rate": 0.1, "steps": 4, "every": 2}
    found = training.descend(context(tmp_path, "gd"), loss="square", **small)
    with Trace.open(tmp_path / "gd.h5") as kept_trace:
        assert kept_trace["sharpness"]["step"].tolist() == [0, 2, 4]
        assert kept_trace["confirmed"]["step"].tolist() == [0]
        assert kept_trace["confirmed"]["threshold"].tolist() == [20.0]
        sharpness, losses = kept_trace["sharpness"]["values"], kept_trace["loss"]["value"]
    assert len(losses) == 5
    assert (np.diff(losses) < 0).all()
    # the same weights, by hand
    model, (x, y) = data.start(64, 16, scale=training.SCALE, seed=3), data.images("digits", 100)
    objective = Objective(model, half_square, (x, one_hot(y)))
    assert losses[0] == pytest.approx(objective.value())
    assert sharpness[0, 0] == pytest.approx(float(eigsh(Hessian(objective), 1).values[0]), rel=1e-2)
    assert found["parameters"] == objective.size


def test_sgd_stops_where_its_loss_is_low(tmp_path: Path) -> None:
    small = {"data": "digits", "count": 100, "width": 16, "rate": 0.3, "batch": 10, "every": 10}
    found = training.stochastic(context(tmp_path, "sgd"), steps=500, stop=0.7, **small)
    assert 0 < found["steps"] < 500
    assert found["loss"] < 0.7 * found["first"]
    with Trace.open(tmp_path / "sgd.h5") as kept_trace:
        assert kept_trace["loss"]["value"][-1] == found["loss"]
        assert len(kept_trace["batch-sharpness"]["value"]) == len(kept_trace["sharpness"]["values"])
    assert training.stochastic(context(tmp_path, "sgd"), steps=20, stop=0.0, **small)["steps"] == 20


def test_a_minimum_is_left_by_two_solvers(tmp_path: Path) -> None:
    small = {"data": "digits", "count": 20, "width": 8, "rate": 0.2, "steps": 20, "epochs": 1}
    found = minima.keep(context(tmp_path, "keep"), ratios=[0.1, 1e6], **small)
    tame, wild = found["runs"]
    assert tame["rate"] == pytest.approx(0.2 / found["trace"])
    assert tame["sgd"]["kept"]
    assert tame["gd"]["trace"] == pytest.approx(found["trace"], rel=0.2)
    assert wild["sgd"] == wild["gd"] == {"kept": False, "epochs": 1}


def test_the_spectrum_of_a_trained_network(tmp_path: Path) -> None:
    small = {"data": "clusters", "classes": 2, "count": 64, "width": 8, "epochs": 2, "eigenvalues": 3}
    found = spectra.spectrum(context(tmp_path, "s"), **small)
    assert found["parameters"] == 64 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10  # ten outputs for two clusters
    with Trace.open(tmp_path / "s.h5") as kept_trace:
        assert kept_trace["spectrum"]["values"].shape == (1, 3)
        assert kept_trace["density"]["nodes"].shape[:2] == (1, 8)


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)
    streams = {job.name: job.stream for job in jobs.plan(False)}
    assert streams["sgd-16"] == streams["sgd-256"] == streams[stochastic.FULL]


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not [c.name for c in found if c.holds is None]


def test_the_documents_have_the_committed_table() -> None:
    check_page(EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, printed = reduced(EXPERIMENT, tmp_path)
    text = " ".join(printed.split())
    assert all(word in text for found in report["claims"] for word in found["name"].split())
    for found in report["claims"]:
        assert "the rule failed" not in found["measured"], found
    pictures = {path.name for path in (tmp_path / "quick").glob("*.png")}
    assert pictures == {"overview.png", "batches.png", "minima.png"}
