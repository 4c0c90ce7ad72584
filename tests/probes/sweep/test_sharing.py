"""Sweeps that are killed, interrupted, started again, and two at once in one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sweep_cases import calls, command, environment, numbers, swept

pytestmark = pytest.mark.slow  # whole sweeps in processes of their own

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
ONE = ("--solvers", "torch.optim:Adam", "--seeds", "1", "-o", "out")  # two runs
BEFORE = 4  # how often a process calls the loss before its first step: see the fixture of test_engines


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def finished(folder: Path) -> list[Path]:
    return sorted((folder / "out" / "jobs").glob("*.json"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    swept(folder, *ONE)
    return folder


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_sweep_goes_on_where_it_was(jobs: str, tmp_path: Path, alone: Path) -> None:
    words = command(tmp_path, *ONE, "--checkpoint", "0", "--jobs", jobs)
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(PAUSE="0.1"), start_new_session=True, **PIPES
    ) as process:  # type: ignore[call-overload]
        wait_for(lambda: (tmp_path / "steps").exists() and calls(tmp_path) > (24 if jobs == "1" else 8))
        os.killpg(process.pid, signal.SIGKILL)
    done = {path: path.stat().st_mtime_ns for path in finished(tmp_path)}
    assert len(done) == (1 if jobs == "1" else 0)
    assert list((tmp_path / "out/jobs").glob("*.pt"))
    swept(tmp_path, *ONE)
    assert numbers(tmp_path / "out") == numbers(alone / "out")
    assert all(path.stat().st_mtime_ns == at for path, at in done.items())
    assert calls(tmp_path) <= calls(alone) + 2 * (BEFORE + 2)  # of each half run at most a step or two
    assert not list((tmp_path / "out/jobs").glob(".*"))


def test_two_sweeps_in_one_folder_share_the_work(tmp_path: Path, alone: Path) -> None:
    (tmp_path / "own.py").touch()
    both = [
        subprocess.Popen(command(tmp_path, *ONE), cwd=tmp_path, env=environment(PAUSE="0.1"), text=True, **PIPES)  # type: ignore[call-overload]
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert calls(tmp_path) == calls(alone)
    assert numbers(tmp_path / "out") == numbers(alone / "out")
    assert len((tmp_path / "out/runs.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "engine",
    ["processes", pytest.param("submitit", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)],
)
def test_ctrl_c_ends_all_of_it(engine: str, tmp_path: Path) -> None:
    if engine != "processes":
        pytest.importorskip(engine)
    more = ("--slurm", "cluster=local") if engine == "submitit" else ()
    words = command(tmp_path, *ONE, "--engine", engine, *more, "--jobs", "2")
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(PAUSE="0.3"), text=True, start_new_session=True, **PIPES
    ) as process:  # type: ignore[call-overload]
        wait_for(lambda: (tmp_path / "steps").exists() and calls(tmp_path) > BEFORE + 2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    said, _, again = err.splitlines()[-1].partition(", go on with: ")
    assert said == "landscape: interrupted; what is finished is kept in out"
    assert again.startswith("landscape sweep --problem ")
    assert "Traceback" not in out + err
    time.sleep(1.5)
    before = calls(tmp_path)
    time.sleep(1.5)
    assert calls(tmp_path) == before  # nobody is at work any more
    assert len(finished(tmp_path)) < 2


def test_another_key_is_another_run(tmp_path: Path, alone: Path) -> None:
    swept(tmp_path, *ONE)
    one = [json.loads(path.read_text())["key"] for path in finished(tmp_path)]
    assert one == [json.loads(path.read_text())["key"] for path in finished(alone)]
    swept(tmp_path, *ONE, "--steps", "3")
    assert not set(one) & {json.loads(path.read_text())["key"] for path in finished(tmp_path)}
