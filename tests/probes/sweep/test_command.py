"""The command `landscape sweep`: prices, what it says, and what is refused in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import PROBLEM, SWEEP

from probes.cli import main
from probes.sweep.arguments import slurm_settings
from probes.sweep.engines.choose import Choice
from probes.sweep.jobs import Job, JobContext, Pace
from probes.sweep.price import firsts, price
from probes.sweep.runner import Runner


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(PROBLEM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--problem", "own.py:problem", *SWEEP, "--seeds", "1", "-o", "out", *words])
    return int(ended.value.code or 0)


def test_a_dry_run_measures_and_prices(folder: Path, capsys: Any) -> None:
    assert run("--dry-run", "--price", "3600") == 0
    said = capsys.readouterr().out
    assert "a run takes: torch.optim:Adam" in said
    assert "2 of 4 runs are finished, 2 to go" in said  # the two that were measured stand
    assert "at 3600 an hour" in said
    assert not (folder / "out" / "runs.csv").exists()
    assert run() == 0
    captured = capsys.readouterr()
    assert "sensitivity" in captured.out
    assert "2 of 4 runs are finished, 2 to go" in captured.err
    assert run("--dry-run") == 0
    assert "4 of 4 runs are finished, 0 to go" in capsys.readouterr().out


def nap(job: JobContext, seconds: float) -> float:
    return seconds


def test_the_rest_is_reckoned_from_what_was_measured(tmp_path: Path) -> None:
    """Two kinds: one with a finished run of 3 s, one paused after a quarter of its steps, which take 20 s in all."""
    from probes.sweep.work import Outcome

    jobs = [Job(f"{kind}{i}", nap, {"seconds": i}, kind=kind) for kind in "ab" for i in range(4)]
    runner = Runner(tmp_path, 0)
    assert [job.name for job in firsts(runner, jobs)] == ["a0", "b0"]
    runner.run(jobs[:1])
    path = runner.work(jobs[0]).result
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 3.0}))
    runner.paused["b0"] = Outcome("paused", seconds=20.0, share=0.25)
    assert [job.name for job in firsts(runner, jobs)] == ["b0"]
    told = price(runner, jobs, 2, 7.2)
    assert told.seconds == {"a": 3.0, "b": 20.0}
    assert told.rest == 3 * 3 + 0.75 * 20 + 3 * 20
    assert told.cost == pytest.approx(84 * 7.2 / 3600)
    assert told.lines()[-1] == "the rest takes 84 s of runs (0.0233 h), 42 s with 2 at once, 0.17 at 7.2 an hour"


def test_a_pace_is_that_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 s until the first step ends, then 2 s a step: 500 steps take 38 + 1000 s."""
    now = [100.0]
    monkeypatch.setattr("probes.sweep.jobs.time.monotonic", lambda: now[0])
    pace = Pace(limit=9.0)
    now[0] += 40
    for step in range(5):
        assert not pace.late(step)
        now[0] += 2
    assert pace.late(5)
    assert pace.whole(5, 500) == pytest.approx(1038)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--engine", "rays"), 2, "--engine is processes, submitit or ray, not 'rays'; did you mean 'ray'?"),
        (("--slurm", "time=3"), 2, "--slurm goes with --engine submitit, not processes"),
        (("--ray-address", "auto"), 2, "--ray-address goes with --engine ray"),
        (("--engine", "submitit", "--slurm", "time"), 2, "--slurm is partition=NAME,time=MINUTES, ..., not 'time'"),
        (("--solvers", "sgd"), 2, "name it as module:Class, such as torch.optim:SGD"),
        (("--solvers", "torch.optim:SGD:momentum=-1"), 2, "Invalid momentum value"),
        (("--problem", "own.py:none"), 1, "has no function 'none'"),
        (("--lr", "1:2"), 2, "--lr is LOW:HIGH:COUNT"),
        (("--schedule", "linear"), 2, "schedule is constant"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, capsys: Any, words: tuple[str, ...], status: int, said: str) -> None:
    assert run(*words) == status
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(("engine", "package", "extra"), [("ray", "ray", "ray"), ("submitit", "submitit", "slurm")])
def test_a_missing_extra_is_named(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, engine: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert run("--engine", engine) == 1
    error = capsys.readouterr().err
    assert (
        f'--engine {engine} needs {package}, which is not installed: pip install "landscape-engine[{extra}]"' in error
    )
    assert len(error.splitlines()) == 1


def test_settings_of_slurm(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    from probes.errors import UserError
    from probes.sweep.engines.submitit import Submitit

    text = "cluster=slurm,partition=gpu,time=4:00:00,mem_gb=8,gpus_per_node=1"
    assert slurm_settings(text)["time"] == "4:00:00"
    if submitit.AutoExecutor(tmp_path).cluster == "local":
        with pytest.raises(UserError, match=r"^--slurm: "):
            Submitit(tmp_path, slurm_settings(text), 1)  # no sbatch here
    with pytest.raises(UserError, match="cluster is one of slurm, local, debug, not 'pbs'"):
        Submitit(tmp_path, {"cluster": "pbs"}, 1)
    with pytest.raises(UserError, match="Unknown argument 'queue' for executor 'slurm'"):
        Submitit(tmp_path, {"cluster": "local", "queue": "x"}, 1)
    assert Choice("submitit", slurm={"cluster": "debug"}).start(tmp_path, 1)[1] == 1
