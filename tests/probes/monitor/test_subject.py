"""A trace says what was measured: model, parameters, loss, data; whoever says it first is heard."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from probes import Gradient, Trace, measure_once, report
from probes.monitor.subject import subject_of

X, Y = torch.randn(12, 3), torch.randint(0, 2, (12,))


def test_what_is_said() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert subject_of(Objective(model, nn.CrossEntropyLoss(), (X, Y))) == {
        "model": "Sequential: Linear, ReLU, Linear",
        "parameters": "26 in 4 tensors",
        "loss": "CrossEntropyLoss",
        "data": "12 samples in one batch",
        "precision": "float32 on cpu",
    }
    loss = partial(nn.functional.cross_entropy, label_smoothing=0.1)
    loader = DataLoader(TensorDataset(X, Y), 5)
    told = subject_of(Objective(nn.Linear(3, 2).double(), loss, loader, forward=lambda m, x: m(x.double())))
    assert told["model"] == "Linear"
    assert told["loss"] == "cross_entropy"
    assert told["data"] == "12 samples of a TensorDataset in 3 batches"
    assert told["precision"] == "float64 on cpu"
    parts = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    assert subject_of(Objective(nn.Linear(3, 2), loss, parts))["data"] == "12 samples in 2 batches"
    stream = ((X, Y) for _ in range(2))
    assert subject_of(Objective(nn.Linear(3, 2), loss, stream))["data"] == "batches of a generator"


def test_it_is_in_the_trace_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    with Trace.create(path) as trace:
        assert trace.subject == {}
        measure_once(Objective(nn.Linear(3, 2), nn.CrossEntropyLoss(), (X, Y)), [Gradient()], trace, step=0)
        trace.flush()
        assert Trace.open(path).subject["model"] == "Linear"
    with Trace.resume(path) as trace:
        other = nn.Sequential(nn.Linear(3, 2))
        measure_once(Objective(other, nn.CrossEntropyLoss(), (X, Y)), [Gradient()], trace, step=1)
    with Trace.open(path) as trace:
        assert trace.subject["model"] == "Linear"
        assert trace["gradient"]["step"].tolist() == [0, 1]
    text = report(path, tmp_path / "page.md").read_text()
    assert "- Model: Linear" in text
    assert "- Loss: CrossEntropyLoss" in text
    assert "- Data: 12 samples in one batch" in text
