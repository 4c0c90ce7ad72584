"""Hessian alignment against its formula in dense float64 matrices, and over models of all kinds."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian
from torch.func import functional_call

from solvers import HessianAlignment

SIZES = (7, 4, 5)  # ragged domains


def network(*middle, dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *(middle or (nn.Tanh(),)), nn.Linear(4, 3)).to(dtype)


def domains(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    draw = [(torch.randn(n, 3, generator=generator, dtype=torch.float64), n) for n in SIZES]
    return [(x.to(dtype), torch.randint(0, 3, (n,), generator=generator)) for x, n in draw]


def losses(model, data):
    return [nn.functional.cross_entropy(model(x).float() if x.dtype.itemsize < 4 else model(x), y) for x, y in data]


def dense(model, data, names, shares, alpha, beta, kind):
    """The formula on whole Hessians, and its gradient in all parameters by one more jacobian.

    What is barred comes from the parameters as they stand and is constant in the second derivative.
    """
    every = {name: p.detach().clone() for name, p in model.named_parameters()}
    flat = torch.cat([p.reshape(-1) for p in every.values()])

    def split(v):
        pieces = v.split([p.numel() for p in every.values()])
        return {name: piece.view(p.shape) for (name, p), piece in zip(every.items(), pieces, strict=True)}

    where = {}
    for name, numbers in split(torch.arange(len(flat))).items():
        where[name] = numbers.reshape(-1)
    index = torch.cat([where[name] for name in names])

    def of_domain(v, x, y):
        def chosen(w):
            return nn.functional.cross_entropy(functional_call(model, split(v.index_copy(0, index, w)), (x,)), y)

        w = v[index]
        g = jacobian(chosen, w, create_graph=True)
        H = hessian(chosen, w, create_graph=True)
        return chosen(w), g, H @ g if kind == "hgp" else H.diagonal(), H

    now = [of_domain(flat, x, y) for x, y in data]
    g = sum(p * one[1] for p, one in zip(shares, now, strict=True)).detach()
    H = sum(p * one[3] for p, one in zip(shares, now, strict=True)).detach()
    c = H @ g if kind == "hgp" else H.diagonal()

    def value(v):
        total = 0.0
        for p, (x, y) in zip(shares, data, strict=True):
            loss, mine, curved, _ = of_domain(v, x, y)
            total = total + p * (loss + alpha * (curved - c).square().sum() + beta * (mine - g).square().sum())
        return total

    found = value(flat.clone().requires_grad_()).detach()
    return found, jacobian(value, flat)


def flat_gradient(loss, model):
    pieces = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(model.parameters(), pieces, strict=True)]
    )


HEAD = ("2.weight", "2.bias")
ALL = ("0.weight", "0.bias", *HEAD)


@pytest.mark.parametrize("weights", [None, SIZES])
@pytest.mark.parametrize(("parameters", "names"), [(None, HEAD), ("*", ALL), ("2.weight", HEAD[:1])])
def test_value_and_gradient_are_those_of_the_formula_on_dense_matrices(parameters, names, weights):
    model, data = network(), domains()
    shares = [1 / 3] * 3 if weights is None else [n / sum(SIZES) for n in SIZES]
    align = HessianAlignment(model, parameters=parameters, alpha=0.7, beta=0.3)
    found = align(losses(model, data), weights)
    value, gradient = dense(model, data, names, shares, 0.7, 0.3, "hgp")
    torch.testing.assert_close(found.detach(), value)
    torch.testing.assert_close(flat_gradient(found, model), gradient, rtol=1e-9, atol=1e-12)
    assert all(p.grad is None for p in model.parameters())


def test_the_diagonals_are_exact_where_all_signs_are_drawn(monkeypatch):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False).double()
    x = [torch.randn(n, 3, dtype=torch.float64) for n in SIZES]
    every = iter([torch.tensor(z, dtype=torch.float64) for z in itertools.product((-1, 1), repeat=3)])
    monkeypatch.setattr("solvers.regularizers.alignment.draw", lambda leaves, kind, generator: [next(every).view(1, 3)])

    def made(inputs):
        return [model(one).exp().mean() for one in inputs]

    align = HessianAlignment(model, method="hutchinson", alpha=0.7, beta=0.0, probes=8)
    gradient = flat_gradient(align(made(x)), model)
    w = model.weight.detach().reshape(-1)

    def diagonals(v):
        return [((one @ v).exp()[:, None] * one**2).mean(0) for one in x]

    mean = sum(diagonals(w)) / 3

    def value(v):
        curved = [(d - mean).square().sum() for d in diagonals(v)]
        return (sum((one @ v).exp().mean() for one in x) + 0.7 * sum(curved)) / 3

    torch.testing.assert_close(gradient, jacobian(value, w))


def test_the_diagonals_penalty_exceeds_the_exact_one_by_what_is_said():
    """On quadratics, whose Hessians are known: a mean over draws within its own error."""
    torch.manual_seed(2)
    model = nn.Linear(4, 1, bias=False).double()
    H = [A @ A.T for A in torch.randn(2, 4, 4, dtype=torch.float64)]
    off = (H[0] - H[1]) / 2  # of each from their mean
    align = HessianAlignment(model, method="hutchinson", probes=3, generator=torch.Generator().manual_seed(3))

    def drawn():
        w = model.weight.reshape(-1)
        align([w @ one @ w / 2 for one in H])
        return align.last.curvature.item()

    values = torch.tensor([drawn() for _ in range(200)], dtype=torch.float64)
    exact = off.diagonal().square().sum()
    expected = exact + (off.square().sum() - exact) / 3
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(200)
    again = HessianAlignment(model, method="hutchinson", probes=3, generator=torch.Generator().manual_seed(3))
    w = model.weight.reshape(-1)
    again([w @ one @ w / 2 for one in H])
    assert again.last.curvature.item() == values[0].item()


def test_equal_domains_are_the_plain_loss():
    model, (data, *_) = network(), domains()
    for method in ("hgp", "hutchinson"):
        found = HessianAlignment(model, method=method, alpha=1.0, beta=1.0, probes=2)(losses(model, [data, data]))
        plain = losses(model, [data])[0]
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(flat_gradient(found, model), flat_gradient(plain, model))


def test_defaults_are_those_of_the_authors():
    model = network()
    assert (HessianAlignment(model).alpha, HessianAlignment(model).beta) == (1e-4, 5e-3)
    other = HessianAlignment(model, method="hutchinson")
    assert (other.alpha, other.beta, other.probes) == (1e-3, 5e-3, 300)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_comes_near_double(autocast):
    model, data = network(), domains()
    data = [(x.bfloat16().double(), y) for x, y in data]
    for p in model.parameters():
        p.data = p.data.bfloat16().double()
    exact = HessianAlignment(model, alpha=0.7, beta=0.3)
    exact(losses(model, data))
    half = copy.deepcopy(model).to(torch.float32 if autocast else torch.bfloat16)
    kind = torch.float32 if autocast else torch.bfloat16
    align = HessianAlignment(half, alpha=0.7, beta=0.3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = align(losses(half, [(x.to(kind), y) for x, y in data]))
    assert loss.dtype == torch.float32
    assert align.last.gradient == pytest.approx(exact.last.gradient.item(), rel=0.1)
    assert align.last.curvature == pytest.approx(exact.last.curvature.item(), rel=0.1)
    pieces = torch.autograd.grad(loss, list(half.parameters()))
    assert all(bool(g.isfinite().all()) and g.dtype == kind for g in pieces)


def test_products_are_not_rounded_in_an_autocast_region():
    model, data = network(dtype=torch.float32), domains(torch.float32)
    align, found = HessianAlignment(model, alpha=0.7, beta=0.3), []
    for autocast in (False, True):
        given = losses(model, data)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found.append(align(given))
    assert found[0].item() == found[1].item()


class Tied(nn.Module):
    """A language model of one token: the head is the embedding."""

    def __init__(self, norm):
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(5, 4), norm, nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.norm(self.embedding(tokens)))


def tied(norm):
    torch.manual_seed(0)
    model = Tied(norm).double()
    data = [(torch.tensor(x), torch.tensor(y)) for x, y in (([0, 1, 2], [1, 2, 3]), ([3, 4], [0, 0]))]
    return model, data


def test_a_tied_head_is_differentiated_in_both_its_places():
    model, data = tied(nn.Tanh())
    found = HessianAlignment(model, alpha=0.7, beta=0.3)(losses(model, data))
    value, gradient = dense(model, data, ("embedding.weight",), [0.5, 0.5], 0.7, 0.3, "hgp")
    torch.testing.assert_close(found.detach(), value)
    torch.testing.assert_close(flat_gradient(found, model), gradient, rtol=1e-9, atol=1e-12)


def test_a_tied_head_over_a_layer_norm_is_refused_by_name():
    model, data = tied(nn.LayerNorm(4))
    with pytest.raises(ValueError, match=r"LayerNorm \(norm\) are wrong.*untied head"):
        HessianAlignment(model)(losses(model, data))


class Rows(nn.Module):
    """InstanceNorm over pairs of features."""

    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(2)

    def forward(self, x):
        return self.norm(x.reshape(-1, 2, 2)).reshape(-1, 4)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.LayerNorm(4), r"LayerNorm \(1\)"),
        (nn.BatchNorm1d(4), r"statistics of the batch \(1\)"),
        (Rows(), r"statistics of the batch \(1.norm\)"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), r"weight_norm \(1\.parametrizations\.weight\.0\)"),
    ],
)
def test_wrong_third_derivatives_are_refused_over_all_parameters_and_pass_below_the_head(layer, name):
    model = network(layer, nn.Tanh())
    data = domains()
    with pytest.raises(ValueError, match=name):
        HessianAlignment(model, parameters="*")(losses(model, data))
    found = HessianAlignment(model, alpha=0.7, beta=0.3)(losses(model, data))
    value, gradient = dense(model, data, ("3.weight", "3.bias"), [1 / 3] * 3, 0.7, 0.3, "hgp")
    torch.testing.assert_close(found.detach(), value)
    torch.testing.assert_close(flat_gradient(found, model), gradient, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.BatchNorm1d(4).eval(), nn.Softmax(-1)])
def test_layers_that_pass_over_all_parameters_agree_with_differences(layer):
    """One directional derivative of |H g|^2, a third one of the loss, against central differences."""
    model, data = network(layer, nn.Tanh()), domains()
    model.train(not isinstance(layer, nn.BatchNorm1d))
    HessianAlignment(model, parameters="*")(losses(model, data))
    parameters = list(model.parameters())
    v = [torch.randn_like(p) for p in parameters]
    slope = sum(
        (g * d).sum() for g, d in zip(torch.autograd.grad(_squares(model, data[0]), parameters), v, strict=True)
    )

    def moved(step):
        with torch.no_grad():
            torch._foreach_add_(parameters, v, alpha=step)
        return _squares(model, data[0]).item()

    up, down = moved(1e-5), moved(-2e-5)
    assert slope.item() == pytest.approx((up - down) / 2e-5, rel=1e-4)


def _squares(model, pair):
    """|H g|^2 of one domain, with its graph."""
    parameters = list(model.parameters())
    g = torch.autograd.grad(losses(model, [pair])[0], parameters, create_graph=True)
    h = torch.autograd.grad(sum(one.square().sum() for one in g) / 2, parameters, create_graph=True)
    return sum(one.square().sum() for one in h)


def test_frozen_parameters_are_left_out():
    model, data = network(), domains()
    model[2].bias.requires_grad_(False)
    found = HessianAlignment(model, alpha=0.7, beta=0.3)(losses(model, data))
    value, gradient = dense(model, data, ("2.weight",), [1 / 3] * 3, 0.7, 0.3, "hgp")
    torch.testing.assert_close(found.detach(), value)
    torch.testing.assert_close(flat_gradient_of_trained(found, model), gradient[:-3], rtol=1e-9, atol=1e-12)
    align = HessianAlignment(model, parameters="2.*")
    model[2].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="all of the parameters to align are frozen"):
        align(losses(model, data))
    with pytest.raises(ValueError, match=r"0 is the last Linear layer that is trained.*parameters=\"0\.\*\""):
        HessianAlignment(model)(losses(model, data))


def flat_gradient_of_trained(loss, model):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, trained)])


def test_the_head_is_the_nearest_linear_layer_whatever_the_order_of_its_names():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = nn.Linear(4, 3), nn.Linear(3, 4)

        def forward(self, x):
            return self.head(torch.tanh(self.body(x)))

    torch.manual_seed(0)
    model, data = Backwards().double(), domains()
    found = HessianAlignment(model, alpha=0.7, beta=0.3)(losses(model, data))
    value, _ = dense(model, data, ("head.weight", "head.bias"), [1 / 3] * 3, 0.7, 0.3, "hgp")
    torch.testing.assert_close(found.detach(), value)


def test_two_heads_are_not_guessed():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.a(x) + self.b(x)

    model, data = Two().double(), domains()
    with pytest.raises(ValueError, match=r"Linear layers \(a, b\).*cannot be told"):
        HessianAlignment(model)(losses(model, data))
    HessianAlignment(model, parameters="a.*")(losses(model, data))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"method": "fisher"}, 'method is "hgp"'),
        ({"alpha": -1.0}, "not negative"),
        ({"beta": float("nan")}, "not negative"),
        ({"probes": 0}, "at least one"),
        ({"parameters": "nothing"}, "matches none"),
    ],
)
def test_bad_settings_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        HessianAlignment(network(), **options)


def test_bad_losses_are_refused():
    model, data = network(), domains()
    align, good = HessianAlignment(model), losses(model, data)
    for given, why in (
        (good[:1], "two domains or more"),
        ([good[0], good[1].detach()], "loss 1 is without a graph"),
        ([good[0], good[1].expand(2)], r"loss 1 is of shape \(2,\)"),
    ):
        with pytest.raises(ValueError, match=why):
            align(given)
    for weights in ((1, 2), (1, 0, 1)):
        with pytest.raises(ValueError, match="one positive number for each"):
            align(good, weights)


def test_training_with_it_brings_the_domains_nearer():
    data = domains()
    found = []
    for weight in (0.0, 5.0):
        model = network()
        align = HessianAlignment(model, alpha=weight, beta=weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(30):
            optimizer.zero_grad()
            align(losses(model, data)).backward()
            optimizer.step()
        align(losses(model, data))
        found.append(align.last)
    assert found[1].gradient < 0.7 * found[0].gradient
    assert found[1].curvature < 0.5 * found[0].curvature
