"""The benchmark of traces runs, and the rates on the page of benchmarks are those of its committed result."""

import json

import pytest
from paths import ROOT

from probes import Trace
from runs.benchmarks import traces


def test_reduced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(traces.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(traces, "rates", lambda folder, records, rounds, run=traces.rates: run(folder, 100, 1))
    monkeypatch.setattr(traces, "reading", lambda folder, size, rounds, run=traces.reading: run(folder, 1 << 20, 1))
    out = tmp_path / "results" / "traces.json"
    traces.main(["--quick", "--out", str(out)])
    assert {path.name for path in tmp_path.iterdir()} == {"results"}  # what it measured on is gone
    result = json.loads(out.read_text())
    assert result["environment"]["packages"]["h5py"]
    assert {row["way"] for row in result["written"]} >= {"Trace", "Trace, flushed", "h5py", "csv"}
    assert all(row["per_second"] > 0 for row in result["written"])
    assert {row["what"] for row in result["read"]} >= {"Trace.open", "landscape show"}
    assert "landscape show" in capsys.readouterr().out


def test_large_trace(tmp_path):
    size = 4 << 20
    traces.write_large(tmp_path / "large.h5", tmp_path / "crashed.h5", size)
    for name in ("large.h5", "crashed.h5"):
        path = tmp_path / name
        assert path.stat().st_size == pytest.approx(size, rel=0.4)
        trace = Trace.open(path)
        assert (len(trace["loss"]), len(trace["sharpness"])) == (size // 1000, size // 10_000)
        assert len(trace["density"]) > 50


@pytest.mark.parametrize("way", [traces.to_trace, traces.to_h5py, traces.to_csv])
@pytest.mark.parametrize("flush", [False, True])
def test_all_write_the_same_records(tmp_path, way, flush):
    path = tmp_path / "out"
    way(path, 20, flush=flush)
    if way is traces.to_trace:
        columns = Trace.open(path)["loss"].read()
        steps, values = columns["step"], columns["value"]
    elif way is traces.to_h5py:
        with traces.h5py.File(path, "r") as file:
            steps, values = file["step"][:], file["value"][:]
    else:
        rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
        steps, values = [int(row[0]) for row in rows], [float(row[4]) for row in rows]
    assert list(steps) == list(range(20))
    assert set(values) == {0.5}


def test_the_rates_of_the_page_are_those_of_the_committed_benchmark():
    root = ROOT
    result = json.loads((root / "runs/benchmarks/results/traces-cpu.json").read_text())
    written = {row["way"]: float(f"{row['per_second']:.2g}") for row in result["written"]}
    opening = next(row["seconds"] for row in result["read"] if row["what"] == "Trace.open")
    paragraphs = (root / "docs/benchmarks.md").read_text().split("\n\n")
    (told,) = (" ".join(text.split()) for text in paragraphs if text.startswith("A trace takes"))
    assert f"A trace takes {written['Trace']:,.0f} scalar records a second" in told
    assert f"{written['Trace, flushed']:,.0f} when each is flushed" in told
    assert f"h5py takes {written['h5py']:,.0f} appends" in told
    assert f"a csv writer {written['csv']:,.0f} lines" in told
    assert f"opens in {1e3 * opening:.1f} ms" in told
