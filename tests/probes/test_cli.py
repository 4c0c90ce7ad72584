"""The command: every failure is one line with the right status and leaves nothing behind; results go to stdout.

Commands run in this process (`landscape` below), where torch is imported once; what depends on the process itself
(imports of --help, signals, a full disk) runs in one of its own.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Landscape
from paths import ROOT

from probes import Trace

PROBLEM = """
    import time
    import torch
    from torch import nn
    from landscape import Objective

    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))

    def data(n=20):
        g = torch.Generator().manual_seed(1)
        return torch.randn(n, 4, generator=g), torch.randint(0, 3, (n,), generator=g)

    def tiny():
        print("the problem says hello")
        return Objective(make(), nn.CrossEntropyLoss(), data())

    def three():
        return 3

    def nothing():
        pass

    def boom():
        raise KeyError("missing")

    def needs(argument):
        return argument

    def empty():
        return Objective(make(), nn.CrossEntropyLoss(), data(0))

    def vector():
        return Objective(make(), lambda outputs, targets: outputs.sum(dim=1), data())

    def detached():
        return Objective(make(), lambda outputs, targets: outputs.detach().sum(), data())

    def slow():
        def loss(outputs, targets):
            time.sleep(0.5)  # long enough to be interrupted on a busy machine
            return nn.functional.cross_entropy(outputs, targets)
        return Objective(make(), loss, data(), count=lambda outputs, targets: len(targets))

    value = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder: a problem file and three checkpoints of its network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("problem.py").write_text(textwrap.dedent(PROBLEM))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    for step in (0, 100, 200):
        state = {f"model.{key}": (1 + step / 200) * value for key, value in net.state_dict().items()}
        torch.save({"state_dict": state}, f"net_v2_step{step}.pt")
    yield tmp_path
    for name in [name for name in sys.modules if name in ("problem", "landscape_problem_problem")]:
        del sys.modules[name]


def own_process(*words: str, code: str = "from probes.cli import main; main()") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, timeout=120
    )


CHECKPOINTS = ("net_v2_step0.pt", "net_v2_step100.pt", "net_v2_step200.pt")
TINY = ("--problem", "problem.py:tiny")


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from probes.cli import main\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    for words in (["--help"], ["probe", "--help"], ["demo", "--help"], []):
        done = own_process(*words, code=code)
        assert "Usage" in done.stdout + done.stderr
        assert done.stderr.strip().endswith("False"), words
    assert all(name in own_process("--help").stdout for name in ("demo", "probe", "show", "plot", "doctor"))


def test_probe_show_and_plot(folder: Path, landscape: Landscape) -> None:
    probes = ("spectrum:k=4,tol=1e-5", "trace", "density:probes=2,steps=16", "condition")
    words = [word for probe in probes for word in ("--probe", probe)]
    done = landscape("probe", *CHECKPOINTS, *TINY, *words, "-o", "a.h5", "--seed", "3")
    assert done.status == 0
    assert "hello" not in done.out  # a problem's own prints are no results
    assert "±" in done.out
    assert "\x1b" not in done.out
    with Trace.open("a.h5") as trace:
        assert trace.seed == 3
        assert trace.config["problem"] == "problem.py:tiny"
        for name in ("loss", "spectrum", "trace", "density", "condition"):
            assert trace[name]["step"].tolist() == [0, 100, 200]
        # against a dense matrix, at every checkpoint
        from landscape import Hessian
        from probes.checkpoints.load import load_checkpoint
        from probes.checkpoints.problem import build_objective

        objective = build_objective("problem.py:tiny")
        for row, path in enumerate(CHECKPOINTS):
            load_checkpoint(path, objective.model)
            exact = np.linalg.eigvalsh(Hessian(objective).to_dense().double().numpy())[::-1]
            np.testing.assert_allclose(trace["spectrum"]["values"][row], exact[:4], rtol=1e-4)
            np.testing.assert_allclose(trace["trace"]["value"][row], exact.sum(), rtol=1e-3, atol=1e-3)
            assert trace["loss"]["value"][row] == pytest.approx(objective.value())
    shown = landscape("show", "a.h5")
    assert shown.status == 0
    assert shown.err == ""
    for text in ("problem.py:tiny", "spectrum", "density", "k=4", "200", "torch"):
        assert text in shown.out
    plotted = landscape("plot", "a.h5", "-o", "pictures")
    assert plotted.status == 0
    assert all(Path(line).is_file() for line in plotted.out.splitlines())
    assert len(plotted.out.splitlines()) == 6


def test_operators_and_steps(folder: Path, landscape: Landscape) -> None:
    done = landscape(
        "probe",
        *CHECKPOINTS[:2],
        *TINY,
        "--operator",
        "gauss-newton",
        "--probe",
        "spectrum:k=2",
        "--probe",
        "spectrum:k=2,operator=fisher,name=fisher",
        "--steps",
        "7,3",
        "-o",
        "a.h5",
    )
    assert done.status == 0
    with Trace.open("a.h5") as trace:
        assert trace["fisher"]["step"].tolist() == [3, 7]
        assert trace["spectrum"].settings["operator"] == "gauss-newton"
        assert trace["fisher"].settings["operator"] == "fisher"
        assert (trace["spectrum"]["values"] > 0).all()


def test_existing_output(folder: Path, landscape: Landscape) -> None:
    first = ("probe", CHECKPOINTS[0], *TINY, "--probe", "spectrum:k=2", "--steps", "0")
    assert landscape(*first).status == 0
    refused = landscape(*first)
    assert refused.status == 1
    assert refused.err == (
        "landscape: probe.h5 exists: replace it with --overwrite, add to it with --resume, or choose another -o\n"
    )
    everything = ("probe", *CHECKPOINTS, *TINY, "--probe", "spectrum:k=2", "--probe", "trace")
    assert landscape(*everything, "--resume").status == 0
    with Trace.open("probe.h5") as trace:
        assert trace["spectrum"]["step"].tolist() == trace["trace"]["step"].tolist() == [0, 100, 200]
        resumed = trace["spectrum"]["values"]
    assert landscape(*everything, "--resume").status == 0  # nothing to do
    assert landscape(*everything, "--overwrite").status == 0
    with Trace.open("probe.h5") as trace:
        # a measurement does not depend on what was measured before it
        np.testing.assert_array_equal(trace["spectrum"]["values"], resumed)
    for words, text in (
        ([*everything, "--resume", "--seed", "5"], "has seed 0"),
        (["probe", CHECKPOINTS[0], "--problem", "problem.py:slow", "--resume"], "was measured on problem.py:tiny"),
        (["probe", CHECKPOINTS[0], *TINY, "--probe", "spectrum:k=3", "--steps", "900", "--resume"], "k"),
    ):
        done = landscape(*words)
        *said, line = done.err.splitlines()
        assert (done.status, said, text in line) == (1, ["the problem says hello"][: len(said)], True), done.err
    # an output that would be replaced survives a failure
    before = Path("probe.h5").read_bytes()
    assert landscape("probe", CHECKPOINTS[0], "--problem", "problem.py:vector", "--overwrite").status == 1
    assert Path("probe.h5").read_bytes() == before


BAD: dict[str, tuple[tuple[str, ...], int, str]] = {
    "missing": (("no.pt", *TINY), 1, "there is no checkpoint no.pt"),
    "folder": ((".", *TINY), 1, ". is a folder: name the files in it, such as cut.pt"),
    "truncated": (("cut.pt", *TINY), 1, "cut.pt is truncated or corrupt"),
    "keys": (("keys.pt", *TINY), 1, "missing 2.weight"),
    "pickle": (("pickle.pt", *TINY), 1, "holds more than weights"),
    "nan": (("nan.pt", *TINY), 1, "0.weight in nan.pt is not finite"),
    "last of many": ((*CHECKPOINTS, "nan.pt", *TINY), 1, "not finite"),
    "twice": ((CHECKPOINTS[0], CHECKPOINTS[0], *TINY), 1, "given twice"),
    "no colon": ((CHECKPOINTS[0], "--problem", "problem.py"), 2, "names no problem function"),
    "no file": ((CHECKPOINTS[0], "--problem", "problm.py:tiny"), 1, "no file problm.py; did you mean 'problem.py'?"),
    "no module": ((CHECKPOINTS[0], "--problem", "nowhere.at.all:tiny"), 1, "there is no module 'nowhere.at.all'"),
    "no function": ((CHECKPOINTS[0], "--problem", "problem.py:tiney"), 1, "did you mean 'tiny'?"),
    "no function at all": ((CHECKPOINTS[0], "--problem", "problem.py:value"), 1, "not a function"),
    "an int": ((CHECKPOINTS[0], "--problem", "problem.py:three"), 1, "returned an int: it must return"),
    "None": ((CHECKPOINTS[0], "--problem", "problem.py:nothing"), 1, "returned None"),
    "raises": ((CHECKPOINTS[0], "--problem", "problem.py:boom"), 1, "raised KeyError 'missing'; see it with --debug"),
    "argument": ((CHECKPOINTS[0], "--problem", "problem.py:needs"), 1, "required positional argument"),
    "empty data": ((CHECKPOINTS[0], "--problem", "problem.py:empty"), 1, "landscape: "),
    "vector loss": ((CHECKPOINTS[0], "--problem", "problem.py:vector"), 1, "scalar"),
    "no graph": ((CHECKPOINTS[0], "--problem", "problem.py:detached"), 1, "landscape: "),
    "probe": ((CHECKPOINTS[0], *TINY, "--probe", "spektrum"), 2, "did you mean 'spectrum'? known are spectrum, trace"),
    "option": ((CHECKPOINTS[0], *TINY, "--probe", "spectrum:kk=3"), 2, "has no option 'kk'"),
    "every": ((CHECKPOINTS[0], *TINY, "--probe", "spectrum:every=3"), 2, "has no option 'every'"),
    "value": ((CHECKPOINTS[0], *TINY, "--probe", "spectrum:k=0"), 2, "k must be at least 1"),
    "text": ((CHECKPOINTS[0], *TINY, "--probe", "spectrum:k=many"), 2, "--probe spectrum:k=many"),
    "large": ((CHECKPOINTS[0], *TINY, "--probe", "spectrum:k=1000"), 1, "k <= 43"),
    "same name": ((CHECKPOINTS[0], *TINY, "--probe", "trace", "--probe", "trace"), 2, "two probes are named 'trace'"),
    "operator": ((CHECKPOINTS[0], *TINY, "--operator", "hesian"), 2, "did you mean 'hessian'?"),
    "steps": ((CHECKPOINTS[0], *TINY, "--steps", "one"), 2, "--steps takes whole numbers"),
    "steps count": ((*CHECKPOINTS, *TINY, "--steps", "1,2"), 2, "2 numbers for 3 checkpoints"),
    "steps equal": ((*CHECKPOINTS, *TINY, "--steps", "1,2,2"), 1, "both claim step 2"),
    "no folder": ((CHECKPOINTS[0], *TINY, "-o", "no/where.h5"), 1, "no does not exist"),
    "output folder": ((CHECKPOINTS[0], *TINY, "-o", "."), 1, "is a folder"),
    "read-only": ((CHECKPOINTS[0], *TINY, "-o", "/proc/probe.h5"), 1, "/proc cannot be written"),
    "both": ((CHECKPOINTS[0], *TINY, "--resume", "--overwrite"), 2, "exclude each other"),
    "unknown flag": ((CHECKPOINTS[0], *TINY, "--fast"), 2, "No such option: --fast"),
    "no problem": ((CHECKPOINTS[0],), 2, "--problem"),
    "no checkpoint": (TINY, 2, "heckpoint"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(folder: Path, landscape: Landscape, case: str) -> None:
    content = torch.load(CHECKPOINTS[0], weights_only=True)
    state = content["state_dict"]
    Path("cut.pt").write_bytes(Path(CHECKPOINTS[0]).read_bytes()[:600])
    torch.save({key: value for key, value in state.items() if "2" not in key}, "keys.pt")
    torch.save({**content, "hyper": subprocess.CalledProcessError(1, "x")}, "pickle.pt")
    torch.save({**state, "model.0.weight": torch.full((5, 4), float("nan"))}, "nan.pt")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    words, status, text = BAD[case]
    done = landscape("probe", *words)
    assert done.status == status, done.err
    lines = [line for line in done.err.splitlines() if "says hello" not in line]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("landscape: ")
    assert text in lines[0]
    assert done.out == ""
    after = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "__pycache__"}
    assert {path.name for path in after} == {path.name for path in before if path.name != "__pycache__"}


def test_bad_commands_and_traces(folder: Path, landscape: Landscape) -> None:
    Path("text.h5").write_text("not a trace")
    for words, status, text in (
        (["prob"], 2, "No such command 'prob'"),
        (["show", "no.h5"], 1, "there is no trace no.h5"),
        (["show", "."], 1, "is a folder"),
        (["show", "text.h5"], 1, "text.h5"),
        (["plot", "text.h5"], 1, "text.h5"),
        (["show"], 2, "Missing argument"),
        (["demo", "--out", "text.h5"], 1, "text.h5 is a file"),
    ):
        done = landscape(*words)
        assert (done.status, done.err.count("\n")) == (status, 1), done.err
        assert text in done.err
        assert done.out == ""


def test_debug_shows_the_traceback(folder: Path, landscape: Landscape) -> None:
    for words in (("--debug", "probe"), ("probe", "--debug")):
        done = landscape(*words, CHECKPOINTS[0], "--problem", "problem.py:boom")
        assert done.status == 1
        assert "Traceback" in done.err
        assert 'raise KeyError("missing")' in done.err


def test_a_failing_probe_keeps_what_was_measured(folder: Path, landscape: Landscape) -> None:
    words = ("--probe", "spectrum:k=2", "--probe", "spectrum:k=1000,name=large")
    done = landscape("probe", CHECKPOINTS[0], *TINY, *words, "-o", "a.h5")
    assert done.status == 1
    assert "k <= 43; what was measured before is kept in a.h5, go on with: landscape probe" in done.err
    with Trace.open("a.h5") as trace:
        assert len(trace["spectrum"]) == 1


def test_interrupt_keeps_what_was_measured(folder: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [
        *CHECKPOINTS,
        "--problem",
        "problem.py:slow",
        "--probe",
        "spectrum:k=1",
        "--probe",
        "density",
        "-o",
        "a.h5",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from probes.cli import main; main()", "probe", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    deadline = time.monotonic() + 60
    rows = 0
    while rows == 0 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        if Path("a.h5").exists():
            with Trace.open("a.h5") as trace:
                rows = len(trace["spectrum"]) if "spectrum" in trace else 0
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    again = shlex.join(["landscape", "probe", *words, "--resume"])
    assert err == f"landscape: interrupted; what was measured before is kept in a.h5, go on with: {again}\n"
    assert out == ""
    with Trace.open("a.h5") as trace:
        assert len(trace["spectrum"]) >= 1


def test_full_disk(folder: Path) -> None:
    """A limit on the size of files stands for the disk: writing fails with the same error, later."""
    code = textwrap.dedent("""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        from probes.cli import main
        main()
    """)
    done = own_process("probe", *CHECKPOINTS, *TINY, "--probe", "density", "-o", "a.h5", code=code)
    lines = [line for line in done.stderr.splitlines() if "hello" not in line]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("landscape: ")
    assert done.stdout == ""
    assert not [path for path in folder.iterdir() if path.suffix in (".h5", ".tmp")]


def test_doctor(folder: Path, landscape: Landscape, monkeypatch: pytest.MonkeyPatch) -> None:
    done = landscape("doctor")
    assert done.status == 0
    for text in ("torch", "HDF5", "double backward", "attention", "float64", "is writable"):
        assert text in done.out
    from probes.doctor import machine

    monkeypatch.setitem(machine._CHECKS, "double backward", lambda device: 1 / 0)
    done = landscape("doctor")
    assert done.status == 1
    assert "FAIL cpu double backward" in done.out
    assert done.err.count("\n") == 1


def test_version() -> None:
    code = "import sys; from probes.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = own_process("--version", code=code)
    assert done.returncode == 0
    assert done.stdout.startswith("landscape-engine ")
    assert f"(torch {torch.__version__.partition('+')[0]}" in done.stdout
    assert done.stdout.endswith("False\n")
