"""A sharded model is run with one layer's weights at a time: a parameter is gathered where it is read.

Each module's table of parameters is exchanged for one that gathers what is asked of it, so that whoever reads a weight
meets the whole one (`nn.MultiheadAttention` reads those of a child that never runs). What autograd saves of a gathered
tensor is kept as a note, which parameter and which view of it, and gathered again when a backward pass asks: also
between the two backward passes of a product no gathered weight stays alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from landscape.objective.sharded.step import Step, Wishes
from landscape.objective.sharded.transfer import Gather, Transfer
from landscape.ranks import Ranks

T = TypeVar("T")


class Note(NamedTuple):
    """A view of a gathered parameter."""

    parameter: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass
class Chain:
    """Through all reads of parameters in one forward pass."""

    link: Tensor


class Gatherer:
    """Gathers the parameters of a model as they are read.

    Args:
        transfers: of all parameters, chosen or not.
        leaves: this rank's shares of them: what is differentiated in.
        ranks: all that hold a part of the model.

    Attributes:
        chain: of the forward pass that began last.
        alive: bytes of gathered tensors that are alive now.
        peak: the most of them that were alive at once.
    """

    def __init__(self, transfers: list[Transfer], leaves: list[nn.Parameter], ranks: Ranks) -> None:
        self._transfers, self._leaves = transfers, leaves
        self._wishes = Wishes(len(leaves))
        self._step = Step(ranks, self._wishes, self._serve)
        self.failing_together = self._step.failing_together
        self.chain: Chain | None = None
        self._recent: dict[int, weakref.ref[Tensor]] = {}
        self._last: Tensor | None = None
        self._owners: dict[int, tuple[int, int]] = {}  # by address: the parameter and its version as gathered
        self._saved: dict[int, int] = {}
        self.alive = self.peak = 0

    @property
    def saved_bytes(self) -> int:
        """Of what autograd has kept since the last forward pass began, notes not counted."""
        return sum(self._saved.values())

    # -- forward passes ------------------------------------------------------------------------------------------

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around the model in a forward pass; what is raised on one rank is raised on all."""
        self._step.meet(self._wishes.begun)
        self.chain, self._last, self._saved = Chain(torch.zeros(0, dtype=torch.float64)), None, {}
        with self._step.failing_together():
            yield
            self._step.meet(self._wishes.ended)

    def tie(self, result: Tensor, chain: Chain) -> Tensor:
        """The result of a forward pass, connected with all parameters that any rank has read; others read no more."""
        self._step.meet(self._wishes.tied)
        self._last, link = None, chain.link
        if not link.requires_grad or not torch.is_grad_enabled():
            return result
        # the cotangents of the links depend on all parameters then: a second derivative runs through the chain as well
        return result * (1.0 + link.sum()).to(device=result.device, dtype=result.dtype)

    def repeated(self, work: Callable[[], T], before: bool) -> tuple[T, bool]:
        """What a backward pass gives that all ranks make, and whether it went without detours.

        before: this very pass has gone so before: it takes the same steps again, and nobody has to ask.
        """
        detours = self._step.detours
        self.leave()
        self._step.sure = before
        try:
            result = work()
        finally:
            self._step.sure = False
        self.leave()
        return result, self._step.detours == detours

    def leave(self) -> None:
        """All ranks are done with what they asked of each other."""
        self._step.meet(self._wishes.left)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Around all that runs and differentiates the model."""
        with self._step.failing_together(), saved_tensors_hooks(self._pack, self._unpack):
            try:
                yield
            finally:
                self.chain = self._last = None
            self.leave()

    def read(self, parameter: int) -> Tensor:
        """The whole parameter, differentiable where gradients are recorded in a forward pass."""
        leaf = self._leaves[parameter]
        recorded = torch.is_grad_enabled() and leaf.requires_grad
        known = self._recent.get(parameter, lambda: None)()
        if known is not None and known.requires_grad == recorded:
            return known
        if torch._C._current_graph_task_id() != -1:  # a checkpointed part that is computed again in a backward pass
            whole = self._again(parameter).requires_grad_(recorded)
        else:
            if self.chain is None and recorded:
                raise RuntimeError(
                    "a parameter of the sharded model is read outside of its forward pass and loss, where it cannot "
                    "be differentiated in"
                )
            self._step.meet(self._wishes.read(parameter))
            whole = self._last = self._chained(parameter)  # asked for again at once, as by `if m.bias is not None`
        self._recent[parameter] = weakref.ref(whole)
        return whole

    def _chained(self, parameter: int) -> Tensor:
        self._last = None
        leaf = self._leaves[parameter]
        if self.chain is None or not leaf.requires_grad or not torch.is_grad_enabled():
            return self.gather(parameter, leaf.detach())
        whole: Tensor
        whole, self.chain.link = Gather.apply(self, parameter, leaf, self.chain.link)
        return whole

    def _serve(self, parameter: int, forward: bool) -> None:
        if forward:
            self._chained(parameter)
        else:
            self.gather(parameter, self._leaves[parameter].detach())

    # -- what the links do ---------------------------------------------------------------------------------------

    def gather(self, parameter: int, local: Tensor) -> Tensor:
        """The whole parameter, counted, and known by its memory while that lives."""
        whole = self._transfers[parameter].gathered(local.detach())
        address = self._counted(whole)
        if whole.numel():
            self._owners[address] = parameter, whole._version
        return whole

    def cotangent(self, parameter: int, local: Tensor) -> Tensor:
        """What is differentiated along, whole."""
        self._step.meet(self._wishes.link(parameter, reduce=False))
        whole = self._transfers[parameter].gathered(local)
        self._counted(whole)
        return whole

    def reduce(self, parameter: int, whole: Tensor) -> Tensor:
        """This rank's share of the sum over the ranks."""
        self._step.meet(self._wishes.link(parameter, reduce=True))
        return self._transfers[parameter].reduced(whole)

    def _again(self, parameter: int) -> Tensor:
        self._step.meet(self._wishes.again(parameter))
        return self.gather(parameter, self._leaves[parameter].detach())

    def _counted(self, whole: Tensor) -> int:
        with torch._C.DisableTorchFunction():  # who watches for memory that is handed out is not meant
            storage = whole.untyped_storage()
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._gone, address := storage.data_ptr(), storage.nbytes()).atexit = False
        return address

    def _gone(self, address: int, size: int) -> None:
        self._owners.pop(address, None)  # the allocator may give it to anything next
        self.alive -= size

    # -- what autograd saves -------------------------------------------------------------------------------------

    def _pack(self, t: Tensor) -> Tensor | Note:
        if type(t) is not Tensor or t.layout != torch.strided or not t.numel():
            return t
        with torch._C.DisableTorchFunction():
            storage = t.untyped_storage()
        owner = self._owners.get(address := storage.data_ptr())
        if owner is None or t.dtype != self._leaves[owner[0]].dtype:
            self._saved[address] = storage.nbytes()
            return t
        parameter, version = owner
        if t._version != version:
            raise RuntimeError("the model writes into a parameter while it runs: a sharded one cannot be put back")
        return Note(parameter, t.size(), t.stride(), int(t.storage_offset()))

    def _unpack(self, saved: Tensor | Note) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        return self._again(saved.parameter).as_strided(saved.size, saved.stride, saved.offset)


class Reading(dict[str, Any]):
    """A module's table of parameters that gathers the one that is asked for; what walks over it sees the shares."""

    def __init__(self, table: dict[str, Any], read: Callable[[Any], Any]) -> None:
        super().__init__(table)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(super().__getitem__(name))
