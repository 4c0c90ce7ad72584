"""A model whose parameters are whole on this rank, where another would have its shares of them: nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, TypeVar

from torch import Tensor

from landscape.objective.converted import Converted
from landscape.objective.sharded.layout import Layout
from landscape.ranks import Ranks

if TYPE_CHECKING:
    from landscape.objective.sharded.gather import Chain

T = TypeVar("T")


class Whole:
    """What `Sharded` is asked for, of a model that is not.

    Attributes:
        cut: whether parameters are cut.
        ranks: all that hold a part of the model.
        holders: those that hold one vector together.
        chain: of the last pass over the model.
        peak: the most bytes of gathered parameters that were alive at once.
        saved_bytes: of what autograd has kept of the last pass, gathered parameters not counted.
    """

    cut: ClassVar[bool] = False

    def __init__(self, converted: Converted) -> None:
        self._converted = converted
        self.ranks = self.holders = Ranks()
        self.chain: Chain | None = None
        self.peak = self.saved_bytes = 0

    def __call__(self, original: Tensor) -> Tensor:
        """What is differentiated in for a parameter."""
        return self._converted(original)

    def follow(self) -> None:
        """Take the shares as they are now."""

    def layout(self, names: list[str]) -> Layout | None:
        """Which rows of the vector of these parameters this rank holds; None for all."""
        return None

    def in_place(self) -> AbstractContextManager[None]:
        """Inside, whoever reads a parameter of the model meets the one that is measured."""
        return self._converted.in_place()

    def forward(self) -> AbstractContextManager[None]:
        """Around the model in a forward pass."""
        return nullcontext()

    def failing_together(self) -> AbstractContextManager[None]:
        """What is raised inside on one rank is raised on all."""
        return nullcontext()

    def tied(self, result: Tensor, chain: Chain | None) -> Tensor:
        """A result of a pass, connected with all that ranks have read of the parameters."""
        return result

    def confirm(self, loss: Tensor) -> None:
        """Refuses a loss that is a function of a rank's own shares."""

    def anywhere(self, flag: bool) -> bool:
        """Whether it holds on some rank of those that can run the model only together."""
        return flag

    def leave(self) -> None:
        """All ranks are done with what they asked of each other."""

    def repeated(self, work: Callable[[], T], before: bool) -> tuple[T, bool]:
        """What a backward pass gives, and whether it will take the same steps on all ranks again."""
        return work(), False
