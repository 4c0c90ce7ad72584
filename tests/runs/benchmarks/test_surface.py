"""The benchmark of surfaces runs and writes what it measured."""

import json

import pytest

from runs.benchmarks import surface


@pytest.mark.slow
def test_reduced(tmp_path):
    out = tmp_path / "surface.json"
    surface.main(["--quick", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert {row["model"] for row in rows} == {"mlp 64-16-10", "mlp 64-64-64-10", "cnn 8, 16"}
    assert all(row["at and value, ratio"][0] > 0 for row in rows)
