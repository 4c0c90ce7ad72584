"""Whose turn it is: the probes that the budget lets measure now. Of several ranks the first one says so."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from probes.context import Context
from probes.monitor.budget import Budget
from probes.monitor.costs import UnitCosts
from probes.monitor.notes import Notes
from probes.probe import Probe
from probes.ranks import decided
from probes.schedules import Moment

if TYPE_CHECKING:
    from landscape.ranks import Ranks


class Turns:
    """A budget, what is known of the costs, and what is written about those who wait."""

    def __init__(self, budget: Budget, ranks: Ranks, notes: Notes) -> None:
        self.budget, self._ranks, self._notes = budget, ranks, notes
        self._units = UnitCosts()

    def any_fits(self, waiting: Sequence[Probe], due: Collection[str], now: Moment, start: float) -> bool:
        """Whether there is something to measure now; what waits is noted otherwise.

        While probes wait for their time this is all that a step costs: more than that would use up what they wait for.
        """
        self.budget.advance(start)
        for probe in waiting:
            if self.budget.fits(probe.name, 0.0):
                return True
            if probe.name in due:
                self._put_off(probe, due, now)
        return False

    def affordable(
        self, waiting: Sequence[Probe], due: Collection[str], now: Moment, context: Context, start: float
    ) -> list[Probe]:
        """Those that fit the budget now; the others wait."""
        budget = self.budget
        budget.advance(start)
        chosen, planned = [], 0.0
        for probe in waiting:
            if decided(self._ranks, partial(self._is_new, probe.name, planned)):
                began = time.perf_counter()
                self._estimate(probe, context)
                planned += time.perf_counter() - began
            if decided(self._ranks, partial(budget.fits, probe.name, planned)):
                chosen.append(probe)
                # nothing runs beside one of unknown cost
                planned += budget.cost_of(probe.name) if budget.knows_cost(probe.name) else float("inf")
                continue
            self._put_off(probe, due, now)
        return chosen

    def _is_new(self, name: str, planned: float) -> bool:
        return not self.budget.knows_cost(name) and self.budget.fits(name, planned)

    def _estimate(self, probe: Probe, context: Context) -> None:
        """What the first measurement will take; a probe that does not say what it needs is simply measured."""
        from landscape.ranks import RanksLost

        try:
            cost = self._ranks.agreed(lambda: self._units.estimate(probe, context))
        except RanksLost:
            raise
        except Exception:  # the measurement will fail in the same way, and say so
            return
        if cost is not None:
            self.budget.expect(probe.name, cost)

    def _put_off(self, probe: Probe, due: Collection[str], now: Moment) -> None:
        self.budget.wait(probe.name, now.step, probe.name in due)
        text = self.budget.announcement(probe.name)
        if text is not None:
            self._notes(now, probe.name, text, warning=self.budget.too_expensive(probe.name))
        self.tell_skips(probe.name, now)

    def tell_skips(self, name: str, now: Moment, *, final: bool = False) -> None:
        """Write now and then, and at the end, at which steps a probe was skipped."""
        text = self.budget.skip_note(name, time.perf_counter(), final=final)
        if text is not None:
            self._notes(now, name, text)
