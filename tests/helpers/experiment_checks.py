"""What every experiment's tests ask: that its jobs serve its claims, what is committed of it, and its reduced run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from paths import ROOT

from runs.engine.claims import ClaimResult, ControlResult
from runs.engine.display import counts, details, index
from runs.engine.experiment import Experiment

UNCONTROLLED = ("one power step is close to the best Kronecker product", "SGD loses to Adam on transformers")
"""Published claims found to hold whose control waits for the next run of their experiment."""


def check_needs(experiment: Experiment) -> None:
    """For each claim there are jobs, in the full and in the reduced run."""
    for quick in (False, True):
        names = [job.name for job in experiment.plan(quick)]
        for claim in experiment.claims:
            for pattern in claim.needs + (claim.control.needs if claim.control else ()):
                assert any(fnmatchcase(name, pattern) for name in names), (claim.name, pattern)


def committed(experiment: Experiment) -> tuple[dict[str, Any], list[ClaimResult]]:
    """The report in runs/results and its claims."""
    report = json.loads((ROOT / "runs" / "results" / f"{experiment.name}.json").read_text())
    controls = [None if found["control"] is None else ControlResult(**found["control"]) for found in report["claims"]]
    return report, [ClaimResult(**found | {"control": c}) for found, c in zip(report["claims"], controls, strict=True)]


def check_committed(experiment: Experiment) -> tuple[dict[str, Any], list[ClaimResult]]:
    """The committed report is of a full run without errors, of these jobs and of these claims; the report."""
    report, claims = committed(experiment)
    assert report["quick"] is False
    assert not [name for name, job in report["jobs"].items() if job["error"]]
    planned = [(job.name, dict(job.settings)) for job in experiment.plan(False)]
    assert planned == [(name, job["settings"]) for name, job in report["jobs"].items()]
    stated = [(s.name, s.source, s.literature, s.criterion, s.control and s.control.what) for s in experiment.claims]
    assert stated == [(c.name, c.source, c.literature, c.criterion, c.control and c.control.what) for c in claims]
    for c in claims:
        assert c.control is None or c.control.holds is False, f"the rule of {c.name!r} cannot fail"
        if c.published and c.holds and c.name not in UNCONTROLLED:
            assert c.control is not None, f"nothing shows that the rule of {c.name!r} can fail"
    return report, claims


def check_page(experiment: Experiment) -> str:
    """The page in docs/, which has the committed claims, as docs/experiments.md says how many hold."""
    _, claims = committed(experiment)
    page = (ROOT / "docs" / experiment.page).read_text()
    assert index(claims) in page
    assert page.endswith(f"\n## The claims\n\n{details(claims)}")
    overview = (ROOT / "docs/experiments.md").read_text()
    (row,) = [line for line in overview.splitlines() if line.startswith(f"| `{experiment.name}` |")]
    assert f" | {' | '.join(counts(claims))} | [" in row, counts(claims)
    assert f"]({experiment.page})" in row
    return page


def reduced(experiment: Experiment, folder: Path, seconds: float = 90) -> tuple[dict[str, Any], str]:
    """The report and what was printed. 60 s are promised on a machine with nothing else to do."""
    words = [sys.executable, "-m", f"runs.{experiment.name}", "--quick", "--out", str(folder)]
    start = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < seconds
    assert done.stderr == ""
    report: dict[str, Any] = json.loads((folder / "quick" / "claims.json").read_text())
    assert not [name for name, job in report["jobs"].items() if job["error"]]
    return report, done.stdout
