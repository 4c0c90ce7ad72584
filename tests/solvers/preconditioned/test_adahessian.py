"""AdaHessian against a plain reference with a dense Hessian, and what it is in closed form."""

import numpy as np
import pytest
import torch
from curved_cases import PROBLEMS, check_against_reference
from newton_cases import generator

from solvers import AdaHessian


def adahessian_reference(fgh, w, probe, lr, betas, eps, power, decay, every, probes):
    m = v = np.zeros_like(w)
    t = s = 0
    while True:
        _, g, H = fgh(w)
        if t % every == 0:
            D = sum(z * (H @ z) for z in (probe() for _ in range(probes))) / probes
            v, s = betas[1] * v + (1 - betas[1]) * D**2, s + 1
        t += 1
        m = betas[0] * m + (1 - betas[0]) * g
        root = np.sqrt(v / (1 - betas[1] ** s)) ** power
        w = w - lr * (m / (1 - betas[0] ** t) / (root + eps) + decay * w)
        yield w


CASES = {
    "usual": {"lr": 0.05, "betas": (0.9, 0.999), "eps": 1e-2, "power": 1.0, "decay": 0.0, "every": 1, "probes": 1},
    "all else": {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-1, "power": 0.5, "decay": 0.1, "every": 4, "probes": 2},
}


@pytest.mark.parametrize("problem", list(PROBLEMS))
@pytest.mark.parametrize("case", list(CASES))
def test_step_by_step(monkeypatch, case, problem):
    settings = dict(CASES[case])
    ours = {**settings, "weight_decay": settings["decay"]}
    del ours["decay"]
    check_against_reference(
        monkeypatch,
        lambda p: AdaHessian(p, **ours, generator=generator()),
        lambda fgh, w, probe: adahessian_reference(fgh, w, probe, **settings),
        problem,
    )


def test_without_memory_it_is_newton_on_a_diagonal_quadratic():
    x = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64, requires_grad=True)
    solver = AdaHessian([x], 1.0, betas=(0.0, 0.0), eps=1e-12)
    solver.step(lambda: (x.square() * torch.tensor([1.0, 50.0, -3.0])).sum())
    torch.testing.assert_close(x.detach(), torch.tensor([0.0, 0.0, 2.0]).double())  # uphill curvature: away from it


@pytest.mark.parametrize(("shape", "averaged"), [((2, 3, 2, 2), True), ((2, 3, 4), True), ((6, 4), False), ((), False)])
def test_kernels_of_convolutions_have_one_curvature(shape, averaged):
    torch.manual_seed(0)
    scale = torch.rand(shape).double() * torch.randn(shape).sign()
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    for average in (True, False):
        solver = AdaHessian([x], 0.0, betas=(0.0, 0.0), average=average)
        solver.step(lambda: 0.5 * (scale * x.square()).sum())
        found = solver.state[x]["square"].sqrt()
        expected = scale.abs()
        if averaged and average:
            expected = expected.flatten(2).mean(2).reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"eps": 0.0}, "eps"),
        ({"power": 0.0}, "power"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"every": 0}, "every"),
        ({"probes": 0}, "probes"),
    ],
)
def test_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"{name}="):
        AdaHessian([torch.zeros(1, requires_grad=True)], **settings)
