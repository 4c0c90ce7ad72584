"""The least entropy of logits of a given norm: never passed by, and attained."""

import math

import pytest
import torch
from spectra_cases import seeded_generator

from landscape.representation import entropy_bound
from landscape.representation.attention.bound import product_norm, spectral_norm


def entropy(Z):
    p = Z.softmax(-1)
    return torch.special.entr(p).sum(-1)


@pytest.mark.parametrize("T", [2, 3, 7, 50])
@pytest.mark.parametrize("s", [0.01, 0.5, 2.0, 6.0, 30.0])
def test_never_violated_and_attained(T, s):
    bound = float(entropy_bound(s, T))
    row = torch.zeros(T, dtype=torch.float64)
    row[0] = 1.0
    row -= row.mean()
    assert float(entropy(s * row / row.norm())) == pytest.approx(bound, rel=1e-9, abs=1e-12)
    g = seeded_generator(T)
    Z = torch.randn(3000, T, generator=g, dtype=torch.float64) ** 3  # few large ones among small
    Z = torch.cat([Z, torch.eye(T, dtype=torch.float64) + 0.05 * torch.randn(T, T, generator=g, dtype=torch.float64)])
    Z -= Z.mean(1, keepdim=True)
    Z *= s * torch.rand(len(Z), 1, generator=g, dtype=torch.float64) ** 0.2 / Z.norm(dim=1, keepdim=True)
    assert float(entropy(Z).min()) >= bound - 1e-12


def test_descent_does_not_get_below():
    """From several large logits as well as from one: gradient descent on the sphere ends at the bound or above."""
    s, T = 3.0, 6
    bound, starts = float(entropy_bound(s, T)), torch.eye(T, dtype=torch.float64).cumsum(0)[:-1]
    Z = (starts + 0.1 * torch.randn(*starts.shape, generator=seeded_generator(0), dtype=torch.float64)).requires_grad_()
    for _ in range(300):
        centred = Z - Z.mean(1, keepdim=True)
        found = entropy(s * centred / centred.norm(dim=1, keepdim=True))
        (g,) = torch.autograd.grad(found.sum(), Z)
        Z = (Z - 0.5 * g).detach().requires_grad_()
    lowest = float(found.detach().min())
    assert lowest == pytest.approx(bound, rel=1e-6)
    assert lowest >= bound - 1e-12


def test_its_ends():
    assert float(entropy_bound(0.0, 9)) == pytest.approx(math.log(9))
    assert entropy_bound(torch.tensor([1e4, math.inf, 3.0]), torch.tensor([9, 9, 1])).tolist() == [0.0, 0.0, 0.0]
    falls = entropy_bound(torch.linspace(0, 50, 500), 12)
    assert bool((falls.diff() <= 0).all())


def test_norms_of_factors():
    g = seeded_generator(1)
    A, B = (torch.randn(3, 4, n, generator=g, dtype=torch.float64) for n in (9, 11))
    torch.testing.assert_close(product_norm(A, B), torch.linalg.matrix_norm(A.mT @ B, 2))
    torch.testing.assert_close(spectral_norm(A), torch.linalg.matrix_norm(A, 2))
    torch.testing.assert_close(spectral_norm(A.mT), torch.linalg.matrix_norm(A, 2))
    assert spectral_norm(torch.zeros(2, 0, 3)).tolist() == [0.0, 0.0]
