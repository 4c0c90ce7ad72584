"""The laws of gradient noise: signs, squares, draws that stand for it."""

import math

import pytest
import torch

from solvers import diffusion as d

SIGMA = torch.tensor([[0.3, -0.2, 0.1], [-0.2, 0.5, 0.0], [0.1, 0.0, 0.2]], dtype=torch.float64)
MEAN = torch.tensor([[0.0, 0.0, 0.0], [0.4, -0.7, 0.1], [2.0, 0.3, -1.0]], dtype=torch.float64)
DRAWS = 400_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def matrix(root, mean):
    """Covariance `(paths, n, n)` of what `root` makes of standard normals."""
    n = mean.shape[1]
    columns = torch.stack([root(mean, torch.eye(n, dtype=torch.float64)[i].expand_as(mean)) for i in range(n)])
    return torch.einsum("kpi,kpj->pij", columns, columns)


NOISES = {
    "gaussian": d.GaussianNoise(SIGMA),
    "independent": d.GaussianNoise(SIGMA.diagonal()),
    "student": d.StudentNoise(SIGMA.diagonal().sqrt(), 5.0),
    "cauchy": d.StudentNoise(SIGMA.diagonal().sqrt(), 1.0),
}


@pytest.mark.parametrize("name", list(NOISES))
def test_the_law_of_the_sign(name):
    """Mean and covariance of sign(mean + z) by Monte Carlo, five standard errors."""
    noise = NOISES[name]
    z = noise.sample(DRAWS, generator(1))
    covariance = matrix(noise.sign_root, MEAN)
    for k, mean in enumerate(MEAN):
        signs = torch.sign(mean + z)
        expected = noise.mean_sign(MEAN)[k]
        assert bool(((signs.mean(0) - expected).abs() < 5 * signs.std(0) / math.sqrt(DRAWS) + 1e-12).all())
        assert float((torch.cov(signs.T) - covariance[k]).abs().max()) < 5 / math.sqrt(DRAWS)


def test_closed_forms_of_the_sign():
    x = torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]
    one = torch.ones(1, dtype=torch.float64)
    cauchy, two = d.StudentNoise(one, 1.0), d.StudentNoise(one, 2.0)
    torch.testing.assert_close(cauchy.mean_sign(x), 2 / math.pi * torch.arctan(x))
    torch.testing.assert_close(two.mean_sign(x), x / (2 + x.square()).sqrt())
    for noise, slope in (
        (cauchy, 2 / math.pi),
        (two, 1 / math.sqrt(2)),
        (d.GaussianNoise(one), math.sqrt(2 / math.pi)),
    ):
        assert noise.density == pytest.approx(slope, rel=1e-12)
    none = d.GaussianNoise(torch.zeros(1))
    assert none.mean_sign(torch.tensor([[-0.1], [0.0], [0.2]])).flatten().tolist() == [-1.0, 0.0, 1.0]


def test_correlated_signs_at_zero_mean_follow_the_arcsine_law():
    noise = d.GaussianNoise(SIGMA)
    expected = 2 / math.pi * torch.arcsin(SIGMA / torch.outer(noise.scale, noise.scale)).fill_diagonal_(math.pi / 2)
    torch.testing.assert_close(noise.sign_covariance(MEAN[:1])[0], expected, rtol=1e-12, atol=1e-14)
    strong = d.GaussianNoise(torch.tensor([[1.0, 0.95], [0.95, 1.0]]))
    z = strong.sample(DRAWS, generator(2))
    mean = torch.tensor([[0.5, 0.2]], dtype=torch.float64)
    C = torch.cov(torch.sign(mean + z).T)
    assert float((C - strong.sign_covariance(mean)[0]).abs().max()) < 5 / math.sqrt(DRAWS)


@pytest.mark.parametrize("name", ["gaussian", "independent", "student"])
def test_draws_and_roots_have_the_covariance(name):
    noise = NOISES[name]
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(noise.root(identity).T @ noise.root(identity), noise.covariance)
    z = noise.sample(DRAWS, generator(3))
    products = z[:, :, None] * z[:, None, :]
    error = products.std(0) / math.sqrt(DRAWS)
    assert bool(((products.mean(0) - noise.covariance).abs() < 5 * error).all())


def test_the_fluctuation_of_squares():
    for noise in (d.GaussianNoise(SIGMA), d.StudentNoise(SIGMA.diagonal().sqrt(), 12.0)):
        squares = noise.sample(DRAWS, generator(4)).square()
        centred = squares - noise.variance
        products = centred[:, :, None] * centred[:, None, :]
        identity = torch.eye(3, dtype=torch.float64)
        expected = noise.squares(identity).T @ noise.squares(identity)
        error = products.std(0) / math.sqrt(DRAWS)
        assert bool(((products.mean(0) - expected).abs() < 5 * error).all())


def test_balanced_draws_stand_for_the_noise():
    for name, noise in NOISES.items():
        z = noise.balanced(255)
        assert z.shape == (256, 3)
        assert float(z.mean(0).abs().max()) < 1e-12 * float(z.abs().max())
        if name in ("gaussian", "independent"):
            torch.testing.assert_close(z.T @ z / 256, noise.covariance)
    # E|z| for a standard normal in three dimensions is sqrt(8 / pi)
    unit = d.GaussianNoise(torch.eye(3)).balanced(256)
    assert float(unit.norm(dim=1).mean()) == pytest.approx(math.sqrt(8 / math.pi), rel=5e-3)
    assert torch.equal(d.GaussianNoise(SIGMA).balanced(8, 3), d.GaussianNoise(SIGMA).balanced(8, 3))


def test_a_singular_covariance():
    """Two entries with the same noise, up to a factor."""
    noise = d.GaussianNoise(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))
    for z in (noise.sample(100, generator(6)), noise.balanced(64)):
        torch.testing.assert_close(z[:, 1], 2 * z[:, 0])
    signs = noise.sign_covariance(torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(signs, torch.ones(1, 2, 2, dtype=torch.float64))


def test_directions_of_a_gaussian():
    """E[z z^T / |z|] and E[z z^T / |z|^2] by Monte Carlo; for N(0, I) they are E|z| / n and 1 / n."""
    z = d.GaussianNoise(SIGMA).sample(DRAWS, generator(5))
    for power, found in zip((1, 2), d.directions(SIGMA), strict=True):
        products = z[:, :, None] * z[:, None, :] / z.norm(dim=1)[:, None, None] ** power
        error = products.std(0) / math.sqrt(DRAWS)
        assert bool(((products.mean(0) - found).abs() < 5 * error).all())
    first, second = d.directions(torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(first, torch.eye(3, dtype=torch.float64) * math.sqrt(8 / math.pi) / 3)
    torch.testing.assert_close(second, torch.eye(3, dtype=torch.float64) / 3)
    one = d.directions(torch.tensor([[0.04]], dtype=torch.float64))
    assert [float(m) for m in one] == pytest.approx([0.2 * math.sqrt(2 / math.pi), 1.0], rel=1e-9)
    wide, _ = d.directions(torch.diag(torch.tensor([1.0, 1e-4], dtype=torch.float64)))
    assert float(wide[0, 0]) == pytest.approx(math.sqrt(2 / math.pi), rel=5e-3)
