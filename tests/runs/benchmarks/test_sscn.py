"""The benchmark of SSCN runs, and its loop makes the solver's own steps."""

import json

import numpy as np
import pytest
import torch

from runs.benchmarks import sscn
from solvers import SSCN, NonConvex, linear_model


def test_reduced(tmp_path, monkeypatch):
    out = tmp_path / "sscn.json"
    monkeypatch.setattr("sys.argv", ["sscn", "--quick", "--tau", "10", "--out", str(out)])
    sscn.main()
    for row in json.loads(out.read_text())["rows"]:
        for name in ("numpy loop", "SSCN"):
            assert row[name]["norm"] <= row["target"]
            assert row[name]["seconds"] > 0


@pytest.mark.parametrize("rule", ["doubling", "ratio"])
def test_both_make_the_same_steps(rule):
    X, y, start = sscn.problem(50, 30)
    loop = sscn.Loop(X, y, start, 8, torch.Generator().manual_seed(1), rule)
    model = linear_model(X, y, "logistic", NonConvex(sscn.WEIGHT), start=start)
    solver = SSCN([model.weight], 8, rule=rule, generator=torch.Generator().manual_seed(1))
    for _ in range(40):  # further on differences of losses are rounding
        loop.step()
        solver.step(model)
        np.testing.assert_allclose(model.weight.detach().numpy(), loop.w, rtol=1e-8, atol=1e-10)
