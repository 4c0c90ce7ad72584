"""The benchmark of layers runs and writes what it measured."""

import json

import pytest
from paths import ROOT

from runs.benchmarks import by_layer

PROMISED = 5.0  # of densities by transformer block


@pytest.mark.slow
def test_reduced(tmp_path):
    out = tmp_path / "by-layer.json"
    by_layer.main(["--quick", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert {(row["matrix"], row["count"]) for row in rows} == {
        (matrix, count) for matrix in ("Hessian", "GaussNewton") for count in (6, 16)
    }
    assert all(row["density, ratio"][0] > 0 for row in rows)


def test_committed_numbers():
    page = (ROOT / "docs/benchmarks.md").read_text()
    for row in json.loads((ROOT / "runs/benchmarks/results/by-layer-cpu.json").read_text())["rows"]:
        product, density = row["product, ratio"][0], row["density, ratio"][0]
        assert density <= PROMISED or row["layers"] == "modules"
        assert f"| {row['count']} {row['layers']} | {product:.1f} | {density:.1f} |" in page
