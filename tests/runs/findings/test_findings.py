"""Every finding is seen again, and the page in docs/ has what is seen."""

from __future__ import annotations

import re

import pytest
from paths import ROOT

from runs.findings import FINDINGS, adam_sde, leaky_relu, ratio_rule
from runs.findings.__main__ import main

PAGE = (ROOT / "docs/findings.md").read_text()
QUICK = (
    "leaky-relu",
    "convolutions",
    "sam-covariance",
    "sign-limits",
    "alpha-beta-sign",
    "weight-norm",
    "hessian-layer-norm",
)


def section(name: str) -> str:
    """What the page says of a finding."""
    return PAGE.split(f"python -m runs.findings {name}\n")[1].split("\n## ")[0]


def alike(told: str, seen: str) -> bool:
    """Cells of a table: numbers within a tenth, tiny ones by their size, words as they are."""
    try:
        a, b = float(told), float(seen)
    except ValueError:
        return told == seen
    return abs(a - b) <= 0.1 * max(abs(a), abs(b)) or max(abs(a), abs(b)) < 1e-8


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FINDINGS]
)
def test_is_seen_again(name: str) -> None:
    finding = FINDINGS[name]
    seen = finding.measure()
    assert seen.again
    told = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", section(name), re.M)]
    assert told[0] == list(seen.columns)
    assert len(told) == 2 + len(seen.rows)
    for cells, row in zip(told[2:], seen.rows, strict=True):
        assert all(map(alike, cells, row)), (cells, row)


def test_without_the_cause_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaky_relu, "_bounds", lambda found: dict.fromkeys(("b1", "b1.5", "b2"), found.bound))
    assert not leaky_relu.measure().again
    monkeypatch.setattr(ratio_rule, "RUNS", (("20 × 60", "tiny", 20, 60),))  # a problem on which the rule does well
    assert not ratio_rule.measure().again
    monkeypatch.setattr(adam_sde, "LATER", 0.4)
    monkeypatch.setattr(adam_sde, "PATHS", 200)  # too few to tell anything
    assert not adam_sde.measure().again


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sam-covariance", "hessian-layer-norm"])
    out = capsys.readouterr().out
    assert out.count("Seen again") == 2
    assert "arXiv 2301.08203" in out
    assert "torch.func.hessian" in out
    with pytest.raises(SystemExit) as ended:
        main(["sam"])
    assert ended.value.code == 2
    assert "a finding is leaky-relu, " in capsys.readouterr().out
