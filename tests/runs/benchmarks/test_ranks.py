"""The benchmark of two ranks runs and writes what it measured."""

import json

import pytest

from runs.benchmarks import ranks


@pytest.mark.slow
def test_reduced(tmp_path):
    out = tmp_path / "ranks.json"
    ranks.main(["--quick", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert {(row["model"], row["operator"]) for row in rows} == {
        (model, operator) for model in ("mlp", "gpt") for operator in ("Hessian", "Gauss-Newton")
    }
    assert all(row["processor"] > 0 and row["clock"] > 0 for row in rows)
