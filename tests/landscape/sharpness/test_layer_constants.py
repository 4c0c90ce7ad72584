"""L, mu, rho and sigma where all four are known: f(x) = mean_j log(1 + exp(-x_j)) with noise in its gradients."""

import math

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.norms import dual_norm, norm
from landscape.sharpness import gradient_statistics, layer_constants, rule_batch

D, N = 20, 64
SIGN = [("sign", 1.0)]


class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(D, dtype=torch.float64))

    def forward(self, noise):
        return nn.functional.softplus(-self.x).mean() + noise @ self.x


def mean(outputs, targets):
    return outputs.mean()


@pytest.fixture
def noise():
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / math.sqrt(D)


def softplus(noise, batches, **options):
    data = [(part, torch.zeros(len(part))) for part in noise.chunk(batches)]
    return Objective(Point(), mean, data, count=lambda outputs, targets: len(targets), **options)


@pytest.mark.parametrize("batches", [16, 1])
def test_the_four_constants(noise, batches):
    f = softplus(noise - noise.mean(0), batches)
    with f.at(torch.full((D,), 1e-3, dtype=torch.float64)):
        found = layer_constants(f, SIGN, torch.zeros(D, dtype=torch.float64))
    assert (found.L, found.distance) == pytest.approx((0.25, 1e-3), rel=1e-5)
    assert found.dual == pytest.approx(0.5, rel=1e-3)
    assert found.mu() == pytest.approx(1 / (2 * math.log(2)), rel=1e-3)
    # of Gaussian noise rho is sqrt(2 D / pi), at most sqrt(D)
    assert abs(found.rho - math.sqrt(2 * D / math.pi)) < 4 * found.rho_stderr + 0.1
    assert found.batches == 16
    exact = math.sqrt(float((noise - noise.mean(0)).square().sum() / (N - 1)))
    assert abs(found.sigma - exact) < 3 * found.sigma_stderr
    # gradients of two batches differ by the noise of both, over so small a step
    assert found.batch_L > 100 * found.L


def test_against_dense_arrays():
    """Two layers in norms of their own with scales, batches of unlike sizes, against each batch by hand."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    X, y = torch.randn(30, 5, dtype=torch.float64), torch.randint(0, 3, (30,))
    data = list(zip(X.split(12), y.split(12), strict=True))
    kinds = [("spectral", 8.0), ("rms", 8.0), ("sign", 128.0), ("rms", 2.0)]
    f = Objective(model, nn.CrossEntropyLoss(), data)
    here = f.theta()
    before = here + 0.1 * torch.randn_like(here)

    def gradient(theta, batch):
        with f.at(theta):
            return f.on([batch]).gradient()

    def dual(v):
        return sum(s * float(dual_norm(p, k)) for p, (k, s) in zip(f.split(v), kinds, strict=True))

    whole = f.gradient()
    g, h = ([gradient(theta, batch) for batch in data] for theta in (here, before))
    with f.at(before):
        other = f.gradient()
    found = layer_constants(f, kinds, before)
    step = max(float(norm(p, k)) / s for p, (k, s) in zip(f.split(here - before), kinds, strict=True))
    assert found.distance == pytest.approx(step)
    assert (found.dual, found.L) == pytest.approx((dual(whole), dual(whole - other) / step))
    assert found.rho == pytest.approx(sum(dual(a - whole) / float((a - whole).norm()) for a in g) / 3)
    assert found.batch_L == pytest.approx(sum(dual(g[i] - h[(i + 1) % 3]) / step for i in range(3)) / 3)
    assert found.sigma == pytest.approx(math.sqrt(gradient_statistics(f).noise_trace))
    assert found.loss == pytest.approx(f.value())
    # radii in another unit change no batch
    again = layer_constants(f, [(k, 3 * s) for k, s in kinds], before)
    sizes = [rule_batch(1e4, one.L, one.mu(), one.rho, one.sigma) for one in (found, again)]
    assert sizes[0] == pytest.approx(sizes[1])
    total = Objective(model, nn.CrossEntropyLoss(reduction="sum"), data)
    summed = layer_constants(total, kinds, before)
    for name in ("loss", "dual", "L", "batch_L", "rho", "sigma"):
        assert getattr(summed, name) == pytest.approx(getattr(found, name)), name


def test_what_is_not_known(noise):
    f = softplus(noise, 16)
    found = layer_constants(f, SIGN)
    assert math.isnan(found.L)
    assert math.isnan(found.batch_L)
    assert found.passes == 1.0
    still = layer_constants(f, SIGN, f.theta(), batches=4)
    assert math.isnan(still.L)
    assert still.distance == 0.0
    assert still.batches == 4
    assert math.isnan(found.mu(infimum=1.0))
    with pytest.raises(ValueError, match="at least 2, not 1"):
        layer_constants(f, SIGN, batches=1)
    with pytest.raises(ValueError, match="2 norms for 1 tensors"):
        layer_constants(f, SIGN * 2)
    one = layer_constants(softplus(noise[:1], 1), SIGN)
    assert math.isnan(one.rho)
    assert one.reason
