"""Traces as checkpoints: their snapshots are loaded and measured like files that torch saved of the same network."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from trace_cases import start

from landscape import Objective
from probes import Monitor, Snapshots, Trace, load_checkpoint, measure_once
from probes.checkpoints.load import match_checkpoint
from probes.checkpoints.steps import checkpoint_steps
from probes.errors import UserError
from probes.hashes import hash_of

DATA = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
PROBLEM = """
import torch
from torch import nn
from landscape import Objective

def tiny(width=5):
    data = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 4))
    return Objective(model, nn.CrossEntropyLoss(), data, mode="eval")

def wide():
    return tiny(6)
"""


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4))


def objective(model: nn.Module) -> Objective:
    return Objective(model, nn.CrossEntropyLoss(), DATA, mode="eval")


def at_step(step: int) -> nn.Module:
    """A network of its own for each step, with statistics of its own."""
    torch.manual_seed(step)
    model = network()
    with torch.no_grad():
        model(DATA[0])
    return model


def record(trace: Trace, steps: tuple[int, ...], name: str = "snapshots") -> None:
    for step in steps:
        measure_once(objective(at_step(step)), [Snapshots(name=name)], trace, step, on_error="raise")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """run.h5 with the networks of three steps, and files of the same."""
    monkeypatch.chdir(tmp_path)
    Path("problem.py").write_text(PROBLEM)
    with Trace.create("run.h5", seed=0) as trace:
        record(trace, (300, 0, 100))
    for step in (0, 100, 300):
        torch.save(at_step(step).state_dict(), f"step{step}.pt")
    return tmp_path


def test_what_a_path_stands_for(folder: Path) -> None:
    every = [(step, Path(f"run.h5@{step}")) for step in (0, 100, 300)]
    assert checkpoint_steps(["run.h5"]) == every
    assert checkpoint_steps(["run.h5@last", "run.h5@100"]) == every[1:]
    assert checkpoint_steps(["step200.pt", "run.h5"]) == [*every[:2], (200, Path("step200.pt")), every[2]]
    assert checkpoint_steps(["run.h5"], [7, 8, 9]) == [(7, every[0][1]), (8, every[1][1]), (9, every[2][1])]
    for paths, steps, words in (
        (["run.h5", "run.h5@100"], None, "run.h5@100 is given twice"),
        (["run.h5", "step100.pt"], None, "both claim step 100"),
        (["run.h5"], [1], "--steps has 1 numbers for 3 checkpoints"),
        (["run.h5@7"], None, "run.h5 has no snapshot of step 7: it has 0, 100, 300"),
        (["run.h5@first"], None, "behind the @ stands a step, or last"),
        (["none.h5@7"], None, "there is no checkpoint none.h5@7"),
    ):
        with pytest.raises(UserError, match=words):
            for _, path in checkpoint_steps(paths, steps):
                load_checkpoint(path, network())


def test_a_file_with_an_at_in_its_name_is_that_file(folder: Path) -> None:
    Path("step0.pt").rename("run.h5@9")
    Path("run.h5").rename("a@b.h5")
    other = network()
    load_checkpoint("run.h5@9", other)
    assert torch.equal(other[0].weight, at_step(0)[0].weight)
    load_checkpoint("a@b.h5@last", other)
    assert torch.equal(other[0].weight, at_step(300)[0].weight)


def test_a_snapshot_is_the_file(folder: Path) -> None:
    for step in (0, 100, 300):
        found = []
        for path in (f"step{step}.pt", f"run.h5@{step}"):
            model = network()
            load_checkpoint(path, model)
            found.append((objective(model).value(), hash_of(match_checkpoint(path, model))))
        assert found[0] == found[1]
        assert found[0][0] == objective(at_step(step)).value()


def test_a_model_that_it_is_not_of_stays_as_it_was(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))
    before = model[0].weight.clone()
    with pytest.raises(UserError, match=r"the shapes of run.h5@0 do not match Sequential: 0.weight"):
        load_checkpoint("run.h5@0", model)
    with pytest.raises(UserError, match=r"run.h5 is a trace of snapshots, it has 0, 100, 300: name one, run.h5@300"):
        load_checkpoint("run.h5", model)
    assert torch.equal(model[0].weight, before)


def test_the_command_measures_what_it_measures_of_files(folder: Path, landscape: Callable[..., tuple]) -> None:
    problem = ("--problem", "problem.py:tiny", "--probe", "trace")
    assert landscape("probe", "step0.pt", "step100.pt", "step300.pt", *problem, "-o", "files.h5")[0] == 0
    assert landscape("probe", "run.h5@0", "run.h5@last", *problem, "-o", "trace.h5")[0] == 0
    assert landscape("probe", "run.h5", *problem, "-o", "trace.h5", "--resume")[0] == 0
    with Trace.open("files.h5") as files, Trace.open("trace.h5") as trace:
        for group, field in (("loss", "value"), ("loss", "gradient_norm"), ("loss", "weights"), ("trace", "value")):
            ours = dict(zip(trace[group]["step"].tolist(), trace[group][field], strict=True))
            theirs = dict(zip(files[group]["step"].tolist(), files[group][field], strict=True))
            assert ours == (pytest.approx(theirs, rel=1e-5) if group == "trace" else theirs)
    status, _, said = landscape("probe", "run.h5", "--problem", "problem.py:wide", "-o", "wide.h5")
    assert (status, len(said.splitlines())) == (1, 1)
    assert "the shapes of run.h5@0 do not match" in said
    for words in ((), ("--resume",), ("--overwrite",)):
        status, _, said = landscape("probe", "run.h5@0", *problem, "-o", "run.h5", *words)
        assert (status, said) == (1, "landscape: the output run.h5 is what is to be measured: choose another -o\n")
    assert list(Trace.open("run.h5")) == ["snapshots"]


def test_a_folder_of_files_becomes_a_trace(folder: Path, landscape: Callable[..., tuple]) -> None:
    words = ("--problem", "problem.py:tiny", "--probe", "snapshots", "-o", "all.h5")
    status, out, _ = landscape("probe", "step0.pt", "step100.pt", "step300.pt", *words)
    assert status == 0
    assert "snapshots: parameters" in out
    for step in (0, 100, 300):
        model = network()
        load_checkpoint(f"all.h5@{step}", model)
        assert hash_of(model.state_dict()) == hash_of(at_step(step).state_dict())


def test_a_trace_without_snapshots(tmp_path: Path) -> None:
    for name in ("empty.h5", "declared.h5"):
        with Trace.create(tmp_path / name) as trace:
            if name == "declared.h5":
                Monitor(objective(network()), [Snapshots()], trace)
        words = "is a trace without snapshots: measure" if name == "empty.h5" else "holds no snapshot yet"
        for path in (tmp_path / name, f"{tmp_path / name}@last"):
            with pytest.raises(UserError, match=words):
                checkpoint_steps([path])


def test_two_networks_in_one_trace_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with Trace.create(path) as trace:
        record(trace, (1, 2), "average")
    assert [step for step, _ in checkpoint_steps([path])] == [1, 2]
    with Trace.resume(path) as trace:
        record(trace, (3,), "other")
    with pytest.raises(UserError, match=f"snapshots under 'average', 'other': name one, {path}@average:last"):
        checkpoint_steps([path])
    assert checkpoint_steps([f"{path}@average:last"]) == [(2, Path(f"{path}@average:2"))]
    with pytest.raises(UserError, match="no snapshots under 'mean': it has 'average', 'other'"):
        checkpoint_steps([f"{path}@mean:last"])
    with Trace.resume(path) as trace:
        record(trace, (4,))
    assert [step for step, _ in checkpoint_steps([path])] == [4]
    model = network()
    load_checkpoint(f"{path}@average:2", model)
    assert torch.equal(model[0].weight, at_step(2)[0].weight)


def test_a_trace_that_is_written_in_this_process(tmp_path: Path) -> None:
    with Trace.create(tmp_path / "a.h5") as trace:
        record(trace, (0, 5))
        trace.flush()
        assert [step for step, _ in checkpoint_steps([tmp_path / "a.h5"])] == [0, 5]
        measure_once(objective(at_step(6)), [Snapshots()], trace, step=5)  # once more: the last one is meant
        trace.flush()
        model = network()
        load_checkpoint(f"{tmp_path}/a.h5@5", model)
        assert torch.equal(model[0].weight, at_step(6)[0].weight)


WRITER = """
import sys
from test_snapshots import Trace, record
trace = Trace.create(sys.argv[1])
for step in (0, 10, 20):
    record(trace, (step,))
    trace.flush()
    print(step, flush=True)
sys.stdin.read()
"""


def test_a_trace_of_another_process_alive_and_killed(tmp_path: Path) -> None:
    here = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2] / "helpers")))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((os.environ.get("PYTHONPATH", ""), here, os.getcwd()))}
    writer = start(tmp_path / "run.h5", code=WRITER, env=environment, stdin=-1)
    try:
        for _ in range(3):
            writer.stdout.readline()
        for end in (lambda: None, lambda: (writer.send_signal(signal.SIGKILL), writer.wait())):
            end()
            files = checkpoint_steps([tmp_path / "run.h5"])
            assert [step for step, _ in files] == [0, 10, 20]
            for step, path in files:
                model = network()
                load_checkpoint(path, model)
                assert hash_of(model.state_dict()) == hash_of(at_step(step).state_dict())
    finally:
        writer.kill()
        writer.communicate()


def test_damage_is_one_line(folder: Path) -> None:
    content = Path("run.h5").read_bytes()
    Path("cut.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut.h5 is truncated or damaged"):
        checkpoint_steps(["cut.h5"])
    with h5py.File("foreign.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(UserError, match=r"foreign.h5 is an HDF5 file, but not a landscape trace"):
        checkpoint_steps(["foreign.h5"])
