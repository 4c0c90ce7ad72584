"""The experiment as a whole: (-m slow) the reduced run."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_checks import check_needs, reduced

from runs.second_order import EXPERIMENT


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    groups = "factors", "preconditioning", "heterogeneity", "widths"
    assert {path.name for path in (tmp_path / "quick").glob("*.png")} == {f"second-order-{name}.png" for name in groups}
