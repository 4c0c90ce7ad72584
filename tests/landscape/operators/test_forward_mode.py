"""Products are right where forward and reverse mode differ for later batches only, whichever is the faster one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape.tuning
from landscape import GaussNewton, Objective, TangentKernel

TINY = 1  # bytes: no graph is kept, and a single vector goes by a dual forward pass


class NoForwardRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


class AnotherForwardRule(NoForwardRule):
    @staticmethod
    def jvp(ctx, t):
        return 3 * t


class Scatter(nn.Module):
    """Writes twice to one place where an index comes twice: reverse mode counts both, forward mode the last."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(2, 3))

    def forward(self, i):
        return torch.zeros(len(i), 4, 3, dtype=self.rows.dtype).index_put(
            (torch.arange(len(i)).unsqueeze(1), i), self.rows
        )


class Branch(nn.Module):
    """Goes through a function of its own where a sample has a 0."""

    def __init__(self, function):
        super().__init__()
        self.rows, self.function = nn.Embedding(4, 3), function

    def forward(self, i):
        rows = self.rows(i)
        return self.function.apply(rows) if bool((i == 0).any()) else rows


class Padded(nn.Module):
    """The function, not the module."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))

    def forward(self, i):
        return F.embedding(i, self.weight, padding_idx=0)


LAYERS = {
    "padding": lambda: nn.Embedding(4, 3, padding_idx=0),
    "padding of a function": Padded,
    "no forward rule": lambda: Branch(NoForwardRule),
    "another forward rule": lambda: Branch(AnotherForwardRule),
    "written twice": Scatter,
}


def problem(layer):
    """The first batch has neither padding nor an index twice, the second one has both."""
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[layer](), nn.Flatten(1), nn.LazyLinear(2)).double()
    batches = [torch.tensor([[1, 2], [2, 3]]), torch.tensor([[0, 0], [3, 3]])]
    model(batches[0])
    with torch.no_grad():  # a padding of zeros would hide
        for p in model.parameters():
            p += 0.5
    return model, [(i, torch.randn(len(i), 2, dtype=torch.float64)) for i in batches]


def jacobian_by_reverse_mode(model, batches):
    parameters = list(model.parameters())
    rows = []
    for i, _ in batches:
        for output in model(i).flatten():
            grads = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
            pieces = [torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)]
            rows.append(torch.cat([g.flatten() for g in pieces]))
    return torch.stack(rows)


@pytest.mark.parametrize("memory", ["auto", TINY])
@pytest.mark.parametrize("layer", LAYERS)
def test_products_are_those_of_reverse_mode(layer, memory, monkeypatch):
    monkeypatch.setattr(landscape.tuning, "_fastest", lambda seconds: "forward" if "forward" in seconds else "reverse")
    model, batches = problem(layer)
    G = GaussNewton(Objective(model, nn.MSELoss(), batches, memory=memory, check=False))
    J = jacobian_by_reverse_mode(model, batches)
    expected = 2 * J.T @ J / len(J)
    V = torch.randn(len(expected), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for W in (V[:, :1], V[:, :1], V, V):
        assert torch.allclose(G @ W, expected @ W, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layer", LAYERS)
def test_so_are_those_of_the_tangent_kernel(layer, monkeypatch):
    monkeypatch.setattr(landscape.tuning, "_fastest", lambda seconds: "forward" if "forward" in seconds else "reverse")
    model, batches = problem(layer)
    K = TangentKernel(Objective(model, nn.MSELoss(), batches, check=False))
    J = jacobian_by_reverse_mode(model, batches)
    W = torch.randn(len(J), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for part in (W[:, :1], W):
        assert torch.allclose(K @ part, J @ (J.T @ part) / 4, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory", ["auto", TINY])
def test_forward_mode_is_taken_where_it_is_the_same(memory, monkeypatch):
    monkeypatch.setattr(landscape.tuning, "_fastest", lambda seconds: "forward" if "forward" in seconds else "reverse")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(1), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    i = torch.randint(0, 4, (9, 2))
    f = Objective(model, nn.MSELoss(), [(i[:5], torch.randn(5, 2)), (i[5:], torch.randn(4, 2))], memory=memory)
    GaussNewton(f) @ torch.ones(f.size, dtype=torch.float64)
    assert f.tuning.choice("jacobian") == "forward"
    assert not f.tuning.refused("dual")
