"""What the tasks of `runs.scale` send on each of two ranks, by counting collectives."""

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runs.scale import tasks
from runs.scale.machine import H100


class Collectives(TorchDispatchMode):
    """Counts calls and the bytes of the larger side of each: those of the whole."""

    def __init__(self):
        super().__init__()
        self.calls, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace in ("c10d", "_c10d_functional"):
            name = function._overloadpacket.__name__.strip("_")
            sizes = [t.nbytes for t in tree_leaves(args) if isinstance(t, Tensor)]
            self.calls[name] += 1
            self.bytes[name] += max(sizes, default=0)
        return function(*args, **(kwargs or {}))


def counted(rank, world):
    """By task: calls, and bytes, of each collective; and what the model says that a rank sends."""
    found = {}
    tasks.COLUMNS = 4  # numbers are of sizes, not of time: a short basis shows them
    for name, task in tasks.TASKS.items():
        run = task.make(rank, torch.device("cpu"))
        run()
        with Collectives() as counts:
            run()
        found[name] = {"calls": dict(counts.calls), "bytes": dict(counts.bytes), "sent": task.predicted(H100).sent}
    return found
