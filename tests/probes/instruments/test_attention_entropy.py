"""The probe of attention keeps what the function says of each layer and head."""

import numpy as np
import pytest
import torch
from attending import attending
from torch import nn

from landscape import Objective
from landscape.representation import attention_entropy
from probes import AttentionEntropy, Trace, measure_once


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def test_it_keeps_what_the_function_says(trace):
    objective = attending()
    row = measure_once(objective, [AttentionEntropy()], trace, 0, on_error="raise")["attention-entropy"].values
    found = attention_entropy(objective)["0.self_attn"]
    for name in ("entropy", "least", "bound", "loose_bound", "uniform"):
        assert row[name].tolist() == [getattr(found, name).tolist()], name
    assert (row["rows"].tolist(), row["of_weights"].tolist(), row["note"]) == ([24], [True], "")
    assert trace["attention-entropy"].fields["entropy"].labels == ("0.self_attn",)


class Uneven(nn.Module):
    """Two heads, then one whose queries are normalised; nothing that says so."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.MultiheadAttention(4, heads, batch_first=True) for heads in (2, 1))
        self.own = nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x, x, x)[0] + self.second(x, x, x)[0]
        q = nn.functional.normalize(self.own(x), dim=-1)
        return nn.functional.scaled_dot_product_attention(q, q, x)


def test_layers_with_fewer_heads_and_bounds_of_another_kind(trace):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 4)
    objective = Objective(Uneven(), nn.MSELoss(), (x, x))
    probes = [AttentionEntropy(), AttentionEntropy(name="first", layers=("first",))]
    found = measure_once(objective, probes, trace, 0, on_error="raise")
    row = found["attention-entropy"].values
    assert np.isnan(row["entropy"]).tolist() == [[False, False], [False, True], [False, True]]
    assert row["note"] == "bounds of queries and keys, which weights alone do not make: Uneven"
    assert found["first"].values["bound"].tolist() == row["bound"][:1].tolist()


def test_a_network_without_attention_is_refused(trace):
    x = torch.randn(4, 4)
    objective = Objective(nn.Linear(4, 4), nn.MSELoss(), (x, x))
    with pytest.raises(ValueError, match=r"no attention is seen .*attn_implementation="):
        measure_once(objective, [AttentionEntropy()], trace, 0, on_error="raise")
