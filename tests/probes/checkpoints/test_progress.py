"""What `landscape probe` shows of each probe: all that their algorithms tell, drawn at every callback."""

import io
import re
import shlex
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from probes import Trace
from probes.checkpoints import run as module
from probes.checkpoints.arguments import parse_probes
from probes.checkpoints.run import Request, run
from probes.checkpoints.steps import checkpoint_steps
from probes.cli import main
from probes.display import faces
from probes.display.state import Doing

PROBLEM = """
import torch
from torch import nn
from landscape import Objective

def tiny():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, 4, generator=generator)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    return Objective(model, nn.CrossEntropyLoss(), (x, torch.randint(0, 3, (20,), generator=generator)))
"""
SHOWN = {  # with a number and its error, and how much of what is made
    "spectrum:k=2": r"spectrum .* 1 of 2 .*λ₁ = \d\S* ± \d\S*, \d+ of 1000 products",
    "spectrum:k=1,which=SA": r"λ_min = -\d\S* ± \d\S*, \d+ of 1000 products",
    "sharpness": r"sharpness .*λ₁ = \d\S* ± \d\S*, \d+ of 1000 products",
    "trace:matvecs=30": r"trace .*trace = \d\S* ± \d\S*, 30 of 30 products",
    "trace": r"trace .*trace = \d\S* ± \d\S*, 67 of 67 products",
    "density:probes=2,steps=8": r"density .*largest \|node\| = \d\S* ± \d\S*, 16 of 16 products",
    "condition": r"condition .* 67 of 67 products",
    "condition:rank=3": r"condition .* 67 of 67 products",
    "surface:points=5": r"surface .*lowest f = \d\S*, 25 of 25 points",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("problem.py").write_text(textwrap.dedent(PROBLEM))
    for step in (0, 10):
        torch.manual_seed(step)
        torch.save(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).state_dict(), f"step{step}.pt")
    yield tmp_path
    sys.modules.pop("landscape_problem_problem", None)


@pytest.fixture
def drawn(folder, monkeypatch):
    """`drawn(spec)` measures one probe at one checkpoint; the frames that a terminal has shown."""
    opened = []
    start, note = faces.Terminal.open, Doing.__call__

    def tell(self, *call):
        note(self, *call)
        opened[-1].refresh()

    monkeypatch.setattr(faces.Terminal, "open", lambda self: (opened.append(self), start(self)))
    monkeypatch.setattr(Doing, "__call__", tell)

    def measure(spec):
        console = Console(file=io.StringIO(), force_terminal=True, width=120)
        files = checkpoint_steps([Path("step0.pt")])
        probes = parse_probes([spec], "hessian")
        run(Request(files, "problem.py:tiny", probes, Path("out.h5"), overwrite=True), console)
        frames = console.file.getvalue().split("\r")
        return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame) for frame in frames]

    return measure


@pytest.mark.parametrize("spec", SHOWN)
def test_each_probe_tells_its_estimate(drawn, spec):
    frames = drawn(spec)
    assert any(re.search(SHOWN[spec], frame) for frame in frames), frames


def typed(*words):
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return stopped.value.code or 0


def test_the_command_that_ctrl_c_says_goes_on(folder, monkeypatch, capsys):
    measured = []
    measure_once = module.measure_once

    def interrupted(*words, **options):
        measured.append(words)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure_once(*words, **options)

    monkeypatch.setattr(module, "measure_once", interrupted)
    Path("a b.h5").write_text("of before")
    words = ["probe", "step0.pt", "step10.pt", "--problem", "problem.py:tiny", "--overwrite", "-o", "a b.h5"]
    assert typed(*words, "--probe", "spectrum:k=2", "--probe", "trace:matvecs=5") == 130
    told = capsys.readouterr().err.splitlines()[-1]
    said, _, command = told.partition(", go on with: ")
    assert said == "landscape: interrupted; what was measured before is kept in a b.h5"
    assert command == (
        "landscape probe step0.pt step10.pt --problem problem.py:tiny -o 'a b.h5' --probe spectrum:k=2 "
        "--probe trace:matvecs=5 --resume"
    )
    assert typed(*shlex.split(command)[1:]) == 0
    assert len(measured) == 5  # two, the one that was interrupted, and the two that were missing
    with Trace.open("a b.h5") as trace:
        assert trace["spectrum"]["step"].tolist() == trace["trace"]["step"].tolist() == [0, 10]


def test_points_of_a_surface_that_ctrl_c_came_into_are_kept(folder, monkeypatch, capsys):
    note, calls = Doing.__call__, []

    def interrupted(self, *call):
        calls.append(call)
        note(self, *call)
        if len(calls) == 3:
            raise KeyboardInterrupt

    words = ["probe", "step0.pt", "--problem", "problem.py:tiny", "--probe", "surface:points=5"]
    assert typed(*words, "-o", "whole.h5") == 0
    monkeypatch.setattr(Doing, "__call__", interrupted)
    assert typed(*words, "-o", "cut.h5") == 130
    assert "is kept in cut.h5, go on with: landscape probe" in capsys.readouterr().err
    monkeypatch.setattr(Doing, "__call__", note)
    assert typed(*words, "-o", "cut.h5", "--resume") == 0
    with Trace.open("whole.h5") as whole, Trace.open("cut.h5") as cut:
        assert (cut["surface"]["values"] == whole["surface"]["values"]).all()
        assert cut["surface"]["evaluations"][0] < whole["surface"]["evaluations"][0]


def test_a_long_command_is_said_whole(folder, monkeypatch, capsys):
    def interrupted(objective, probes, trace, step, **options):
        if step == 1:
            raise KeyboardInterrupt
        return measure_once(objective, probes, trace, step, **options)

    measure_once = module.measure_once
    monkeypatch.setattr(module, "measure_once", interrupted)
    names = [f"a-name-that-is-not-short-{step}.pt" for step in range(60)]
    for name in names:
        Path(name).write_bytes(Path("step0.pt").read_bytes())
    rest = ["--problem", "problem.py:tiny", "--probe", "trace:matvecs=3", "-o", "out.h5"]
    assert typed("probe", *names, *rest) == 130
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"go on with: {shlex.join(['landscape', 'probe', *names, *rest, '--resume'])}")
