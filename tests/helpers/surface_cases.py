"""Functions with known surfaces as objectives, and networks that surfaces are measured on."""

import torch
from torch import nn

from landscape import Objective


class Function(nn.Module):
    """f(theta) itself as a model: its output is the loss."""

    def __init__(self, theta, function):
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.float64))
        self.function = function

    def forward(self, x):
        return self.function(self.theta) + 0.0 * x.sum()


def function(theta, f, **options):
    """An objective whose value at theta is f(theta)."""
    data = (torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1))
    return Objective(Function(theta, f), lambda value, _: value, data, count=lambda *_: 1.0, **options)


def rotation(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q


def rosenbrock(z):
    return (1 - z[0]) ** 2 + 100 * (z[1] - z[0] ** 2) ** 2


def samples(n=40, features=6, classes=3, dtype=torch.float32, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=g).to(dtype), torch.randint(0, classes, (n,), generator=g)


def mlp(dtype=torch.float32, norm=False, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).to(dtype)


def trained_norms(model, X):
    """The model in eval mode after some passes in train mode, which leave statistics in its norm layers."""
    model.train()
    for _ in range(3):
        model(X)
    return model.eval()


def by_value(objective, surface, centre, D):
    """The same grid by `at()` and `value()`."""
    found = torch.empty_like(surface.values)
    for i, x in enumerate(surface.x):
        for j, y in enumerate(surface.y):
            with objective.at(centre + float(x) * D[:, 0] + float(y) * D[:, 1]):
                found[i, j] = objective.value()
    return found
