"""The jobs of `runs.edge_of_stability` on the minima that SGD keeps: it starts, with batches of 1, in one of them."""

from __future__ import annotations

import math
from typing import Any

import torch

from landscape import Objective
from probes import At, CurvatureTrace, Monitor, Sharpness
from probes.sweep.jobs import JobContext
from probes.trace.trace import Trace
from runs.edge_of_stability.data import images, odd, start
from runs.edge_of_stability.training import TOL
from runs.shared.training import half_square, update

MATVECS = 40
GONE = 1e3  # a loss above this is divergence: targets are 1 and -1


def keep(
    job: JobContext, data: str, count: int, width: int, rate: float, steps: int, ratios: list[float], epochs: int
) -> dict[str, Any]:
    """A minimum found by gradient descent, and what SGD with batches of one makes of it by step size.

    The step size of a run is ratio * 2 / tr(H) at the minimum, so that a ratio above 1 breaks the bound there. Beside
    each run of SGD is one of gradient descent with the same step size and as many steps as there are epochs.
    """
    x, y = images(data, count)
    targets = odd(y)
    model = start(x.shape[1], width, 1, seed=job.seed)
    objective = Objective(model, half_square, (x, targets))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with job.trace(rate=rate) as trace:
        probes = [Sharpness(tol=TOL, every=At(steps)), full_trace("trace", At(steps))]
        monitor = Monitor(objective, probes, trace, optimizer=optimizer)
        for step in range(steps):
            update(optimizer, lambda: half_square(model(x), targets))
            job.progress(step, 2 * steps)
        minimum = {name: outcome.values for name, outcome in monitor(steps).items() if outcome.values is not None}
        first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        found = {"loss": objective.value(), "trace": float(minimum["trace"]["value"])}
        runs = []
        for ratio in ratios:
            run: dict[str, Any] = {"ratio": ratio, "rate": ratio * 2 / found["trace"]}
            for solver, size in (("sgd", 1), ("gd", count)):
                model.load_state_dict(first)
                run[solver] = leave(objective, (x, targets), trace, f"{solver}-{ratio}", run["rate"], size, epochs)
            runs.append(run)
        model.load_state_dict(first)
    stderr, sharpness = float(minimum["trace"]["stderr"]), float(minimum["sharpness"]["value"])
    return found | {"rate": rate, "stderr": stderr, "sharpness": sharpness, "runs": runs}


def leave(
    objective: Objective,
    data: tuple[torch.Tensor, torch.Tensor],
    trace: Trace,
    name: str,
    rate: float,
    size: int,
    epochs: int,
) -> dict[str, Any]:
    """So many epochs from where the model stands, tr(H) at every third of them; `kept` is False when it diverged."""
    x, t = data
    model = objective.model
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    monitor = Monitor(objective, [full_trace(name, max(1, epochs // 3))], trace, optimizer=optimizer)
    generator = torch.Generator().manual_seed(trace.seed)
    monitor(0)
    for epoch in range(1, epochs + 1):
        for i in torch.randperm(len(x), generator=generator).split(size):
            update(optimizer, lambda i=i: half_square(model(x[i]), t[i]))  # type: ignore[misc]
        loss = objective.value()
        if not math.isfinite(loss) or loss > GONE:
            return {"kept": False, "epochs": epoch}
        monitor(epoch)
    records = trace[name].read()
    last = {"trace": float(records["value"][-1]), "stderr": float(records["stderr"][-1])}
    return {"kept": True, "epochs": epochs, "loss": loss, **last}


def full_trace(name: str, every: Any) -> CurvatureTrace:
    """The trace of the Hessian."""
    return CurvatureTrace(matvecs=MATVECS, every=every, name=name)
