"""What this rank holds of a model's parameters: all of them, or its shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from landscape.objective.converted import Converted
from landscape.objective.guard.admission import is_sharded
from landscape.objective.sharded.whole import Whole

if TYPE_CHECKING:
    from landscape.objective.sharded.model import Sharded


def shards_of(module: nn.Module, converted: Converted) -> Whole | Sharded:
    """The shares of a model that `fully_shard` has cut, else the whole of it."""
    if not is_sharded(module):
        return Whole(converted)
    from landscape.objective.sharded.model import Sharded  # with all of FSDP, which other models can do without

    return Sharded(module)
