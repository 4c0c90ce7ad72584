"""The maximal initial learning rate: the search beside known ends, trainings beside torch's own loop, the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian

from probes.errors import UserError
from probes.sweep.problems import build
from runs.sweep import initial_rate
from runs.sweep.initial_rate import maximal_rate, search

OWN = """
import torch
from torch import nn
from landscape import Objective

def classes():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    return Objective(model, nn.CrossEntropyLoss(), (x, y))

def numbers():
    x = torch.linspace(-1, 1, 40)[:, None]
    return Objective(nn.Linear(1, 1), nn.MSELoss(), (x, x))
"""


@pytest.fixture
def problem(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return f"{tmp_path / 'own.py'}:classes"


@pytest.mark.parametrize("end", [0.3, 1.0, 7.7, 1e-4, 900.0])
@pytest.mark.parametrize("factor", [1.1, 2.0, 3.0])
def test_the_bracket_holds_a_known_end_and_is_as_narrow_as_asked(end: float, factor: float) -> None:
    asked = []

    def reaches(rate: float) -> tuple[bool, int]:
        asked.append(rate)
        return rate <= end, 5

    found = search(reaches, 1.0, factor, max_runs=60)
    assert found.lower <= end < found.upper <= factor * found.lower
    assert (found.converged, found.runs, found.steps) == (True, len(asked), 5 * len(asked))
    assert len(asked) <= abs(math.log2(end)) + 2 + max(math.log2(math.log(2) / math.log(factor)), 0) + 1
    assert found.lower <= found.value <= found.upper
    assert len(set(asked)) == len(asked)


def test_open_ends_are_said() -> None:
    never = search(lambda rate: (False, 3), 1.0, max_runs=4)
    assert (never.lower, never.upper, never.runs, never.converged) == (0.0, 0.125, 4, False)
    always = search(lambda rate: (True, 3), 1.0, max_runs=4)
    assert (always.lower, always.upper, always.converged) == (8.0, math.inf, False)
    assert math.isnan(never.value)
    assert math.isnan(always.value)
    short = search(lambda rate: (rate < 1.5, 1), 1.0, factor=1.0001, max_runs=3)
    assert (short.converged, short.lower, short.upper) == (False, math.sqrt(2.0), 2.0)


def by_hand(problem: str, seed: int, rate: float, steps: int, accuracy: float) -> bool:
    """Gradient descent on all data, looked at after every fifth step."""
    task = build(problem, seed)
    model, (batch,) = task.objective.model, task.objective.sweep()
    for step in range(1, steps + 1):
        loss = nn.functional.cross_entropy(model(batch.inputs), batch.targets)
        for p, g in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
            p.data -= rate * g
        right = (model(batch.inputs).argmax(1) == batch.targets).double().mean()
        if step % 5 == 0 and right >= accuracy:
            return True
    return False


def test_the_ends_of_the_bracket_are_those_of_plain_gradient_descent(problem: str) -> None:
    options = {"accuracy": 0.95, "steps": 50, "batch": 40, "factor": 1.2}
    found = maximal_rate(problem, "sgd", seed=1, **options)
    assert found.converged
    assert found.upper <= 1.2 * found.lower
    assert by_hand(problem, 1, found.lower, 50, 0.95)
    assert not by_hand(problem, 1, found.upper, 50, 0.95)
    task = build(problem, 1)
    f, (batch,) = task.objective, task.objective.sweep()

    def loss(v: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(f.model, f.unflatten(v), (batch.inputs,))
        return nn.functional.cross_entropy(outputs, batch.targets)

    top = torch.linalg.eigvalsh(hessian(loss, f.theta()))[-1].item()
    assert found.edge == pytest.approx(2 / top, rel=0.02)
    lines = [(step, f.theta() - step * f.gradient()) for step in (0.9 * found.critical, 1.1 * found.critical)]
    assert loss(lines[0][1]) <= f.value() < loss(lines[1][1])
    again = maximal_rate(problem, "sgd", seed=1, **options)
    assert (again.lower, again.upper, again.steps) == (found.lower, found.upper, found.steps)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"accuracy": 1.5}, "at most 1"),
        ({"steps": 0}, "at least 1"),
        ({"factor": 1.0}, "above 1"),
        ({"start": -1.0}, "positive"),
        ({"max_runs": 0}, "at least 1"),
    ],
)
def test_bad_settings(problem: str, options: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        maximal_rate(problem, **options)


def test_a_problem_without_classes_is_refused(problem: str) -> None:
    with pytest.raises(UserError, match="has no accuracy"):
        maximal_rate(problem.removesuffix("classes") + "numbers")


def test_the_command(problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--problem", problem, "--seeds", "2", "--steps", "20", "--batch", "40", "--max-runs", "2"]
    initial_rate.main([*words, "-o", str(tmp_path / "a" / "rates.json")])
    printed = capsys.readouterr().out
    assert "maximal rate" in printed
    kept = json.loads((tmp_path / "a" / "rates.json").read_text())
    assert [one["runs"] for one in kept["seeds"]] == [2, 2]
    assert kept["settings"]["steps"] == 20
    for more, why in ((["--factor", "0.5"], "above 1"), (["--solver", "nothing"], "there is no solver")):
        with pytest.raises(SystemExit) as stopped:
            initial_rate.main([*words, *more])
        assert stopped.value.code == 2
        assert why in capsys.readouterr().err
