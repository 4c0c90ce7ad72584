"""Inputs as people have them."""

from __future__ import annotations

from collections import namedtuple
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective
from situations.kinds import network
from situations.layers import Recurrent, data
from situations.situation import Case, Situation

GROUP = "Inputs and data"
Sample = namedtuple("Sample", "x y")


def given(wrap: Any) -> Case:
    model, (x, y) = network(4, 3), data(7, 4)
    return Case(Objective(model, nn.CrossEntropyLoss(), wrap(x, y)), lambda: F.cross_entropy(model(x), y))


def arguments() -> Case:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.net(torch.cat([a, b], 1))

    model, (x, y) = Two(), data(7, 4)
    return Case(
        Objective(model, nn.CrossEntropyLoss(), [((x[:, :1], x[:, 1:]), y)]), lambda: F.cross_entropy(model.net(x), y)
    )


def packed() -> Case:
    torch.manual_seed(0)
    core = Recurrent(nn.LSTM).double()

    def forward(model: Any, sequence: PackedSequence) -> Tensor:
        out, lengths = pad_packed_sequence(model.core(sequence)[0], batch_first=True)
        return model.head(out[torch.arange(len(lengths)), lengths - 1])

    x, y = data(3, 5, 4)
    sequence = pack_sequence([x[0], x[1, :3], x[2, :2]])
    rows = (x[:1], x[1:2, :3], x[2:, :2])  # the same, one at a time
    return Case(
        Objective(core, nn.CrossEntropyLoss(), (sequence, y), forward=forward),
        lambda: F.cross_entropy(torch.cat([core(row) for row in rows]), y),
    )


def graph() -> Case:
    """A graph network on a sparse adjacency matrix, the loss on its nodes."""
    model, (x, y) = network(4, 3), data(7, 4)
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 4, 5, 6, 0, 3]])
    A = torch.sparse_coo_tensor(edges, torch.ones(8, dtype=torch.float64), (7, 7), check_invariants=True).coalesce()

    def forward(model: nn.Module, batch: Any) -> Tensor:
        return torch.sparse.mm(batch["adjacency"], model(batch["x"]))

    return Case(
        Objective(model, nn.CrossEntropyLoss(), [({"x": x, "adjacency": A}, y)], forward=forward),
        lambda: F.cross_entropy(A.to_dense() @ model(x), y),
    )


def embedding() -> Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 3)).double()
    ids, y = torch.arange(15).reshape(5, 3) % 9, torch.arange(5) % 3
    return Case(Objective(model, nn.CrossEntropyLoss(), (ids, y)), lambda: F.cross_entropy(model(ids), y))


def positions() -> Case:
    """A sequence with ignored positions in ragged batches: each token counts the same."""
    model, (x, _) = network(4, 3), data(4, 5, 4)
    y = torch.arange(20).reshape(4, 5) % 3
    y[0, 2:], y[3, 1:] = -100, -100

    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).transpose(1, 2)

    return Case(
        Objective(model, nn.CrossEntropyLoss(), [(x[:3], y[:3]), (x[3:], y[3:])], forward=forward),
        lambda: F.cross_entropy(forward(model, x), y),
    )


_case = partial(Situation, GROUP)
SITUATIONS = [
    _case("a pair of tensors", partial(given, lambda x, y: (x, y))),
    _case("a list of ragged batches", partial(given, lambda x, y: [(x[:5], y[:5]), (x[5:], y[5:])])),
    _case("a shuffling DataLoader", partial(given, lambda x, y: DataLoader(TensorDataset(x, y), 3, shuffle=True))),
    _case("numpy arrays", partial(given, lambda x, y: (x.numpy(), y.numpy()))),
    _case("named tuples", partial(given, lambda x, y: [Sample(x[:5], y[:5]), Sample(x[5:], y[5:])])),
    _case("batches that an iterator yields once", partial(given, lambda x, y: iter([(x[:5], y[:5]), (x[5:], y[5:])]))),
    _case("several arguments of forward", arguments),
    _case("PackedSequence", packed),
    _case("a sparse adjacency matrix", graph),
    _case("embeddings of indices", embedding),
    _case("ignored positions in ragged batches", positions),
]
