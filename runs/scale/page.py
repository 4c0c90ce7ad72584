"""The tables in docs/scale.md: made by the model from committed constants, so that they cannot differ from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runs.scale import tables
from runs.scale.check import Check
from runs.scale.figures import step_picture
from runs.scale.grid import Grid
from runs.scale.machine import H100, Machine
from runs.scale.model import Setting

_ROOT = Path(__file__).resolve().parents[2]
PAGE = _ROOT / "docs" / "scale.md"
MEASURED = Path(__file__).with_name("results") / "two-processes.json"  # what --json wrote
_BETWEEN = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """The page's text with each table between its marks made anew."""
    content = json.loads(MEASURED.read_text())
    this, setting = Machine.of_plain(content["machine"]), Setting()
    made = {
        "measured": tables.constants(this),
        "checks": tables.checks([Check(**check) for check in content["checks"]]),
        "h100": tables.constants(H100),
        "networks": tables.networks(),
        "steps": tables.steps(H100, setting),
        "sweeps": tables.sweeps(H100, setting, Grid()),
    }
    return _BETWEEN.sub(lambda found: f"{found[1]}\n{made[found[2]].markdown()}\n{found[3]}", text)


def renew() -> Path:
    """Write the page's tables and its picture."""
    PAGE.write_text(renewed(PAGE.read_text()))
    step_picture(H100, Setting(), PAGE.with_name("scale.png"))
    return PAGE
