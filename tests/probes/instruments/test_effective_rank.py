"""The probe of ranks keeps what the function says of each layer."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.representation import layer_ranks
from probes import EffectiveRank, Trace, measure_once


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(7, 4), nn.Linear(4, 6), nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(self.embed(x))).mean(1))


@pytest.fixture
def objective():
    torch.manual_seed(0)
    X, y = torch.randint(0, 7, (20, 5)), torch.randint(0, 3, (20,))
    return Objective(Net().double(), nn.CrossEntropyLoss(), list(zip(X.split(9), y.split(9), strict=True)))


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def test_it_keeps_what_the_function_says(objective, trace):
    probes = [EffectiveRank(), EffectiveRank(name="squares", squared=True, layers=("h*",), at="output", limit=3)]
    found = measure_once(objective, probes, trace, 0, on_error="raise")
    row, said = found["effective-rank"].values, layer_ranks(objective)
    assert trace["effective-rank"].fields["dormant"].labels == ("embed", "hidden", "head", "unused")
    head = said["head"]
    assert row["effective_rank"][2] == head.activations.ranks.effective_rank
    assert row["nuclear"][2] == head.activations.nuclear_ratio
    assert row["nearly_dormant"][2] == head.activations.dormant(0.025)
    assert row["rows"].tolist()[1:3] == [100.0, 20.0]
    assert row["weight_nuclear_norm"][0] == said["embed"].weight.nuclear_norm
    assert row["weight_rank"].tolist() == [4.0, 4.0, 3.0, 2.0]
    assert math.isnan(row["effective_rank"][0])
    assert row["note"] == "not called with floating numbers: unused"
    squares, outputs = found["squares"].values, layer_ranks(objective, ["h*"], at="output")
    assert squares["effective_rank"][1] == outputs["head"].activations.ranks.effective_rank_squared
    assert squares["weight_effective_rank"][1] == outputs["head"].weight.effective_rank_squared
    assert squares["note"] == "more units than limit=3: hidden"
    assert np.isnan(squares["weight_effective_rank"][0])


@pytest.mark.parametrize("options", [{"tau": -1.0}, {"tau": math.inf}, {"limit": 0}, {"at": "weights"}, {"layers": 3}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match="EffectiveRank"):
        EffectiveRank(**options)


def test_layers_that_there_are_not(objective, trace):
    with pytest.raises(ValueError, match="no layer is called 'nothing'"):
        measure_once(objective, [EffectiveRank(layers=("nothing",))], trace, 0, on_error="raise")
