"""Surfaces through several networks, and surfaces that were interrupted."""

from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from landscape import Objective
from landscape.surface import between_frame, line, plane, trajectory_frame, values
from probes import LossSurface, Trace, measure_once
from probes.trace.unfinished import Unfinished, told_unfinished
from probes.views.report.cautions import about_trace
from probes.views.tables import overview


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(values, "_CHUNK", 16)


def objective(norm=False, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 6), *([nn.BatchNorm1d(6)] if norm else []), nn.Tanh(), nn.Linear(6, 3)]
    model = nn.Sequential(*layers).to(dtype)
    X, y = torch.randn(17, 4, dtype=dtype), torch.randint(0, 3, (17,))
    return Objective(model, nn.CrossEntropyLoss(), list(zip(X.split(6), y.split(6), strict=True)))


def descent(f, steps=4, lr=0.5):
    """Parameters on the way down, by their steps."""
    found = {}
    for step in range(steps):
        found[10 * step] = f.theta()
        g = f.gradient()
        with torch.no_grad():
            for p, d in zip(f.model.parameters(), f.split(g), strict=True):
                p -= lr * d
    return found


def measured(f, trace, probe, step=7, **options):
    return measure_once(f, [probe], trace, step=step, on_error="raise", **options)[probe.name].values


# -- through several networks ------------------------------------------------------------------------------------------


def test_a_trajectory_lies_on_its_plane(tmp_path):
    f = objective()
    way = descent(f)
    with Trace.create(tmp_path / "run.h5") as trace:
        found = measured(f, trace, LossSurface(points=5, directions="trajectory", through=way))
    frame = trajectory_frame(f, list(way.values()))
    np.testing.assert_allclose(found["explained"], frame.explained)
    np.testing.assert_allclose(found["path_distance"], frame.distances)
    assert found["path_step"].tolist() == [0, 10, 20, 30]
    scale = found["length"][0]
    np.testing.assert_allclose(found["path"] * scale, frame.coordinates, atol=1e-12)
    assert np.abs(found["path"]).max() == pytest.approx(1 / 1.2)
    for x, off, theta in zip(found["path"], found["path_distance"], way.values(), strict=True):
        projected = frame.centre + frame.directions @ torch.tensor(x * scale)
        assert float((projected - theta).norm()) == pytest.approx(off, abs=1e-9)
    expected = plane(f, frame.directions * scale, centre=frame.centre, points=5)
    np.testing.assert_allclose(found["values"], expected.values, rtol=1e-12)
    row = Trace.open(tmp_path / "run.h5")["surface"].row()
    np.testing.assert_array_equal(row["path"], found["path"])


def test_two_networks_make_a_line_and_three_a_plane(tmp_path):
    f = objective()
    a, b, c = (f.theta() + torch.randn(f.size, dtype=torch.float64) for _ in range(3))
    with Trace.create(tmp_path / "run.h5") as trace:
        probe = LossSurface(points=7, directions="between", through=[a, b])
        found = measured(f, trace, probe)
        three = LossSurface(name="three", points=3, directions="between", through=[a, b, c])
        assert measured(f, trace, three)["values"].shape == (3, 3)
    expected = line(f, (b - a) * 0.6, centre=(a + b) / 2, points=7)
    np.testing.assert_allclose(found["values"], expected.values, rtol=1e-10)
    np.testing.assert_allclose(found["path"][:, 0], [-1 / 1.2, 1 / 1.2])
    np.testing.assert_allclose(found["explained"], [1.0])
    rows = Trace.open(tmp_path / "run.h5")["surface"]
    assert "y" not in rows.fields
    assert rows["curvature"].shape == (1, 1, 1)
    assert rows.fields["values"].dims == ("x",)
    frame = between_frame(f, [a, b, c])
    back = [frame.centre + frame.directions @ x for x in frame.coordinates]
    for one, theta in zip(back, (a, b, c), strict=True):
        torch.testing.assert_close(one, theta)


def test_networks_of_one_kind_are_not_mixed_with_others(tmp_path):
    f = objective()
    way = descent(f)
    with Trace.create(tmp_path / "run.h5") as trace:
        measured(f, trace, LossSurface(points=3, directions="trajectory", through=way))
        other = LossSurface(points=3, directions="trajectory", through=dict(list(way.items())[:3]))
        with pytest.raises(ValueError, match="'surface' is in this trace already with other settings"):
            measured(f, trace, other)


@pytest.mark.parametrize("directions", ["trajectory", "between"])
def test_without_networks_it_says_what_is_missing(tmp_path, directions):
    with (
        Trace.create(tmp_path / "run.h5") as trace,
        pytest.raises(ValueError, match=f"surface: directions='{directions}' needs the parameters of several networks"),
    ):
        measured(objective(), trace, LossSurface(points=3, directions=directions))


def test_running_statistics_of_several_networks_are_recomputed(tmp_path):
    f = objective(norm=True)
    f.model.train()
    for _ in range(20):
        f.value()
    f.model.eval()
    way = [f.theta() + torch.linspace(-0.5, 0.5, f.size).double(), f.theta() + 0.3, f.theta()]
    with Trace.create(tmp_path / "run.h5") as trace:
        # whose centre is the network that the buffers belong to, but not the rest of it
        followed = measured(f, trace, LossSurface(name="followed", points=3, directions="trajectory", through=way))
        assert "one pass over the data at each point" in followed["note"]
        frame = trajectory_frame(f, way)
        D = frame.directions * followed["length"][0]
        expected = plane(f, D, points=3, centre=frame.centre, statistics="recompute")
        np.testing.assert_allclose(followed["values"], expected.values, rtol=1e-10)
        assert np.abs(followed["values"] - np.asarray(plane(f, D, points=3, statistics="keep").values)).max() > 1e-3
        found = measured(f, trace, LossSurface(points=3, directions="between", through=way))
        assert "one pass over the data at each point" in found["note"]
        keep = LossSurface(name="keep", points=3, directions="between", through=way, statistics="keep")
        with pytest.raises(ValueError, match="keep: statistics='keep' is not possible between networks"):
            measured(f, trace, keep)
        alone = measured(f, trace, LossSurface(name="alone", points=3))
        assert alone["note"] == ""
    with f.at(way[0]):
        f.model.train()
        by_batch = f.value()
        f.model.eval()
    assert found["values"].min() < 2 * by_batch


# -- interrupted -------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def printed(thing):
    said = StringIO()
    Console(file=said, width=200).print(thing)
    return said.getvalue()


@pytest.mark.parametrize("chunks", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_surface_goes_on_where_it_was_stopped_bit_by_bit(tmp_path, chunks, dtype):
    probe = LossSurface(points=9)
    with Trace.create(tmp_path / "whole.h5", seed=3) as trace:
        whole = measured(objective(dtype=dtype), trace, probe)["values"]
    calls = []

    def stop(done, total, lowest):
        calls.append((done, total))
        if len(calls) == chunks:
            raise Stopped

    with Trace.create(tmp_path / "run.h5", seed=3) as trace, pytest.raises(Stopped):
        measured(objective(dtype=dtype), trace, probe, callback=stop)
    assert "surface" not in Trace.open(tmp_path / "run.h5") or not len(Trace.open(tmp_path / "run.h5")["surface"])
    text = f"surface: {calls[-1][0]} numbers are there at step 7 of a measurement that has not ended"
    for path, said in ((tmp_path / "run.h5", [text]), (tmp_path / "whole.h5", [])):
        with Trace.open(path) as trace:
            assert list(told_unfinished(trace)) == said
            assert ("has not ended" in printed(overview(trace))) == bool(said)
            assert [one.text for one in about_trace(trace, "") if "ended" in one.text] == said
    again = []
    with Trace.resume(tmp_path / "run.h5") as trace:
        found = measured(objective(dtype=dtype), trace, probe, callback=lambda *told: again.append(told[:2]))
    np.testing.assert_array_equal(found["values"], whole)
    assert again[0][0] > calls[-1][0]
    assert again[-1] == (81, 81)
    assert Trace.open(tmp_path / "run.h5").keys() == ["surface"]


def test_points_of_other_weights_are_not_taken_up(tmp_path):
    probe = LossSurface(points=9)

    def stop(done, total, lowest):
        raise Stopped

    with Trace.create(tmp_path / "run.h5", seed=3) as trace, pytest.raises(Stopped):
        measured(objective(), trace, probe, callback=stop)
    with Trace.resume(tmp_path / "run.h5") as trace:
        f = objective(seed=1)
        found = measured(f, trace, probe)
    with Trace.create(tmp_path / "fresh.h5", seed=3) as trace:
        np.testing.assert_array_equal(found["values"], measured(objective(seed=1), trace, probe)["values"])


def test_points_of_other_buffers_and_frozen_weights_are_not_taken_up(tmp_path):
    def stop(done, total, lowest):
        raise Stopped

    def other_buffer(f):
        f.model[1].running_mean.add_(1e-4)

    def other_weight(f):
        f.model[0].bias.data.add_(1e-4)

    probe = LossSurface(points=9)
    for i, change in enumerate((other_buffer, other_weight)):
        f = objective(norm=True)
        f.model.eval()
        f = f.restrict(["3.*", "0.weight"])
        with Trace.create(tmp_path / f"{i}.h5", seed=3) as trace:
            with pytest.raises(Stopped):
                measured(f, trace, probe, callback=stop)
            change(f)
            found = measured(f, trace, probe)
        with Trace.create(tmp_path / f"fresh{i}.h5", seed=3) as trace:
            np.testing.assert_array_equal(found["values"], measured(f, trace, probe)["values"])


def test_points_of_other_data_are_refused(tmp_path):
    probe = LossSurface(points=9)

    def stop(done, total, lowest):
        raise Stopped

    f = objective()
    with Trace.create(tmp_path / "run.h5", seed=3) as trace, pytest.raises(Stopped):
        measured(f, trace, probe, callback=stop)
    other = Objective(f.model, nn.CrossEntropyLoss(), (torch.randn(9, 4).double(), torch.randint(0, 3, (9,))))
    with (
        Trace.resume(tmp_path / "run.h5") as trace,
        pytest.raises(ValueError, match="values of another model, of other data"),
    ):
        measured(other, trace, probe)


def test_rows_after_a_step_are_dropped_with_what_is_unfinished(tmp_path):
    path = tmp_path / "run.h5"
    with Trace.create(path) as trace:
        for step in (1, 2):
            kept = Unfinished(trace, "surface", step, "values", "abc", 3)
            kept.keep(np.array([1.0, np.nan, step]))
            kept.keep(np.array([1.0, 5.0, step]))
    with Trace.resume(path, step=1) as trace:
        assert Unfinished(trace, "surface", 1, "values", "abc", 3).values.tolist() == [1.0, 5.0, 1.0]
        for other in (("surface", 2, "values", "abc"), ("other", 1, "values", "abc"), ("surface", 1, "values", "abd")):
            assert np.isnan(Unfinished(trace, *other, 3).values).all()
        assert trace.keys() == []
