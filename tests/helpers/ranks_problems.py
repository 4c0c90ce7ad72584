"""Problem functions for `landscape probe` on one and on several ranks, the same for both."""

import os
import signal
import time

import torch
from data_parallel_cases import CASES, batches_of, mlp, numbers
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import Objective

LOSS = nn.CrossEntropyLoss()
RANK = int(os.environ.get("RANK", 0))


def network():
    return mlp().double()


def batches():
    """Three batches, the last one smaller."""
    return Objective(network(), LOSS, batches_of("mlp")[:3])


def transformer():
    """A batch more for one rank; targets that are ignored."""
    return Objective(CASES["transformer"][0]().double(), LOSS, batches_of("transformer"))


def one_batch():
    """Seven samples, dealt out one by one."""
    return Objective(network(), LOSS, numbers(torch.Generator().manual_seed(1), 7))


def norm_of_one_batch():
    """Running statistics are those of the batch, which both ranks have samples of."""
    torch.manual_seed(0)
    X, y = numbers(torch.Generator().manual_seed(1), 8)
    model = nn.Sequential(nn.Linear(X.shape[1], 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, int(y.max()) + 1))
    return Objective(model.double(), LOSS, (X, y), mode="eval")


def loader():
    data = TensorDataset(*numbers(torch.Generator().manual_seed(1), 10))
    return Objective(network(), LOSS, DataLoader(data, batch_size=4, shuffle=True))


def stream():
    """A generator, read once."""
    return Objective(network(), LOSS, (batch for batch in batches_of("mlp")[:3]))


def one_for_all():
    """Fewer batches than ranks, and a loss that sees its batch as a whole."""
    return Objective(network(), lambda z, y: LOSS(z - z.mean(0), y), numbers(torch.Generator().manual_seed(1), 7))


def raising():
    """Rank 1 cannot read its data."""

    def read():
        for i, batch in enumerate(batches_of("mlp")):
            if i == 3 and RANK == 1:
                raise OSError("the disk of rank 1 is gone")
            yield batch

    return Objective(network(), LOSS, Reads(read))


class Reads:
    def __init__(self, read):
        self.read = read

    def __iter__(self):
        return self.read()


def failing():
    """The problem function itself fails on one rank."""
    if RANK == 1:
        raise ValueError("no such table")
    return batches()


class Ending(nn.Module):
    """Rank 1 ends, by an error or by a signal, at a forward pass that comes after the first probe."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how = network(), how

    def forward(self, x):
        if RANK == 1 and os.path.exists("now"):
            if self.how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a cosmic ray")
        return self.net(x)


def ending(how):
    """The file `now` appears when the second checkpoint is loaded."""
    model = Ending(how)
    seen = []

    def note(*_):
        seen.append(1)
        if len(seen) >= 2 and not os.path.exists("calm"):
            open("now", "w").close()

    model.register_load_state_dict_post_hook(note)
    return Objective(model, LOSS, batches_of("mlp")[:3])


def killed():
    return ending("killed")


def struck():
    return ending("raises")


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        time.sleep(0.02)
        return self.net(x)


def slowly():
    return Objective(Slow(), LOSS, batches_of("mlp")[:3], check=False)


def own_shard():
    """The problem wraps its model and takes its own part by itself."""
    model, data = network(), batches_of("mlp")[:3]
    if distributed.is_initialized():
        return Objective(nn.parallel.DistributedDataParallel(model), LOSS, data[RANK :: distributed.get_world_size()])
    return Objective(model, LOSS, data)


def sharded():
    """The model in shards where there are ranks, each with its part of the data."""
    model, data = CASES["transformer"][0]().double(), batches_of("transformer")
    if not distributed.is_initialized():
        return Objective(model, LOSS, data)
    from torch.distributed.fsdp import fully_shard

    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return Objective(model, LOSS, data[RANK :: distributed.get_world_size()])
