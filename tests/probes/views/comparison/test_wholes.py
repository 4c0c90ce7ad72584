"""Densities and updates of runs beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probes import Field, Trace, TraceSet, report
from probes.errors import UserError
from probes.views.comparison.picture import drawn
from probes.views.comparison.wholes import compare_densities, compare_updates
from probes.views.pictures.density import density_curve

N, PROBES, LANCZOS = 1000, 3, 16


@pytest.fixture
def runs(tmp_path: Path) -> TraceSet:
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.2):
        for seed in range(2):
            with Trace.create(tmp_path / f"lr{rate}-{seed}.h5", config={"lr": rate, "seed": seed}, seed=seed) as trace:
                shape, each, f = Field((PROBES, LANCZOS + seed)), Field((3 + seed,)), Field((), "int64")
                trace.declare("density", {"nodes": shape, "weights": shape, "n": f})
                trace.declare("updates", {"ratio": each, "update": each, "weight": each, "steps": f})
                for step in range(3):
                    nodes = np.sort(10 * rate * rng.normal(size=shape.shape) * (1 + step), axis=1)
                    trace.record("density", step, nodes=nodes, weights=np.full(shape.shape, 1 / (LANCZOS + seed)), n=N)
                    ratio = 10.0 ** -np.arange(1, 4 + seed) / (step or np.nan)
                    trace.record("updates", step, ratio=ratio, update=ratio, weight=ratio, steps=1)
    return TraceSet.open(tmp_path)


def test_densities_are_those_of_the_last_steps(runs: TraceSet) -> None:
    found = compare_densities(runs, "density")
    assert [group.heading for group in found.groups] == ["lr=0.1 (2 runs)", "lr=0.2 (2 runs)"]
    assert found.by == "eigenvalue"
    sigma = float(found.how.rpartition("= ")[2])
    for group in found.groups:
        for name, line in zip(group.names, group.curves, strict=True):
            last = runs.run(name).records("density").row(-1)
            mean, _ = density_curve(last["nodes"], last["weights"], line.x, sigma)
            high = mean > mean.max() / 5  # sigma is told with two digits
            np.testing.assert_allclose(line.y[high], np.log10(mean[high]), atol=0.05)
            mass = np.trapezoid(10**line.y, line.x)
            assert mass == pytest.approx(1.0, abs=0.05)
    average = found.groups[0].average(found.groups[0].curves[0].x)
    np.testing.assert_allclose(average.mean, np.mean([line.y for line in found.groups[0].curves], axis=0))


def test_updates_of_networks_with_other_layers_compare(runs: TraceSet) -> None:
    found = compare_updates(runs, "updates")
    three, four = found.groups[0].curves
    np.testing.assert_allclose(three.x, [1, 2])  # at the first step there was none
    np.testing.assert_allclose(three.y, [1e-2, 1e-2 / 2])
    np.testing.assert_allclose(four.y, [(1e-2 + 1e-3) / 2, (1e-2 + 1e-3) / 4])
    with pytest.raises(UserError, match="no run has nothing"):
        compare_updates(runs, "nothing")
    with pytest.raises(UserError, match="no run has updates"):
        compare_densities(runs, "updates")


def test_both_are_in_a_report_and_a_picture(runs: TraceSet, tmp_path: Path) -> None:
    text = report(tmp_path, tmp_path / "page.md").read_text()
    assert "### density: runs beside each other" in text
    assert "| eigenvalue |" in text
    assert "### updates: runs beside each other" in text
    assert "at the last step of each run; Gaussians of width" in text
    (axes,) = drawn(compare_densities(runs, "density")).axes
    assert axes.get_xlabel() == "eigenvalue"
    assert len(axes.lines) == 2
