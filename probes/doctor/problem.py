"""All that is looked at in a problem of the user's before anything is measured on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from probes.doctor.costs import examine_costs
from probes.doctor.derivatives import examine_derivatives
from probes.doctor.finding import Finding
from probes.doctor.model import examine_model
from probes.doctor.names import names

if TYPE_CHECKING:
    from landscape import Objective


def examine_problem(objective: Objective, folder: Path) -> Iterator[Finding]:
    """Every finding, one after the other; nothing raises.

    What follows from values that are nan, or from a model that cannot be run, is not looked at.
    """
    yield names(folder)
    for found in examine_model(objective):
        yield found
        if found.status == "FAIL":
            return
    yield from examine_derivatives(objective)
    yield from examine_costs(objective)
