"""Weight normalisation while measuring: the same values as torch's fused kernel, and right second derivatives."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from landscape import Hessian, Objective
from landscape.objective.weight_norm import unfused_weight_norm, weight_norm


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(3, 4))
        self.g = nn.Parameter(torch.rand(3, 1) + 0.5)

    def forward(self, x):
        return F.linear(x, torch._weight_norm(self.v, self.g, 0))


def wrapped(kind, dim, layer):
    if kind == "functional":
        return Functional()
    if kind == "hook":
        with pytest.warns(FutureWarning):
            return nn.utils.weight_norm(layer, dim=dim)
    return parametrizations.weight_norm(layer, dim=dim)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3, 3), (6,)])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_equal_to_the_fused_kernel(dim, shape, dtype):
    if dim >= len(shape):
        pytest.skip("no such dimension")
    v = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    g = torch.norm_except_dim(v, 2, dim) * 1.7
    torch.testing.assert_close(weight_norm(v, g, dim), torch._weight_norm(v, g, dim))


def test_the_kernel_is_back_afterwards_also_after_an_exception():
    fused = torch._weight_norm
    with pytest.raises(ZeroDivisionError), unfused_weight_norm():
        assert torch._weight_norm is weight_norm
        raise ZeroDivisionError
    assert torch._weight_norm is fused


@pytest.mark.parametrize(
    ("kind", "dim", "layer"),
    [
        ("functional", 0, None),
        *((kind, dim, "linear") for kind in ("hook", "parametrization") for dim in (0, 1, None)),
        *((kind, dim, "conv") for kind in ("hook", "parametrization") for dim in (0, 1)),
    ],
)
def test_the_hessian_is_that_of_differences(kind, dim, layer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = {None: None, "linear": nn.Linear(4, 3), "conv": nn.Conv1d(2, 3, 2)}[layer]
        shape = (6, 2, 4) if layer == "conv" else (6, 4)
        model = nn.Sequential(wrapped(kind, dim, inner), nn.Tanh()).double()
        X = torch.randn(shape, dtype=torch.float64)
        targets = torch.randn(model(X).shape, dtype=torch.float64)
    f = Objective(model, nn.MSELoss(), (X, targets))
    H = Hessian(f).to_dense()
    theta, step = f.theta(), 1e-6
    columns = []
    for e in torch.eye(f.size, dtype=torch.float64):
        with f.at(theta + step * e):
            ahead = f.gradient()
        with f.at(theta - step * e):
            columns.append((ahead - f.gradient()) / (2 * step))
    torch.testing.assert_close(H, torch.stack(columns), atol=1e-7, rtol=1e-6)
    assert torch.allclose(H, H.T)
