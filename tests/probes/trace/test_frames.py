"""Traces in xarray and pandas: the same numbers under names that say what they are."""

import builtins
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from attending import attending
from torch import nn
from trace_cases import scalars

import probes
import solvers
from landscape import Objective
from probes import Context, Field, Trace
from probes.errors import MissingExtra
from probes.instruments.registry import PROBES
from probes.instruments.stations import Station

FIELDS = {
    "value": Field((), "float64", "nats", "a number"),
    "ratio": Field((2,), "float32", "", "", ("fc1.weight", "fc2.weight")),
    "table": Field((2, 3), "int64"),
    "converged": Field((), "bool"),
    "method": Field((), "str"),
    "ritz": Field((None,), "float64", "nats"),
    "counts": Field((None,), "int32"),
    "words": Field((None,), "S8"),
    "pairs": Field((None, 2), "float64"),
}


def row(i):
    return {
        "value": i / 3,
        "ratio": [i, -i],
        "table": np.arange(6).reshape(2, 3) * i,
        "converged": i % 2 == 0,
        "method": f"é{i}",
        "ritz": np.arange(i) / 7,
        "counts": np.arange(i),
        "words": ["ü"] * i,
        "pairs": np.full((i, 2), i),
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.h5"
    with Trace.create(path, config={"lr": 0.1}, seed=3) as trace:
        trace.declare("all", FIELDS, settings={"k": 2})
        trace.declare("empty", FIELDS)
        trace.declare("twice", {"row": Field(), "values": Field((2,)), "values_0": Field()})
        for i in range(4):
            trace.record("all", 10 * i, epoch=i / 2, cost=0.25, **row(i))
            trace.record("twice", i // 2, row=i, values=[i, i], values_0=i)
    return path


def test_a_dataset_has_steps_labels_units_and_counts(path):
    data = Trace.open(path)["all"].to_xarray()
    assert data.attrs == {"name": "all", "settings": json.dumps({"k": 2})}
    assert data["step"].values.tolist() == [0, 10, 20, 30]
    assert set(data.coords) == {
        "step",
        "epoch",
        "time",
        "cost",
        "ratio_0",
        "ritz.count",
        "counts.count",
        "words.count",
        "pairs.count",
    }
    assert data["value"].attrs == {"units": "nats", "description": "a number"}
    assert data["value"].sel(step=20).item() == 2 / 3
    assert data["ratio"].dims == ("step", "ratio_0")
    assert data["ratio"].dtype == np.float32
    assert data["ratio"].sel(step=30, ratio_0="fc2.weight").item() == -3
    assert data["table"].dims == ("step", "table_0", "table_1")
    np.testing.assert_array_equal(data["table"].sel(step=20), np.arange(6).reshape(2, 3) * 2)
    assert data["converged"].dtype == bool
    assert data["method"].values.tolist() == ["é0", "é1", "é2", "é3"]
    assert data["ritz.count"].values.tolist() == [0, 1, 2, 3]
    for i in range(4):  # what was recorded, and padding after it
        assert data["ritz"].values[i, :i].tolist() == (np.arange(i) / 7).tolist()
        assert np.isnan(data["ritz"].values[i, i:]).all()
        assert np.isnan(data["pairs"].values[i, i:]).all()
        assert data["words"].values[i].tolist() == ["ü"] * i + [""] * (3 - i)
    assert data["counts"].dtype == np.int32
    assert data["pairs"].shape == (4, 3, 2)
    assert float(data["value"].mean()) == pytest.approx(0.5)


def test_fields_share_the_axes_that_they_name_alike(tmp_path):
    fields = {
        "values": Field((2,), dims=("eigenvalue",)),
        "residuals": Field((2,), dims=("eigenvalue",)),
        "table": Field((3, 2), dims=("probe", "eigenvalue")),
        "other": Field((3,), dims=("eigenvalue",)),  # another length: another axis
        "probe": Field(),  # a variable has the name
        "rows": Field((None,), dims=("sample",)),
        "marks": Field((None,), dims=("sample",)),
        "ratio": Field((2,), labels=("a", "b")),
        "update": Field((2,), labels=("a", "b")),
        "plain": Field((2,)),
    }
    with Trace.create(tmp_path / "run.h5") as trace:
        trace.declare("x", fields)
        values = {name: np.ones(tuple(n or 4 for n in field.shape)) for name, field in fields.items()}
        trace.record("x", 0, **values)
        trace.declare("x", {name: replace(field, dims=()) for name, field in fields.items()})  # as before they had any
    data = Trace.open(tmp_path / "run.h5")["x"].to_xarray()
    dims = {name: data[name].dims[1:] for name in fields}
    assert dims["values"] == dims["residuals"] == ("eigenvalue",)
    assert (data["values"] - data["residuals"]).dims == ("step", "eigenvalue")
    assert dims["table"] == ("probe_", "eigenvalue")
    assert dims["other"] == ("other_0",)
    assert dims["rows"] == dims["marks"] == ("sample",)
    assert dims["ratio"] == dims["update"] == ("ratio_0",)
    assert data["update"].sel(ratio_0="b").item() == 1
    assert dims["plain"] == ("plain_0",)
    for bad in (("a",), ("a", "a"), "ab", ("a b", "c")):
        with pytest.raises(ValueError, match="dims"):
            Field((2, 3), dims=bad)


def test_what_every_probe_measures_has_axes_with_names():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    objective = Objective(model, nn.MSELoss(), (torch.ones(5, 3), torch.ones(5, 2)))
    context = Context(objective, optimizer=solvers.CubicNewton(model.parameters()))
    for name, entry in PROBES.items():
        probe = getattr(probes, entry.class_name)()
        if probe.of_all:
            probe = probe.at_stations([Station(0, objective.theta()), Station(1, objective.theta() + 1)])
        of = Context(attending()) if name == "attention-entropy" else context
        for field, spec in probe.fields(of).items():
            assert len(spec.dims) == len(spec.shape), f"{name}: {field}"


def test_repeated_steps_and_names_that_clash(path):
    data = Trace.open(path)["twice"].to_xarray()
    assert data["row"].dims == ("row_",)
    assert data["step"].values.tolist() == [0, 0, 1, 1]
    assert data["values"].dims == ("row_", "values_0_")
    assert data["values_0"].values.tolist() == [0, 1, 2, 3]


def test_records_without_rows(path):
    trace = Trace.open(path)
    data = trace["empty"].to_xarray()
    assert data.sizes["step"] == 0
    assert data["ritz"].shape == (0, 0)
    frame = trace["empty"].to_pandas()
    assert len(frame) == 0
    assert list(frame) == list(trace["all"].to_pandas())


def test_a_tree_of_all_records(path):
    tree = Trace.open(path).to_xarray()
    assert set(tree.children) == {"all", "empty", "twice"}
    assert tree.attrs["seed"] == 3
    assert json.loads(tree.attrs["config"]) == {"lr": 0.1}
    assert tree["all/value"].sel(step=10).item() == 1 / 3


def test_a_frame_has_a_column_per_entry(path):
    trace = Trace.open(path)
    frame = trace["all"].to_pandas()
    assert list(frame) == [
        "step",
        "epoch",
        "time",
        "cost",
        "value",
        "ratio.fc1.weight",
        "ratio.fc2.weight",
        *(f"table.{i}.{j}" for i in range(2) for j in range(3)),
        "converged",
        "method",
        "ritz",
        "counts",
        "words",
        "pairs",
    ]
    assert frame["ratio.fc2.weight"].tolist() == [0, -1, -2, -3]
    assert frame["table.1.2"].tolist() == [0, 5, 10, 15]
    assert frame["ritz"][3].tolist() == [0, 1 / 7, 2 / 7]
    assert frame["method"].tolist() == ["é0", "é1", "é2", "é3"]
    assert frame.attrs["units"]["value"] == "nats"
    assert frame.attrs["settings"] == {"k": 2}
    assert frame.groupby("converged")["value"].sum().tolist() == pytest.approx([4 / 3, 2 / 3])
    frames = trace.to_pandas()
    assert set(frames) == {"all", "empty", "twice"}
    assert frames["twice"]["step"].tolist() == [0, 0, 1, 1]
    assert trace.events.to_pandas().empty


def test_a_trace_that_is_written_can_be_analysed(tmp_path):
    with scalars(tmp_path / "run.h5", 1.0, 2.0) as trace:
        assert trace["x"].to_pandas()["v"].tolist() == [1.0, 2.0]
        assert trace.to_xarray()["x/v"].sel(step=1).item() == 2.0


@pytest.mark.parametrize(("package", "method"), [("xarray", "to_xarray"), ("pandas", "to_pandas")])
def test_a_missing_extra_is_one_line(path, monkeypatch, package, method):
    real = builtins.__import__
    monkeypatch.setattr("importlib.import_module", lambda name: real("no_such_package") if name == package else None)
    for holder in (Trace.open(path), Trace.open(path)["all"]):
        with pytest.raises(MissingExtra, match=r'pip install "landscape-engine\[analysis\]"') as caught:
            getattr(holder, method)()
        assert isinstance(caught.value, ImportError)
        assert f"{method}() needs {package}" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_rows_can_be_read_in_part(path):
    records = Trace.open(path)["all"]
    for start, stop in ((0, None), (1, 3), (-2, None), (3, 1), (2, 100), (100, None)):
        part = records.read(start, stop)
        assert part["step"].tolist() == [0, 10, 20, 30][start:stop]
        assert [list(x) for x in part["ritz"]] == [list(np.arange(i) / 7) for i in range(4)[start:stop]]
