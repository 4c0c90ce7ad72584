"""Sweeps on each engine: the same numbers as in one process, also when a worker is killed in the middle of a run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sweep_cases import calls, numbers, swept

ENGINES = {
    "processes": ("--engine", "processes", "--jobs", "2"),
    "submitit": ("--engine", "submitit", "--slurm", "cluster=local", "--jobs", "2"),
    "debug": ("--engine", "submitit", "--slurm", "cluster=debug"),
    "ray": ("--engine", "ray", "--jobs", "2"),
}


def words_of(engine: str) -> tuple[str, ...]:
    extra = {"submitit": "submitit", "debug": "submitit", "ray": "ray"}.get(engine)
    if extra and importlib.util.find_spec(extra) is None:
        pytest.skip(f"{extra} is not installed")
    return ENGINES[engine]


class Undisturbed(NamedTuple):
    numbers: dict[str, Any]
    calls: int


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    swept(folder, "--seeds", "2", "-o", "out")
    return Undisturbed(numbers(folder / "out"), calls(folder))


@pytest.mark.parametrize(
    "engine", ["processes", *(pytest.param(e, marks=pytest.mark.slow) for e in ("ray", "submitit"))]
)
def test_a_killed_worker_loses_nothing(engine: str, tmp_path: Path, undisturbed: Undisturbed) -> None:
    """One run of two is killed in the middle of a step."""
    words = words_of(engine)
    (tmp_path / "die").write_text("10")
    swept(tmp_path, "--lr", "0.1", "--seeds", "1", "--checkpoint", "0", *words, "-o", "out")
    assert not (tmp_path / "die").exists()
    found = numbers(tmp_path / "out")
    assert found == {name: data for name, data in undisturbed.numbers.items() if name.endswith("-0.1-0")}
    again = undisturbed.calls // 8 - 12  # what each process calls the loss for before its first step
    assert calls(tmp_path) == 2 * 12 + 3 * again + 1  # but for that, the step in which it died is all that is redone
    assert not list((tmp_path / "out" / "jobs").glob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_all_engines_find_the_same(engine: str, tmp_path: Path, undisturbed: Undisturbed) -> None:
    words = words_of(engine)
    swept(tmp_path, "--seeds", "2", *words, "-o", "out")
    assert numbers(tmp_path / "out") == undisturbed.numbers
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "jobs").iterdir()}
    said = swept(tmp_path, "--seeds", "2", *words, "-o", "out")
    assert "8 of 8 runs are finished" in said
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "jobs").iterdir()}
