"""One of two processes that train one network, `python two_processes.py RANK FOLDER`: half of each batch is its own."""

import os
import sys
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from small_network import data, flat, network
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from solvers import NGN


def main(rank, path):
    """Leaves in the folder what the parameters are after five steps, by DistributedDataParallel and by a closure."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{path}/store", rank=rank, world_size=2, timeout=timedelta(seconds=300)
    )
    X, y = data()
    X, y = X[rank::2], y[rank::2]
    for variant in ("ngn", "md1", "md2"):
        by_backward, by_closure = nn.parallel.DistributedDataParallel(network()), network()
        solvers = [NGN(m.parameters(), 0.1, momentum=0.9, variant=variant) for m in (by_backward, by_closure)]
        for _ in range(5):
            solvers[0].zero_grad()
            loss = F.cross_entropy(by_backward(X), y)
            loss.backward()
            solvers[0].step(loss=loss)
            solvers[1].step(lambda m=by_closure: F.cross_entropy(m(X), y))
        torch.save([flat(by_backward), flat(by_closure)], f"{path}/{variant}-{rank}.pt")
    os._exit(0)  # gloo may abort, or wait, where the other process has gone before this one lets go of it


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
