"""Hutchinson's estimate: its mean, its one-probe value against a dense matrix, and where it is exact."""

import pytest
import torch
from curved_cases import dense_hessian
from small_network import loss_of, network
from torch import nn

from solvers.preconditioned.hutchinson import draw, hutchinson


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["rademacher", "normal"])
def test_the_mean_is_the_diagonal_within_its_own_error(kind):
    model = network()
    leaves = list(model.parameters())
    H = dense_hessian(lambda: loss_of(model), leaves)
    found, g = [], generator()
    for _ in range(400):
        _, estimates = hutchinson(loss_of(model), leaves, 1, kind, g)
        found.append(torch.cat([e.reshape(-1) for e in estimates]))
    found = torch.stack(found)
    stderr = found.std(0) / len(found) ** 0.5
    away = (found.mean(0) - H.diag()).abs() / stderr
    assert float(away.max()) < 4.5  # of 69 entries
    assert 0.5 < float(away.square().mean()) < 1.6
    # variance of z_i (H z)_i: sum over j != i of H_ij^2, and 2 H_ii^2 more for Gaussian z
    variance = H.square().sum(1) + (-(H.diag() ** 2) if kind == "rademacher" else H.diag() ** 2)
    assert float((found.var(0) / variance).mean()) == pytest.approx(1, abs=0.1)


def test_several_probes_are_averaged_and_the_gradient_is_the_gradient():
    model = network()
    leaves = list(model.parameters())
    gradient, mean = hutchinson(loss_of(model), leaves, 3, "rademacher", generator(4))
    g = generator(4)
    each = [hutchinson(loss_of(model), leaves, 1, "rademacher", g)[1] for _ in range(3)]
    for one, apart in zip(mean, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(one, sum(apart) / 3)
    for one, expected in zip(gradient, torch.autograd.grad(loss_of(model), leaves), strict=True):
        torch.testing.assert_close(one.detach(), expected)


def test_a_diagonal_hessian_is_found_by_one_probe():
    x = torch.linspace(-1, 2, 200, requires_grad=True)
    unused = nn.Parameter(torch.ones(()))
    gradient, (found, none) = hutchinson(x.pow(4).sum(), [x, unused], 1, "rademacher", generator())
    torch.testing.assert_close(found, 12 * x.detach() ** 2)
    assert gradient[1] is None
    assert float(none) == 0


@pytest.mark.parametrize("shape", [(), (1,), (64,), (63, 3), (5, 4, 3, 2)])
def test_draws(shape):
    like = torch.zeros(shape, dtype=torch.bfloat16)
    z, other = draw([like, torch.zeros(70).double()], "rademacher", generator())
    assert (z.shape, z.dtype, other.dtype) == (like.shape, like.dtype, torch.float64)
    assert bool((z.abs() == 1).all())
    assert torch.equal(z, draw([like], "rademacher", generator())[0])
    assert torch.equal(other[6:].float(), draw([torch.zeros(like.numel() + 70)], "rademacher", generator())[0][-64:])


def test_bits_are_fair_and_independent():
    z = draw([torch.zeros(64 * 3000)], "rademacher", generator())[0].reshape(3000, 64)
    bound = 4.5 / 3000**0.5
    assert float(z.mean(0).abs().max()) < bound
    assert float(((z.T @ z) / 3000 - torch.eye(64)).abs().max()) < bound * 1.2


def test_bfloat16_is_summed_in_float32():
    model = network(torch.bfloat16)
    _, estimates = hutchinson(loss_of(model), list(model.parameters()), 2, "normal", generator())
    assert {e.dtype for e in estimates} == {torch.float32}


def test_what_has_no_second_derivative_is_named():
    embedding = nn.Embedding(4, 2, sparse=True)
    loss = embedding(torch.tensor([1, 2])).square().sum()
    with pytest.raises(RuntimeError, match="use sparse=False"):
        hutchinson(loss, list(embedding.parameters()), 1, "rademacher", generator())
