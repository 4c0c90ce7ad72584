"""A problem for sweeps, with dropout, batch norm and test data, that dies once in the middle of a run when told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from paths import ROOT

from probes import Trace

PROBLEM = '''
import os, signal, time
from pathlib import Path
import torch
from torch import nn
from landscape import Objective

HERE = Path(__file__).parent

def loss(outputs, targets):
    """Counts training steps in a file of the process; at step DIE of a seed the process dies, once."""
    if torch.is_grad_enabled() and outputs.requires_grad:
        with (HERE / "steps").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(float(os.environ.get("PAUSE", "0")))
        loss.calls += 1
        if (HERE / "die").exists() and loss.calls == int((HERE / "die").read_text()):
            (HERE / "die").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return nn.functional.cross_entropy(outputs, targets)

loss.calls = 0

def problem():
    x = torch.linspace(-1, 1, 48)[:, None]
    model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 2))
    train = Objective(model, loss, (x, (x[:, 0] > 0.2).long()))
    return train, train.on((x + 0.01, (x[:, 0] > 0.2).long()))
'''
SWEEP = ("--solvers", "torch.optim:Adam,solvers:NGN:momentum=0.9", "--lr", "0.01,0.1", "--steps", "12", "--batch", "8")


def environment(**more: str) -> dict[str, str]:
    """Of a process that finds the project."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def command(folder: Path, *words: str) -> list[str]:
    """`landscape sweep` on the problem, in a folder that has it."""
    (folder / "own.py").write_text(PROBLEM)
    return [sys.executable, "-m", "probes.cli", "sweep", "--problem", "own.py:problem", *SWEEP, *words]


def swept(folder: Path, *words: str, **more: str) -> str:
    """Run it to its end in `folder`; what it printed."""
    done = subprocess.run(
        command(folder, *words), cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def calls(folder: Path) -> int:
    """How often training has called the loss, in all processes."""
    return len((folder / "steps").read_text().split())


def numbers(out: Path) -> dict[str, Any]:
    """All that the runs of a sweep have found, by name, but for times: results and traces."""
    found: dict[str, Any] = {}
    for path in sorted((out / "jobs").glob("*.json")):
        data = json.loads(path.read_text())["data"]
        data.pop("seconds")
        with Trace.open(path.with_suffix(".h5")) as trace:
            rows = {name: trace[name].read() for name in trace}
        steps = rows["loss"]["step"]
        assert list(steps) == list(range(len(steps)))  # each step once
        data["loss"] = np.asarray(rows["loss"]["value"]).tolist()
        data["whole"] = np.asarray(rows["whole"]["loss"]).tolist(), list(map(int, rows["whole"]["step"]))
        found[path.stem] = data
    return found
