"""TraceSet: many runs as one, and what cannot be read does not take the rest along."""

import time

import h5py
import numpy as np
import pytest
from trace_cases import killed, scalars, start

from probes import Field, Trace, TraceError, TraceSet
from probes.trace.configs import flatten, freeze, varying_keys


def write(path, config, seed, rows=3, start=0.0, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    with Trace.create(path, config=config, seed=seed) as trace:
        trace.declare("sharpness", {"value": Field((), "float64", "1", "largest"), "top": Field((fields.get("k", 2),))})
        if "extra" in fields:
            trace.declare("extra", {"v": Field((), "int64")})
            trace.record("extra", 0, v=fields["extra"])
        for i in range(rows):
            trace.record("sharpness", i, epoch=i / 2, value=start + i, top=np.full(fields.get("k", 2), i))


def config(lr, seed):
    return {"optimizer": {"lr": lr, "betas": [0.9, 0.99]}, "width": 8, "seed": seed}


@pytest.fixture
def folder(tmp_path):
    for lr in (0.1, 0.02):
        for seed in (2, 10):
            write(tmp_path / f"lr{lr}" / f"seed{seed}.h5", config(lr, seed), seed, start=100 * lr + seed)
    write(tmp_path / "other.hdf5", {"optimizer": {"lr": 1}}, 5, rows=2, extra=7)
    return tmp_path


def test_runs_have_names_and_flat_configs(folder):
    runs = TraceSet.open(folder)
    assert runs.names == ["lr0.02/seed2.h5", "lr0.02/seed10.h5", "lr0.1/seed2.h5", "lr0.1/seed10.h5", "other.hdf5"]
    assert len(runs) == 5
    assert runs.configs[1] == {"optimizer.lr": 0.02, "optimizer.betas": [0.9, 0.99], "width": 8, "seed": 10}
    assert runs.configs[4] == {"optimizer.lr": 1, "seed": 5}  # the trace's own seed where the config has none
    assert runs.keys() == ["extra", "sharpness"]
    assert "extra" in runs
    assert "nothing" not in runs
    assert runs.unreadable == {}
    assert [run.seed for run in runs] == [2, 10, 2, 10, 5]
    assert runs.run("other.hdf5").open()["extra"]["v"].tolist() == [7]
    with pytest.raises(KeyError, match="did you mean 'other"):
        runs.run("other.h5")


def test_columns_over_all_runs(folder):
    runs = TraceSet.open(folder)
    records = runs["sharpness"]
    expected = [lr * 100 + seed + i for lr in (0.02, 0.1) for seed in (2, 10) for i in range(3)] + [0, 1]
    assert records["value"].tolist() == expected
    assert records["run"].tolist() == [name for name in runs.names[:4] for _ in range(3)] + ["other.hdf5"] * 2
    assert records["top"].shape == (14, 2)
    assert len(records) == 14
    columns = records.read()
    assert list(columns) == ["run", "step", "epoch", "time", "cost", "value", "top"]
    assert all(len(column) == 14 for column in columns.values())
    assert records.fields["value"].units == "1"
    assert [run.name for run in runs["extra"].runs] == ["other.hdf5"]
    with pytest.raises(KeyError, match="it has run, step"):
        records["nothing"]
    with pytest.raises(KeyError, match="there are extra, sharpness"):
        runs["spectrum"]


def test_shapes_that_differ_between_runs(folder):
    write(folder / "wide.h5", None, 1, rows=1, k=4)
    top = TraceSet.open(folder)["sharpness"]["top"]
    assert top.shape == (15,)
    assert [len(row) for row in top] == [2] * 14 + [4]


def test_selection(folder):
    runs = TraceSet.open(folder)
    lr = "optimizer.lr"
    assert runs.where({lr: 0.1}).names == ["lr0.1/seed2.h5", "lr0.1/seed10.h5"]
    assert runs.where({lr: 0.1}, seed=10).names == ["lr0.1/seed10.h5"]
    assert runs.where({lr: 1.0}).names == ["other.hdf5"]
    assert runs.where({lr: {0.02, 1}}, seed=lambda seed: seed > 2).names == ["lr0.02/seed10.h5", "other.hdf5"]
    assert len(runs.where({"optimizer.betas": [0.9, 0.99]})) == 4
    assert len(runs.where(width=9)) == 0
    assert len(runs.where(width=8).where(seed=2)) == 2
    with pytest.raises(KeyError, match=r"did you mean 'optimizer\.lr'"):
        runs.where({"optimiser.lr": 0.1})


def test_groups_ignore_seeds(folder):
    groups = TraceSet.open(folder).where(width=8).groups()
    assert [values for values, _ in groups] == [{"optimizer.lr": 0.02}, {"optimizer.lr": 0.1}]
    assert [runs.names for _, runs in groups] == [
        ["lr0.02/seed2.h5", "lr0.02/seed10.h5"],
        ["lr0.1/seed2.h5", "lr0.1/seed10.h5"],
    ]
    assert groups[0].label == "optimizer.lr=0.02"
    everything = TraceSet.open(folder)
    assert [group.values["width"] for group in everything.groups("width")] == [8, None]
    assert [len(group.runs) for group in everything.groups("seed")] == [2, 1, 2]
    assert len(everything.groups("run")) == 5
    assert [group.label for group in TraceSet.open(folder / "lr0.1").groups()] == ["all runs"]
    with pytest.raises(KeyError, match="did you mean 'width'"):
        everything.groups("widht")


def test_configs_are_compared_by_value():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}], "f": {}}) == {"a.b.c": 1, "d": [1, {"e": 2}], "f": {}}
    assert flatten(None) == {}
    assert flatten([1, 2]) == {"config": [1, 2]}
    assert freeze(float("nan")) == freeze(float("nan"))
    assert freeze(True) != freeze(1)
    assert freeze(1) == freeze(1.0)
    configs = [{"lr": 0.1, "seed": 1, "data.seed": 3, "x": [1]}, {"lr": 0.1, "seed": 2, "data.seed": 4, "x": [1, 2]}]
    assert varying_keys(configs) == ["x"]
    assert varying_keys([{"a": 1}, {}]) == ["a"]
    assert varying_keys([{"a": None}, {}]) == []


def test_globs_files_and_several_of_them(folder):
    assert TraceSet.open(folder / "*" / "seed2.h5").names == ["lr0.02/seed2.h5", "lr0.1/seed2.h5"]
    assert TraceSet.open(f"{folder}/**/*.h5").names == TraceSet.open(f"{folder}/lr*").names
    assert TraceSet.open(folder / "other.hdf5").names == ["other.hdf5"]
    several = TraceSet.open([folder / "lr0.1", folder / "lr0.1/seed2.h5", str(folder / "other.hdf5")])
    assert several.names == ["lr0.1/seed2.h5", "lr0.1/seed10.h5", "other.hdf5"]
    bracket = folder / "odd[1].h5"
    write(bracket, None, 1)
    assert TraceSet.open(bracket).names == ["odd[1].h5"]  # a file that exists is no pattern


def test_nothing_to_open_is_one_line(folder):
    (folder / "empty").mkdir()
    (folder / "bad").mkdir()
    (folder / "bad" / "x.h5").write_text("no trace")
    for where, message in (
        (folder / "empty", r"no traces \(\*\.h5, \*\.hdf5\) in the folder"),
        (folder / "none", "there is no file or folder"),
        (folder / "none*.h5", "no file matches"),
        ([], "name a folder"),
        (folder / "bad", "the only file in .* cannot be read; x.h5: .* is not an HDF5 file"),
    ):
        with pytest.raises(TraceError, match=message) as caught:
            TraceSet.open(where)
        assert "\n" not in str(caught.value)


def test_runs_that_cannot_be_read_are_listed(folder):
    (folder / "text.h5").write_text("hello")
    (folder / ".run.h5.partial").write_text("a writer's own")
    with h5py.File(folder / "foreign.h5", "w") as file:
        file["x"] = [1]
    write(folder / "newer.h5", None, 1)
    with h5py.File(folder / "newer.h5", "r+") as file:
        file.attrs["version"] = 9
    killed(folder / "crashed.h5")
    data = (folder / "crashed.h5").read_bytes()
    (folder / "cut.h5").write_bytes(data[:-10_000])
    runs = TraceSet.open(folder)
    assert set(runs.unreadable) == {"text.h5", "foreign.h5", "newer.h5", "cut.h5"}
    assert "not an HDF5 file" in runs.unreadable["text.h5"]
    assert "not a landscape trace" in runs.unreadable["foreign.h5"]
    assert "version 9" in runs.unreadable["newer.h5"]
    assert "truncated" in runs.unreadable["cut.h5"]
    assert len(runs["x"]) == 3000  # of the crashed one, which is whole
    assert len(runs) == 6
    assert "unreadable=4" in repr(runs)


def test_live_runs_are_readable(folder):
    process = start(folder / "live.h5", 3)
    try:
        assert process.stdout.readline()
        with scalars(folder / "here.h5", 1, config={"width": 3}) as trace:  # and those of this process
            trace.flush()
            runs = TraceSet.open(folder)
            assert {"live.h5", "here.h5"} <= set(runs.names)
            values = runs["x"]["v"]
            assert len(values) > 1
            time.sleep(0.2)
            assert len(runs["x"]) > len(values)
    finally:
        process.kill()
        process.communicate()


def test_long_frame_and_table_of_runs(folder):
    runs = TraceSet.open(folder)
    frame = runs.to_pandas("sharpness")
    assert list(frame) == [
        "run",
        "optimizer.lr",
        "optimizer.betas",
        "width",
        "seed",
        "step",
        "epoch",
        "time",
        "cost",
        "value",
        "top.0",
        "top.1",
    ]
    assert len(frame) == 14
    means = frame[frame["step"] == 1].groupby("optimizer.lr")["value"].mean()
    assert means.to_dict() == {0.02: 2 + 6 + 1, 0.1: 10 + 6 + 1, 1: 1}
    assert frame["optimizer.betas"][0] == "[0.9, 0.99]"
    assert frame.attrs["units"]["value"] == "1"
    table = runs.to_pandas()
    assert table["run"].tolist() == runs.names
    assert table["optimizer.lr"].tolist() == [0.02, 0.02, 0.1, 0.1, 1]
    assert {"seed", "created", "uuid"} <= set(table)


def test_config_keys_that_are_columns_too(tmp_path):
    write(tmp_path / "a.h5", {"value": 3, "run": "first", "lr": 1}, 0)
    frame = TraceSet.open(tmp_path).to_pandas("sharpness")
    assert frame["config.value"].tolist() == [3] * 3
    assert frame["config.run"].tolist() == ["first"] * 3
    assert frame["value"].tolist() == [0, 1, 2]
    data = TraceSet.open(tmp_path)["sharpness"].to_xarray()
    assert data["config.value"].values.tolist() == [3]


def test_datasets_along_run_and_step(folder):
    data = TraceSet.open(folder)["sharpness"].to_xarray()
    assert data["value"].dims == ("run", "step")
    assert data["value"].shape == (5, 3)
    assert np.isnan(data["value"].sel(run="other.hdf5", step=2).item())
    assert data["value"].sel(run="lr0.1/seed10.h5", step=2).item() == 22
    assert data["optimizer.lr"].values.tolist() == [0.02, 0.02, 0.1, 0.1, 1]
    assert data["value"].attrs["units"] == "1"
    averages = data["value"].groupby("optimizer.lr").mean()
    assert averages.sel({"optimizer.lr": 0.02, "step": 0}).item() == 2 + 6
    tree = TraceSet.open(folder).to_xarray()
    assert tree["lr0.1/seed2.h5/sharpness/value"].values.tolist() == [12, 13, 14]
    assert tree["other.hdf5"].attrs["seed"] == 5


def test_steps_that_repeat_cannot_stand_side_by_side(tmp_path):
    with Trace.create(tmp_path / "a.h5") as trace:
        trace.declare("x", {"v": Field()})
        for _ in range(2):
            trace.record("x", 0, v=1)
    with pytest.raises(ValueError, match=r"occurs more than once in a\.h5: use to_pandas"):
        TraceSet.open(tmp_path)["x"].to_xarray()


def test_runs_without_rows_change_nothing_of_the_others(tmp_path):
    pytest.importorskip("pandas")
    write(tmp_path / "a.h5", config(0.1, 1), 1, rows=0)
    write(tmp_path / "b.h5", config(0.1, 2), 2)
    frame = TraceSet.open(tmp_path)["sharpness"].to_pandas()
    assert frame["seed"].tolist() == [2, 2, 2]
    assert frame["seed"].dtype == frame["width"].dtype == np.int64


@pytest.mark.slow
def test_a_thousand_runs_open_in_seconds(tmp_path):
    write(tmp_path / "0.h5", config(0.1, 0), 0)
    data = (tmp_path / "0.h5").read_bytes()
    for i in range(1, 1000):
        (tmp_path / f"{i}.h5").write_bytes(data)
    began = time.monotonic()
    runs = TraceSet.open(tmp_path)
    assert time.monotonic() - began < 10
    assert len(runs) == 1000
    assert len(runs["sharpness"]["value"]) == 3000
