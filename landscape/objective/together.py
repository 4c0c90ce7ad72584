"""One function of several ranks: what each has found of its own data becomes that of all data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Literal, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from landscape.objective.batch import enough, part, samples
from landscape.objective.criterion import Criterion
from landscape.objective.data import Batches
from landscape.objective.forward import Habits
from landscape.objective.guard.admission import refuse_synchronised
from landscape.objective.guard.first import habits
from landscape.objective.network import Network
from landscape.objective.parameters import FlatView
from landscape.objective.sharded.layout import Layout
from landscape.objective.wrappers import data_parallel
from landscape.ranks import Ranks, agreed_on
from landscape.tuning import Tuning

ProcessGroup = dist.ProcessGroup | Literal["auto"] | None
Sum = tuple[Tensor, float, float]  # numbers, a factor that they are to be multiplied by, the weight of their batches

T = TypeVar("T")


class Together:
    """What an `Objective` knows of its ranks.

    Collective, so that all ranks call them in the same order: `summed`, `mean`, `agreed`, `gathered`, `alone`,
    `whole`. What one rank raises inside them is raised by all.

    Attributes:
        ranks: those that hold the data; this process alone where there is no process group.
        lockstep: batches without weight are run as well, since another rank has some then.
        sharded: each rank holds a part of the parameters only.
        tuning: which ways of a product are fastest.
    """

    criterion: Criterion
    device: torch.device
    dtype: torch.dtype
    ranks: Ranks
    module: nn.Module
    tuning: Tuning
    _batches: Batches
    _network: Network
    _view: FlatView
    _busy: bool = False  # with work that makes no collective call

    def on(self, data: Any) -> Self:  # noqa: D102
        raise NotImplementedError

    def value(self) -> float:  # noqa: D102
        raise NotImplementedError

    @property
    def sharded(self) -> bool:  # noqa: D102
        return self._network.shards.cut

    @property
    def lockstep(self) -> bool:  # noqa: D102
        return self.ranks.several

    def mean(
        self, work: Callable[[], Sum], blank: Callable[[], Tensor], rows: bool = False, kind: Hashable = None
    ) -> Tensor:
        """The mean (or the sum) over the batches of all ranks from this rank's own sum; one all-reduce.

        Args:
            work: this rank's sum.
            blank: zeros in the shape of the numbers, for a rank that has none.
            rows: the numbers are vectors of the parameter space. Those of sharded models are summed by differentiation.
            kind: of the work, where it chooses among several ways: the choice is made together after the first time.
        """
        numbers, factor, weight = self.summed(work, blank, rows)
        if kind is not None:
            self.tuning.settle(kind, self.ranks)
        if factor == weight and weight:
            return numbers
        mean: Tensor = self.normalise(numbers if factor == 1.0 else numbers * factor, weight)
        return mean

    def summed(self, work: Callable[[], Sum], blank: Callable[[], Tensor], rows: bool = False) -> Sum:
        """The sum over all ranks; see `mean`."""
        if not self.ranks.several:
            return work()
        self._get_in_step()
        numbers, weight = self.ranks.summed(self._by_itself(work), blank, apart=rows and self.sharded)
        return numbers, 1.0, weight

    def agreed(self, work: Callable[[], T]) -> T:
        """What `work()` returns on this rank, which makes no collective call; where it raises on one, all raise."""
        self._get_in_step()
        return self.ranks.agreed(self._by_itself(work))

    def gathered(self, work: Callable[[], T]) -> list[T]:
        """What `work()` returns on each rank, in their order; as `agreed`."""
        return self.ranks.gathered(self.agreed(work))

    def anywhere(self, flag: bool) -> bool:
        """Whether it holds on some rank of a sharded model, whose ranks do the same work; else on this one."""
        return self._network.shards.anywhere(flag)

    def united(self, names: set[str]) -> set[str]:
        """Those of all ranks of a sharded model."""
        return set().union(*self.gathered(lambda: names)) if self.sharded else names

    def shares(self) -> tuple[Layout, Ranks]:
        """Of a sharded model: which rows of the flat vector are here, and the ranks that hold all of it together."""
        assert self._view.layout is not None
        return self._view.layout, self._network.shards.holders

    def repeated(self, work: Callable[[], T], before: bool) -> tuple[T, bool]:
        """What a backward pass gives, and whether it will take the same steps on all ranks of a sharded model again."""
        return self._network.shards.repeated(work, before)

    @property
    def gathered_peak(self) -> int:
        """The most bytes of a sharded model's parameters that were whole at once on this rank."""
        return self._network.shards.peak

    def saved_bytes(self) -> int:
        """Of what autograd has kept of a sharded model's last pass, weights not counted: they are gathered again."""
        return self._network.shards.saved_bytes

    def held(self, parameter: Tensor) -> Tensor:
        """What is differentiated in for a parameter of the model: itself, or this rank's share of it."""
        return self._network.shards(parameter)

    def _habits(self, derivative: bool) -> Habits:
        """The ways of the model; of a sharded one those on all ranks together."""
        found = habits(cast(Any, self.alone), self._network, derivative)
        every = self.gathered(lambda: found) if self.sharded else [found]
        rewritten = frozenset().union(*(one.rewritten for one in every))
        return Habits(rewritten, any(one.records for one in every), any(one.writes_inputs for one in every))

    def alone(self) -> Self:
        """The same function of this rank's own data, without collective calls; a sharded model can only be run by all.

        A rank without data takes the first batch of another.
        """
        if not self.ranks.several or self.sharded:
            return self
        if not self._busy:
            self._get_in_step()
        return self._of(self._batches.alone())

    def whole(self) -> Self | None:
        """The same function of all ranks' data, held here, without collective calls; None where that does not fit."""
        if not self.ranks.several:
            return self
        self._get_in_step()
        batches = self._batches.whole()
        return None if batches is None else self._of(batches)

    @property
    def batches(self) -> int | None:
        """How many batches all ranks have together, once they are in step; None for one process: a pass tells."""
        return self._batches.total

    def only_whole(self, what: str) -> None:
        """Raises `TypeError` for a sharded model."""
        if self.sharded:
            raise agreed_on(
                TypeError(f"{what} is not for sharded models: measure it on a model that each rank holds as a whole")
            )

    def _of(self, batches: Batches) -> Self:
        """The same function of these batches, without collective calls."""
        other = copy.copy(self)
        other.ranks, other._batches, other._busy = batches.ranks, batches, False
        return other

    def sample(self, size: int | None = None) -> Self:
        """The same function on at most `size` samples of its first batch; on all of it where it cannot be cut.

        Without a size on as many as checks take: 32, or less of a large model's batch.
        """
        whole = self.agreed(self._batches.first)
        with suppress(Exception):  # whatever a user's model and loss raise on a part that is none
            cut = self.agreed(lambda: part(whole, 0, min(size or enough(whole, self._view.size), samples(whole))))
            few = self.on([(cut.inputs, cut.targets)])
            if math.isfinite(few.value()):
                return few
        return self.on([(whole.inputs, whole.targets)])

    def _by_itself(self, work: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            outer, self._busy = self._busy, True
            try:
                return work()
            finally:
                self._busy = outer

        return run

    def dealt(self, group: dist.ProcessGroup) -> Self:
        """The same function, whose data, which each rank of the group has, is dealt out to them; nothing is repeated.

        Batch i goes to rank i modulo their number. A single batch is dealt out by samples where f stays the same: a
        loss that is no mean over samples, or a module that looks at the whole batch, keeps it on the first rank. All
        ranks call this, with the same parameters.
        """
        other = copy.copy(self)
        other.ranks, other.tuning = Ranks(group), Tuning(self.device)
        other._batches = self._batches.dealt(other.ranks)
        if other.ranks.any(other._batches.cut) and not other._stays(self):
            other._batches = self._batches.dealt(other.ranks, cut=False)
        return other

    def _stays(self, whole: Self) -> bool:
        """Whether f is that of the whole data, which the first rank runs."""
        first = self.ranks.rank == 0
        expected = self.ranks.shared(self.ranks.agreed(lambda: whole.value() if first else 0.0), 0)
        found = self.value()
        return abs(found - expected) <= torch.finfo(self.dtype).eps ** 0.5 * abs(expected) or found != found

    def _get_in_step(self) -> None:
        """Before the ranks begin: as many batches on each, and one function, with the buffers of the first rank."""
        if not self.ranks.several:
            return
        assert self.sharded or not self._busy, "a collective call in the work of one rank: others may not get there"
        self._network.shards.leave()
        if not self._batches.aligned:
            self._batches.align()
            self._refuse_other_functions()
        if self._network.synchronises_buffers:
            self._network.follow()
            self._network.take_buffers(self.ranks.as_first(self._network.parts().buffers))

    def _refuse_other_functions(self) -> None:
        """Raises `ValueError` where ranks do not hold the same model, run it in other modes, or mix their batches."""
        self.ranks.agreed(lambda: refuse_synchronised(self.module, self._network.mode))
        modes = self.ranks.gathered([m.training for m in self.module.modules()])
        if self._network.mode == "as-is" and any(mode != modes[0] for mode in modes):
            raise agreed_on(
                ValueError("some module is in train mode on one rank and in eval mode on another: set it alike on all")
            )
        if self.sharded:
            return
        first, *others = self.ranks.gathered([_outline(p) for p in self.module.parameters()])
        for rank, found in enumerate(others, 1):
            if len(found) != len(first) or not all(map(_alike, found, first)):
                raise agreed_on(
                    ValueError(
                        f"the parameters of rank {rank} are not those of rank 0: give all ranks the same weights, as f "
                        "is one function of them"
                    )
                )

    def normalise(self, total: Any, weight: float) -> Any:
        """Divide an accumulated sum by the weight of its batches. Raises `ValueError` when there is none."""
        if weight == 0.0:
            raise ValueError("the data has no loss terms: every batch is empty or all its targets are ignored")
        return total if self.criterion.reduction == "sum" else total / weight


def _outline(p: Tensor) -> list[float]:
    """Some entries of a parameter, and last the size of one: sums of large random tensors are much alike."""
    flat = p.detach().reshape(-1)
    some = flat[:: max(1, flat.numel() // 16)].float()
    return [*some.tolist(), float(flat.abs().mean(dtype=torch.float32))]


def _alike(one: list[float], other: list[float]) -> bool:
    size = 1e-3 * float(np.nan_to_num(other[-1]))
    return len(one) == len(other) and np.allclose(one, other, rtol=1e-3, atol=size, equal_nan=True)


def ranks_of(model: nn.Module, process_group: ProcessGroup, network: Network) -> Ranks:
    """Of the group that is given; "auto": of the one that the model's wrapper has, else this process alone.

    Those of a sharded model are the ones that hold it. Raises `TypeError` for what is no group.
    """
    if network.shards.cut:
        if process_group != "auto":
            raise TypeError("the ranks of a sharded model are those that hold it: leave process_group= out")
        return network.shards.ranks
    if process_group is None:
        return Ranks()
    if process_group == "auto":
        wrappers = data_parallel(model)
        return Ranks(wrappers[0].process_group) if wrappers else Ranks()
    if not isinstance(process_group, dist.ProcessGroup):
        raise TypeError(
            'process_group is "auto", None for this process alone, or a process group such as '
            f"torch.distributed.group.WORLD, not {process_group!r}"
        )
    return Ranks(process_group)
