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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from landscape.objective.sharded.step import Step, Wishes
from landscape.objective.sharded.transfer import Gather, Transfer
from landscape.ranks import Ranks


class Note(NamedTuple):
    """A view of a gathered parameter."""

    parameter: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Gatherer:
    """Gathers the parameters of a model as they are read.

    Args:
        transfers: of all parameters, chosen or not.
        leaves: this rank's shares of them: what is differentiated in.
        ranks: all that hold a part of the model.

    Attributes:
        alive: bytes of gathered tensors that are alive now.
        peak: the most of them that were alive at once.
    """

    def __init__(self, transfers: list[Transfer], leaves: list[nn.Parameter], ranks: Ranks) -> None:
        self._transfers, self._leaves = transfers, leaves
        self._wishes = Wishes(len(leaves))
        self._step = Step(ranks, self._wishes, self._serve)
        self.failing_together: Callable[[], Any] = self._step.failing_together
        self._link: Tensor | None = None  # the end of the chain in a forward pass
        self._recent: dict[int, weakref.ref[Tensor]] = {}
        self._last: Tensor | None = None
        self._owners: dict[int, tuple[int, int]] = {}  # by address: the parameter and its version as gathered
        self.alive = self.peak = 0

    # -- forward passes ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A forward pass begins on all ranks."""
        self._step.meet(self._wishes.begin)
        self._link, self._last = torch.zeros(0), None

    def end(self, result: Tensor) -> Tensor:
        """It has ended with this result, which comes back at the end of the chain; a constant one is unchanged."""
        self._step.meet(self._wishes.end)
        link, self._link, self._last = self._link, None, None
        if link is None or not link.requires_grad or not torch.is_grad_enabled():
            return result
        return result + link.sum().to(device=result.device, dtype=result.dtype)

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
            if self._link is None and recorded:
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
        if not leaf.requires_grad or not torch.is_grad_enabled():
            return self.gather(parameter, leaf.detach())
        whole: Tensor
        whole, self._link = Gather.apply(self, parameter, leaf, self._link)
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
        self._counted(whole)
        if whole.numel():
            self._owners[whole.untyped_storage().data_ptr()] = parameter, whole._version
        return whole

    def cotangent(self, parameter: int, local: Tensor) -> Tensor:
        """What is differentiated along, whole."""
        self._step.meet(self._wishes.link(parameter, reduce=False))
        return self._counted(self._transfers[parameter].gathered(local))

    def reduce(self, parameter: int, whole: Tensor) -> Tensor:
        """This rank's share of the sum over the ranks."""
        self._step.meet(self._wishes.link(parameter, reduce=True))
        return self._transfers[parameter].reduced(whole)

    def _again(self, parameter: int) -> Tensor:
        self._step.meet(self._wishes.again(parameter))
        return self.gather(parameter, self._leaves[parameter].detach())

    def _counted(self, whole: Tensor) -> Tensor:
        storage = whole.untyped_storage()
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes()).atexit = False
        return whole

    def _gone(self, address: int, size: int) -> None:
        self._owners.pop(address, None)  # the allocator may give it to anything next
        self.alive -= size

    # -- what autograd saves -------------------------------------------------------------------------------------

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Inside, saved views of gathered tensors are kept as notes."""
        with saved_tensors_hooks(self._pack, self._unpack):
            yield

    def _pack(self, t: Tensor) -> Tensor | Note:
        if type(t) is not Tensor or t.layout != torch.strided or not t.numel():
            return t
        owner = self._owners.get(t.untyped_storage().data_ptr())
        if owner is None:
            return t
        parameter, version = owner
        if t.dtype != self._leaves[parameter].dtype:
            return t
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
