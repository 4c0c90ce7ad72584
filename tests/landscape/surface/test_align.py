"""Copies of networks whose units were permuted by hand are found again; what there is no rule for is refused."""

import copy

import pytest
import torch
from data_parallel_cases import Transformer
from sharpness_cases import Unchanged
from surface_cases import mlp, samples, trained_norms
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from landscape.surface import align
from landscape.surface.units.trace import groups


def order(n, seed):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def vector(f, model):
    return f.flatten({name: dict(model.named_parameters())[name] for name in f.names})


def copied(model, change):
    """Another model of the same kind with other numbers, by hand."""
    state = {name: t.clone() for name, t in model.state_dict().items()}
    change(state)
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    return other.eval()


def found_again(f, model, change):
    """The permuted copy is the network again after alignment, also where its weights have moved a little."""
    a = vector(f, model)
    other = copied(model, change)
    b = vector(f, other)
    assert (a - b).abs().max() > 1e-3
    unchanged = Unchanged(f.model)
    back = align(f, a, b)
    unchanged.check()
    assert torch.equal(back, a)
    noisy = b + 1e-3 * torch.randn(len(b), generator=torch.Generator().manual_seed(5)).to(b)
    torch.testing.assert_close(align(f, a, noisy), a, rtol=0, atol=6e-3)
    assert torch.equal(align(f, b, a), b)


def wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))


def test_an_mlp():
    model = wide()
    f = Objective(model, nn.CrossEntropyLoss(), samples())

    def change(s):
        p, q = order(16, 1), order(12, 2)
        s["0.weight"], s["0.bias"] = s["0.weight"][p], s["0.bias"][p]
        s["2.weight"], s["2.bias"] = s["2.weight"][q][:, p], s["2.bias"][q]
        s["4.weight"] = s["4.weight"][:, q]

    assert [(g.size, g.free) for g in groups(f) if g.free] == [(16, True), (12, True)]
    found_again(f, model, change)


class Residual(nn.Module):
    """A CNN with BatchNorm, a sum of two paths, and a flattened image before the head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.each = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.hidden, self.head = nn.Linear(6 * 4, 10), nn.Linear(10, 3)
        for bn in (self.bn1, self.bn2):
            nn.init.uniform_(bn.weight, 0.5, 2.0)
            nn.init.normal_(bn.bias)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = x + F.relu(self.bn2(self.conv2(x)))
        x = F.max_pool2d(F.silu(self.each(x)), 2)
        return self.head(F.relu(self.hidden(x.flatten(1))))


def test_a_cnn_with_batch_norm():
    g = torch.Generator().manual_seed(1)
    X, y = torch.randn(20, 2, 4, 4, generator=g), torch.arange(20) % 3
    model = trained_norms(Residual(), X)
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))

    def change(s):
        p, q = order(6, 1), order(10, 2)  # the channels that meet in the sum go together
        for name in ("conv1.weight", "conv2.weight", "conv2.bias", "each.weight", "each.bias"):
            s[name] = s[name][p]
        s["conv2.weight"] = s["conv2.weight"][:, p]
        for bn in ("bn1", "bn2"):
            for kind in ("weight", "bias", "running_mean", "running_var"):
                s[f"{bn}.{kind}"] = s[f"{bn}.{kind}"][p]
        s["hidden.weight"] = s["hidden.weight"].reshape(10, 6, 4)[q][:, p].reshape(10, 24)
        s["hidden.bias"], s["head.weight"] = s["hidden.bias"][q], s["head.weight"][:, q]

    torch.testing.assert_close(copied(model, change)(X), model(X))
    found_again(f, model, change)


def heads(p, size):
    return torch.arange(len(p) * size).reshape(len(p), size)[p].reshape(-1)


def test_a_transformer():
    torch.manual_seed(0)
    model = Transformer(width=12, blocks=2)
    for p in model.parameters():
        if p.ndim < 2:
            nn.init.normal_(p)
    g = torch.Generator().manual_seed(1)
    x = torch.randint(11, (6, 5), generator=g)
    f = Objective(model, nn.CrossEntropyLoss(), (x, x.roll(-1, 1)))

    def change(s):
        p = order(12, 1)  # of the residual stream
        for name in ("embed.weight", "head.weight"):
            s[name] = s[name][:, p]
        for i in range(2):
            h, q, at = heads(torch.tensor([1, 0]), 6), order(24, 3 + i), f"blocks.{i}"
            three = torch.cat([h, 12 + h, 24 + h])
            s[f"{at}.norm.weight"], s[f"{at}.norm.bias"] = s[f"{at}.norm.weight"][p], s[f"{at}.norm.bias"][p]
            s[f"{at}.attention.in_proj_weight"] = s[f"{at}.attention.in_proj_weight"][three][:, p]
            s[f"{at}.attention.in_proj_bias"] = s[f"{at}.attention.in_proj_bias"][three]
            s[f"{at}.attention.out_proj.weight"] = s[f"{at}.attention.out_proj.weight"][p][:, h]
            s[f"{at}.attention.out_proj.bias"] = s[f"{at}.attention.out_proj.bias"][p]
            s[f"{at}.mlp.0.weight"], s[f"{at}.mlp.0.bias"] = s[f"{at}.mlp.0.weight"][q][:, p], s[f"{at}.mlp.0.bias"][q]
            s[f"{at}.mlp.2.weight"], s[f"{at}.mlp.2.bias"] = s[f"{at}.mlp.2.weight"][p][:, q], s[f"{at}.mlp.2.bias"][p]

    torch.testing.assert_close(copied(model, change)(x), model(x), rtol=1e-4, atol=1e-4)
    found_again(f, model, change)


class HandMade(nn.Module):
    """Attention as libraries write it: one projection cut into three, heads by view and transpose; a fixed position."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(7, 8), nn.Parameter(torch.randn(5, 8))
        self.norm, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 7)

    def forward(self, x):
        z = self.embed(x) + self.place[: x.shape[1]]
        q, k, v = self.qkv(self.norm(z)).chunk(3, dim=-1)
        q, k, v = (t.view(*t.shape[:2], 4, 2).transpose(1, 2) for t in (q, k, v))
        z = z + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape, 8))
        return self.head(z).transpose(1, 2)


def test_attention_by_hand():
    model = HandMade()
    g = torch.Generator().manual_seed(1)
    x = torch.randint(7, (6, 5), generator=g)
    f = Objective(model, nn.CrossEntropyLoss(), (x, x.roll(-1, 1)))

    def change(s):
        p, h = order(8, 1), heads(order(4, 2), 2)
        three = torch.cat([h, 8 + h, 16 + h])
        for name in ("embed.weight", "place", "head.weight"):
            s[name] = s[name][:, p]
        s["norm.weight"], s["norm.bias"] = s["norm.weight"][p], s["norm.bias"][p]
        s["qkv.weight"], s["qkv.bias"] = s["qkv.weight"][three][:, p], s["qkv.bias"][three]
        s["out.weight"], s["out.bias"] = s["out.weight"][p][:, h], s["out.bias"][p]

    torch.testing.assert_close(copied(model, change)(x), model(x), rtol=1e-4, atol=1e-4)
    found_again(f, model, change)
    assert sorted(group.size for group in groups(f) if group.free) == [4, 8]


def test_torch_encoder_layer():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True, norm_first=True)
            self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.inner(self.first(x)).mean(dim=1))

    X = torch.randn(9, 5, 6, generator=torch.Generator().manual_seed(1))
    f = Objective(Encoder().eval(), nn.CrossEntropyLoss(), (X, torch.arange(9) % 3))
    assert sorted(group.size for group in groups(f) if group.free) == [4, 8, 16]
    assert align(f, f.theta(), f.theta()).equal(f.theta())


def test_frozen_parameters_keep_their_units():
    model = wide()
    model[0].weight.requires_grad_(False)
    f = Objective(model, nn.CrossEntropyLoss(), samples())
    assert [group.size for group in groups(f) if group.free] == [12]


def test_weights_of_two_networks_come_nearer():
    f = Objective(wide(), nn.CrossEntropyLoss(), samples())
    a = f.theta()
    b = a + 0.5 * torch.randn(len(a), generator=torch.Generator().manual_seed(7))
    shuffled = b[torch.randperm(len(b), generator=torch.Generator().manual_seed(8))]
    for other in (b, shuffled):
        permuted = align(f, a, other)
        assert (permuted - a).norm() <= (other - a).norm()
        torch.testing.assert_close(permuted.sort().values, other.sort().values)
        with f.at(other):
            expected = f.value()
        with f.at(permuted):
            assert f.value() == pytest.approx(expected, rel=1e-5)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.memory, self.head = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.memory(x[:, None])[0][:, 0])


class Ordered(nn.Module):
    """Depends on the order of its units where nobody looks."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.relu(self.first(x)) * float(self.first.weight.detach().numpy()[0].sum()))


def test_refusals():
    for model, text in (
        (Recurrent(), r"memory \(LSTM\) uses torch's lstm"),
        (nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Linear(8, 3)), r"1 \(GroupNorm\) normalises groups"),
        (nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)), r"1 \(Dropout\) drops units at random"),
    ):
        f = Objective(model, nn.CrossEntropyLoss(), samples())
        with pytest.raises(TypeError, match=text):
            align(f, f.theta(), f.theta())
    f = Objective(Ordered(), nn.CrossEntropyLoss(), samples())
    pieces = f.unflatten(f.theta())
    p = order(8, 1)
    for name, t in pieces.items():
        pieces[name] = t[:, p] if name == "head.weight" else t if name == "head.bias" else t[p]
    with pytest.raises(ValueError, match="depends on the order of its units"):
        align(f, f.theta(), f.flatten(pieces))
    with pytest.raises(ValueError, match="b must have shape"):
        align(f, f.theta(), torch.zeros(3))
    f = Objective(mlp(), nn.CrossEntropyLoss(), samples())
    assert torch.equal(align(f, f.theta(), f.theta()), f.theta())
