"""The benchmark of a large model runs on a small one, and what comes back holds against products of its own."""

import json
import re

import pytest

from runs.benchmarks import large


@pytest.mark.slow
def test_reduced(tmp_path):
    pytest.importorskip("transformers", reason="needs transformers: pip install 'landscape-engine[integrations]'")
    out = tmp_path / "large.json"
    large.main(["--quick", "--basis", "disk", "--out", str(out)])
    pairs, density = json.loads(out.read_text())["rows"]
    found, claimed = (float(x) for x in re.findall(r"\d\.\de-\d+", pairs["checked"]))
    assert found <= 1.1 * claimed < 1e-2
    assert "converged True" in pairs["checked"]
    assert all(float(x) < 1e-6 for x in re.findall(r"\de-\d+", density["checked"]))
    assert (density["products"], len(density["result"])) == (8, 8)
    assert all("on disk" in row["basis"] for row in (pairs, density))
