"""The outlier rule, the density curve, numbers with errors, and a picture for every kind of group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps, image
from matplotlib.colors import to_rgb

from probes import Field, Trace
from probes.numbers import at_thresholds, plus_minus, round_to_error
from probes.outliers import outliers
from probes.views.pictures.density import density_curve
from probes.views.pictures.draw import plot_trace
from probes.views.pictures.style import sequence


def test_outliers_of_designed_spectra() -> None:
    bulk = list(np.linspace(1.0, 0.5, 30))
    found = outliers([9.0, 8.0, 7.0, *bulk])
    assert (found.count, found.ratio) == (3, 7.0)
    assert 1.0 < found.edge < 7.0
    # outliers stand above a bulk of less than 1 % of them, which must not hide the gap
    assert outliers([100.0, 90.0, 80.0, *(0.01 * np.array(bulk))]).count == 3
    # no structure: there is a widest gap, and its ratio says that it is none
    assert outliers(np.geomspace(1.0, 0.1, 50)).ratio == pytest.approx(0.1 ** (-1 / 49))
    # nothing to compare
    for values in ([], [1.0], [3.0, 1.0, 0.5], [-1.0] * 20, [np.nan] * 20):
        assert outliers(values).count == 0
    assert outliers([9.0, 1.0], least=2).count == 1


def test_the_colours_of_a_sequence_are_viridis() -> None:
    places = np.linspace(0, 0.88, 40)
    np.testing.assert_allclose(
        [to_rgb(c) for c in sequence(40)], [colormaps["viridis"](x)[:3] for x in places], atol=0.02
    )
    assert sequence(1) == sequence(5)[:1]
    assert sequence(0) == []


def test_density_curve_integrates_to_one() -> None:
    rng = np.random.default_rng(0)
    nodes, weights = rng.normal(size=(3, 8)), rng.random((3, 8))
    weights /= weights.sum(axis=1, keepdims=True)
    grid = np.linspace(-8, 8, 4001)
    mean, stderr = density_curve(nodes, weights, grid, 0.2)
    assert np.trapezoid(mean, grid) == pytest.approx(1.0, abs=1e-9)
    single = [density_curve(nodes[i : i + 1], weights[i : i + 1], grid, 0.2)[0] for i in range(3)]
    np.testing.assert_allclose(mean, np.mean(single, axis=0))
    np.testing.assert_allclose(stderr, np.std(single, axis=0, ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3456, 0.05, "12.35 ± 0.05"),
        (12.3456, 0.012, "12.346 ± 0.012"),
        (1234.5, 30.0, "1234 ± 30"),
        (1.7911653, 3e-7, "1.79117 ± 3e-7"),
        (3.0, 0.0, "3"),
        (3.14159, float("nan"), "3.142 ±?"),
        (1e-8, 2e-9, "1e-08 ± 2e-09"),
        (float("nan"), 1.0, "nan"),
        (-0.25, 0.5, "-0.2 ± 0.5"),
    ],
)
def test_plus_minus(value: float, error: float, text: str) -> None:
    assert plus_minus(value, error) == text


def test_round_to_error_and_thresholds() -> None:
    assert round_to_error(0.848329, 2e-6, 5) == "0.84833"
    row = {"thresholds": [1e-2, 1e-4, np.nan], "ranks": [3, 5, -1], "kappas": [90.0, 9e3, np.nan]}
    assert at_thresholds(row) == [(1e-2, 3, 90.0), (1e-4, 5, 9e3)]


def make_trace(path: Path, steps: int, *, converged: bool = True) -> None:
    rng = np.random.default_rng(1)
    with Trace.create(path, seed=0) as trace:
        trace.declare("top", {"values": Field((12,)), "residuals": Field((12,))}, settings={"operator": "hessian"})
        trace.declare("trace", {"value": Field(), "stderr": Field()})
        trace.declare(
            "density",
            {"nodes": Field((3, 16)), "weights": Field((3, 16)), "n": Field(dtype="int64")},
            settings={"operator": "hessian"},
        )
        names = {"kappa": Field(), "rank": Field(dtype="int64"), "converged": Field(dtype="bool")}
        table = {"thresholds": Field((4,)), "ranks": Field((4,), dtype="int64"), "kappas": Field((4,))}
        trace.declare("condition", names | table)
        trace.declare("loss", {"value": Field(), "gradient_norm": Field()})
        trace.declare("mine", {"x": Field()})
        for step in range(0, 100 * steps, 100):
            values = np.sort(np.r_[8.0, 6.0, 5.0, rng.random(9)])[::-1]
            trace.record("top", step, values=values, residuals=np.full(12, 1e-3))
            trace.record("trace", step, value=30.0 - step / 100, stderr=1.5)
            nodes = np.sort(np.c_[np.full((3, 3), [8.0, 6.0, 5.0]), rng.random((3, 13))])
            weights = np.where(nodes > 4, 1e-3, 0.0)
            weights[nodes <= 4] = np.repeat((1 - weights.sum(1)) / 13, 13)
            trace.record("density", step, nodes=nodes, weights=weights, n=1000)
            trace.record(
                "condition",
                step,
                kappa=1e4,
                rank=50,
                converged=converged,
                thresholds=[1e-2, 1e-4, 1e-6, np.nan],
                ranks=[5, 20, 50, -1],
                kappas=[90.0, 9e3, 9e5, np.nan],
            )
            trace.record("loss", step, value=1.0 / (1 + step), gradient_norm=0.1)
            trace.record("mine", step, x=1.0)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_picture_for_every_kind(tmp_path: Path, steps: int) -> None:
    make_trace(tmp_path / "t.h5", steps, converged=steps == 1)
    with Trace.open(tmp_path / "t.h5") as trace:
        written = plot_trace(trace, tmp_path / "new" / "pictures", prefix="t")
    names = {path.name for path in written}
    groups = ["top", "trace", "density", "condition", "loss"] + ["density-map"] * (steps > 2)
    assert names == {f"t-{group}.png" for group in groups}
    assert {path.name for path in (tmp_path / "new" / "pictures").iterdir()} == names  # no temporary files left
    for path in written:
        pixels = image.imread(path)
        assert pixels.shape[1] > 600
        assert 0.005 < float((pixels[..., :3].mean(axis=2) < 0.9).mean()) < 0.6  # neither blank nor black


def test_an_empty_trace_gives_no_picture(tmp_path: Path) -> None:
    with Trace.create(tmp_path / "t.h5", seed=0) as trace:
        trace.declare("trace", {"value": Field(), "stderr": Field()})
    with Trace.open(tmp_path / "t.h5") as trace:
        assert plot_trace(trace, tmp_path) == []


def test_tables_fit_the_terminal(tmp_path: Path) -> None:
    from rich.console import Console

    from probes.views.tables import overview, steps_table

    make_trace(tmp_path / "t.h5", 3, converged=False)
    with Trace.open(tmp_path / "t.h5") as trace:
        for width in (80, 200):
            console = Console(width=width, record=True, file=(tmp_path / "out.txt").open("w"))
            console.print(overview(trace))
            console.print(steps_table(trace, 2, width=width))
            console.file.close()
            text = console.export_text()
            assert "…" not in text
            for part in ("30.0 ± 1.5", "≥ 20 (≥ 9e3)", "mine: x", "the last 2 of 3 steps"):
                assert (part in text) == (part != "30.0 ± 1.5"), part  # step 0 is not among the last two
