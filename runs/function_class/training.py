"""A training run of `runs.function_class`, run twice.

The first pass finds the end point x_K; the second repeats it and measures, and must end at the same point bit by bit.
Rows of each step's own batch (group `batch`) are made of the gradient that the step takes anyway and one forward pass
at x_K; every few steps there is a row of the whole loss (`whole`). f_k^* is 0, as the paper takes it.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from landscape.regularity.measure import Row, measure
from probes import Field, Trace
from probes.digits import build_network
from probes.sweep.jobs import JobContext
from probes.sweep.problems import batches
from runs.function_class.networks import NETWORKS, factor, load, make_optimizer

UNITS = dict.fromkeys(("inner", "loss", "final_loss", "infimum"), "loss")
UNITS |= {"grad_norm": "loss/parameter", "distance": "parameter"}

# Called at each step as (step, loss, batch), with the gradient of the step in the parameters.
Call = Callable[[int, Tensor, Any], None]


def train(
    job: JobContext,
    network: str,
    data: str,
    size: int,
    batch: int,
    steps: int,
    optimizer: str,
    lr: float,
    schedule: str,
    seed: int,
    every: int,
) -> dict[str, Any]:
    """One run and its end point; `every`: steps from one row of the whole loss to the next."""
    x, y = load(data)
    seed = (job.seed + seed) % 2**63
    model = build_network(lambda: NETWORKS[network](size, x[0].numel()), seed)
    start = copy.deepcopy(model.state_dict())
    objective = Objective(model, nn.CrossEntropyLoss(), (x, y))
    first = objective.value()

    def run(call: Call, before: int) -> None:
        made = make_optimizer(optimizer, model.parameters(), lr)
        for step, (inputs, targets) in enumerate(batches(x, y, batch, steps, seed)):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            made.zero_grad()
            loss.backward()
            call(step, loss.detach(), (inputs, targets))
            made.param_groups[0]["lr"] = lr * factor(schedule, step, steps)
            made.step()
            job.progress(before + step, 2 * steps)

    run(lambda step, loss, pair: None, 0)
    end = copy.deepcopy(model)
    theta = objective.theta()
    if not bool(torch.isfinite(theta).all()):
        raise ArithmeticError("the run diverged")
    model.load_state_dict(start)
    config: dict[str, Any] = {"network": network, "size": size, "batch": batch, "optimizer": optimizer, "lr": lr}
    with job.trace(**config, data=data, schedule=schedule) as trace:
        declare(trace, ("batch", "whole"))

        def rows(step: int, loss: Tensor, pair: Any) -> None:
            write(trace, "batch", step, row(model, end, loss, pair), objective.rounding)
            if step % every == 0:
                gradients = [p.grad for p in model.parameters()]
                write(trace, "whole", step, measure(objective, theta), objective.rounding)
                for p, gradient in zip(model.parameters(), gradients, strict=True):
                    p.grad = gradient

        run(rows, steps)
    if not torch.equal(objective.theta(), theta):
        raise ArithmeticError("the second pass did not end where the first one did")
    crc = zlib.crc32(x.contiguous().numpy().tobytes())
    counts = {"parameters": objective.size, "samples": len(x), "steps": steps, "data_crc32": crc}
    return {"size": size, **counts, "first_loss": first, "loss": objective.value()}


@torch.no_grad()
def row(model: nn.Module, end: nn.Module, loss: Tensor, batch: tuple[Tensor, Tensor]) -> Row:
    """What `landscape.regularity.measure` gives of a batch, from the gradient that lies in the parameters already.

    Products are taken in the parameters' precision and summed in float64.
    """
    at_end = nn.functional.cross_entropy(end(batch[0]), batch[1])
    total = partial(torch.sum, dtype=torch.float64)
    inner = grad = distance = torch.zeros((), dtype=torch.float64)
    for p, e in zip(model.parameters(), end.parameters(), strict=True):
        assert p.grad is not None
        apart = p - e
        inner = inner + total(p.grad * apart)
        grad = grad + total(p.grad.square())
        distance = distance + total(apart.square_())
    return Row(float(inner), float(loss), float(at_end), 0.0, float(grad) ** 0.5, float(distance) ** 0.5)


def declare(trace: Trace, names: Sequence[str]) -> None:
    """Groups for the rows of trajectories, as the probe `FunctionClass` has them."""
    fields = {field: Field((), "float64", units) for field, units in UNITS.items()}
    for name in names:
        trace.declare(name, fields | {"rounding": Field((), "float64", "", "relative rounding of the losses")})


def write(trace: Trace, name: str, step: int, found: Row, rounding: float) -> None:
    """One row."""
    trace.record(name, step, rounding=rounding, **asdict(found))
