"""Pictures of the training dynamics: what is drawn is what was recorded, thresholds and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probes import Field, Trace
from probes.views.kinds import kind_of
from probes.views.pictures.density import density_map
from probes.views.pictures.draw import plot_trace
from probes.views.pictures.gradient import GUIDE, alignment_figure, gradient_figure, updates_figure
from probes.views.pictures.sharpness import (
    batch_sharpness_figure,
    critical_sharpness_figure,
    sam_figure,
    sharpness_figure,
)
from probes.views.pictures.spectrum import spectrum_figure

FIGURES = {
    "sharpness": sharpness_figure,
    "batch-sharpness": batch_sharpness_figure,
    "critical-sharpness": critical_sharpness_figure,
    "sam-sharpness": sam_figure,
    "gradient": gradient_figure,
    "alignment": alignment_figure,
}
LAYERS = ("0.weight", "0.bias", "2.weight")


def groups(steps: int) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(2)
    rise, part = np.linspace(20.0, 38.0, steps), rng.random((steps, 3)) / 4
    threshold, step = np.full(steps, 40.0), np.arange(0, 10 * steps, 10)
    columns: dict[str, dict[str, Any]] = {
        "sharpness": {
            "value": rise,
            "residual": rise / 100,
            "threshold": threshold,
            "preconditioned": rise * 3,
            "preconditioned_residual": rise / 50,
            "preconditioned_threshold": threshold * 3,
        },
        "batch-sharpness": {
            "value": rise,
            "stderr": rise / 20,
            "ratio_of_means": rise,
            "threshold": threshold,
            "batches": np.full(steps, 8),
        },
        "critical-sharpness": {"value": rise, "lower": rise - 2, "upper": rise + 1, "threshold": threshold},
        "sam-sharpness": {"value": rise / 99, "error": rise / 999, "rho": np.full(steps, 0.05)},
        "gradient": {"loss": 1 / rise, "norm": 2 / rise, "noise_scale": rise, "noise_scale_stderr": rise / 10},
        "alignment": {
            "cosines": part,
            "bounds": part / 9,
            "total": part.sum(axis=1),
            "total_bound": part.sum(axis=1) / 9,
        },
        "updates": {
            "ratio": part / 100,
            "update": part,
            "weight": np.full((steps, 3), 100.0),
            "steps": np.full(steps, 10),
        },
    }
    return {name: {"step": step} | fields for name, fields in columns.items()}


def unknown(columns: dict[str, Any]) -> dict[str, Any]:
    return {k: np.full(v.shape, np.nan) if v.dtype.kind == "f" else v for k, v in columns.items()}


def lines(axes: Any) -> list[Any]:
    return [np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()]


def has(axes: Any, values: Any) -> bool:
    return any(y.shape == np.shape(values) and np.allclose(y, values) for y in lines(axes))


def segments(axes: Any) -> Any:
    """The ends of the first set of error bars, `(steps, 2)`."""
    return np.array([segment[:, 1] for segment in axes.containers[0][2][0].get_segments()])


@pytest.mark.parametrize("nothing", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_every_group_is_written(tmp_path: Path, steps: int, nothing: bool) -> None:
    made = groups(steps)
    with Trace.create(tmp_path / "t.h5", seed=0) as trace:
        for name, columns in made.items():
            columns = unknown(columns) if nothing else columns
            fields = {
                k: Field(v.shape[1:], str(v.dtype), labels=LAYERS if name == "updates" and v.ndim > 1 else ())
                for k, v in columns.items()
                if k != "step"
            }
            trace.declare(name, fields)
            for i, step in enumerate(columns["step"]):
                trace.record(name, int(step), **{k: columns[k][i] for k in fields})
    with Trace.open(tmp_path / "t.h5") as trace:
        assert {path.name for path in plot_trace(trace, tmp_path)} == {f"trace-{name}.png" for name in made}


@pytest.mark.parametrize("name", ["sharpness", "batch-sharpness", "critical-sharpness", "sam-sharpness"])
def test_values_bars_and_thresholds(name: str) -> None:
    columns = groups(5)[name]
    axes = FIGURES[name](columns, {}).axes[0]
    assert has(axes, columns["value"])
    if "threshold" in columns:
        assert has(axes, columns["threshold"])
    if name == "batch-sharpness":
        ends = axes.collections[0].get_paths()[0].vertices[:, 1]
        reach = np.r_[columns["value"] - columns["stderr"], columns["value"] + columns["stderr"]]
        assert all(np.isclose(ends, end).any() for end in reach)
        return
    error = columns.get("residual", columns.get("error"))
    low, high = columns.get("lower"), columns.get("upper")
    if error is not None:
        low, high = columns["value"] - error, columns["value"] + error
    np.testing.assert_allclose(segments(axes), np.c_[low, high])


def test_the_preconditioned_panel_is_there_when_it_is_known() -> None:
    columns = groups(4)["sharpness"]
    axes = sharpness_figure(columns, {}).axes[1]
    assert has(axes, columns["preconditioned"])
    assert has(axes, columns["preconditioned_threshold"])
    without = columns | {"preconditioned": np.full(4, np.nan), "threshold": np.full(4, np.nan)}
    (alone,) = sharpness_figure(without, {}).axes
    assert alone.get_legend() is None  # no threshold, no line for it


def test_gradient_alignment_and_updates() -> None:
    made = groups(5)
    columns = made["gradient"]
    panels = gradient_figure(columns, {}).axes
    for axes, field in zip(panels, ("loss", "norm", "noise_scale"), strict=True):
        assert has(axes, columns[field])
    error = columns["noise_scale_stderr"]
    np.testing.assert_allclose(segments(panels[2])[:, 1], columns["noise_scale"] + error)
    columns = made["alignment"]
    stack, each = alignment_figure(columns, {}).axes
    assert has(stack, columns["total"])
    assert len(stack.collections) >= 3  # an area per eigenvector
    assert all(has(each, columns["cosines"][:, i]) for i in range(3))
    columns = made["updates"]
    figure = updates_figure(columns, {}, LAYERS)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert all(has(axes, columns["ratio"][:, i]) for i in range(3))
    assert any(np.all(y == GUIDE) for y in lines(axes))
    assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == list(LAYERS)


def test_outliers_are_marked_and_counted() -> None:
    rest = np.linspace(1.0, 0.5, 10)
    values = np.array([[9.0, 8.0, *rest], [9.0, 0.99, *(0.9 * rest)]])
    figure = spectrum_figure({"step": np.array([0, 10]), "values": values, "residuals": values / 99}, {})
    counts = [axes for axes in figure.axes if axes.get_ylabel() == "outliers"]
    assert has(counts[0], [2, 1])
    assert any(has(axes, [9.0, 8.0, 9.0]) for axes in figure.axes)


def test_density_map() -> None:
    nodes = np.sort(np.random.default_rng(0).normal(size=(4, 2, 6)))
    columns = {"step": np.array([0, 5, 20, 40]), "nodes": nodes, "weights": np.full((4, 2, 6), 1 / 6)}
    axes, bar = density_map(columns | {"n": np.full(4, 50)}, {}).axes
    mesh = axes.collections[0]
    assert mesh.get_array().shape[1] == 4
    assert bar.get_ylabel() == "density"
    np.testing.assert_allclose(np.unique(mesh.get_coordinates()[0, :, 0]), [-2.5, 2.5, 12.5, 30, 50])


def test_kinds() -> None:
    for name, columns in groups(1).items():
        assert kind_of(columns) == name
    assert kind_of(["value", "stderr"]) == "trace"
    assert kind_of(["value", "stderr"], {"probe": "CurvatureTrace"}) == "trace"
    assert kind_of(["value", "stderr"], {"probe": "Mine"}) is None
