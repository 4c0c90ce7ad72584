"""Pictures and table of a FunctionClass trace: what is drawn is what the rows say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from landscape import Objective
from landscape.regularity import Trajectory, alpha_beta, alpha_beta_frontier, describe, margins
from probes import FunctionClass, Monitor, Recording, Trace
from probes.instruments.function_class import trajectory
from probes.views.kinds import kind_of
from probes.views.pictures.draw import plot_trace
from probes.views.pictures.function_class import conditions_figure, frontier_figure, lowest, map_figure, signed_axis
from probes.views.tables import steps_table


def made_up(rows: int = 300, *, above: bool = True, seed: int = 0) -> Trajectory:
    """Rows with some negative inner products; f(x_K) > 0 everywhere or nowhere."""
    rng = np.random.default_rng(seed)
    final = rng.random(rows) * 0.3 + 0.05 if above else np.zeros(rows)
    drop = rng.random(rows)
    norm, distance = rng.random(rows) + 0.1, np.linspace(4.0, 0.1, rows)
    inner = norm * distance * rng.uniform(-0.1 if above else 0.2, 0.9, rows)
    return Trajectory(inner, final + drop, final, 0.0, norm, distance, steps=np.arange(rows) * 5)


def data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 4, generator=generator)
    return list(zip(x.split(8), torch.randint(0, 3, (24,), generator=generator).split(8), strict=True))


def recorded(path: Path, **settings: Any) -> Trace:
    """A small run, measured at each of its steps; `per="sketch"` for a single pass."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    start = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    objective = Objective(model, nn.CrossEntropyLoss(), data())

    def train(call: Any) -> None:
        model.load_state_dict(start)
        for step in range(6):
            x, y = data()[step % 3]
            call(step, (x, y))
            loss = nn.functional.cross_entropy(model(x), y)
            for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
                p.data.sub_(g, alpha=0.2)

    recording = Recording(objective)
    train(recording)
    recording.finish()
    probe = FunctionClass(**settings) if "sketch" in settings else FunctionClass(recording, **settings)
    with Trace.create(path, seed=0) as trace:
        monitor = Monitor(objective, [probe], trace, on_error="raise")
        train(lambda step, batch: monitor(step, batch=batch))
    return Trace.open(path)


def curve(axes: Any, line: int) -> Any:
    return np.asarray(axes.get_lines()[line].get_ydata(), dtype=float)


def test_the_frontier_is_drawn_as_it_is() -> None:
    t = made_up()
    (axes,) = frontier_figure(t).axes
    for line, quantile in enumerate((1.0, 0.99)):
        gaps = np.asarray(axes.get_lines()[line].get_xdata(), dtype=float)
        expected = [found.beta for found in alpha_beta_frontier(t, gaps, quantile=quantile)]
        np.testing.assert_allclose(curve(axes, line), expected)
    words = " ".join(text.get_text() for text in axes.texts)
    assert f"set by step {alpha_beta(t, 0.1).binding_step}" in words
    assert "some pair always works" in words
    assert curve(axes, 2)[0] == alpha_beta(t, 0.1).beta


def test_no_beta_is_said() -> None:
    t = made_up(above=False)
    broken = Trajectory(-t.inner, t.loss, t.final_loss, 0.0, t.grad_norm, t.distance)
    (axes,) = frontier_figure(broken).axes
    assert any("no β works" in text.get_text() for text in axes.texts)
    map_figure(broken)
    map_figure(t)


@pytest.mark.parametrize("seed", range(5))
def test_the_map_is_the_least_t(seed: int) -> None:
    t = made_up(seed=seed)
    gaps, betas = np.linspace(0, 1, 11), np.linspace(0, 20, 9)
    found = lowest(t, gaps, betas, sheared=True)
    for i, gap in enumerate(gaps):
        for j, beta in enumerate(betas):
            assert found[i, j] == pytest.approx(np.min(t.inner - gap * t.drop + beta * t.excess), rel=1e-12, abs=1e-12)
    alphas = betas + 0.3
    np.testing.assert_array_equal(lowest(t, alphas, betas, sheared=False), margins(t, alphas, betas))


def test_a_steep_frontier_is_drawn_over_the_gap() -> None:
    t = made_up()
    assert map_figure(t).axes[0].get_xlabel() == "α − β"
    flat = Trajectory(t.inner + 2 * t.drop, t.loss + 9, t.final_loss + 9, 0.0, t.grad_norm, t.distance)
    axes = map_figure(flat).axes[0]
    assert axes.get_xlabel() == "α"
    values = axes.collections[0].get_array()
    low, high = axes.get_ylim()
    assert high > low
    assert np.ma.getmaskarray(np.ma.masked_invalid(values)).any()  # below the diagonal only


def test_rows_that_fail_are_orange() -> None:
    t = made_up()
    panels = conditions_figure(t).axes
    assert len(panels) == 6
    cosine = t.inner / t.grad_norm / t.distance
    fine, bad = panels[4].get_lines()[:2]
    assert len(np.asarray(bad.get_ydata())) == int((cosine < 0).sum()) > 0
    assert (np.asarray(fine.get_ydata()) >= 0).all()
    assert panels[4].texts[0].get_text() == f"negative in {int((cosine < 0).sum())} of 300 rows"
    needed = np.concatenate([np.asarray(line.get_ydata()) for line in panels[5].get_lines()[:2]])
    assert needed.max() == pytest.approx(alpha_beta(t, 0.1).beta)


def test_many_rows_keep_their_extremes() -> None:
    t = made_up(50_000)
    panels = conditions_figure(t).axes
    shown = [len(np.asarray(line.get_ydata())) for line in panels[5].get_lines()[:2]]
    assert sum(shown) < 6000
    assert max(np.asarray(line.get_ydata()).max() for line in panels[5].get_lines()[:2]) == alpha_beta(t, 0.1).beta


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 2.0], "linear"),
        ([1e-3, 1.0], "log"),
        ([-1e-3, 1e-3, 1.0, 5.0], "symlog"),
        ([-1.0, 1.0], "linear"),
        ([0.0, 0.0], "linear"),
        ([np.nan], "linear"),
    ],
)
def test_axes(values: list[float], scale: str) -> None:
    (axes,) = frontier_figure(made_up(10)).axes
    axes.set_yscale("linear")
    signed_axis(axes, values)
    assert axes.get_yscale() == scale


@pytest.mark.parametrize("settings", [{}, {"per": "sample"}, {"sketch": 64}])
def test_every_kind_of_rows_is_drawn_and_shown(tmp_path: Path, settings: dict[str, Any]) -> None:
    trace = recorded(tmp_path / "t.h5", **settings)
    records = trace["function-class"]
    kind = kind_of(records.fields, records.settings)
    assert kind == "function-class"
    assert ("gradient_sketch" in records.fields) == ("sketch" in settings)
    written = {path.name for path in plot_trace(trace, tmp_path / "png")}
    endings = ("", "-map", "-conditions")
    assert written == {f"trace-function-class{ending}.png" for ending in endings}
    console = Console(width=4000, color_system=None)
    with console.capture() as capture:
        console.print(steps_table(trace, last=2, width=250))
    shown = capture.get()
    t = trajectory(records)
    assert f"function-class: {describe(t)}" in shown  # of all rows
    assert ("cos(g, x - x_K)" in shown) == ("sketch" not in settings)
    if not settings:
        expected = t.inner[-1] / t.grad_norm[-1] / t.distance[-1]
        assert f"{expected:.3g}" in shown
        assert f"{t.loss[-1]:.5g}" in shown


def test_too_few_rows_are_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    objective = Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), data())
    with Trace.create(tmp_path / "t.h5", seed=0) as trace:
        Monitor(objective, [FunctionClass()], trace, on_error="raise")(0)
    trace = Trace.open(tmp_path / "t.h5")
    (path,) = plot_trace(trace, tmp_path)
    assert path.stat().st_size > 1000
    console = Console(width=400, color_system=None)
    with console.capture() as capture:
        console.print(steps_table(trace, width=250))
    assert "needs a row before its end point" in capture.get()
