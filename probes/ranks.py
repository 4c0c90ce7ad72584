"""The command on several ranks, as `torchrun` and `accelerate launch` start it: rank 0 speaks, writes and decides.

Torch is imported only where there are several.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from probes.errors import UserError, one_line

if TYPE_CHECKING:
    from landscape import Objective
    from landscape.ranks import Ranks

T = TypeVar("T")

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Terminated(KeyboardInterrupt):
    """The launcher ends this rank, as it does when another one has failed."""


def launched() -> tuple[int, int]:
    """This process's rank and how many there are, from the launcher's environment; (0, 1) without one."""
    if any(not os.environ.get(name) for name in _VARIABLES):
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def launcher() -> list[str]:
    """What was typed to start the module on several ranks, as far as it can be told; nothing for one process."""
    size = launched()[1]
    if size < 2:
        return []
    accelerate = any(name.startswith("ACCELERATE_") for name in os.environ)
    number = ["--num_processes" if accelerate else "--nproc-per-node", str(size)]
    if os.environ.get("LOCAL_WORLD_SIZE", str(size)) != str(size):  # how machines find each other is not known
        number = ["..."]
    return [*(["accelerate", "launch"] if accelerate else ["torchrun"]), *number, "-m", "probes"]


def is_first() -> bool:
    """Whether this is the rank that speaks."""
    return launched()[0] == 0


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block only the first rank says anything."""
    with ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield


def says(error: BaseException) -> bool:
    """Whether this rank has something to say about a failure: the first one speaks for all of what all have met."""
    if is_first():
        return True
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "ranks_agree", False) or isinstance(found, KeyboardInterrupt):
            return False
        found = found.__cause__
    return getattr(error, "status", 1) != 2 and not hasattr(error, "exit_code")  # of the arguments, which all have


@contextmanager
def together(minutes: float) -> Iterator[None]:
    """Inside the block the ranks of the launcher are a process group: nccl where each has a GPU, else gloo.

    `minutes` is how long a collective call waits for the others. Raises `UserError` when they do not come together.
    """
    rank, size = launched()
    if size < 2:
        yield
        return
    from torch import distributed

    if not distributed.is_initialized():
        try:
            distributed.init_process_group(_backend(rank, size), timeout=timedelta(minutes=minutes))
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise UserError(f"the {size} ranks do not meet at {place}: {one_line(error, limit=200)}") from error
    with _signals(rank):
        yield
        distributed.destroy_process_group()  # not after a failure: it may wait for ranks that are gone


def _backend(rank: int, size: int) -> str:
    from torch import cuda

    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if not cuda.is_available() or here > cuda.device_count():
        return "gloo"
    cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    return "nccl"


@contextmanager
def _signals(rank: int) -> Iterator[None]:
    """Ctrl-C reaches all ranks: the first one stops at it, and the others when that one is gone."""
    interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        if rank == 0:
            raise KeyboardInterrupt
        interrupted = True

    def terminate(*_: Any) -> None:
        raise Terminated

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except Exception as error:
        if interrupted:  # what it met is that the first one has stopped
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def world() -> Ranks:
    """The ranks of the launcher; this process alone outside of `together`."""
    from torch import distributed

    from landscape.ranks import Ranks

    several = launched()[1] > 1 and distributed.is_initialized()
    return Ranks(distributed.group.WORLD) if several else Ranks()


def decided(ranks: Ranks, work: Callable[[], T]) -> T:
    """What `work()` returns on the first rank, on all; where it raises there, all raise the same."""
    found = ranks.agreed(lambda: work() if ranks.rank == 0 else None)
    return ranks.shared(found, 0)  # type: ignore[return-value]


def share_randomness(ranks: Ranks) -> None:
    """Give all ranks one random state, so that what a problem draws without a seed is the same on all of them."""
    if not ranks.several:
        return
    import numpy as np
    import torch

    seed = ranks.shared(torch.initial_seed(), 0)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def deal(objective: Objective, ranks: Ranks) -> Objective:
    """The objective with its data dealt out; as it is where its model is wrapped for several ranks already."""
    if not ranks.several or objective.ranks.several:
        return objective
    import torch

    own = [*objective.module.parameters(), *objective.module.buffers()]
    with torch.no_grad():
        for t, first in zip(own, ranks.as_first(own), strict=True):
            t.copy_(first)
    assert ranks.group is not None
    return objective.dealt(ranks.group)
