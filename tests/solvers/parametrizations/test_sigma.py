"""sigmaReparam against the dense formula, and in a model: states, copies, modes, curvature, attention."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from landscape import Hessian, Objective, WrongDerivatives
from landscape.representation import attention_entropy, entropy_bound, layer_ranks
from solvers import SigmaReparam, remove_sigma_reparam, sigma_reparam


def norm(W):
    return float(torch.linalg.matrix_norm(W.detach().flatten(1).double(), 2))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3, 3)])
def test_the_weight_and_its_gradient_are_those_of_the_dense_formula(shape):
    torch.manual_seed(0)
    W0, G = torch.randn(shape).double().requires_grad_(), torch.randn(shape).double()
    reparam = SigmaReparam(W0, gamma=1.7)
    W = reparam(W0)  # one step of power iteration in train mode
    u, v = reparam.u[0], reparam.v[0]
    sigma = u @ W0.reshape(shape[0], -1) @ v
    torch.testing.assert_close(W, 1.7 * W0 / sigma)
    u, v = u.clone(), v.clone()
    reparam(1.1 * W0.detach().flip(0))  # another pass before the gradient is asked for: u and v have moved on
    found = torch.autograd.grad((G * W).sum(), (W0, reparam.gamma))
    flat, g = W0.detach().reshape(shape[0], -1), G.reshape(shape[0], -1)
    s = sigma.item()
    by_hand = 1.7 * (g / s - (g * flat).sum() / s**2 * torch.outer(u, v))
    torch.testing.assert_close(found[0].reshape(shape[0], -1), by_hand.detach())
    assert found[1].item() == pytest.approx(float((g * flat).sum()) / s)
    assert norm(W) == pytest.approx(1.7, rel=1e-6)


def test_power_iteration_follows_a_weight_that_moves_and_only_in_train_mode():
    torch.manual_seed(1)
    layer = sigma_reparam(nn.Linear(6, 4).double())
    reparam, original = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    with torch.no_grad():
        original.copy_(torch.randn(4, 6).double())
    before = reparam.u.clone()
    layer.eval()
    stale = layer.weight
    assert torch.equal(reparam.u, before)
    assert abs(norm(stale) - 1.0) > 0.05
    layer.train()
    first = layer.weight  # one step
    v = nn.functional.normalize(original.detach().T @ before[0], dim=0)
    torch.testing.assert_close(reparam.v[0], v)
    for _ in range(200):
        layer.weight  # noqa: B018 each forward pass takes a step
    assert norm(layer.weight) == pytest.approx(1.0, rel=1e-9)
    assert abs(norm(first) - 1.0) > 1e-3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.attn = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        h = self.conv(x).flatten(2).mT[..., :3]
        h = nn.functional.pad(h, (0, 1))
        return self.head(torch.tanh(self.attn(h, h, h, need_weights=False)[0][:, :3]).flatten(1))


def data(n=10):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 3, 3, generator=g).double(), torch.randint(0, 2, (n,), generator=g)


def test_all_layers_of_a_model_and_out_again():
    torch.manual_seed(2)
    model = Net().double()
    plain = copy.deepcopy(model)
    assert sigma_reparam(model, gamma="keep") is model
    X, _ = data()
    torch.testing.assert_close(model.eval()(X), plain.eval()(X), rtol=1e-6, atol=1e-6)
    model, plain = sigma_reparam(Net().double()), None
    blocks = model.attn.parametrizations.in_proj_weight[0]
    assert blocks.gamma.shape == (3,)
    for part in model.attn.in_proj_weight.split(4):  # queries, keys, values
        assert norm(part) == pytest.approx(1.0, rel=1e-4)
    assert norm(model.conv.weight) == pytest.approx(1.0, rel=1e-4)
    values = model.eval()(X)
    remove_sigma_reparam(model)
    assert not any(parametrize.is_parametrized(m) for m in model.modules())
    assert torch.equal(model(X), values)
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in Net().named_parameters()}


def test_states_and_copies():
    torch.manual_seed(3)
    model = sigma_reparam(Net().double())
    X, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters())
    gammas = [p for name, p in model.named_parameters() if name.endswith("gamma")]
    assert len(gammas) == 4
    assert all(bool((p != 1).all()) for p in gammas)
    twin, other = copy.deepcopy(model), sigma_reparam(Net().double())
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored))
    evaluated, stepped = model.eval()(X), model.train()(X)
    for one in (twin, other):
        assert torch.equal(one.eval()(X), evaluated)
        assert torch.equal(one.train()(X), stepped)  # the same step of power iteration
    twin.conv.parametrizations.weight[0].u.zero_()
    assert bool(model.conv.parametrizations.weight[0].u.any())


def test_the_hessian_is_right_in_eval_mode_and_refused_in_train_mode():
    torch.manual_seed(4)
    model = sigma_reparam(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()).eval()
    X, y = torch.randn(9, 3).double(), torch.randint(0, 2, (9,))
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    theta, names = f.theta(), f.names
    H = Hessian(f)

    def value(vector):
        return nn.functional.cross_entropy(functional_call(model, f.unflatten(vector), (X,)), y)

    dense = torch.func.hessian(value)(theta)
    torch.testing.assert_close(H.to_dense(), dense, rtol=1e-9, atol=1e-10)
    assert any(name.endswith("gamma") for name in names)
    assert H.checked is not None
    buffers = [b.clone() for b in model.buffers()]
    with pytest.raises(WrongDerivatives):  # there u and v move with the weight, which autograd is not told
        Hessian(Objective(model.train(), nn.CrossEntropyLoss(), (X, y), check="always")) @ theta
    layer_ranks(Objective(model, nn.CrossEntropyLoss(), (X, y)))
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


@pytest.mark.parametrize("train", [False, True])
def test_the_bound_of_attention_is_that_of_gamma(train):
    """With gamma 1 for queries and keys the norm of their product is at most 1, whatever the weights were."""
    torch.manual_seed(5)
    layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True).double()
    with torch.no_grad():
        layer.self_attn.in_proj_weight.mul_(30.0)
    x = torch.randn(4, 6, 8).double()
    f = Objective(layer.train(train), nn.MSELoss(), (x, x))
    before = attention_entropy(f)["self_attn"]
    f = Objective(sigma_reparam(layer, "self_attn"), nn.MSELoss(), (x, x))
    buffers = [b.clone() for b in layer.buffers()]
    after = attention_entropy(f)["self_attn"]
    assert all(torch.equal(a, b) for a, b in zip(buffers, layer.buffers(), strict=True))
    s = x.norm(dim=2) * torch.linalg.matrix_norm(x, 2).unsqueeze(1) / 2.0
    assert bool((after.bound >= entropy_bound(s, torch.full(s.shape, 6)).mean() - 1e-9).all())
    assert bool((after.bound > before.bound).all() & (after.entropy > before.entropy).all())
    assert after.of_weights


def test_what_cannot_be_is_refused_and_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    for layers, message in (("h.*", "called 'h\\.\\*': there are 0, 1"), ("2", "called '2'")):
        with pytest.raises(ValueError, match=message):
            sigma_reparam(model, layers)
    with torch.no_grad():
        model[1].weight.zero_()
    with pytest.raises(ValueError, match=r"1\.weight: the weight is 0"):
        sigma_reparam(model)
    assert not parametrize.is_parametrized(model[0])
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"0\.weight is tied to 1\.weight: name the layers"):
        sigma_reparam(model)
    with pytest.raises(ValueError, match=r"0\.weight is parametrised already"):
        sigma_reparam(sigma_reparam(nn.Sequential(nn.Linear(2, 2))))
    with pytest.raises(ValueError, match="has no linear layer"):
        sigma_reparam(nn.LayerNorm(3))
    for options in ({"gamma": 0.0}, {"gamma": -1.0}, {"blocks": 3}):
        with pytest.raises(ValueError, match=r"gamma is|cannot be cut"):
            SigmaReparam(torch.ones(4, 2), **options)
    with pytest.raises(ValueError, match="spectral norm is of real matrices"):
        SigmaReparam(torch.ones(4))
