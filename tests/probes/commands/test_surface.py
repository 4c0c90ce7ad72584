"""`landscape surface` and `landscape connect`: one command from checkpoints to a picture, which may be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Landscape
from paths import ROOT
from torch import nn

from landscape import Objective
from landscape.surface import plane, random_directions, trajectory_frame
from probes import Trace
from probes.checkpoints.problem import build_objective
from probes.seeds import derive_seed
from probes.trace.layout import TraceError
from probes.trace.unfinished import Unfinished

PROBLEM = """
import os
import time
import torch
from torch import nn
from landscape import Objective

def network(norm=False):
    return nn.Sequential(nn.Linear(6, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh(), nn.Linear(5, 3))

def data(seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(20, 6, generator=g), torch.randint(0, 3, (20,), generator=g)

def plain():
    return Objective(network(), nn.CrossEntropyLoss(), data())

def norm():
    return Objective(network(True), nn.CrossEntropyLoss(), data(), mode="eval")

def slow():
    def loss(outputs, targets):
        time.sleep(0.012)
        return nn.functional.cross_entropy(outputs, targets)
    return Objective(network(), loss, data(), count=lambda outputs, targets: len(targets))

def unseeded():
    return Objective(network(), nn.CrossEntropyLoss(), data(os.getpid()))

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        return self.scale * self.inner(x)

def scaled():
    return Objective(Scaled(), nn.CrossEntropyLoss(), data())

def frozen():
    model = network()
    model[0].requires_grad_(False)
    return Objective(model, nn.CrossEntropyLoss(), data())

def loader():
    loaded = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data()), batch_size=20, num_workers=1)
    return Objective(network(), nn.CrossEntropyLoss(), loaded)

def nearly():  # so little that no loss tells
    X, y = data()
    return Objective(network(), nn.CrossEntropyLoss(), (X + 1e-7 * os.getpid(), y))

def drawn():  # without a seed of its own
    return Objective(network(), nn.CrossEntropyLoss(), (torch.randn(20, 6), torch.randint(0, 3, (20,))))
"""


def network(norm: bool, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(6, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for _ in range(3):
            made(2 * torch.randn(50, 6) + 1)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("problem.py").write_text(PROBLEM)
    for kind in (False, True):
        for seed in range(4):
            torch.save(network(kind, seed).state_dict(), f"{'norm' if kind else 'plain'}_step{seed}.pt")
    yield tmp_path
    sys.modules.pop("landscape_problem_problem", None)


PLAIN = ("--problem", "problem.py:plain")


def objective(spec: str, seed: int) -> Objective:
    made = build_objective(f"problem.py:{spec}")
    made.model.load_state_dict(torch.load(f"{'norm' if spec == 'norm' else 'plain'}_step{seed}.pt"))
    return made


# -- surface -----------------------------------------------------------------------------------------------------------


def test_a_plane_around_each_checkpoint(folder: Path, landscape: Landscape) -> None:
    done = landscape("surface", "plain_step1.pt", "plain_step2.pt", *PLAIN, "--points", "9", "--seed", "4")
    assert done.status == 0, done.err
    assert "surface-surface.png" in done.out
    assert Path("surface-surface.png").stat().st_size > 10_000
    rows = Trace.open("surface.h5")["surface"]
    assert rows["step"].tolist() == [1, 2]
    for i, step in enumerate((1, 2)):
        f = objective("plain", step)
        D = random_directions(f, 2, generator=torch.Generator().manual_seed(derive_seed(4, "surface", step)))
        np.testing.assert_allclose(rows["values"][i], plane(f, D, points=9).values, rtol=1e-6)


def test_a_trajectory_is_one_plane_at_the_last_step(folder: Path, landscape: Landscape) -> None:
    files = [f"plain_step{i}.pt" for i in range(4)]
    done = landscape("surface", *files, *PLAIN, "--directions", "trajectory", "--points", "5")
    assert done.status == 0, done.err
    trace = Trace.open("surface.h5")
    assert trace["surface"]["step"].tolist() == [3]
    assert trace["loss"]["step"].tolist() == [0, 1, 2, 3]
    row = trace["surface"].row()
    f = objective("plain", 3)
    frame = trajectory_frame(f, [objective("plain", i).theta() for i in range(4)])
    np.testing.assert_allclose(row["explained"], frame.explained)
    np.testing.assert_allclose(row["path"] * row["length"][0], frame.coordinates, atol=1e-6)
    assert row["values"][2, 2] == pytest.approx(f.value(), rel=1e-6)
    assert row["path_step"].tolist() == [0, 1, 2, 3]


def test_a_trace_counts_as_all_of_its_snapshots(folder: Path, landscape: Landscape) -> None:
    files = [f"plain_step{i}.pt" for i in range(4)]
    kept = landscape("probe", *files, *PLAIN, "--probe", "snapshots", "-o", "run.h5")
    assert kept.status == 0, kept.err
    for directions, output, given in (("trajectory", "a.h5", files), ("trajectory", "b.h5", ["run.h5"])):
        done = landscape("surface", *given, *PLAIN, "--directions", directions, "--points", "5", "-o", output)
        assert done.status == 0, done.err
    ours, theirs = (Trace.open(name)["surface"].row() for name in ("b.h5", "a.h5"))
    np.testing.assert_array_equal(ours["values"], theirs["values"])
    assert ours["path_step"].tolist() == [0, 1, 2, 3]
    refused = landscape("surface", "run.h5", *PLAIN, "--directions", "between", "-o", "c.h5")
    assert refused.status == 2
    assert "takes two or three checkpoints, not 4" in " ".join(refused.err.split())
    few = landscape("surface", "run.h5@1", "run.h5@3", *PLAIN, "--directions", "between", "--points", "5", "-o", "d.h5")
    assert few.status == 0, few.err


def test_between_two_trainings_that_stopped_at_one_step(folder: Path, landscape: Landscape) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        Path(name).mkdir()
        Path(f"norm_step{seed}.pt").rename(f"{name}/step3.pt")
    words = ("surface", "a/step3.pt", "b/step3.pt", "--problem", "problem.py:norm", "--directions", "between")
    done = landscape(*words, "--points", "5")
    assert done.status == 0, done.err
    row = Trace.open("surface.h5")["surface"].row()
    assert row["step"] == 1
    assert row["values"].shape == (5,)
    assert "one pass over the data" in row["note"]
    kept = landscape(*words, "--points", "5", "--statistics", "keep", "-o", "keep.h5")
    assert kept.status == 1
    assert "statistics='keep' is not possible between networks" in kept.err
    assert "Traceback" not in kept.err
    assert not Path("keep.h5").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--directions", "sideways"), "directions is one of random, eigenvectors, gradient, trajectory, between"),
        (("--directions", "trajectory"), "--directions trajectory takes three checkpoints at least, not 1"),
        (("--directions", "between"), "--directions between takes two or three checkpoints, not 1"),
        (("--span", "0"), "span must be positive and finite"),
        (("--points", "2"), "should be greater than or equal to 3"),
        (("--jobs", "0"), "should be greater than or equal to 1"),
        (("--normalise", "row"), "normalise is one of filter, layer, none"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_line(folder: Path, landscape: Landscape, words, said: str) -> None:
    done = landscape("surface", "plain_step1.pt", *PLAIN, *words)
    assert done.status == 2
    assert said in " ".join(done.err.split())
    assert list(folder.glob("*.h5")) == []


def command(*words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    slowly = "import landscape.surface.values as v; v._CHUNK = 16; v.Worker._is_faster = lambda *_: False"
    code = f"{slowly}; from probes.cli import main; main()"
    with Path("said.txt").open("w") as said:
        return subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stdout=said, stderr=said)


def points_kept(path: Path) -> int:
    if not path.exists():
        return 0
    with Trace.open(path).reading() as file:
        return int(file["unfinished/value"].shape[0]) if "unfinished" in file else 0


@pytest.mark.parametrize(
    ("how", "jobs"),
    [
        (signal.SIGKILL, "1"),
        pytest.param(signal.SIGKILL, "2", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "1", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "2", marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_it_is_the_same_bit_by_bit(folder: Path, how: int, jobs: str) -> None:
    words = ("surface", "plain_step1.pt", "--problem", "problem.py:slow", "--points", "17", "--jobs", jobs)
    output = folder / "run.h5"
    process = command(*words, "-o", str(output))
    end = time.time() + 90
    while points_kept(output) < 16 and process.poll() is None and time.time() < end:
        time.sleep(0.05)
    assert process.poll() is None, Path("said.txt").read_text()
    process.send_signal(how)
    process.wait(90)
    said = Path("said.txt").read_text()
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in said
        assert "--resume" in said
    kept = points_kept(output)
    assert 16 <= kept < 289
    again = command(*words, "-o", str(output), "--resume")
    assert again.wait(90) == 0, Path("said.txt").read_text()
    whole = command(*words, "-o", str(folder / "whole.h5"))
    assert whole.wait(90) == 0
    found, expected = (Trace.open(path)["surface"].row() for path in (output, folder / "whole.h5"))
    np.testing.assert_array_equal(found["values"], expected["values"])
    assert found["evaluations"] <= expected["evaluations"] - kept + 16  # the first chunk says how to go on


def test_what_was_interrupted_goes_on_with_the_same_settings(folder: Path, landscape: Landscape, monkeypatch) -> None:
    keep = Unfinished.keep

    def keep_and_stop(self: Unfinished, values: np.ndarray) -> None:
        keep(self, values)
        raise KeyboardInterrupt

    words = ("surface", "plain_step1.pt", *PLAIN)
    with monkeypatch.context() as patched:
        patched.setattr(Unfinished, "keep", keep_and_stop)
        assert landscape(*words, "--points", "5").status == 130
    assert points_kept(Path("surface.h5")) > 0
    other = landscape(*words, "--points", "7", "--resume")
    assert other.status == 1
    assert "surface.h5 has surface with points=5, not points=7" in other.err
    assert landscape(*words, "--points", "5", "--resume").status == 0


def test_a_full_disk_says_how_to_go_on(folder: Path, landscape: Landscape, monkeypatch) -> None:
    keep = Unfinished.keep

    def keep_and_fill(self: Unfinished, values: np.ndarray) -> None:
        keep(self, values)
        raise TraceError("cannot write surface.h5: No space left on device")

    monkeypatch.setattr(Unfinished, "keep", keep_and_fill)
    done = landscape("surface", "plain_step1.pt", *PLAIN, "--points", "5")
    assert done.status == 1
    assert "No space left on device; what was measured before is kept in surface.h5, go on with:" in done.err
    assert "--resume" in done.err


def test_a_problem_that_makes_other_data_each_time_is_found_out(folder: Path, landscape: Landscape) -> None:
    words = ("--points", "7", "--jobs", "2", "-o", "run.h5")
    done = landscape("surface", "plain_step1.pt", "--problem", "problem.py:unseeded", *words)
    assert done.status == 1
    assert "problem.py:unseeded makes another objective each time" in done.err
    assert "--jobs 1" in done.err
    near = landscape("surface", "plain_step1.pt", "--problem", "problem.py:nearly", *words)
    assert near.status == 1
    assert "problem.py:nearly makes another objective each time" in near.err
    torch.manual_seed(3)
    fine = landscape("surface", "plain_step1.pt", "--problem", "problem.py:drawn", *words)  # of torch's own seed
    assert fine.status == 0, fine.err


def test_other_processes_have_the_frozen_weights_of_the_checkpoint(folder: Path, landscape: Landscape) -> None:
    words = ("surface", "plain_step1.pt", "--problem", "problem.py:frozen", "--points", "5")
    for jobs in ("1", "2"):
        done = landscape(*words, "--jobs", jobs, "-o", f"{jobs}.h5")
        assert done.status == 0, done.err
    one, two = (Trace.open(f"{jobs}.h5")["surface"].row()["values"] for jobs in "12")
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_other_processes_may_load_data_with_workers_of_their_own(folder: Path, landscape: Landscape) -> None:
    words = ("surface", "plain_step1.pt", "--problem", "problem.py:loader", "--points", "5", "--jobs", "2")
    done = landscape(*words)
    assert done.status == 0, done.err


@pytest.mark.parametrize("words", [("surface", "--directions", "between"), ("connect", "--no-curvature")])
def test_networks_that_differ_in_frozen_weights_are_refused(folder: Path, landscape: Landscape, words) -> None:
    done = landscape(*words, "plain_step1.pt", "plain_step2.pt", "--problem", "problem.py:frozen")
    assert done.status == 1
    assert "plain_step1.pt and plain_step2.pt differ in 0.weight, which the objective holds fixed" in done.err
    assert list(folder.glob("*.h5")) == []


@pytest.mark.parametrize("words", [("surface", "--directions", "between"), ("connect", "--no-curvature")])
def test_buffers_that_networks_differ_in_are_told(folder: Path, landscape: Landscape, words) -> None:
    for seed in (1, 2):
        state = {f"inner.{name}": t for name, t in network(False, seed).state_dict().items()}
        torch.save(state | {"scale": torch.tensor(float(seed))}, f"scaled_step{seed}.pt")
    files = ("scaled_step1.pt", "scaled_step2.pt", "--problem", "problem.py:scaled", "--points", "3", "-o", "run.h5")
    done = landscape(*words, *files)
    assert done.status == 0, done.err
    note = Trace.open("run.h5")["connection" if words[0] == "connect" else "surface"].row()["note"]
    assert "the networks differ in scale, which all points have of that at step 1" in note


# -- connect -----------------------------------------------------------------------------------------------------------


def test_connect_is_one_command(folder: Path, landscape: Landscape) -> None:
    words = ("--problem", "problem.py:norm", "--points", "5", "--training", "3", "--no-curvature")
    done = landscape("connect", "norm_step1.pt", "norm_step2.pt", *words)
    assert done.status == 0, done.err
    assert "connect-connection.png" in done.out
    row = Trace.open("connect.h5")["connection"].row()
    own = [objective("norm", seed).value() for seed in (1, 2)]
    for way in ("straight", "aligned", "trained"):
        np.testing.assert_allclose(row[way][[0, -1]], own, rtol=1e-6)
    np.testing.assert_allclose(Trace.open("connect.h5")["loss"]["value"], own, rtol=1e-6)
    again = landscape("connect", "norm_step1.pt", "norm_step2.pt", *words, "--resume")
    assert again.status == 0
    bent = landscape("connect", "norm_step1.pt", "norm_step2.pt", *words, "--resume", "--bends", "2")
    assert "connect.h5 has connection with bends=1, not bends=2: measure it anew with --overwrite" in bent.err
    assert "--probe" not in bent.err
    other = landscape("connect", "norm_step1.pt", "norm_step3.pt", *words, "--resume")
    assert other.status == 1
    assert "connect.h5 was measured at step 1 on weights with hash" in other.err


def test_a_network_and_its_copy_have_no_path(folder: Path, landscape: Landscape) -> None:
    Path("copy.pt").write_bytes(Path("plain_step1.pt").read_bytes())
    done = landscape("connect", "plain_step1.pt", "copy.pt", *PLAIN, "--points", "3")
    assert done.status == 0, done.err
    row = Trace.open("connect.h5")["connection"].row()
    assert row["height"][:2].tolist() == [0.0, 0.0]
    assert "no path is trained: both networks are the same" in row["note"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--path", "spline"), "kind is one of bezier, polygon, none"), (("--drop", "1"), "share=1.0 is not possible")],
)
def test_connect_says_what_makes_no_sense(folder: Path, landscape: Landscape, words, said: str) -> None:
    done = landscape("connect", "plain_step1.pt", "plain_step2.pt", *PLAIN, *words)
    assert done.status == 2
    assert said in done.err
