"""What results say beside their numbers: why they are exactly zero, the noise, a self-check that could not tell."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import FunctionalHessian, GaussNewton, Hessian, MatrixOperator, Objective
from landscape.spectra import condition_number, density, diagonal, eigsh, trace


class OwnLoss(nn.Module):
    """A model that returns its own loss: linear in it, so that Gauss-Newton vanishes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.layer(x), labels)


def own_loss() -> Objective:
    torch.manual_seed(0)
    data = {"x": torch.randn(12, 4), "labels": torch.arange(12) % 3}
    return Objective(OwnLoss(), lambda outputs, labels: outputs, data, count=lambda outputs, labels: len(labels))


def l1(*layers: nn.Module) -> Objective:
    torch.manual_seed(0)
    return Objective(nn.Sequential(nn.Linear(4, 5), *layers), nn.L1Loss(), (torch.randn(9, 4), torch.randn(9, 1)))


@pytest.mark.parametrize("algorithm", [trace, lambda A: eigsh(A, 2), density, diagonal, condition_number])
def test_a_zero_by_construction_says_so(algorithm) -> None:
    found = algorithm(GaussNewton(own_loss()))
    assert "the loss is linear in the outputs" in found.note
    assert "a model that returns its own loss" in found.note
    if algorithm is not density:
        assert found.note in str(found)
    assert algorithm(Hessian(own_loss())).note == ""


def test_each_matrix_has_its_own_reason() -> None:
    assert "linear in the parameters" in trace(Hessian(l1(nn.ReLU(), nn.Linear(5, 1)).restrict("0.bias"))).note
    outputs = Objective(nn.Linear(4, 1), nn.MSELoss(), (torch.randn(9, 4), torch.randn(9, 1)))
    assert "outputs are linear in the parameters" in eigsh(FunctionalHessian(outputs), 1).note
    assert trace(MatrixOperator(torch.zeros(3, 3))).note == "the matrix is exactly zero"


def test_a_trace_that_cancels_is_not_taken_for_a_zero_matrix() -> None:
    A = MatrixOperator(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert "eigenvalues of both signs cancel" in trace(A).note
    assert "eigenvalues of both signs cancel" in str(trace(A))
    assert eigsh(A, 2).note == ""


def test_noise_and_checks_stand_in_results() -> None:
    torch.manual_seed(0)
    X, y = torch.randn(9, 4), torch.arange(9) % 3
    exact = eigsh(Hessian(Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (X, y))), 1)
    assert exact.operator_noise == 0
    assert exact.checked is not None
    assert exact.first(1).checked is exact.checked
    assert "second derivatives" not in str(exact)
    half = Objective(nn.Linear(4, 3).bfloat16(), nn.CrossEntropyLoss(), (X.bfloat16(), y))
    assert eigsh(Hessian(half), 1).operator_noise == half.noise > 1e-3
    kink = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
    nn.init.zeros_(kink[0].weight)
    nn.init.zeros_(kink[0].bias)
    found = trace(Hessian(Objective(kink, nn.CrossEntropyLoss(), (X, y))))
    assert found.checked is not None
    assert ("second derivatives not told" in str(found)) == (found.checked.verdict == "untold")
