"""The time that measuring may take: what may run now, what waits, and what was skipped.

Time spent in the monitor is paid from a credit that grows by `share` seconds per second of wall-clock time, from 0 at
the first call, and is capped at share * W, where W is 60 s, or the time in which the most expensive probe is earned if
that is longer. So a whole run stays within its share, and no window of length W exceeds it twice over.

What is due and does not fit waits, and is measured at the first call at which it fits; when it is due again before
that, the earlier one is skipped. Half of the income is saved for the one that has waited longest, so that cheap probes
never keep an expensive one from its turn, nor the expensive one the cheap ones from theirs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW = 60.0  # seconds
_REMEMBERED = 5  # costs per probe: the largest of them is what the next one is expected to be
_SUMMARY = 60.0  # seconds between two rows about one probe's skipped steps


@dataclass
class _Skips:
    """Steps at which a probe was due and will not be measured, since the last row about them."""

    count: int = 0
    first: int = 0
    last: int = 0
    told: float | None = None


@dataclass
class _Account:
    """What is known of one probe."""

    costs: list[float] = field(default_factory=list)
    estimated: bool = False  # the only cost is an estimate
    owed: int | None = None  # the step at which it was due and did not fit
    skips: _Skips = field(default_factory=_Skips)
    announced: bool = False


class Budget:
    """Times are readings of one clock, in seconds; `advance` brings the credit up to date. No share: no limit."""

    def __init__(self, share: float | None) -> None:
        self.unlimited = share is None
        self.share = share or 0.0
        self.credit = 0.0
        self.saved = 0.0
        self.now: float | None = None
        self.accounts: defaultdict[str, _Account] = defaultdict(_Account)

    def advance(self, now: float) -> None:
        """Earn what the time since the last call brings."""
        income = 0.0 if self.now is None else self.share * max(0.0, now - self.now)
        self.now = now
        self.credit += income
        if self.credit > self.share * WINDOW:
            self.credit = min(self.credit, max(self.share * WINDOW, *map(self.cost_of, self.accounts), 0.0))
        head = self._head()
        self.saved = 0.0 if head is None else min(self.saved + 0.5 * income, self.cost_of(head))

    def spend(self, seconds: float, *, idle: bool = False) -> None:
        """Pay for time spent in the monitor; a debt is earned back before anything else runs.

        Time in which nothing was measured (`idle`) is paid by the saved half too: paid by the other half alone, it
        would leave nothing for those who wait behind the first.
        """
        self.credit -= seconds
        if idle:
            self.saved = max(0.0, self.saved - 0.5 * seconds)

    def cost_of(self, name: str) -> float:
        """What a measurement is expected to take; 0 when nothing is known."""
        return max(self.accounts[name].costs, default=0.0)

    def knows_cost(self, name: str) -> bool:
        """Whether a cost was learnt or estimated, or does not matter."""
        return self.unlimited or bool(self.accounts[name].costs)

    def fits(self, name: str, planned: float) -> bool:
        """Whether it may run now, after others that take `planned` seconds. Nothing runs on a debt."""
        left, cost = self.credit - planned, self.cost_of(name)
        if left >= cost and self._head() not in (None, name):
            left -= min(self.saved, max(left, 0.0))
        return self.unlimited or left >= cost

    def wait(self, name: str, step: int, due: bool) -> None:
        """It does not fit at this step, at which it is due, or has been owed since an earlier one."""
        account = self.accounts[name]
        if due and account.owed != step:
            self._skip_owed(account)
            account.owed = step

    def note_measurement(self, name: str, cost: float, step: int, due: bool) -> None:
        """It ran: for this step when it was due, else for the one that it was owed."""
        account = self.accounts[name]
        if due:
            self._skip_owed(account)
        if self._head() == name:
            self.saved = 0.0
        account.owed = None
        learnt = [] if account.estimated else account.costs
        account.costs, account.estimated = [*learnt, cost][-_REMEMBERED:], False

    def expect(self, name: str, cost: float) -> None:
        """A first estimate; the first measurement replaces it."""
        account = self.accounts[name]
        account.costs, account.estimated = [cost], True

    def owes(self, name: str) -> bool:
        """Whether it is still to be measured for an earlier step."""
        return self.accounts[name].owed is not None

    def announcement(self, name: str) -> str | None:
        """Once per probe, when its cost is known: what it takes and how often that fits."""
        account = self.accounts[name]
        if account.announced or not account.costs:
            return None
        account.announced = True
        cost = self.cost_of(name)
        return (
            f"waits: it takes about {duration(cost)}, which the budget of {self.share:.3g} of the time allows once in "
            f"{duration(cost / self.share)}"
        )

    def too_expensive(self, name: str) -> bool:
        """Whether a short run will not see it at all."""
        return self.cost_of(name) > self.share * WINDOW

    def skip_note(self, name: str, now: float, *, final: bool = False) -> str | None:
        """What to write about its skipped steps: now and then, and at the end (`final`); None for nothing."""
        skips = self.accounts[name].skips
        if not skips.count or not (final or skips.told is None or now - skips.told >= _SUMMARY):
            return None
        which = f"step {skips.first}" if skips.count == 1 else f"{skips.count} steps, {skips.first} to {skips.last}"
        self.accounts[name].skips = _Skips(told=now)
        takes = f"takes about {duration(self.cost_of(name))}" if self.knows_cost(name) else "had no turn yet"
        return f"skipped at {which}, where it was due: it {takes}, and measuring may take {self.share:.3g} of the time"

    def _skip_owed(self, account: _Account) -> None:
        if account.owed is not None:
            skips = account.skips
            skips.first = skips.first if skips.count else account.owed
            skips.last, skips.count = account.owed, skips.count + 1

    def _head(self) -> str | None:
        """The probe that has waited longest."""
        owed = [(account.owed, name) for name, account in self.accounts.items() if account.owed is not None]
        return min(owed)[1] if owed else None

    # -- the state that a checkpoint keeps -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts; clock readings are left out, for another process has another clock."""
        accounts = {name: asdict(account) for name, account in self.accounts.items()}
        for account in accounts.values():
            account["skips"]["told"] = None
        return {"credit": self.credit, "saved": self.saved, "accounts": accounts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; the time between counts for nothing."""
        self.credit, self.saved, self.now = float(state["credit"]), float(state["saved"]), None
        self.accounts.clear()
        for name, account in state["accounts"].items():
            self.accounts[name] = _Account(**account | {"skips": _Skips(**account["skips"])})


def duration(seconds: float) -> str:
    """`"35 ms"`, `"2.5 s"`, `"4 min"`, `"2.5 h"`."""
    for limit, unit, name in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 3600:.3g} h"
