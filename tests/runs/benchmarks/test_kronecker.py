"""The benchmark of K-FAC runs and writes what it measured."""

import json

import pytest
from paths import ROOT

from runs.benchmarks import kronecker


@pytest.mark.slow
def test_reduced(tmp_path):
    out = tmp_path / "kronecker.json"
    kronecker.main(["--quick", "--device", "cpu", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert {(row["model"], row["operator"]) for row in rows} == {
        (model, operator) for model in ("mlp", "resnet", "gpt") for operator in kronecker.KINDS
    }
    assert all(row["inverse"] > 0 and row["factors"] > 0 for row in rows)


def test_committed_numbers():
    page = (ROOT / "docs/benchmarks.md").read_text()
    for row in json.loads((ROOT / "runs/benchmarks/results/kronecker-cpu.json").read_text())["rows"]:
        assert row["model"] == "mlp" or row["inverse"] <= kronecker.TARGET
        costs = f"{row['factors']:.1f} | {row['eigenvectors_s']:.1f} | {row['product']:.2f} | {row['inverse']:.2f}"
        assert f"| {row['model']} | {row['operator']} | {costs} |" in page
