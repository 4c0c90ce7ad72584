"""The benchmark of the self-check runs and writes what it measured."""

import json

import pytest

from runs.benchmarks import self_check


@pytest.mark.slow
def test_reduced(tmp_path):
    out = tmp_path / "self-check.json"
    self_check.main(["--quick", "--out", str(out), "--device", "cpu"])
    rows = json.loads(out.read_text())["rows"]
    assert {row["model"] for row in rows} == {"mlp", "resnet", "gpt"}
    assert all(row["checked"].startswith("agrees") for row in rows)
