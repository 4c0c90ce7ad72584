"""One row of a trajectory: its numbers by hand, and the infimum from every start that is known."""

import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.regularity.measure import measure


class Scalar(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([at], dtype=torch.float64))

    def forward(self, x):
        return self.w * x


def two_wells(outputs, targets):
    return ((outputs**2 - 1) ** 2 + 0.3 * outputs).mean()


def objective(at):
    return Objective(Scalar(at), two_wells, (torch.ones(1, 1).double(), torch.zeros(1, 1).double()))


def test_a_row_by_hand():
    row = measure(objective(0.9), torch.tensor([-0.5]))
    f = lambda w: (w * w - 1) ** 2 + 0.3 * w  # noqa: E731
    slope = 4 * 0.9 * (0.81 - 1) + 0.3
    assert (row.loss, row.final_loss) == (pytest.approx(f(0.9)), pytest.approx(f(-0.5)))
    assert (row.inner, row.grad_norm) == (pytest.approx(slope * 1.4), pytest.approx(abs(slope)))
    assert (row.distance, row.infimum) == (pytest.approx(1.4), 0.0)


def test_the_infimum_is_looked_for_from_the_end_point_too():
    """The well beside the end point is the deeper one."""
    row = measure(objective(0.9), torch.tensor([-0.5]), infimum="estimate")
    lowest = min(w**4 - 2 * w * w + 1 + 0.3 * w for w in torch.linspace(-1.2, 1.2, 24001).double().tolist())
    assert row.infimum == pytest.approx(lowest, abs=1e-6)
    assert row.infimum < row.final_loss - 0.5
