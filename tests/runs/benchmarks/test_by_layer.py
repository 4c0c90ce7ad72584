"""The benchmark of layers runs and writes what it measured."""

import json

import pytest

from runs.benchmarks import by_layer


@pytest.mark.slow
def test_reduced(tmp_path):
    out = tmp_path / "by-layer.json"
    by_layer.main(["--quick", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert {(row["matrix"], row["count"]) for row in rows} == {
        (matrix, count) for matrix in ("Hessian", "GaussNewton") for count in (6, 16)
    }
    assert all(row["density, ratio"][0] > 0 for row in rows)
