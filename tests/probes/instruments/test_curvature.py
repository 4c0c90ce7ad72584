"""The curvature probes against the dense matrix of a small network."""

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from probes import ConditionNumber, CurvatureTrace, Monitor, SpectralDensity, Spectrum, Trace, measure_once
from probes.context import Context
from probes.instruments.registry import PROBES

ALL = [Spectrum(k=3), CurvatureTrace(), SpectralDensity(probes=2, steps=8), ConditionNumber()]


@pytest.fixture
def objective():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2)
    x = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=generator)
    return landscape.Objective(model, nn.CrossEntropyLoss(), (x, y))


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def eigenvalues(operator):
    return torch.linalg.eigvalsh(operator.to_dense()).numpy()


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
def test_spectrum(objective, trace, which):
    exact = eigenvalues(landscape.Hessian(objective))
    best = {"LA": exact[::-1], "SA": exact, "LM": exact[np.argsort(-np.abs(exact))]}[which]
    measure_once(objective, [Spectrum(k=3, which=which, tol=1e-6)], trace, 0, on_error="raise")
    row = trace["spectrum"].row()
    np.testing.assert_allclose(row["values"], best[:3], atol=1e-6 * np.abs(exact).max())
    assert (row["residuals"] <= 1e-5 * np.abs(exact).max()).all()
    assert row["converged"]
    assert row["matvecs"] > 0
    assert trace["spectrum"].settings["which"] == which


@pytest.mark.parametrize(
    ("kind", "cls"),
    [("gauss-newton", "GaussNewton"), ("empirical-fisher", "EmpiricalFisher"), ("fisher", "MonteCarloFisher")],
)
def test_operators(objective, trace, kind, cls):
    probe = Spectrum(k=2, operator=kind, tol=1e-6, name="s")
    measure_once(objective, [probe], trace, 0, on_error="raise")
    assert (trace["s"]["values"] > 0).all()
    assert kind.split("-")[-1] in trace["s"].fields["values"].description.lower().replace(" ", "-")
    if kind != "fisher":  # whose labels are drawn
        exact = eigenvalues(getattr(landscape, cls)(objective))[::-1]
        np.testing.assert_allclose(trace["s"]["values"][0], exact[:2], rtol=1e-5)


def test_a_part_of_the_parameters(objective, trace):
    A = landscape.Hessian(objective).to_dense()
    head = torch.cat([torch.arange(objective.size)[objective.slices[name]] for name in ("2.weight", "2.bias")])
    exact = torch.linalg.eigvalsh(A[head][:, head]).numpy()[::-1]
    probes = [Spectrum(k=2, parameters=["2.*"], name="head", tol=1e-6), Spectrum(k=2, name="all")]
    measure_once(objective, probes, trace, 0, on_error="raise")
    np.testing.assert_allclose(trace["head"]["values"][0], exact[:2], rtol=1e-5)
    with pytest.raises(ValueError, match=r"head: k=19 .* size 18"):
        measure_once(objective, [Spectrum(k=19, parameters="2.*", name="head")], trace, 0)


def test_trace(objective, trace):
    exact = eigenvalues(landscape.Hessian(objective)).sum()
    measure_once(objective, [CurvatureTrace()], trace, 0, on_error="raise")
    row = trace["trace"].row()
    assert abs(row["value"] - exact) <= 4 * row["stderr"] + 1e-8 * abs(exact)
    assert row["method"] == "auto"
    rough = CurvatureTrace(method="hutchinson", rtol=0.9, operator="gauss-newton", name="rough")
    measure_once(objective, [rough], trace, 0, on_error="raise")
    row = trace["rough"].row()
    assert row["matvecs"] < objective.size  # the tolerance is reached before it is cheaper to be exact
    assert row["converged"]


def test_density(objective, trace):
    exact = eigenvalues(landscape.Hessian(objective))
    measure_once(objective, [SpectralDensity(probes=3, steps=100)], trace, 0, on_error="raise")
    row = trace["density"].row()
    assert row["nodes"].shape == row["weights"].shape == (3, 100)  # more steps than parameters
    assert row["n"] == objective.size
    np.testing.assert_allclose(row["weights"].sum(axis=1), 1)
    few = SpectralDensity(parameters=["2.bias"], probes=2, steps=8, name="few")  # of 3, without a breakdown
    measure_once(objective, [few], trace, 0, on_error="raise")
    np.testing.assert_allclose(trace["few"].row()["weights"].sum(axis=1), 1)
    assert row["nodes"].min() == pytest.approx(exact[0], abs=1e-6)
    assert row["nodes"].max() == pytest.approx(exact[-1], abs=1e-6)


def test_condition_number(objective, trace):
    exact = eigenvalues(landscape.GaussNewton(objective))
    cut = 0.5 * (exact[-3] + exact[-4])
    measure_once(objective, [ConditionNumber(operator="gauss-newton", threshold=cut, name="cut")], trace, 0)
    assert (trace["cut"].row()["rank"], trace["cut"].row()["threshold"]) == (3, cut)
    assert trace["cut"].row()["kappa"] == pytest.approx(exact[-1] / exact[-3], rel=1e-4)
    probe = ConditionNumber(operator="gauss-newton", threshold=1e-6 * exact[-1])
    measure_once(objective, [probe], trace, 0, on_error="raise")
    row = trace["condition"].row()
    kept = exact[exact > 1e-6 * exact[-1]]
    assert row["kappa"] == pytest.approx(kept[-1] / kept[0], rel=1e-4)
    assert row["rank"] == len(kept)
    entries = np.isfinite(row["thresholds"])
    assert entries.any()
    assert (row["ranks"][entries] >= 0).all()
    assert (row["ranks"][~entries] == -1).all()


def test_in_a_training_loop(objective, trace):
    optimizer = torch.optim.SGD(objective.model.parameters(), lr=0.1)
    monitor = Monitor(objective, ALL, trace, optimizer=optimizer, on_error="raise")
    for step in range(3):
        theta = objective.theta()
        monitor(step)
        assert torch.equal(theta, objective.theta())
        top = eigenvalues(landscape.Hessian(objective))[-1]
        assert trace["spectrum"]["values"][step, 0] == pytest.approx(top, rel=1e-3)
        optimizer.zero_grad()
        objective.model(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
        optimizer.step()
    assert all(len(trace[probe.name]) == 3 for probe in ALL)
    for probe in ALL:
        for field in trace[probe.name].fields.values():
            assert field.description


def test_the_same_seed_gives_the_same_numbers(objective, trace, tmp_path):
    with Trace.create(tmp_path / "again.h5", seed=0) as again:
        for target in (trace, again):
            measure_once(
                objective, [CurvatureTrace(matvecs=6), Spectrum(operator="fisher")], target, 5, on_error="raise"
            )
        assert again["trace"]["value"][0] == trace["trace"]["value"][0]
        assert (again["spectrum"]["values"] == trace["spectrum"]["values"]).all()


def test_names_and_settings():
    assert list(PROBES)[:4] == ["spectrum", "trace", "density", "condition"]
    assert [probe.name for probe in ALL] == list(PROBES)[:4]
    probe = Spectrum(5, every=100, name="test")
    assert probe.settings() == {
        "probe": "Spectrum",
        "operator": "hessian",
        "parameters": None,
        "k": 5,
        "which": "LA",
        "tol": 1e-3,
        "warm": True,
        "confirm": True,
    }
    assert "test" in repr(probe)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spectrum(k=0), "k must be"),
        (lambda: Spectrum(which="XX"), "which is"),
        (lambda: Spectrum(tol=0), "tol must"),
        (lambda: Spectrum(operator="jacobian"), "operator is one of hessian"),
        (lambda: Spectrum(every=0), "every="),
        (lambda: SpectralDensity(steps=0), "at least 1"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_more_eigenvalues_than_parameters_is_said_at_once(objective, trace):
    with pytest.raises(ValueError, match="k=99 eigenvalues of a matrix of size 43; use k <= 43"):
        Monitor(objective, [Spectrum(k=99)], trace)


def test_a_trace_of_the_past_goes_on_without_fields_that_came_later(objective, tmp_path):
    probe = ConditionNumber()
    fields = probe.fields(Context(objective))
    old = {name: field for name, field in fields.items() if name not in ("limited_by", "noise", "checked", "note")}
    with Trace.create(tmp_path / "a.h5") as trace:
        trace.declare("condition", old, settings=probe.settings())
    with Trace.resume(tmp_path / "a.h5") as trace:
        outcome = measure_once(objective, [probe], trace, 1, on_error="raise")["condition"]
        with pytest.raises(ValueError, match="other fields"):
            trace.declare("condition", {"kappa": old["kappa"]}, settings=probe.settings())
    with Trace.open(tmp_path / "a.h5") as trace:
        assert trace["condition"]["kappa"].tolist() == [outcome.values["kappa"]]
        assert set(trace["condition"].fields) == set(old)
