"""What is shown of whatever a callback may be given."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from landscape.spectra import Eigenpairs, Estimate, RunningEstimate
from landscape.surface import Along
from probes.display.words import in_words, unit_of

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (RunningEstimate(12.345, 0.2, "lambda_1"), "λ₁ = 12.3 ± 0.2"),
        (RunningEstimate(-3.0, 0.04, "lambda_min"), "λ_min = -3.00 ± 0.04"),
        (RunningEstimate(806.3, 15.0, "trace"), "trace = 806 ± 15"),
        (RunningEstimate(2.0, INF, "trace"), "trace = 2 ±?"),
        (RunningEstimate(0.123456, 0.0, "f"), "f = 0.12346"),
        (RunningEstimate(NAN), ""),
        (3, "3"),
        (0.5, "0.5"),
        (INF, "inf"),
        (torch.tensor(1.5), "1.5"),
        (torch.tensor([1.5, 2.5], dtype=torch.bfloat16), "from 1.5 to 2.5"),
        (np.float32(1.5), "1.5"),
        (Estimate(2.0, 0.1, 10, True, 0), "2.00 ± 0.10"),
        (SimpleNamespace(value=2.0, error=0.3), "2.0 ± 0.3"),
        (Eigenpairs(torch.tensor([5.0, 1.0]), torch.eye(2), torch.tensor([0.2, 0.1]), True, 3, 0), "λ₁ = 5.0 ± 0.2"),
        (torch.tensor([5.0, NAN, -1.0]), "from -1 to 5"),
        (np.array([[2.0, NAN], [NAN, 2.0]]), "2"),
        ([1.0, 2.0], "from 1 to 2"),
        (torch.full((3, 3), NAN), ""),
        (torch.ones(2, requires_grad=True), "1"),
        (Along(torch.tensor([1.0, NAN]), torch.tensor([0.1, NAN]), True, 3), "1"),
    ],
)
def test_in_words(estimate, words):
    assert in_words(estimate) == words


class Broken:
    def __getattr__(self, name):
        raise RuntimeError("no such luck")


def test_what_cannot_be_shown_is_left_out():
    for estimate in (None, "text", 1j, object(), {}, [], torch.empty(0), Broken(), [[1], [2, 3]]):
        assert in_words(estimate) == ""


def test_units():
    assert unit_of(RunningEstimate(1.0)) == "products"
    assert unit_of(RunningEstimate(1.0, 0.0, "f", "steps")) == "steps"
    assert unit_of(torch.ones(2)) == "points"
    assert [unit_of(thing) for thing in (1.0, None, torch.tensor(1.0), Broken())] == [""] * 4
