"""The commands of docs/ranks.md print what the page says."""

import re
import subprocess
import sys

import pytest
from paths import ROOT
from processes import environment

PAGE = (ROOT / "docs/ranks.md").read_text()
NUMBER = re.compile(r"\d+\.\d+")


@pytest.mark.slow
def test_the_page_is_what_is_printed(tmp_path):
    for title, code in re.findall(r"^```python title=(\S+)\n(.*?)^```", PAGE, re.M | re.S):
        (tmp_path / title).write_text(code)
    subprocess.run([sys.executable, "save.py"], cwd=tmp_path, env=environment(), check=True, timeout=60)
    launcher = f"{sys.executable} -m torch.distributed.run --standalone"
    for command, said in re.findall(r"^```console\n\$ torchrun (.*?)\n(.*?)^```", PAGE, re.M | re.S):
        done = subprocess.run(
            f"{launcher} {command}",
            shell=True,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        found, expected = ([float(x) for x in NUMBER.findall(text)] for text in (done.stdout, said))
        # rounding differs between machines, and errors of a search more than the numbers
        assert found[: len(expected)] == pytest.approx(expected, rel=0.02, abs=0.02)
