"""The benchmark of first-order solvers runs, and measures what it says."""

import json

import torch

from runs.benchmarks import first_order


def test_reduced(tmp_path, monkeypatch):
    out = tmp_path / "first.json"
    monkeypatch.setattr("sys.argv", ["first_order", "--quick", "--out", str(out)])
    first_order.main()
    found = json.loads(out.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {"NGN", "NGN-M", "NGN-D", "NGN-MDv1", "NGN-MDv2", "SignSGD", "Signum", "AdamCoupled"} < set(rows)
    for row in rows.values():
        assert row["milliseconds"] > 0
        assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert rows[row["unit"]]["ratio"] == 1.0
    assert found["parameters"] == sum(p.numel() for p in first_order.transformer(16, 1, 50, torch.device("cpu")))
    assert found["environment"]["threads"] == torch.get_num_threads()


def test_the_network_has_ten_million_parameters():
    parameters = first_order.transformer(384, 5, 3000, torch.device("meta"))
    assert 9.9e6 < sum(p.numel() for p in parameters) < 10.1e6
    assert len(parameters) == 62
