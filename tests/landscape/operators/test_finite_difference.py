"""The step of the differences: near the best of those that are tried."""

import pytest
import torch
from torch import nn

from landscape import FiniteDifferenceHessian, Hessian, Objective


def network(seed):
    torch.manual_seed(seed)
    return nn.Linear(4, 3, bias=False)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [3.0, 0.1])
def test_the_step_is_near_the_best_of_those_tried(scale, seed):
    """Of a softmax the best step grows as 1 / the inputs' length: rounding asks for that and truncation allows it."""
    g = torch.Generator().manual_seed(seed)
    X, y = scale * torch.randn(19, 4, generator=g), torch.randint(0, 3, (19,), generator=g)
    objective = Objective(network(seed), nn.CrossEntropyLoss(), (X, y))
    exact = Hessian(Objective(network(seed).double(), nn.CrossEntropyLoss(), (X.double(), y)))
    A = FiniteDifferenceHessian(objective)
    v = A.random(1, "normal", g)[:, 0]
    truth = exact @ v.double()

    def error():
        return float((A @ v - truth).norm() / truth.norm())

    chosen, length = error(), A._length
    errors = {}
    for factor in (0.1, 1.0, 10.0, 100.0):
        A._length = factor * torch.finfo(torch.float32).eps ** (1 / 3) * float(objective.theta().norm())
        errors[A._length] = error()
    assert length == pytest.approx(min(errors, key=lambda k: abs(k - length)), rel=1e-5)
    assert chosen <= 3 * min(errors.values())
