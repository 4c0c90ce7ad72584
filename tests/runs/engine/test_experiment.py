"""What all experiments share: jobs that are resumed, alike in one process and in several, and a table of claims."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy_experiment
from paths import ROOT
from rich.console import Console
from toy_experiment import experiment, walk

from probes import Trace
from probes.sweep.jobs import Job, write_json
from probes.sweep.runner import Runner
from probes.sweep.work import JobResult
from runs.engine.claims import Control, ControlResult, Results, Verdict, claim
from runs.engine.display import counts, index
from runs.engine.experiment import main

NAMES = ["walk-0", "walk-1", "walk-twin"]


def log(folder: Path) -> list[str]:
    """The jobs that ran to their end, in order."""
    path = folder / "full" / "jobs" / "log"
    return path.read_text().split() if path.exists() else []


def data(folder: Path) -> dict[str, object]:
    return {n: json.loads((folder / "full" / "jobs" / f"{n}.json").read_text())["data"] for n in NAMES}


def toy(folder: Path, pause: float, *words: str) -> list[str]:
    return [sys.executable, toy_experiment.__file__, str(folder), str(pause), *words]


ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}


def test_results_depend_on_the_seed_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        experiment().run(tmp_path / name, seed=seed)
    assert data(tmp_path / "a") == data(tmp_path / "b") != data(tmp_path / "c")
    assert torch.equal(state, torch.get_rng_state())
    seeds = [job["seed"] for job in data(tmp_path / "a").values()]  # type: ignore[index]
    assert seeds[0] != seeds[1] == seeds[2]  # the twins share a stream
    with (
        Trace.open(tmp_path / "a/full/jobs/walk-0.h5") as first,
        Trace.open(tmp_path / "b/full/jobs/walk-0.h5") as again,
    ):
        assert (first["walk"]["position"] == again["walk"]["position"]).all()
        assert first.seed == seeds[0]
        assert first.config == {"job": "walk-0", "steps": 5}


def test_parallel_is_sequential(tmp_path: Path) -> None:
    one = experiment().run(tmp_path / "one")
    several = experiment().run(tmp_path / "several", at_once=3)
    assert data(tmp_path / "one") == data(tmp_path / "several")
    assert one == several
    experiment().run(tmp_path / "several", at_once=3)
    assert sorted(log(tmp_path / "several")) == NAMES  # nothing was done twice


@pytest.mark.parametrize(
    "words",
    [
        ("--engine", "submitit", "--slurm", "cluster=debug"),
        pytest.param(("--engine", "submitit", "--slurm", "cluster=local", "--jobs", "2"), marks=pytest.mark.slow),
        pytest.param(("--engine", "ray", "--jobs", "2"), marks=pytest.mark.slow),
    ],
)
def test_every_engine_is_sequential(tmp_path: Path, words: tuple[str, ...]) -> None:
    pytest.importorskip(words[1])
    experiment().run(tmp_path / "one")
    more = toy(tmp_path / "other", 0.0, *words)
    run = subprocess.run(more, env=ENVIRONMENT, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout + run.stderr
    assert data(tmp_path / "one") == data(tmp_path / "other")
    assert sorted(log(tmp_path / "other")) == NAMES


def test_an_unknown_engine_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(experiment(), ["--engine", "slurm", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().out == "error: --engine is processes, submitit or ray, not 'slurm'\n"


def test_finished_jobs_are_not_redone(tmp_path: Path) -> None:
    experiment().run(tmp_path)
    assert log(tmp_path) == NAMES
    experiment().run(tmp_path)
    assert log(tmp_path) == NAMES
    experiment(steps=6).run(tmp_path)  # a changed setting, and back
    experiment(steps=6).run(tmp_path, fresh=True)
    assert log(tmp_path) == 3 * NAMES
    experiment(steps=6).run(tmp_path, seed=3)
    assert log(tmp_path) == 4 * NAMES
    (tmp_path / "full/jobs/walk-1.json").write_text('{"key": ')  # damaged: as if it were not there
    experiment(steps=6).run(tmp_path, seed=3)
    assert log(tmp_path) == [*(4 * NAMES), "walk-1"]


def test_quick_and_full_do_not_mix(tmp_path: Path) -> None:
    full = experiment().run(tmp_path)
    quick = experiment().run(tmp_path, quick=True)
    assert log(tmp_path) == NAMES
    assert [found.holds for found in full] == [True, False]
    assert [found.holds for found in quick] == [True, None]  # what a quick run is too short for stays open
    assert "too short" in quick[1].measured
    assert json.loads((tmp_path / "full/claims.json").read_text())["claims"][1]["holds"] is False
    assert json.loads((tmp_path / "quick/claims.json").read_text())["quick"] is True


@pytest.mark.parametrize("at_once", [1, 2])
def test_resumes_after_a_kill(tmp_path: Path, at_once: int) -> None:
    experiment().run(tmp_path / "whole")
    folder = tmp_path / "killed"
    words = toy(folder, 0.1, "--jobs", str(at_once))
    with subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not (folder / "full/jobs/walk-0.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    done = {path.stem for path in (folder / "full/jobs").glob("walk-*.json")}
    assert done < set(NAMES)
    started = log(folder)
    again = subprocess.run(toy(folder, 0.1), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"{len(done)} of 3 jobs from before" in again.stdout
    assert log(folder)[len(started) :] == [name for name in NAMES if name not in done]
    assert data(folder) == data(tmp_path / "whole")


@pytest.mark.parametrize("at_once", [1, 2])
def test_ctrl_c_ends_cleanly(tmp_path: Path, at_once: int) -> None:
    words = toy(tmp_path, 0.1, "--jobs", str(at_once))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, env=ENVIRONMENT, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        deadline = time.monotonic() + 60
        while not (tmp_path / "full/jobs/walk-0.h5").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on from here" in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("how", "at_once", "reason"),
    [("all", 1, "ValueError: all went wrong"), ("all", 2, "ValueError: all went wrong"), ("die", 2, "signal 9")],
)
def test_a_failing_job_stops_no_other(tmp_path: Path, how: str, at_once: int, reason: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=150)
    claims = experiment(broken=how).run(tmp_path, at_once=at_once, console=console)
    assert [found.holds for found in claims] == [True, False, None]
    assert claims[2].answer == "not measured"
    assert reason in claims[2].measured
    assert f"job broken failed: {reason}" in out.getvalue() or "signal 9" in out.getvalue()
    report = json.loads((tmp_path / "full/claims.json").read_text())
    assert reason in report["jobs"]["broken"]["error"]
    assert sorted(log(tmp_path)) == NAMES


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(experiment(), ["--seed", "5"])  # a claim that fails is no failure of the command
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "A toy.",
        "walks end somewhere",
        "folklore",
        "holds if all ends are finite",
        "3 ends",
        "yes",
        "no",
        "an end is 7 [units]",
        "runs/out/toy/full/claims.json",
    ):
        assert text in out
    report = json.loads(Path("runs/out/toy/full/claims.json").read_text())
    assert report["seed"] == 5
    assert report["environment"]["packages"]["torch"]
    assert report["jobs"]["walk-1"]["settings"] == {"steps": 6, "pause": 0.0}
    assert [found["holds"] for found in report["claims"]] == [True, False]
    assert len(report["claims"][0]["numbers"]["ends"]) == 3
    page = Path("runs/out/toy/full/claims.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("|")]
    assert len(rows) == 4
    assert all(row.count("|") == 5 for row in rows)  # a bar in a text is no column
    assert rows[2:] == ["| walks end somewhere | text | yes | no |", "| walks end at ∣ 7 | own | no |  |"]
    assert "- *Control:* the walker lost: no (3 ends)\n" in page
    assert (
        "### walks end at | 7 (no)\n\n- *Literature (own):* none\n- *Holds if* an end is 7 [units]\n- *Measured:* "
        in page
    )


def test_rules_that_break_are_not_measured() -> None:
    results = Results({"walk-0": JobResult({"end": 1.0}, Path("nowhere.h5"))})
    found = toy_experiment.seven.measure(results)  # there is no trace
    assert found.holds is None
    assert "not measured: the rule failed with TraceError" in found.measured
    assert "| not measured |" in index([found])


def test_another_setup_than_the_papers_decides_nothing() -> None:
    results = Results({"walk": JobResult({}, Path("nowhere.h5"))})
    for holds, told in ((True, "yes"), (False, "no")):
        options = {"literature": "", "criterion": "", "needs": "walk", "other_setup": "a small network"}
        found = claim("a", source="text", **options)(lambda _, v=holds: Verdict(v, "0.3")).measure(results)  # type: ignore[arg-type]
        assert found.holds is None
        assert found.measured == f"0.3 ({told} here, which decides nothing about the paper: a small network)"


def test_a_claim_says_where_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"the source of 'a' is one of theorem, .*, own, not 'folklore'"):
        claim("a", source="folklore", literature="", criterion="", needs="x")  # type: ignore[arg-type]
    results = Results({f"walk-{i}": JobResult({"end": float(i)}, Path("nowhere.h5")) for i in range(3)})

    def judge(found: Results) -> Verdict:
        return Verdict(found.one("walk-0")["end"] == 0.0, f"{found.one('walk-0')['end']}")

    other = Control("another walk", lambda rule, found: rule(found.instead({"walk-0": "walk-2"})), ("walk-2",))
    options = {"literature": "", "criterion": "", "needs": "walk-0"}
    found = [claim("a", source=s, control=other, **options)(judge).measure(results) for s in ("text", "own")]  # type: ignore[arg-type]
    assert found[0].control == ControlResult("another walk", "2.0", False)
    assert results.one("walk-0")["end"] == 0.0
    assert counts(found) == ("1", "0", "0", "1")
    missing = Results(results.jobs | {"walk-2": JobResult(None, Path("nowhere.h5"), error="died")})
    again = claim("a", source="text", control=other, **options)(judge).measure(missing)  # type: ignore[arg-type]
    assert again.holds
    assert again.control == ControlResult("another walk", "not measured: walk-2: died", None)


def test_names_and_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="job's name"):
        Job("../elsewhere", walk)
    with pytest.raises(ValueError, match="one name"):
        Runner(tmp_path, 0).run([Job("a", walk), Job("a", walk)])
    with pytest.raises(SystemExit):
        main(experiment(), ["--jobs", "-1"])
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert list(tmp_path.iterdir()) == []
