"""A training loop under DistributedDataParallel with a monitor in it, and the same in one process."""

import warnings

import torch
from data_parallel_cases import batches_of, mlp
from torch import distributed, nn

from landscape import Objective
from probes import Monitor, Sharpness, Spectrum, Trace, When
from probes.instruments.curvature import CurvatureTrace

LOSS = nn.CrossEntropyLoss()


class Counting:
    """How many collective calls were made."""

    def __init__(self):
        from landscape.ranks import Ranks

        self.calls = 0
        own = Ranks._call

        def call(ranks, *args, **options):
            self.calls += 1
            return own(ranks, *args, **options)

        Ranks._call = call


class Failing(CurvatureTrace):
    """A probe that raises on every rank at step 2, and on the second rank alone, in its own work, at step 4."""

    def measure(self, context):
        if context.step == 2:
            raise ValueError("not at step 2")
        if context.step == 4 and context.objective.ranks.rank == context.objective.ranks.size - 1:
            raise ValueError("not on the last rank")
        return {"value": float(context.step)} | dict.fromkeys(("stderr", "noise"), 0.0) | MORE


MORE = {"matvecs": 0, "converged": True, "method": "none", "checked": "", "note": ""}


def probes():
    return [
        Spectrum(k=2, tol=1e-12, every=2),
        Sharpness(every=3),
        Failing(name="failing", every=2),
        # the loss of each rank is another one: the first rank decides
        Spectrum(k=1, name="small loss", every=When(lambda now: now.loss < 100.0, every=4)),
    ]


def loop(path, rank=0, world=1, steps=7, **options):
    """The traced numbers; how many calls were made at steps where nothing is due."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, data = mlp().double(), batches_of("mlp")[:4]
    wrapped = nn.parallel.DistributedDataParallel(model) if distributed.is_initialized() else model
    objective = Objective(wrapped, LOSS, data[rank::world])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    counting, quiet = Counting(), []
    trace = Trace.create(path, seed=3) if rank == 0 else None
    monitor = Monitor(objective, probes(), trace, optimizer=optimizer, **options)
    for step in range(steps):
        x, y = data[step % 2 * 2 + rank] if world == 2 else _both(data, step)
        batch = None if step == 6 and rank == 1 else (x, y)
        before = counting.calls
        done = monitor(step, loss=1.0 + 1000 * rank, batch=batch)
        if not done:
            quiet.append(counting.calls - before)
        optimizer.zero_grad()
        objective.value()  # what a loop does besides is its own
        with torch.no_grad():
            for p, g in zip(model.parameters(), objective.unflatten(objective.gradient()).values(), strict=True):
                p -= 0.1 * g
    state = monitor.state_dict()
    monitor.load_state_dict(state)
    if trace is not None:
        trace.close()
    return quiet


def _both(data, step):
    first, second = data[step % 2 * 2 : step % 2 * 2 + 2]
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])


def trained(rank, world, path):
    return loop(path, rank, world)


def budgeted(rank, world, path):
    """Under a budget that lets little be measured."""
    return loop(path, rank, world, steps=40, budget=0.2)
