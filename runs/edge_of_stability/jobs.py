"""The training runs of `runs.edge_of_stability`, each with probes inside the loop; all are plain SGD on small MLPs.

Losses are means over samples: cross-entropy, or half the squared distance to the target, summed over the outputs.
With the half, the Hessian of a sample that is fitted is the outer product of its output gradients, as in the theory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from probes import At, BatchSharpness, CurvatureTrace, Monitor, Sharpness, SpectralDensity, Spectrum, Trace
from probes.digits import accuracy, build_network, digits
from probes.outliers import outliers
from probes.probe import Probe
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.shared.training import Data, declare_loss, half_square, one_hot, update

WIDTH = 64
RATES = (0.05, 0.2, 0.3, 0.4, 0.8)  # of gradient descent; the first is too small to reach 2/eta in the time
SGD_RATE, BATCHES = 0.4, (4, 16, 64, 256)
CLASS_COUNTS = (2, 3, 5, 10)
TOL = 1e-2  # of the residual; the eigenvalue itself is off by far less


def network(outputs: int) -> nn.Module:
    """Two hidden layers of 64 tanh units: twice differentiable, so the Hessian is the whole second order."""
    hidden = nn.Linear(64, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh()
    return nn.Sequential(*hidden, nn.Linear(WIDTH, outputs))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "square": half_square,
    "cross-entropy": nn.functional.cross_entropy,
}


def images(classes: int = 10) -> Data:
    """The training images of the first classes, less the mean image, and their labels."""
    x, y = digits().train
    chosen = y < classes
    x = x[chosen].flatten(1)
    return x - x.mean(dim=0), y[chosen]


def blobs(classes: int, seed: int) -> Data:
    """As many points of 64 coordinates around one centre a class: data that are nothing but classes."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 64, generator=generator)
    y = torch.arange(len(digits().train[1])) % classes
    x = centres[y] + 0.5 * torch.randn(len(y), 64, generator=generator)
    return x - x.mean(dim=0), y


def odd(y: Tensor) -> Tensor:
    """+1 for the odd digits, -1 for the even: targets of a single output, as the theory of SGD's minima has it."""
    return (2.0 * (y % 2) - 1.0).unsqueeze(1)


def plan(quick: bool) -> list[Job]:
    """The jobs. Runs that are compared share a stream, so they start from the same weights."""
    steps, every = (240, 30) if quick else (4000, 40)
    square = {"loss": "square", "steps": steps, "every": every}
    entropy_rates, scratch_rates = ((2.0,), (0.1,)) if quick else ((1.0, 2.0), (0.05, 0.1))
    entropy = {"loss": "cross-entropy", "steps": 60 if quick else 300, "every": 3}
    steps, every = (240, 40) if quick else (8000, 100)
    small = {"rate": SGD_RATE, "steps": steps, "every": every}
    most = {"epochs": 3, "eigenvalues": 10} if quick else {"epochs": 60, "eigenvalues": 30}
    ratios, epochs = ([0.5, 2.0], 1) if quick else ([0.25, 0.5, 1.0, 2.0, 4.0], 15)
    keeping = {"rate": 0.2, "steps": 200 if quick else 4000, "ratios": ratios, "epochs": epochs}
    return [
        *(Job(f"gd-{rate}", descend, {"rate": rate, **square}, "gd") for rate in (RATES[::4] if quick else RATES)),
        *(Job(f"entropy-{rate}", descend, {"rate": rate, **entropy}, "gd") for rate in entropy_rates),
        *(Job(f"sgd-{b}", stochastic, {"batch": b, **small}, "gd") for b in ((16, 256) if quick else BATCHES)),
        *(
            Job(f"{data}-{classes}", spectrum, {"data": data, "classes": classes, **most})
            for data in ("digits", "blobs")
            for classes in ((3,) if quick else CLASS_COUNTS)
        ),
        Job("keep", keep, keeping, "one"),
        *(Job(f"scratch-{rate}", scratch, {"rate": rate, "epochs": epochs}, "one") for rate in scratch_rates),
    ]


# -- jobs ----------------------------------------------------------------------------------------------------


def descend(job: JobContext, loss: str, rate: float, steps: int, every: int) -> dict[str, Any]:
    """Full-batch gradient descent: the loss of every step, the sharpness every few."""
    x, y = images()
    targets = one_hot(y) if loss == "square" else y
    model = build_network(lambda: network(10), job.seed)
    objective = Objective(model, LOSSES[loss], (x, targets))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with job.trace(loss=loss, rate=rate) as trace:
        declare_loss(trace)
        monitor = Monitor(objective, [Sharpness(tol=TOL, every=every)], trace, optimizer=optimizer)
        for step in range(steps + 1):
            monitor(step)
            value = update(optimizer, lambda: LOSSES[loss](model(x), targets))
            trace.record("loss", step, value=value)
            job.progress(step, steps)
    return {"rate": rate, "loss": value, "parameters": objective.size, "accuracy": accuracy(model, (x, y))}


def stochastic(job: JobContext, rate: float, batch: int, steps: int, every: int) -> dict[str, Any]:
    """SGD on mini-batches: sharpness of the whole loss, batch sharpness, and the whole loss, every few steps."""
    x, y = images()
    model = build_network(lambda: network(10), job.seed)
    objective = Objective(model, half_square, (x, one_hot(y)))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    probes: list[Probe] = [Sharpness(tol=TOL, every=every), BatchSharpness(batch_size=batch, rtol=0.02, every=every)]
    with job.trace(rate=rate, batch=batch) as trace:
        declare_loss(trace)
        monitor = Monitor(objective, probes, trace, optimizer=optimizer)
        for step, (inputs, targets) in enumerate(batches(x, one_hot(y), batch, steps + 1, job.seed)):
            monitor(step)
            if step % every == 0:
                trace.record("loss", step, value=objective.value())
            update(optimizer, lambda i=inputs, t=targets: half_square(model(i), t))  # type: ignore[misc]
            job.progress(step, steps)
    return {"rate": rate, "batch": batch, "loss": objective.value(), "accuracy": accuracy(model, (x, y))}


def spectrum(job: JobContext, data: str, classes: int, epochs: int, eigenvalues: int) -> dict[str, Any]:
    """Cross-entropy by SGD; the largest eigenvalues and the density before and after."""
    x, y = images(classes) if data == "digits" else blobs(classes, job.seed)
    model = build_network(lambda: network(classes), job.seed)
    objective = Objective(model, nn.functional.cross_entropy, (x, y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    size = 32
    steps = epochs * (len(x) // size)
    probes: list[Probe] = [Spectrum(eigenvalues, every=At(0, steps)), SpectralDensity(every=At(0, steps))]
    with job.trace(data=data, classes=classes) as trace:
        monitor = Monitor(objective, probes, trace)
        for step, (inputs, labels) in enumerate(batches(x, y, size, steps, job.seed)):
            monitor(step)
            update(optimizer, lambda i=inputs, t=labels: nn.functional.cross_entropy(model(i), t))  # type: ignore[misc]
            job.progress(step, steps)
        monitor(steps)
        found = [outliers(values) for values in trace["spectrum"]["values"]]
    counts = {"outliers": [f.count for f in found], "gap": [f.ratio for f in found]}
    return {"classes": classes, "loss": objective.value(), "accuracy": accuracy(model, (x, y)), **counts}


def keep(job: JobContext, rate: float, steps: int, ratios: list[float], epochs: int) -> dict[str, Any]:
    """A minimum found by gradient descent, and which of SGD's step sizes leave it, at batch size 1.

    The step size of a run is ratio * 2 / tr(H) at the minimum, so that a ratio above 1 breaks the bound there.
    """
    x, y = images()
    model = build_network(lambda: network(1), job.seed)
    objective = Objective(model, half_square, (x, odd(y)))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with job.trace(rate=rate) as trace:
        monitor = Monitor(objective, [Sharpness(tol=TOL, every=At(steps)), full_trace("trace", At(steps))], trace)
        for step in range(steps):
            update(optimizer, lambda: half_square(model(x), odd(y)))
            job.progress(step, steps * (1 + len(ratios)))
        minimum = {name: outcome.values for name, outcome in monitor(steps).items() if outcome.values is not None}
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        curvature = float(minimum["trace"]["value"])
        runs = []
        for number, ratio in enumerate(ratios):
            model.load_state_dict(start)
            job.progress(steps * (1 + number), steps * (1 + len(ratios)))
            found = one_by_one(objective, trace, f"trace-{ratio}", ratio * 2 / curvature, epochs)
            runs.append({"ratio": ratio} | found)
        model.load_state_dict(start)
    return {
        "rate": rate,
        "loss": objective.value(),
        "trace": curvature,
        "stderr": float(minimum["trace"]["stderr"]),
        "sharpness": float(minimum["sharpness"]["value"]),
        "runs": runs,
    }


def scratch(job: JobContext, rate: float, epochs: int) -> dict[str, Any]:
    """SGD at batch size 1 from random weights."""
    x, y = images()
    objective = Objective(build_network(lambda: network(1), job.seed), half_square, (x, odd(y)))
    with job.trace(rate=rate) as trace:
        return one_by_one(objective, trace, "trace", rate, epochs, job)


# -- what they share -----------------------------------------------------------------------------------------


def one_by_one(
    objective: Objective, trace: Trace, name: str, rate: float, epochs: int, job: JobContext | None = None
) -> dict[str, Any]:
    """SGD at batch size 1 with the trace of the Hessian after each epoch; `kept` is False when it diverged."""
    x, y = images()
    model, targets = objective.model, odd(y)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    monitor = Monitor(objective, [full_trace(name, 1)], trace, optimizer=optimizer)
    generator = torch.Generator().manual_seed(trace.seed)
    last = monitor(0)[name].values
    for epoch in range(1, epochs + 1):
        for i in torch.randperm(len(x), generator=generator).split(1):
            update(optimizer, lambda i=i: half_square(model(x[i]), targets[i]))  # type: ignore[misc]
        if not math.isfinite(objective.value()):
            return {"rate": rate, "kept": False, "epochs": epoch}
        last = monitor(epoch)[name].values
        if job is not None:
            job.progress(epoch, epochs)
    assert last is not None
    measured = {"trace": float(last["value"]), "stderr": float(last["stderr"])}
    return {"rate": rate, "kept": True, "epochs": epochs, "loss": objective.value(), **measured}


def full_trace(name: str, every: Any) -> CurvatureTrace:
    """The trace of the Hessian from 60 products."""
    return CurvatureTrace(matvecs=60, every=every, name=name)
