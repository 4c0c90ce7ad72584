"""Rules that average over processes: two of them, each with half of the batch, are one with all of it."""

from __future__ import annotations

import pytest
import torch
from rule_cases import network
from torch import distributed as dist

from solvers.first_order.adagrad_norm import AdaGradNorm
from solvers.first_order.momo import MoMo, MoMoAdam
from solvers.first_order.sam import SAM
from solvers.first_order.scion import Scion
from solvers.first_order.sps import DecSPS, SPSMax
from solvers.preconditioned.adahessian import AdaHessian
from solvers.preconditioned.oasis import OASIS
from solvers.preconditioned.psgd import PSGD
from solvers.preconditioned.sania import SANIA
from solvers.preconditioned.shampoo import Shampoo
from solvers.preconditioned.sophia import Sophia


def seeded():
    """A generator of the process: what has to be alike comes from the first one."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    return torch.Generator().manual_seed(rank)


RULES = {
    "sam": lambda p: SAM(p, 0.1, rho=0.5, momentum=0.9),
    "dnsam": lambda p: SAM(p, 0.1, rho=0.5, variant="dnsam", full=lambda: sum(t.square().sum() for t in p)),
    "sps": lambda p: SPSMax(p, 5.0),
    "decsps": lambda p: DecSPS(p, 5.0),
    "adagrad": lambda p: AdaGradNorm(p, 0.5),
    "momo": lambda p: MoMo(p, 5.0),
    "momoadam": lambda p: MoMoAdam(p, 0.1),
    "scion": lambda p: Scion(p, 0.1, exact=True),
    # with one seed the probes are alike, so that the mean of z * (H z) is that of the mean loss
    "adahessian": lambda p: AdaHessian(p, 0.1, generator=torch.Generator().manual_seed(0)),
    "sophia": lambda p: Sophia(p, 0.1, every=2, generator=torch.Generator().manual_seed(0)),
    "oasis": lambda p: OASIS(p, first=0.1, alpha=0.1, generator=torch.Generator().manual_seed(0)),
    "sania": lambda p: SANIA(p, metric="hessian", generator=torch.Generator().manual_seed(0)),
    "shampoo": lambda p: Shampoo(p, 0.1),
    "psgd": lambda p: PSGD(p, 0.1, probability=0.5, generator=seeded()),
    "psgd-newton": lambda p: PSGD(p, 0.1, variant="newton", probability=0.5, generator=seeded()),
}


def descend(name, batches):
    """The parameters after five steps on the mean loss of these batches of the network's problem."""
    start, loss = network()
    thetas = [t.requires_grad_() for t in start]
    optimizer = RULES[name](thetas)
    for _ in range(5):
        optimizer.step(lambda: sum(loss(thetas, k) for k in batches) / len(batches))
    return torch.cat([t.detach().reshape(-1) for t in thetas])


def worker(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/store", rank=rank, world_size=2)
    ends = {name: descend(name, [rank]) for name in RULES}
    torch.save(ends, f"{path}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_with_both_batches(tmp_path):
    torch.multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in RULES:
        expected = descend(name, [0, 1])
        for ends in found:
            torch.testing.assert_close(ends[name], expected, rtol=1e-9, atol=1e-10, msg=name)
