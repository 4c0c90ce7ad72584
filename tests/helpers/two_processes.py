"""What one of two ranks does that train one network: half of each batch is its own."""

from small_network import data, flat, network
from torch import nn
from torch.nn import functional as F

from solvers import NGN


def trained(rank, world):
    """By variant the parameters after five steps, by DistributedDataParallel and by a closure."""
    X, y = data()
    X, y = X[rank::world], y[rank::world]
    found = {}
    for variant in ("ngn", "md1", "md2"):
        by_backward, by_closure = nn.parallel.DistributedDataParallel(network()), network()
        solvers = [NGN(m.parameters(), 0.1, momentum=0.9, variant=variant) for m in (by_backward, by_closure)]
        for _ in range(5):
            solvers[0].zero_grad()
            loss = F.cross_entropy(by_backward(X), y)
            loss.backward()
            solvers[0].step(loss=loss)
            solvers[1].step(lambda m=by_closure: F.cross_entropy(m(X), y))
        found[variant] = [flat(by_backward), flat(by_closure)]
    return found
