"""`landscape probe --by-layer`: each layer as if it had been asked for by itself, the model run once for all."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from probes import CurvatureTrace, Monitor, SpectralDensity, Spectrum, Trace

PROBLEM = """
import torch
from torch import nn
from landscape import Objective

def tiny():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 4, generator=generator)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    return Objective(model, nn.CrossEntropyLoss(), (x, torch.randint(0, 3, (20,), generator=generator)))
"""


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("problem.py").write_text(textwrap.dedent(PROBLEM))
    for step in (0, 10):
        torch.save(network(step).state_dict(), f"step{step}.pt")
    yield tmp_path
    sys.modules.pop("landscape_problem_problem", None)


def test_every_layer_is_measured_as_by_itself(folder, landscape):
    words = ("probe", "step0.pt", "step10.pt", "--problem", "problem.py:tiny", "--probe")
    asked = ("spectrum:k=30,tol=1e-6", "--probe", "condition", "--probe", "gradient", "--by-layer", "-o", "layers.h5")
    found = landscape(*words, *asked)
    assert found.status == 0, found.err
    alone = landscape(*words, 'spectrum:k=27,tol=1e-6,parameters=("2.weight","2.bias")', "-o", "alone.h5")
    assert alone.status == 0, alone.err
    layers, one = Trace.open("layers.h5"), Trace.open("alone.h5")
    assert set(layers) == {
        "loss",
        "gradient",
        *(f"{probe} {layer}" for probe in ("spectrum", "condition") for layer in "02"),
    }
    assert layers["spectrum 0"]["values"].shape == (2, 30)
    np.testing.assert_allclose(layers["spectrum 2"]["values"], one["spectrum"]["values"], atol=2e-6)
    assert landscape(*words, *asked, "--resume").status == 0
    more = landscape(*words, "trace", "--by-layer", "-o", "layers.h5", "--resume")
    assert more.status == 0, more.err
    assert len(Trace.open("layers.h5")["trace 2"]["step"]) == 2


def test_what_has_no_layers_is_refused(folder, landscape):
    found = landscape("probe", "step0.pt", "--problem", "problem.py:tiny", "--probe", "gradient", "--by-layer")
    assert found.status == 2
    assert "--by-layer is for probes of a curvature matrix: spectrum, trace, density, condition" in found.err
    assert "by-layer," not in found.err


@pytest.mark.parametrize("operator", ["hessian", "empirical-fisher", "fisher"])
def test_layers_of_one_step_share_a_pass(operator, tmp_path, monkeypatch):
    model = network().double()
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(20, 4).double(), torch.arange(20) % 3))
    layers = [("0.weight", "0.bias"), ("2.weight", "2.bias")]
    kinds = (Spectrum, CurvatureTrace, SpectralDensity)
    probes = [
        kind(name=f"{kind.__name__} {names[0][0]}", operator=operator, parameters=names)
        for kind in kinds
        for names in layers
    ]
    with Trace.create(tmp_path / "t.h5", seed=0) as trace:
        monitor = Monitor(objective, probes, trace, on_error="raise")
        monitor(0)  # what checks run is run now
        runs, real = [], Objective.evaluate
        monkeypatch.setattr(Objective, "evaluate", lambda *args: runs.append(1) or real(*args))
        together = monitor(1)
    if operator != "fisher":  # which is another matrix in each measurement
        assert len(runs) == 1
        with Trace.create(tmp_path / "alone.h5", seed=0) as trace:
            for probe in probes:
                alone = Monitor(objective, [probe], trace, on_error="raise")(1)[probe.name].values
                for field in ("values", "value", "weights"):
                    if field in alone:
                        np.testing.assert_allclose(
                            together[probe.name].values[field], alone[field], rtol=1e-6, atol=1e-9
                        )
