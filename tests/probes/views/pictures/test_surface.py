"""Surfaces through several networks: what is drawn lies where it should, in pictures and in charts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from report_cases import every_kind
from scipy.interpolate import RegularGridInterpolator
from torch import nn

from landscape import Objective
from probes import LossSurface, Trace, measure_once, report
from probes.views.pictures.draw import figures
from probes.views.pictures.surface import explained_by, heights_on, surface_figure, trail_of
from probes.views.report.charts.surface import surface_charts

WAY = np.array([[-0.8, 0.5], [-0.5, 0.0], [-0.2, -0.1], [0.0, 0.0]])


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return Trace.open(every_kind(tmp_path_factory.mktemp("surface") / "t.h5", 2))


def read(trace, name):
    return trace[name].read(), trace[name].settings


def test_heights_are_those_between_the_points() -> None:
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random(7)), np.sort(rng.random(5))
    values = rng.random((7, 5))
    places = np.stack([rng.uniform(x[0], x[-1], 40), rng.uniform(y[0], y[-1], 40)], axis=1)
    found = heights_on({"x": [x], "y": [y], "values": [values]}, places)
    np.testing.assert_allclose(found, RegularGridInterpolator((x, y), values)(places))
    corners = np.array([[x[0], y[0]], [x[-1], y[-1]], [x[3], y[2]]])
    np.testing.assert_array_equal(
        heights_on({"x": [x], "y": [y], "values": [values]}, corners), values[[0, -1, 3], [0, -1, 2]]
    )
    assert np.isnan(heights_on({"x": [x], "y": [y], "values": [values]}, np.array([[2.0, y[1]], [x[1], -1.0]]))).all()
    line = heights_on({"x": [x], "values": [values[:, 0]]}, places[:, :1])
    np.testing.assert_allclose(line, np.interp(places[:, 0], x, values[:, 0]))


def test_the_way_is_measured_among_the_parameters() -> None:
    rng = np.random.default_rng(1)
    Q = np.linalg.qr(rng.normal(size=(9, 3)))[0]
    directions, places = Q[:, :2] * [3.0, 0.5], rng.normal(size=(5, 2))
    off = np.array([0.0, 0.1, 2.0, 0.3, 0.0])
    thetas = places @ directions.T + off[:, None] * Q[:, 2]
    shadow = places @ directions.T
    way = sum(np.linalg.norm(b - a) for a, b in itertools.pairwise(shadow))
    columns = {
        "path": [places],
        "path_step": [np.arange(5)],
        "path_distance": [np.linalg.norm(thetas - shadow, axis=1)],
        "explained": [[0.7, 0.2]],
        "length": [np.linalg.norm(directions, axis=0)],
    }
    found = trail_of(columns)
    assert found is not None
    assert found.length == pytest.approx(way)
    assert found.off == pytest.approx(2.0 / way)
    assert explained_by(found).startswith("explains 70 % + 20 % of the variance")


def test_a_training_is_drawn_over_its_contours(trace) -> None:
    made = surface_figure(*read(trace, "way"))
    map_ = made.axes[0]
    lines = [line for line in map_.lines if len(line.get_xdata()) > 1]
    assert len(lines) == 2
    for line in lines:
        np.testing.assert_allclose(np.stack(line.get_data(), axis=1), WAY)
    assert {text.get_text() for text in map_.texts} >= {"step 0", "step 900"}
    ring, star = (line for line in map_.lines if len(line.get_xdata()) == 1)
    assert (ring.get_marker(), star.get_marker()) == ("o", "*")
    assert ring.get_xdata()[0] == -0.8
    assert map_.get_xlabel() == "the 1st principal direction"
    assert map_.get_xlim() == (-1, 1)
    assert any(
        "explains 93 % + 5 % of the variance; up to 45 % of the way off" in text.get_text() for text in map_.texts
    )
    ((_, paper),) = figures(trace, ("way",), style="paper")
    assert "93 % + 5 %" in str(paper.get_label())


def test_the_middle_is_marked_where_there_are_no_networks(trace) -> None:
    map_ = surface_figure(*read(trace, "surface")).axes[0]
    assert [line.get_marker() for line in map_.lines] == ["+"]
    assert not [text for text in map_.texts if "explains" in text.get_text()]


def test_two_networks_are_a_panel(trace) -> None:
    columns, settings = read(trace, "line")
    (axes,) = surface_figure(columns, settings).axes
    assert axes.get_xlabel() == "from step 0 to step 300"
    marked = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    x, values = columns["x"][-1], columns["values"][-1]
    np.testing.assert_allclose(marked, [(t, np.interp(t, x, values)) for t in (-0.8, 0.8)])
    (chart,) = surface_charts(columns, settings)
    np.testing.assert_allclose(chart.data[-1]["y"], [y for _, y in marked], rtol=1e-4)
    assert [tag["text"] for tag in chart.layout["annotations"]] == ["step 0", "step 300"]


def test_the_way_lies_on_the_surface_of_the_chart(trace) -> None:
    columns, settings = read(trace, "way")
    map_, solid, *cuts = surface_charts(columns, settings)
    assert len(cuts) == 2
    ways = [t for t in map_.data if t["type"] == "scatter" and len(t["x"]) == len(WAY)]
    assert [(t["x"], t["y"]) for t in ways] == [(WAY[:, 0].tolist(), WAY[:, 1].tolist())] * 2
    assert ways[1]["customdata"] == [[0, "0"], [300, "0.5"], [600, "0.1"], [900, "0"]]
    inside = RegularGridInterpolator((columns["x"][-1], columns["y"][-1]), columns["values"][-1])
    laid = [t for t in solid.data if t["type"] == "scatter3d"]
    assert [t["mode"] for t in laid] == ["lines", "markers+text"]
    for t in laid:
        np.testing.assert_allclose(t["z"], inside(np.stack([t["x"], t["y"]], axis=1)), rtol=1e-3)
    assert laid[1]["text"] == ["step 0", "step 900"]
    assert "explains 93 %" in map_.remark
    assert "explains 93 %" in solid.remark
    plain = surface_charts(*read(trace, "surface"))
    assert {t["type"] for one in plain for t in one.data} == {"contour", "surface", "scatter"}


def test_networks_far_off_are_said_before_the_pictures(trace, tmp_path: Path) -> None:
    told = report(trace, tmp_path / "page.md").read_text()
    warnings = told[told.index("## Warnings") : told.index("## Loss")]
    (line,) = [line for line in warnings.splitlines() if "off the plane" in line]
    assert "**way** networks lie up to 45 % of the way's length off the plane (step 300)" in line


def test_what_the_probe_writes_is_drawn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    f = Objective(nn.Linear(4, 2), nn.MSELoss(), (torch.randn(9, 4), torch.randn(9, 2)))
    thetas = {step: f.theta() + 0.1 * step * torch.randn(f.size) for step in range(4)}
    two = {step: thetas[step] for step in (0, 3)}
    with Trace.create(tmp_path / "t.h5", seed=0) as trace:
        probes = [LossSurface(name="way", directions="trajectory", points=5, through=thetas)]
        probes += [LossSurface(name="line", directions="between", points=5, through=two)]
        measure_once(f, probes, trace, step=3, on_error="raise")
        for name, panels in (("way", 4), ("line", 1)):
            columns, settings = read(trace, name)
            assert len(surface_figure(columns, settings).axes) == panels  # three and the colours
            assert len(surface_charts(columns, settings)) == panels
            found = trail_of(columns)
            assert found is not None
            assert found.labels[0] == "step 0"
