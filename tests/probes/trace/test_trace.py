"""Trace: what is recorded comes back, while it is written too and after resuming; bad files get one line."""

import json
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from trace_cases import scalars

from probes import Field, Trace, TraceError
from probes.trace import build, lock

FIELDS = {
    "scalar": Field((), "float64", "nats", "a number"),
    "small": Field((2, 3), "float32"),
    "count": Field((), "int64"),
    "flag": Field((), "bool"),
    "text": Field((), "str"),
    "ragged": Field((None,), "float64"),
    "matrix_rows": Field((None, 2), "int32"),
    "words": Field((None,), ("S", 8)),
}


def row(i):
    return {
        "scalar": i / 3,
        "small": np.full((2, 3), i, np.float32),
        "count": i,
        "flag": i % 2 == 0,
        "text": f"naïve {i}" if i else "",
        "ragged": np.arange(i % 4) / 7,
        "matrix_rows": np.arange(2 * (i % 3)).reshape(-1, 2),
        "words": ["é"] * (i % 3),
    }


def write_rows(trace, steps, settings=None):
    trace.declare("all", FIELDS, settings=settings)
    for i in steps:
        trace.record("all", i, **row(i))


def check_rows(records, indices):
    columns = records.read()
    assert columns["step"].tolist() == indices
    for position, i in enumerate(indices):
        for name, expected in row(i).items():
            np.testing.assert_array_equal(columns[name][position], expected)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.h5"


def test_every_kind_of_field_comes_back(path):
    with Trace.create(path, config={"lr": 0.1, "sizes": (1, 2)}, seed=7) as trace:
        trace.declare("all", FIELDS, settings={"k": 3})
        for i in range(700):  # more than a chunk of every dataset
            trace.record("all", i, epoch=i / 10, cost=0.5, **row(i))
        check_rows(trace["all"], list(range(700)))
    trace = Trace.open(path)
    check_rows(trace["all"], list(range(700)))
    records = trace["all"]
    assert records.fields == FIELDS
    assert records.fields["scalar"].units == "nats"
    assert records.settings == {"k": 3}
    assert records["small"].dtype == np.float32
    assert records["small"].shape == (700, 2, 3)
    assert records["flag"].dtype == bool
    np.testing.assert_allclose(records["epoch"], np.arange(700) / 10)
    assert (np.diff(records["time"]) >= 0).all()
    assert (records["cost"] == 0.5).all()
    assert records.row(3)["text"] == "naïve 3"
    assert records.row()["step"] == 699
    assert len(records) == 700
    assert "scalar" in records
    assert "step" in records
    assert list(trace) == ["all"]
    assert "all" in trace
    assert "other" not in trace
    assert trace.seed == 7
    assert trace.config == {"lr": 0.1, "sizes": [1, 2]}
    assert trace.environment["packages"]["h5py"] == h5py.__version__
    with pytest.raises(KeyError, match="it has all"):
        trace["other"]
    with pytest.raises(KeyError, match="it has"):
        records["other"]
    with pytest.raises(IndexError, match="700 rows"):
        records.row(700)


def test_layout_is_what_the_format_says(path):
    with Trace.create(path, config={"a": 1}, seed=1) as trace:
        write_rows(trace, range(5))
    with h5py.File(path, "r") as file:  # plain mode: a closed trace opens in any viewer
        assert file.attrs["format"].decode() == "landscape-trace"
        assert file.attrs["version"] == 1
        assert json.loads(file.attrs["config"]) == {"a": 1}
        assert {"created", "uuid", "environment", "seed", "periods"} <= set(file.attrs)
        group = file["probes/all"]
        assert group["step"].dtype == np.int64
        assert group["step"].maxshape == (None,)
        for column in ("epoch", "time", "cost", "scalar"):
            assert group[column].shape == (5,)
            assert {"units", "description"} <= set(group[column].attrs)
        assert group["ragged"].shape == (0 + 1 + 2 + 3 + 0,)
        assert group["ragged.offsets"][:].tolist() == [0, 0, 1, 3, 6, 6]
        assert h5py.check_string_dtype(group["text"].dtype).length == 64
        assert file["events/step"].shape == (0,)
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.h5"]  # no lock, nothing partial
    assert path.stat().st_size < 300_000


def test_labels_come_back_and_are_part_of_the_declaration(path):
    layers = ("0.weight", "0.bias", "größe")
    many = tuple(f"layer {i}" for i in range(10_000))  # more than fits into an HDF5 object header
    fields = {"ratio": Field((3,), "float64", "", "update to weight", layers), "wide": Field((10_000, 2), labels=many)}
    with Trace.create(path) as trace:
        trace.declare("layers", fields)
        trace.declare("plain", {"ratio": Field((3,))})
        trace.record("layers", 0, ratio=[1, 2, 3], wide=np.ones((10_000, 2)))
        assert trace["layers"].fields == fields  # while it is written
    with Trace.resume(path) as trace:
        trace.declare("layers", {**fields, "ratio": Field([3], "float64", "", "update to weight", list(layers))})
        with pytest.raises(ValueError, match="other fields"):
            trace.declare("layers", {**fields, "ratio": Field((3,), "float64", "", "update to weight")})
    trace = Trace.open(path)
    assert trace["layers"].fields == fields
    assert trace["plain"].fields["ratio"].labels == ()
    with h5py.File(path, "r") as file:
        assert json.loads(file["probes/layers/ratio"].attrs["labels"]) == list(layers)
        assert "labels" not in file["probes/plain/ratio"].attrs  # as in files from before labels


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2,), ("a",), "2 labels, not 1"),
        ((2,), ("a", "a"), "'a' is there twice"),
        ((2,), "ab", "sequence of strings"),
        ((2,), (1, 2), "sequence of strings"),
        ((), ("a",), "has none"),
        ((None,), ("a",), "has none"),
    ],
)
def test_bad_labels(shape, labels, message):
    with pytest.raises(ValueError, match=message):
        Field(shape, labels=labels)


def test_tensors_and_numpy_numbers_are_taken(path):
    torch = pytest.importorskip("torch")
    with Trace.create(path) as trace:
        trace.declare("x", {"v": Field((2,)), "s": Field(), "n": Field((), "int64"), "h": Field()})
        half = torch.tensor(0.5, dtype=torch.bfloat16)
        trace.record("x", np.int32(3), v=torch.ones(2, requires_grad=True), s=np.float32(2), n=torch.tensor(4), h=half)
        assert trace["x"].row()["v"].tolist() == [1, 1]
        assert trace["x"].row()["n"] == 4
        assert trace["x"].row()["h"] == 0.5


def test_what_was_recorded_is_a_copy(path):
    with Trace.create(path) as trace:
        trace.declare("x", {"v": Field((2,)), "r": Field((None,))})
        buffer = np.ones(2)
        trace.record("x", 0, v=buffer, r=buffer)
        buffer[:] = 5
        assert trace["x"]["v"].tolist() == [[1, 1]]
        assert trace["x"]["r"][0].tolist() == [1, 1]


FITTING = {
    "v": Field((2,)),
    "n": Field((), "int64"),
    "s": Field((), "S8"),
    "h": Field((), "float16"),
    "f": Field((2,), "float32"),
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"v": 1.0}, "x: v has shape"),
        ({"v": [1.0, 2.0, 3.0]}, "x: v has shape"),
        ({"v": None}, "v holds float64"),
        ({"v": "ab"}, "v holds float64"),
        ({"v": [[1], [1, 2]]}, "v holds float64"),
        ({"n": 1.5}, "n holds int64; 1.5 does not fit"),
        ({"n": float("nan")}, "does not fit"),
        ({"n": 2**63}, "does not fit"),
        ({"s": "x" * 9}, "up to 8 bytes"),
        ({"s": 3}, "s holds strings"),
        ({"w": 1}, "unknown: w"),
        ({"step": 0.5}, "step is an integer"),
        ({"step": 2**63}, "step is a 64-bit integer"),
        ({"h": 1e6}, "h holds float16; 1000000.0 does not fit"),
        ({"h": 70000}, "h holds float16; 70000 does not fit"),
        ({"f": [0.0, -1e39]}, "f holds float32; .* does not fit"),
        ({"f": torch.tensor([0.0, 1e39], dtype=torch.float64)}, "f holds float32"),
        ({"v": np.longdouble("1e400") * np.ones(2)}, "v holds float64"),
        ({"v": [1.0, 1j]}, "v holds float64"),
        ({"v": torch.tensor([1.0, 1j])}, "v holds float64"),
        ({"v": np.ma.masked_array([1j, 2], [False, True])}, "v holds float64"),
        ({"n": np.ma.masked}, "n holds int64, which has no nan"),
        ({"s": np.ma.masked_array("ok", True)}, "s holds S8, which has no nan"),
    ],
)
def test_values_that_do_not_fit_are_named_and_not_kept(path, values, message):
    with Trace.create(path) as trace:
        trace.declare("x", FITTING)
        good = {"step": 0, "v": [1, 2], "n": 1, "s": "ok", "h": 1, "f": [1, 2]}
        with pytest.raises((ValueError, TypeError), match=message):
            trace.record("x", **(good | values))
        trace.record("x", **good)
        assert len(trace["x"]) == 1
        with pytest.raises(ValueError, match="missing: n, s, h, f"):
            trace.record("x", 1, v=[1, 2])


def test_infinities_are_kept_and_masked_entries_are_nan(path):
    with Trace.create(path) as trace:
        trace.declare("x", {"h": Field((), "float16"), "v": Field((2,)), "r": Field((None, 2))})
        masked = np.ma.masked_array([1, 2], [False, True])
        trace.record("x", 0, h=np.inf, v=masked, r=[masked, np.ma.masked_array([3, 4], [True, False])])
        trace.record("x", 1, h=65504.0, v=np.ma.masked_array([1.0, 2.0]), r=np.ma.masked_array([[5.0, 6.0]], True))
        found = trace["x"]
        assert found["h"].tolist() == [np.inf, 65504.0]
        np.testing.assert_array_equal(found["v"], [[1, np.nan], [1, 2]])
        np.testing.assert_array_equal(found["r"][0], [[1, np.nan], [np.nan, 4]])
        np.testing.assert_array_equal(found["r"][1], [[np.nan, np.nan]])


def test_bad_declarations(path):
    for field in ({"shape": (0,)}, {"shape": (2, None)}, {"dtype": "complex128"}, {"dtype": "nonsense"}):
        with pytest.raises(ValueError, match="field"):
            Field(**field)
    with Trace.create(path) as trace:
        for name, fields in [("a/b", {"v": Field()}), ("a", {}), ("a", {"step": Field()}), ("a", {"x y": Field()})]:
            with pytest.raises(ValueError, match=r"name|declare"):
                trace.declare(name, fields)
        with pytest.raises(KeyError, match="was not declared"):
            trace.record("a", 0, v=1)
        trace.declare("a", {"v": Field()}, settings={"k": 5, "names": ("x",)})
        trace.declare("a", {"v": Field()}, settings={"k": 5, "names": ("x",)})
        with pytest.raises(ValueError, match=r"k=5.*now k=6"):
            trace.declare("a", {"v": Field()}, settings={"k": 6, "names": ("x",)})
        with pytest.raises(ValueError, match=r"\(\).*now .*\(3,\)"):
            trace.declare("a", {"v": Field((3,))}, settings={"k": 5, "names": ("x",)})


def test_declaring_after_records_keeps_them(path):
    with Trace.create(path) as trace:
        write_rows(trace, range(10))
        trace.flush()
        reader = Trace.open(path)  # of the same process
        trace.declare("late", {"v": Field()})
        trace.record("late", 3, v=1.0)
        trace.record("all", 10, **row(10))
        trace.flush()
        assert reader.keys() == ["all", "late"]
        check_rows(reader["all"], list(range(11)))
    check_rows(Trace.open(path)["all"], list(range(11)))
    check_rows(reader["all"], list(range(11)))


def test_resume_goes_on_and_drops_later_steps(path):
    with Trace.create(path, seed=5, config={"lr": 1}) as trace:
        trace.declare("other", {"v": Field()})
        write_rows(trace, range(10), settings={"k": 1})
        trace.event(2, "all", "early")
        trace.event(8, "all", "late")
        identity = trace.uuid
    with Trace.resume(path, step=6) as trace:
        assert trace["all"]["step"].tolist() == list(range(7))
        write_rows(trace, range(7, 12), settings={"k": 1})
    trace = Trace.open(path)
    check_rows(trace["all"], list(range(12)))
    assert (np.diff(trace["all"]["time"]) >= 0).all()
    assert trace.events["reason"].tolist() == ["early"]
    assert (trace.uuid, trace.seed, trace.config) == (identity, 5, {"lr": 1})
    assert [period["step"] for period in trace.periods] == [None, 6]
    with Trace.resume(path) as trace, pytest.raises(ValueError, match="other settings"):
        trace.declare("all", FIELDS, settings={"k": 2})
    check_rows(Trace.open(path)["all"], list(range(12)))


def test_rows_are_copied_in_blocks(path, monkeypatch):
    monkeypatch.setattr(build, "_COPY_BYTES", 3 * sum(field.row_bytes for field in FIELDS.values()))
    with Trace.create(path) as trace:
        write_rows(trace, range(20))
    with Trace.resume(path, step=15) as trace:
        check_rows(trace["all"], list(range(16)))
        write_rows(trace, range(16, 18))
    check_rows(Trace.open(path)["all"], list(range(18)))


def test_rows_of_any_order_of_steps_are_dropped_by_their_step(path):
    with Trace.create(path) as trace:
        write_rows(trace, (5, 2, 9, 1))
    with Trace.resume(path, step=4) as trace:
        check_rows(trace["all"], [2, 1])


def test_an_existing_file_is_refused(path):
    path.write_text("precious")
    with pytest.raises(TraceError, match="overwrite=True"):
        Trace.create(path)
    assert path.read_text() == "precious"
    with Trace.create(path, overwrite=True) as trace:
        assert len(trace) == 0
    assert len(Trace.open(path)) == 0


def test_second_writer_is_refused(path):
    with scalars(path, 1) as trace:
        for attempt in (Trace.resume, lambda p: Trace.create(p, overwrite=True)):
            with pytest.raises(TraceError, match="written by this process"):
                attempt(path)
        code = f"from probes import Trace; Trace.resume({str(path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "is being written by process" in other.stderr
        trace.record("x", 1, v=1)
    with Trace.resume(path) as trace:
        assert len(trace["x"]) == 2


def test_a_lock_that_its_owner_removed_meanwhile_is_no_lock(path, monkeypatch):
    take = lock._lock_soon

    def after_the_last_writer_has_gone(descriptor):
        monkeypatch.setattr(lock, "_lock_soon", take)
        path.with_name(f".{path.name}.lock").unlink()
        return take(descriptor)

    monkeypatch.setattr(lock, "_lock_soon", after_the_last_writer_has_gone)
    with Trace.create(path), pytest.raises(TraceError, match="is being written"):
        Trace.resume(path)


def test_reading_and_writing_are_told_apart(path):
    with scalars(path) as trace:
        pass
    trace.close()
    with pytest.raises(TraceError, match="is closed"):
        trace.record("x", 0, v=1)
    with Trace.open(path) as reader, pytest.raises(TraceError, match="open for reading"):
        reader.record("x", 0, v=1)
    assert trace.keys() == ["x"]


def test_buffered_rows_reach_the_disk_within_a_second_of_silence(path):
    trace = scalars(path, 0, 1, 2)
    time.sleep(1.3)
    code = f"from probes import Trace; print(len(Trace.open({str(path)!r})['x']))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == "3"
    trace.close()


def test_files_that_are_no_traces_get_one_line(path, tmp_path):
    with Trace.create(path) as trace:
        write_rows(trace, range(100))
    whole = path.read_bytes()
    (tmp_path / "short.h5").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.h5").write_bytes(b"")
    (tmp_path / "text.h5").write_text("hello")
    for name, libver in (("old.h5", "earliest"), ("new.h5", "latest")):
        with h5py.File(tmp_path / name, "w", libver=libver) as file:
            file["x"] = [1, 2]
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 2
    for name, message in {
        "none.h5": "there is no trace",
        "short.h5": "truncated or damaged",
        "empty.h5": "not an HDF5 file",
        "text.h5": "not an HDF5 file",
        "old.h5": "not a landscape trace",
        "new.h5": "not a landscape trace",
        "run.h5": "version 2; this installation reads up to version 1",
        ".": "is not a file",
    }.items():
        for attempt in (Trace.open, Trace.resume):
            with pytest.raises(TraceError, match=message) as caught:
                attempt(tmp_path / name)
            assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(TraceError, match="there is no folder"):
        Trace.create(tmp_path / "no" / "run.h5")
    with pytest.raises(ValueError, match="seed"):
        Trace.create(tmp_path / "x.h5", seed=-1)


def test_import_does_not_bring_torch():
    code = (
        "import sys, probes.instruments.curvature; from probes import Trace, Field; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, probes; assert 'h5py' not in sys.modules; assert 'Trace' in dir(probes)"
    subprocess.run([sys.executable, "-c", code], check=True)
