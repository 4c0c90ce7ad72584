"""The commands of docs/sweeps.md run as they are printed."""

import importlib.util
import re
import subprocess
import sys

import pytest
from paths import ROOT
from sweep_cases import environment

PAGE = (ROOT / "docs/sweeps.md").read_text()
PROBLEM = re.search(r"^```python title=problem.py\n(.*?)^```", PAGE, re.M | re.S)
COMMANDS = dict(re.findall(r"^```console title=(\S+)\n(.*?)\n```", PAGE, re.M | re.S))


@pytest.mark.parametrize(
    "title",
    [
        "dry-run",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.slow),
        pytest.param("submitit", marks=pytest.mark.slow),
    ],
)
def test_a_command_runs(title, tmp_path):
    if title in ("ray", "submitit") and importlib.util.find_spec(title) is None:
        pytest.skip(f"{title} is not installed")
    (tmp_path / "problem.py").write_text(PROBLEM.group(1))
    script = COMMANDS[title].replace("landscape", f"{sys.executable} -m probes.cli", 1)
    done = subprocess.run(
        script, shell=True, capture_output=True, text=True, cwd=tmp_path, timeout=280, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if title in ("processes", "ray"):
        printed = [line for line in PAGE.splitlines() if re.match(r" (torch\.optim|solvers):", line)]
        for line in printed[:3]:
            row = next(one for one in done.stdout.splitlines() if one.split()[:1] == line.split()[:1])
            assert row.split()[:3] == line.split()[:3]  # the best step size and the loss there
    elif title == "dry-run":
        assert "2 of 24 runs are finished, 22 to go" in done.stdout


def test_all_commands_are_tried():
    assert set(COMMANDS) == {"processes", "ray", "submitit", "dry-run"}
