"""Ranks in step while a model runs: before each transfer all say which one they want next.

Ranks run the same model on other data, so one of them may read a parameter that another does not need (an expert
without tokens), or read it in another order. Each wish is a number, and the lowest one is served first: a rank that
wanted something else takes part in it, and asks again. What cannot be served by others has to be wished by all at
once, else the ranks are out of step and all of them say so instead of waiting for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist

from landscape.ranks import Ranks, RanksLost, agreed_on, in_step

_FAILED = 0


class Wishes:
    """The numbers of wishes, in order of precedence, for so many parameters.

    Of a rank that has failed; of a parameter read again in a backward pass; of a link of the chain, which all ranks
    come to in the same order; of a parameter read in a forward pass, which others serve till they come to `tied`.

    Attributes:
        ended: the model has run.
        tied: its result is complete.
        begun: the model is going to run.
        left: what comes next is no transfer.
    """

    def __init__(self, parameters: int) -> None:
        self._n = parameters
        self.ended, self.tied, self.begun, self.left = (1 + 4 * parameters + i for i in range(4))

    def again(self, parameter: int) -> int:
        """Parameter read again in a backward pass."""
        return 1 + parameter

    def link(self, parameter: int, reduce: bool) -> int:
        """Cotangents of it reduced over the ranks, or gathered."""
        return 1 + self._n + 2 * parameter + reduce

    def read(self, parameter: int) -> int:
        """Parameter read in a forward pass."""
        return 1 + 3 * self._n + parameter

    def parameter(self, wish: int) -> int | None:
        """The parameter of a wish that others may serve; None for one that they cannot."""
        if wish <= self._n:
            return wish - 1
        return wish - 1 - 3 * self._n if 3 * self._n < wish <= 4 * self._n else None

    def forward(self, wish: int) -> bool:
        """Whether it is one of a forward pass."""
        return 3 * self._n < wish <= self.tied


class Step:
    """What keeps the ranks of a sharded model in step; nothing to do for one rank.

    Args:
        ranks: all that hold a part of the model, over a group that sends from host memory.
        wishes: what may be wished.
        serve: takes part in a gather of a parameter that others want, in a forward pass or not.

    Attributes:
        detours: how often a rank has wanted something else than the others; the same number on all.
        sure: the ranks do again what they have done without detours: nobody asks.
    """

    def __init__(self, ranks: Ranks, wishes: Wishes, serve: Callable[[int, bool], None]) -> None:
        self._ranks, self._wishes, self._serve = ranks, wishes, serve
        self.detours = 0
        self.sure = False

    def meet(self, mine: int) -> None:
        """Come back when what this rank wishes is due. Raises what another rank has raised meanwhile."""
        while self._ranks.several and not self.sure:
            both = torch.tensor([mine, -mine])
            self._ranks.least(both)
            lowest, highest = int(both[0]), -int(both[1])
            if lowest == _FAILED:
                self._ranks.raise_together(None)
            if lowest == highest:
                return
            self.detours += 1
            parameter, forward = self._wishes.parameter(lowest), self._wishes.forward(lowest)
            if parameter is None or (forward and not self._wishes.forward(highest)):
                raise agreed_on(RanksLost("the ranks are out of step: the model runs differently on them"))
            if mine == lowest:
                return
            self._serve(parameter, forward)

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """What is raised inside on this rank is raised on all, at their next wish."""
        try:
            yield
        except Exception as error:
            if in_step(error) or isinstance(error, RanksLost) or not self._ranks.several:
                raise
            both = torch.tensor([_FAILED, -_FAILED])
            self._ranks.least(both)
            self._ranks.raise_together(error)


def host_group(group: dist.ProcessGroup) -> dist.ProcessGroup:
    """A group of the same ranks that sends from host memory: the same one where it does."""
    if dist.get_backend(group) == "gloo":
        return group
    members = tuple(dist.get_process_group_ranks(group))
    if members not in _HOST_GROUPS:
        _HOST_GROUPS[members] = dist.new_group(list(members), backend="gloo", use_local_synchronization=True)
    return _HOST_GROUPS[members]


_HOST_GROUPS: dict[tuple[int, ...], dist.ProcessGroup] = {}
