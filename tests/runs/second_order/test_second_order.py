"""The experiment as a whole: what is committed of it, its page, (-m slow) the reduced run."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_checks import check_committed, check_needs, check_page, reduced

from runs.second_order import EXPERIMENT


def test_jobs_are_those_that_the_claims_need() -> None:
    check_needs(EXPERIMENT)


def test_the_committed_results_are_of_these_claims() -> None:
    _, found = check_committed(EXPERIMENT)
    assert not any("not measured" in c.measured for c in found)


def test_the_document_has_the_committed_table() -> None:
    check_page(EXPERIMENT)


@pytest.mark.slow
def test_reduced(tmp_path: Path) -> None:
    report, _ = reduced(EXPERIMENT, tmp_path)
    for one in report["claims"]:
        assert "not measured:" not in one["measured"], one
    groups = "factors", "preconditioning", "heterogeneity", "widths"
    assert {path.name for path in (tmp_path / "quick").glob("*.png")} == {f"second-order-{name}.png" for name in groups}
