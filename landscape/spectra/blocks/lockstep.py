"""One algorithm on every diagonal block, in lockstep: a product of the block diagonal matrix serves all of them.

Each block's run of the algorithm is a thread that waits where it asks for a product. Only one of them, or the caller,
ever runs: when all have asked, the caller makes the product of all blocks and hands each its own. So any algorithm on
an operator works on blocks as it is, and what it finds does not depend on the other blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from landscape.operators.blocks.block_diagonal import BlockDiagonal, DiagonalBlock

T = TypeVar("T")


class _Abandoned(BaseException):
    """Unwinds the algorithm of a block when the caller was interrupted or another block has failed."""


class _Seat(DiagonalBlock, Generic[T]):
    """A block whose products are made together with those of the others.

    Attributes:
        asked: the vectors that it waits for the products of; None before, between and after.
        result: of the algorithm, one entry once it has ended.
    """

    def __init__(self, diagonal: BlockDiagonal, name: str, algorithm: Callable[[DiagonalBlock], T]) -> None:
        super().__init__(diagonal, name)
        self.asked: Tensor | None = None
        self.answer: Tensor | None = None
        self.result: list[T] = []
        self.error: BaseException | None = None
        self._algorithm = algorithm
        self._abandoned = False
        self._mine, self._others = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=f"block {name}", daemon=True)
        self._thread.start()

    @override
    def release(self) -> None:
        """The graphs are those of all blocks: who began the run drops them."""

    @override
    def _matmat(self, V: Tensor) -> Tensor:
        self.asked = V
        self._others.release()
        self._mine.acquire()
        if self._abandoned:
            raise _Abandoned
        assert self.answer is not None
        return self.answer

    def advance(self, answer: Tensor | None = None) -> None:
        """Let the algorithm run until it asks for a product or ends. Raises what it raises."""
        self.asked, self.answer = None, answer
        self._mine.release()
        self._others.acquire()
        if self.error is not None:
            self.error.add_note(f"in block {self.name!r}")
            raise self.error

    def abandon(self) -> None:
        """End the thread, wherever its algorithm is."""
        self._abandoned = True
        self._mine.release()
        self._thread.join()

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if self.device.type == "cuda":  # the current device is one for each thread
                torch.cuda.set_device(self.device)
            if not self._abandoned:
                self.result.append(self._algorithm(self))
        except BaseException as error:
            self.error = error
        finally:
            self._others.release()


def blockwise(
    D: BlockDiagonal, algorithm: Callable[[DiagonalBlock], T], *, after: Callable[[], None] | None = None
) -> dict[str, T]:
    """`algorithm(block)` for every block of D, by its name, their products made together.

    What comes back is what `algorithm(D.blocks[name])` returns for each: a result of `landscape.spectra` counts the
    products of its own block. The model is run once for all blocks where graphs are kept, and once for each product of
    D where they do not fit. `after()` is called after each product of D.

    Raises what the algorithm raises on a block, with a note that names the block.

    Example:
        >>> import torch
        >>> from landscape import BlockDiagonal, Hessian, Objective
        >>> from landscape.spectra import blockwise, eigsh
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False))
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.ones(1, 1), torch.zeros(1, 1)))
        >>> with f.at(torch.tensor([1.0, 2.0])):
        ...     found = blockwise(BlockDiagonal(Hessian(f)), lambda block: eigsh(block, k=1))
        >>> {name: round(float(pairs.values[0]), 3) for name, pairs in found.items()}
        {'0': 8.0, '1': 2.0}
    """
    _ = D.noise  # measured here, not in the thread of whoever asks first
    seats = [_Seat(D, name, algorithm) for name in D.layout]
    try:
        for seat in seats:
            seat.advance()
        while asking := {seat.name: seat for seat in seats if seat.asked is not None}:
            V = {name: seat.asked for name, seat in asking.items() if seat.asked is not None}
            found = D.cut(D @ D.joined(V))
            for name, seat in asking.items():
                seat.advance(found[name][:, : V[name].shape[-1]].contiguous())
            if after is not None:
                after()
        return {seat.name: seat.result[0] for seat in seats}
    finally:
        for seat in seats:
            seat.abandon()
        D.release()
