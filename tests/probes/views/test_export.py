"""Exports read back with other programs' readers: the same numbers, whole files, nothing written over."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from probes import Field, Trace
from probes.cli import main
from probes.errors import UserError
from probes.views.export import export

ODD = [0.1, math.nan, math.inf, -math.inf, 1e-320, 1 / 3]


@pytest.fixture
def path(tmp_path):
    with Trace.create(tmp_path / "run.h5", config={"lr": math.inf, "name": "é"}, seed=3) as trace:
        fields = {
            "value": Field((), "float64", "nats", "a number"),
            "single": Field((), "float32"),
            "count": Field((), "int64"),
            "ok": Field((), "bool"),
            "text": Field((), "str"),
            "layer": Field((2,), labels=("fc1", "fc2")),
            "table": Field((2, 2), "int32"),
            "ritz": Field((None,)),
            "pairs": Field((None, 2)),
        }
        trace.declare("all", fields, settings={"k": 2})
        trace.declare("other probe", {"v": Field()})
        for i, value in enumerate(ODD):
            trace.record(
                "all",
                10 * i,
                epoch=i / 2,
                value=value,
                single=0.1,
                count=2**62 + i,
                ok=i % 2 == 0,
                text='a "b", c\nü' if i else "",
                layer=[i, value],
                table=np.arange(4).reshape(2, 2),
                ritz=[value] * i,
                pairs=np.ones((i % 2, 2)),
            )
        trace.record("other probe", 0, v=1)
        trace.event(20, "all", "went wrong")
    return tmp_path / "run.h5"


def same(a, b):
    return a == b or (math.isnan(a) and math.isnan(b))


def test_csv_reads_back_exactly(path, tmp_path):
    with Trace.open(path) as trace:
        written = export(trace, "csv", tmp_path / "out")
    assert [p.name for p in written] == ["run-all.csv", "run-other probe.csv"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["run-all.csv", "run-other probe.csv"]
    with written[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "step",
        "epoch",
        "time",
        "cost",
        "value",
        "single",
        "count",
        "ok",
        "text",
        "layer.fc1",
        "layer.fc2",
        "table.0.0",
        "table.0.1",
        "table.1.0",
        "table.1.1",
        "ritz",
        "pairs",
    ]
    for i, (row, value) in enumerate(zip(rows, ODD, strict=True)):
        assert int(row["step"]) == 10 * i
        assert same(float(row["value"]), value)
        assert np.float32(row["single"]) == np.float32(0.1)
        assert int(row["count"]) == 2**62 + i
        assert row["ok"] == str(i % 2 == 0)
        assert row["text"] == ('a "b", c\nü' if i else "")
        assert same(float(row["layer.fc2"]), value)
        assert len(json.loads(row["ritz"])) == i
    assert os.stat(written[0]).st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_pandas_reads_the_csv_as_it_was(path, tmp_path):
    pandas = pytest.importorskip("pandas")
    with Trace.open(path) as trace:
        (written,) = export(trace, "csv", tmp_path / "x.csv", probes=["all"])
        frame = trace["all"].to_pandas()
    read = pandas.read_csv(written, keep_default_na=False, na_values=["nan"])
    for column in ("step", "value", "count", "ok", "layer.fc2", "table.1.0"):
        # not every version's reader of floats is exact to the last digit
        np.testing.assert_allclose(read[column], frame[column], rtol=1e-14)
        assert read[column].dtype.kind == frame[column].dtype.kind


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def test_json_is_valid_and_whole(path, tmp_path):
    with Trace.open(path) as trace:
        (written,) = export(trace, "json", tmp_path / "out.json")
        document = json.loads(written.read_text(encoding="utf-8"), parse_constant=refuse)
        assert document["trace"]["uuid"] == trace.uuid
    assert document["trace"]["config"] == {"lr": "Infinity", "name": "é"}
    assert document["trace"]["seed"] == 3
    assert set(document["probes"]) == {"all", "other probe"}
    records = document["probes"]["all"]
    assert records["settings"] == {"k": 2}
    assert records["fields"]["value"] == {"shape": [], "dtype": "float64", "units": "nats", "description": "a number"}
    assert records["fields"]["layer"]["labels"] == ["fc1", "fc2"]
    values = [row["value"] for row in records["rows"]]
    assert values == [0.1, None, "Infinity", "-Infinity", 1e-320, 1 / 3]
    assert [float(v) for v in values if v is not None] == [v for v in ODD if not math.isnan(v)]
    last = records["rows"][-1]
    assert last["count"] == 2**62 + 5
    assert last["ok"] is False
    assert last["layer"] == [5, 1 / 3]
    assert last["table"] == [[0, 1], [2, 3]]
    assert last["ritz"] == [1 / 3] * 5
    assert last["pairs"] == [[1, 1]]
    assert [row["reason"] for row in document["events"]["rows"]] == ["went wrong"]


def test_parquet_keeps_types_lists_and_units(path, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    with Trace.open(path) as trace:
        written = export(trace, "parquet", tmp_path)
    frame = pandas.read_parquet(written[0])
    assert frame["count"].tolist() == [2**62 + i for i in range(6)]
    assert frame["ok"].dtype == bool
    assert frame["single"].dtype == np.float32
    np.testing.assert_array_equal(frame["value"], ODD)
    assert [len(x) for x in frame["ritz"]] == list(range(6))
    assert frame.attrs["units"]["value"] == "nats"


def test_more_records_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("probes.views.export._BLOCK", 8)
    for rows in (0, 7, 8, 9, 24):
        path = tmp_path / f"{rows}.h5"
        with Trace.create(path) as trace:
            trace.declare("x", {"v": Field()})
            for i in range(rows):
                trace.record("x", i, v=i)
        (written,) = export(Trace.open(path), "csv")
        steps = [line.split(",")[0] for line in written.read_text().splitlines()[1:]]
        assert steps == [str(i) for i in range(rows)]


def test_the_command(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main(["export", *words])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    status, out, err = call("run.h5")
    assert (status, err) == (0, "")
    assert [Path(line).name for line in out.splitlines()] == ["run-all.csv", "run-other probe.csv"]
    before = Path("run-all.csv").read_bytes()
    status, out, err = call("run.h5", "--probe", "all")
    assert (status, out) == (1, "")
    assert err.endswith("run-all.csv exists: replace with --overwrite, or choose another -o\n")
    assert Path("run-all.csv").read_bytes() == before
    assert call("run.h5", "--overwrite")[0] == 0
    assert call("run.h5", "-o", "a/b/c.json")[1] == "a/b/c.json\n"  # the suffix says the format
    assert call("run.h5", "-o", "one.csv", "--probe", "other probe")[1] == "one.csv\n"
    there = sorted(tmp_path.rglob("*"))
    for words, status, text in (
        (["run.h5", "--format", "cvs"], 2, "did you mean 'csv'"),
        (["run.h5", "--probe", "al"], 1, "has no probe 'al'; it has all, other probe; did you mean 'all'?"),
        (["run.h5", "-o", "x.csv"], 1, "has 2 probes: name a folder, or one --probe"),
        (["run.h5", "-o", "x.csv", "--format", "json"], 2, "-o x.csv is no name for --format json"),
        (["run.h5", "-o", "run.h5"], 1, "run.h5 is a file: -o names a folder"),
        (["run.h5", "-o", "run.h5/x.json"], 1, "cannot write run.h5/x.json"),
        (["run.h5", "-o", "/proc/nowhere/x.json"], 1, "cannot write /proc/nowhere/x.json"),
        (["none.h5"], 1, "there is no trace"),
    ):
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (status, "", 1), err
        assert text in err
    assert sorted(tmp_path.rglob("*")) == there


def test_a_failure_leaves_nothing(path, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run-all.csv").write_text("old")
    with Trace.open(path) as trace:

        def full(records, target):
            target.write_text("half")
            if records.name == "other probe":
                raise OSError(28, "No space left on device")

        monkeypatch.setitem(export.__globals__["_WRITERS"], "csv", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left"):
            export(trace, "csv", out, overwrite=True)
    assert [p.name for p in out.iterdir()] == ["run-all.csv"]
    assert (out / "run-all.csv").read_text() == "old"


def test_nothing_to_export(tmp_path):
    with Trace.create(tmp_path / "a.h5") as trace, pytest.raises(UserError, match="no records yet"):
        export(trace)


def test_a_missing_extra_is_one_line(path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.import_module", lambda name: __import__("no_such_package"))
    with Trace.open(path) as trace, pytest.raises(UserError, match=r"parquet needs pandas.*\[analysis\]"):
        export(trace, "parquet")
    with Trace.open(path) as trace:
        assert len(export(trace, "csv")) == 2
