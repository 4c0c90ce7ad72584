"""The benchmark of preconditioned solvers runs, and measures whole steps of all of them."""

import json

import pytest
import torch

from runs.benchmarks import models, preconditioned


def test_reduced(tmp_path, monkeypatch):
    out = tmp_path / "found.json"
    monkeypatch.setattr("sys.argv", ["preconditioned", "--quick", "--out", str(out)])
    preconditioned.main()
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert {"AdaHessian", "Sophia-H", "Sophia-G", "OASIS", "SANIA", "Shampoo", "SOAP", "K-FAC", "EKFAC"} < set(rows)
    for row in rows.values():
        assert row["milliseconds"] > 0
        assert 0 < row["ratio"][1] <= row["ratio"][0] <= row["ratio"][2]
    assert rows["torch AdamW"]["ratio"][0] == 1.0


@pytest.mark.parametrize(("every", "kept"), [(0, 0), (1, 10), (5, 2)])
def test_ten_steps_of_the_peer_keep_the_graph_where_they_have_to(every, kept):
    p = torch.nn.Parameter(torch.ones(3))
    seen = []

    class Peer(torch.optim.SGD):
        def step(self):
            seen.append(p.grad.requires_grad)

    preconditioned.theirs(Peer([p], 0.1), lambda: p.pow(3).sum(), every)()
    assert len(seen) == 10
    assert sum(seen) == kept
    assert p.grad is None


def test_steps_move_nothing_to_speak_of():
    workload = models.gpt(2, 8, 16, 1, 2, 32)
    before = [p.detach().clone() for p in workload.model.parameters()]
    for name, (_, steps) in preconditioned.contenders(workload).items():
        steps()
        moved = max(
            float((p.detach() - q).abs().max()) for p, q in zip(workload.model.parameters(), before, strict=True)
        )
        assert moved < 0.1, name
