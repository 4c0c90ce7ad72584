"""The processes that measure one function together, each on its own part of the data.

Ranks stay in step: they make the same collective calls in the same order. So what one of them raises in between is
agreed on at the next call, and all raise it; random numbers, choices and numbers of passes are the same on all.
"""

from __future__ import annotations

import atexit
import functools
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

T = TypeVar("T")


class RanksLost(RuntimeError):
    """A collective call failed: another rank is gone, or the ranks are out of step. There is no way on."""


class Ranks:
    """The ranks of a process group, or this process alone.

    Attributes:
        group: the process group; None for this process alone.
        rank, size: of this process in the group, and how many there are; 0 and 1 alone.

    Raises:
        ValueError: this process is not in the group.

    Example:
        >>> from landscape.ranks import Ranks
        >>> alone = Ranks()
        >>> alone.size, alone.gathered("this process")
        (1, ['this process'])
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)
        if self.rank < 0 or self.size < 1:
            raise ValueError("this process is not in the process group: make the Objective on its ranks only")

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.size > 1

    def sum(self, t: Tensor) -> Tensor:
        """The sum over the ranks, in place; one all-reduce."""
        if self.several:
            self._reduce(t, dist.ReduceOp.SUM)
        return t

    def largest(self, value: float) -> float:
        """The largest value of all ranks."""
        if not self.several:
            return value
        t = torch.tensor([value], dtype=torch.float64)
        self._reduce(t, dist.ReduceOp.MAX)
        return float(t)

    def least(self, t: Tensor) -> Tensor:
        """The least value of each entry over the ranks, in place."""
        if self.several:
            self._reduce(t, dist.ReduceOp.MIN)
        return t

    def collected(self, t: Tensor) -> Tensor:
        """The tensors of all ranks, which have one shape `(m, ...)`, one after the other: `(size * m, ...)`."""
        if not self.several:
            return t
        whole = t.new_empty(self.size * len(t), *t.shape[1:])
        self._call(_renamed("all_gather_single", "all_gather_into_tensor"), whole, t.contiguous())
        return whole

    def portion(self, t: Tensor) -> Tensor:
        """This rank's part `(m, ...)` of the sum over the ranks of tensors `(size * m, ...)`."""
        if not self.several:
            return t
        part = t.new_empty(len(t) // self.size, *t.shape[1:])
        self._call(_renamed("reduce_scatter_single", "reduce_scatter_tensor"), part, t.contiguous())
        return part

    def any(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        return self.largest(float(flag)) > 0.0

    def stopped(self, ask: Callable[[], object] | None) -> bool:
        """Whether `ask()` is true on some rank; None asks nobody here. What it raises on one rank, all raise."""
        answer, error = _caught(ask or bool)
        worst = self.largest(2.0 if answer is None else float(bool(answer[0])))
        if worst == 2.0:
            self.raise_together(error)
        return worst > 0.0

    def gathered(self, thing: T) -> list[T]:
        """One small thing of each rank, in their order; things go through pickle."""
        if not self.several:
            return [thing]
        every: list[Any] = [None] * self.size
        self._call(dist.all_gather_object, every, thing)
        return every

    def shared(self, thing: T, source: int) -> T:
        """What the rank `source` has, on all ranks; it goes through pickle."""
        if not self.several:
            return thing
        things = [thing]
        self._call(dist.broadcast_object_list, things, group_src=source)
        return things[0]

    def as_first(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the tensors as they are on the first rank; a broadcast for each dtype."""
        copies = [t.detach().clone() for t in tensors]
        for dtype in dict.fromkeys(t.dtype for t in copies):
            alike = [t for t in copies if t.dtype == dtype]
            message = torch.cat([t.reshape(-1) for t in alike])
            moved = self._movable(message)
            self._call(dist.broadcast, moved, group_src=0)
            for t, piece in zip(alike, moved.split([t.numel() for t in alike]), strict=True):
                t.copy_(piece.reshape(t.shape))
        return copies

    def folded(self, t: Tensor, merge: Callable[[Tensor, int], None]) -> None:
        """Hands a tensor of each rank to the first one along a tree, in about log2 of their number of steps.

        `merge(other, rank)` is called with the tensor that `rank` had then, which stands for all ranks that it had got
        theirs of before; it adds that to `t` in place.
        """
        step = 1
        while step < self.size:
            if self.rank % (2 * step) == step:
                self._call(dist.send, self._movable(t), group_dst=self.rank - step)
            elif self.rank % (2 * step) == 0 and self.rank + step < self.size:
                other = torch.empty_like(self._movable(t))
                self._call(dist.recv, other, group_src=self.rank + step)
                merge(other.to(t.device), self.rank + step)
            step *= 2

    def agreed(self, work: Callable[[], T]) -> T:
        """What `work()` returns on this rank. Where it raises on some rank, all raise the same."""
        if not self.several:
            return work()
        result, error = _caught(work)
        if self.any(error is not None):
            self.raise_together(error)
        assert result is not None
        return result[0]

    def summed(
        self, work: Callable[[], tuple[Tensor, float, float]], blank: Callable[[], Tensor], apart: bool = False
    ) -> tuple[Tensor, float]:
        """Sums over the ranks of what `work()` returns: numbers, a factor of them, and a weight; one all-reduce.

        Args:
            work: does the work of this rank. Where it raises on some rank, all raise the same.
            blank: zeros in the shape of the numbers.
            apart: the numbers are no parts of a sum (each rank has rows of its own): the weights alone are summed.
        """
        result, error = _caught(work)
        numbers, factor, weight = (blank(), 0.0, 0.0) if result is None else result[0]
        count = 0 if apart else numbers.numel()
        message = torch.empty(count + 2, dtype=torch.float64 if apart else numbers.dtype, device=numbers.device)
        if not apart:
            torch.mul(numbers.reshape(-1), factor, out=message[:count])
        message[count:] = torch.tensor([weight, float(error is not None)], dtype=torch.float64)
        self._reduce(message, dist.ReduceOp.SUM)
        weight, failed = message[count:].tolist()
        if failed:
            self.raise_together(error)
        return (numbers * factor if apart else message[:count].reshape(numbers.shape)), weight

    def raise_together(self, error: Exception | None) -> NoReturn:
        """All ranks raise what the first one that failed has raised; at once what they have agreed on before."""
        if error is not None and (in_step(error) or not self.several):
            raise error
        rank, first = next((r, e) for r, e in enumerate(self.gathered(_portable(error))) if e is not None)
        kind, text, pickled = first
        if error is not None and (rank == self.rank or (type(error).__name__, str(error)) == (kind, text)):
            raise agreed_on(error)
        raise agreed_on(_told(rank, kind, text, pickled)) from error

    def _reduce(self, t: Tensor, op: Any) -> None:
        moved = self._movable(t)
        self._call(dist.all_reduce, moved, op=op)
        if moved is not t:
            t.copy_(moved)

    def _movable(self, t: Tensor) -> Tensor:
        """Where messages have to be: on the GPU with nccl."""
        return t.cuda() if t.device.type == "cpu" and dist.get_backend(self.group) == "nccl" else t

    def _call(self, collective: Callable[..., Any], *args: Any, **options: Any) -> None:
        _wait_at_exit()
        try:
            collective(*args, group=self.group, **options)
        except RuntimeError as error:  # torch's own errors of a group are such
            raise RanksLost(
                f"another rank is gone or out of step, so rank {self.rank} cannot go on (what that one says tells "
                f"why): {(str(error).splitlines() or ['no reason given'])[0]}"
            ) from error

    def __repr__(self) -> str:
        return f"Ranks({self.rank} of {self.size})"


@functools.cache
def _wait_at_exit() -> None:
    """A thread of gloo drops the tensors of a collective after it, and needs the interpreter for that.

    One that asks for it while it is being shut down aborts the whole process.
    """
    atexit.register(time.sleep, 0.1)


def _renamed(now: str, before: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(dist, now, None) or getattr(dist, before)
    return found


def agreed_on(error: Exception) -> Exception:
    """The same error, marked as raised by all ranks: they are still in step."""
    error.__dict__["ranks_agree"] = True
    return error


def in_step(error: BaseException) -> bool:
    """Whether all ranks have raised this, so that they may go on together after it."""
    return bool(getattr(error, "ranks_agree", False))


def _caught(work: Callable[[], T]) -> tuple[tuple[T] | None, Exception | None]:
    try:
        return (work(),), None
    except RanksLost:
        raise
    except Exception as error:
        return None, error


def _portable(error: Exception | None) -> tuple[str, str, bytes] | None:
    if error is None:
        return None
    try:
        pickled = pickle.dumps(error.with_traceback(None).__class__)
    except Exception:  # a class inside a function
        pickled = b""
    return type(error).__name__, str(error), pickled


def _told(rank: int, kind: str, text: str, pickled: bytes) -> Exception:
    """The error of another rank: of the same class where that takes a text, else a `RuntimeError`."""
    try:
        error = pickle.loads(pickled)(f"rank {rank}: {text}")
        if isinstance(error, Exception):
            return error
    except Exception:  # no class that can be found here, or one that takes other arguments
        pass
    return RuntimeError(f"rank {rank}: {kind}: {text}")
