"""Ranks of layers over data, against the singular values of all activations at once."""

import math

import pytest
import torch
from operator_cases import CASES
from sharpness_cases import Unchanged
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from landscape.representation import layer_ranks
from landscape.representation.rows import Rows


def entropy_rank(s, power=1):
    p = s**power / (s**power).sum()
    p = p[p > 1e-14]
    return math.exp(-(p * p.log()).sum())


def check(found, A):
    """Against the whole matrix of activations in float64."""
    A = A.double()
    s = torch.linalg.svdvals(A)
    assert (found.ranks.rows, found.ranks.columns) == A.shape
    assert found.ranks.effective_rank == pytest.approx(entropy_rank(s), rel=1e-6)
    assert found.ranks.effective_rank_squared == pytest.approx(entropy_rank(s, 2), rel=1e-6)
    assert found.ranks.stable_rank == pytest.approx(float((s**2).sum() / s[0] ** 2), rel=1e-9)
    assert found.ranks.nuclear_norm == pytest.approx(float(s.sum()), rel=1e-6)
    unit = A[A.norm(dim=1) > 0]
    unit = unit / unit.norm(dim=1, keepdim=True)
    b, c = unit.shape
    assert found.nuclear_ratio == pytest.approx(float(torch.linalg.svdvals(unit).sum()) / math.sqrt(min(b, c) * b))
    mean = A.abs().mean(0)
    torch.testing.assert_close(found.scores, mean / mean.mean())
    for tau in (0.0, 0.025, 1.0):
        assert found.dormant(tau) == pytest.approx(float((mean <= tau * mean.mean()).double().mean()))


class Functional(nn.Module):
    """Nonlinearities that are no modules, one unit that is never on and one that hardly is."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.first.bias[0], self.first.weight[1] = -1e3, 1e-4 * self.first.weight[1]
            self.first.bias[1] = 0.0

    def forward(self, x):
        return self.last(F.relu(self.first(x)))


@pytest.mark.parametrize("sizes", [(2, 2), (5, 1, 6), (30, 7)])
def test_streamed_equals_all_rows_at_once(sizes):
    """Fewer rows than columns, more only with a later batch, more from the start."""
    torch.manual_seed(0)
    model, X = Functional().double(), torch.randn(sum(sizes), 4).double()
    data = list(zip(X.split(sizes), torch.zeros(len(X), dtype=torch.long).split(sizes), strict=True))
    f = Objective(model, nn.CrossEntropyLoss(), data)
    unchanged = Unchanged(model)
    found = layer_ranks(f)
    unchanged.check()
    assert list(found) == ["first", "last"]
    check(found["first"].activations, X)
    hidden = F.relu(model.first(X)).detach()
    check(found["last"].activations, hidden)
    assert found["last"].activations.dormant() >= 1 / 6  # the unit that is never on
    assert found["last"].activations.dormant(0.025) >= 2 / 6
    s = torch.linalg.svdvals(model.first.weight.detach())
    assert found["first"].weight.effective_rank == pytest.approx(entropy_rank(s))
    outputs = layer_ranks(f, "first", at="output")
    check(outputs["first"].activations, model.first(X).detach())
    few = layer_ranks(f, limit=5)  # of width 6 there is no Gram matrix, but its units are counted all the same
    assert math.isnan(few["last"].activations.ranks.effective_rank)
    assert few["last"].activations.dormant() == found["last"].activations.dormant()
    assert few["last"].weight == found["last"].weight  # whose smaller side is 3
    assert layer_ranks(f, activations=False)["last"].activations is None


def test_no_more_than_a_square_is_held():
    rows = Rows(limit=100)
    for _ in range(20):
        rows.add(torch.randn(3, 4))
        assert sum(map(len, rows._held)) <= 4
    assert rows.found().ranks.rows == 60
    wide = Rows(limit=3)
    wide.add(torch.randn(3, 4))
    assert not wide._held


def test_channels_of_convolutions_are_columns_and_positions_rows():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.Flatten(), nn.Linear(27, 2)).double()
    X = torch.randn(3, 2, 6, 6).double()
    f = Objective(model, nn.MSELoss(), (X, torch.zeros(3, 2).double()))
    found = layer_ranks(f, ["*"])
    hidden = model[1](model[0](X)).detach()
    check(found["2"].activations, hidden.permute(0, 2, 3, 1).reshape(-1, 4))
    check(found["4"].activations, model[:4](X).detach())
    assert found["1"].weight is None
    check(layer_ranks(f, "1", at="output")["1"].activations, hidden.permute(0, 2, 3, 1).reshape(-1, 4))
    s = torch.linalg.svdvals(model[0].weight.detach().reshape(4, -1))
    assert found["0"].weight.nuclear_norm == pytest.approx(float(s.sum()))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(9, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, tokens, attention_mask, labels=None):
        h = torch.tanh(self.mix(self.embed(tokens)))
        kept = attention_mask.unsqueeze(-1).to(h.dtype)
        return self.head((h * kept).sum(1) / kept.sum(1))


def padded():
    torch.manual_seed(2)
    batches = []
    for n, length in ((3, 4), (2, 6)):
        mask = (torch.arange(length) < torch.randint(2, length + 1, (n, 1))).long()
        batches.append({"tokens": torch.randint(0, 9, (n, length)), "attention_mask": mask, "labels": torch.ones(n)})
        batches[-1]["labels"] = torch.ones(n, dtype=torch.long)
    return batches


def test_padding_is_no_row():
    batches, model = padded(), Tokens().double()
    f = Objective(model, nn.CrossEntropyLoss(), batches)
    found = layer_ranks(f)
    A = torch.cat([model.embed(b["tokens"])[b["attention_mask"].bool()] for b in batches]).detach()
    check(found["mix"].activations, A)
    assert found["head"].activations.ranks.rows == 5  # one a sample: the mask is not of these
    assert found["embed"].activations is None  # it is called with integers
    assert layer_ranks(f, at="output")["embed"].activations.ranks.rows == len(A)
    first = layer_ranks(
        f, mask=lambda inputs, _: torch.arange(inputs["tokens"].shape[1]).expand_as(inputs["tokens"]) < 1
    )
    check(first["mix"].activations, torch.cat([model.embed(b["tokens"])[:, 0] for b in batches]).detach())
    with pytest.raises(ValueError, match="mask returns the shape"):
        layer_ranks(f, mask=lambda inputs, _: torch.zeros(7, 7))
    with pytest.raises(TypeError, match="mask must return a tensor"):
        layer_ranks(f, mask=lambda inputs, _: None)


@pytest.mark.parametrize("name", sorted(CASES))
def test_on_every_case(name):
    case = CASES[name]()
    f = Objective(case.model, case.loss, case.batches, **case.options)
    unchanged = Unchanged(case.model)
    found = layer_ranks(f)
    unchanged.check()
    measured = [one.activations for one in found.values() if one.activations is not None]
    assert measured
    for one in measured:
        most = min(one.ranks.rows, one.ranks.columns)
        assert 1 / math.sqrt(most) - 1e-9 <= one.nuclear_ratio <= 1 + 1e-9
        assert 1 - 1e-9 <= one.ranks.stable_rank <= one.ranks.effective_rank_squared + 1e-9
        assert one.ranks.effective_rank_squared <= one.ranks.effective_rank + 1e-9 <= most + 1e-6


def test_half_precision_tied_and_parametrised_weights():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    nn.utils.parametrizations.spectral_norm(model[4])  # in train mode it updates itself whenever it is looked at
    model.bfloat16()
    X = torch.randn(9, 4).bfloat16()
    f = Objective(model.train(), nn.CrossEntropyLoss(), (X, torch.zeros(9, dtype=torch.long)))
    unchanged = Unchanged(model)
    found = layer_ranks(f)
    unchanged.check()
    assert list(found) == ["0", "2", "4", "5"]
    assert found["0"].weight == found["2"].weight
    check(found["0"].activations, X)
    raw = torch.linalg.svdvals(model[4].parametrizations.weight.original.detach().double())
    assert found["4"].weight.stable_rank == pytest.approx(float((raw**2).sum() / raw[0] ** 2), rel=0.02)
    assert found["4"].weight.largest == pytest.approx(1.0, rel=0.2)


def test_what_makes_no_sense_is_refused():
    X, y = torch.randn(6, 4), torch.zeros(6, dtype=torch.long)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(ValueError, match="no layer is called 'h\\.\\*': there are 0, 1"):
        layer_ranks(f, "h.*")
    with pytest.raises(ValueError, match='at is "input" or "output"'):
        layer_ranks(f, at="weights")
    with pytest.raises(ValueError, match="name its modules with layers="):
        layer_ranks(Objective(nn.LayerNorm(4), nn.CrossEntropyLoss(), (X, y)))
    with pytest.raises(ValueError, match="the inputs of layer '0': there are entries that are not finite"):
        layer_ranks(f.on((X / 0, y)))
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="the weight of layer '0': there are entries that are not finite"):
        layer_ranks(f, activations=False)
