"""The training runs of `runs.neural_collapse`: one job a run, so that a killed sweep redoes no finished one.

3000 steps of 32 digits; the rate falls to a tenth after a third of them and to a hundredth after two thirds, as in the
paper, which has 94,000 steps on images of 32 x 32. All parameters decay. Runs of one network start from the same
weights and meet the same batches, unless they are told to repeat from others.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from landscape import Objective
from landscape.collapse import gather, gather_agreement
from probes import At, Monitor, NeuralCollapse
from probes.digits import build_network, digits
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.neural_collapse import theory
from runs.neural_collapse.models import (
    COUPLED,
    NETWORKS,
    OPTIMIZERS,
    RATES,
    family,
    make_adam,
    make_optimizer,
    set_rate,
    step_schedule,
    weight_of_head,
)
from runs.shared.training import update

BATCH = 32
MOMENTUM, DECAY = 0.9, 5e-3  # the setting at which all optimizers are compared
DECAYS = {"coupled": (0.0, 5e-4, DECAY, 0.05), "SGDW": (5e-4, DECAY, 0.05), "decoupled": (DECAY, 0.05, 0.5, 5.0)}
# Without decay the two kinds are one: coupled runs stand for both.
MOMENTA = {"mlp": (0.0, 0.5, MOMENTUM), "cnn": (MOMENTUM,), "resnet": (MOMENTUM,)}
ACCELERATION = (0.0, 0.5, 0.7, MOMENTUM)
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the decay that is coupled, between Adam and AdamW
SEEDS = 3
COLLAPSE = ("nc0", "nc0_normalized", "nc1", "nc1_traces", "cdnv", "nc2", "nc2_weight", "nc2_product", "nc3", "nc4")
KEPT = (*COLLAPSE, "accuracy", "weight_norm", "smallest_singular")


def plan(quick: bool) -> list[Job]:
    """The theorems, then the grid, the setting from other weights, momenta, and Adam-AdamW."""
    steps = 1500 if quick else 3000
    cells: dict[str, Job] = {}

    def add(network: str, optimizer: str, momentum: float, decay: float, seed: int = 0) -> None:
        name = f"grid-{network}-{optimizer}-m{momentum:g}-d{decay:g}" + (f"-s{seed}" if seed else "")
        settings = {"network": network, "optimizer": optimizer, "momentum": momentum, "decay": decay, "steps": steps}
        cells[name] = Job(name, train, settings, f"{network}-{seed}")

    for network in ("mlp",) if quick else NETWORKS:
        for momentum in (MOMENTUM,) if quick else MOMENTA[network]:
            for optimizer in OPTIMIZERS:
                for decay in (0.0, DECAY) if quick else decays(optimizer, network):
                    if decay or optimizer in COUPLED:
                        add(network, optimizer, momentum, decay)
    for network in () if quick else ("mlp", "cnn"):
        for momentum in ACCELERATION:
            add(network, "SGD", momentum, DECAY)
    for seed in range(1, 1 if quick else SEEDS):
        for optimizer in OPTIMIZERS:
            add("mlp", optimizer, MOMENTUM, DECAY, seed)
    jobs = [*theory.plan(quick), *cells.values()]
    for share in (0.0, 1.0) if quick else SHARES:
        for seed in range(1 if quick else SEEDS):
            settings = {"share": share, "decay": DECAY, "momentum": MOMENTUM, "steps": steps}
            jobs.append(Job(f"between-{share:g}-s{seed}", between, settings, f"mlp-{seed}"))
    return jobs


def decays(optimizer: str, network: str) -> tuple[float, ...]:
    """Of the full grid; the residual network, which takes longest, has fewer."""
    kind = "coupled" if optimizer in COUPLED else "SGDW" if optimizer == "SGDW" else "decoupled"
    kept = (0.0, DECAY, 0.5 if kind == "decoupled" else 0.05)
    return tuple(decay for decay in DECAYS[kind] if network != "resnet" or decay in kept)


def train(job: JobContext, network: str, optimizer: str, momentum: float, decay: float, steps: int) -> dict[str, Any]:
    """One cell of the grid."""
    lr = RATES[family(optimizer)]
    model = build_network(NETWORKS[network], job.seed)
    config = {"network": network, "optimizer": optimizer, "lr": lr, "momentum": momentum, "decay": decay}
    mover = make_optimizer(optimizer, list(model.parameters()), lr, momentum, decay)
    try:
        return config | train_and_measure(job, model, mover, lr, steps, config)
    except ValueError as error:
        if "diverged" not in str(error):
            raise
        return config | {"diverged": True}


def between(job: JobContext, share: float, decay: float, momentum: float, steps: int) -> dict[str, Any]:
    """Adam with a share of the decay coupled and the rest decoupled, on the MLP."""
    lr = RATES["Adam"]
    model = build_network(NETWORKS["mlp"], job.seed)
    config = {"network": "mlp", "lr": lr, "momentum": momentum, "decay": decay, "share": share}
    mover = make_adam(list(model.parameters()), lr, momentum, share * decay, (1 - share) * decay)
    return config | train_and_measure(job, model, mover, lr, steps, config)


def train_and_measure(
    job: JobContext, model: nn.Module, optimizer: Any, lr: float, steps: int, config: dict[str, Any]
) -> dict[str, Any]:
    """Train, measure on the way on both sets of images; the metrics before and after, and the losses."""
    sets = digits()
    whole = Objective(model, nn.CrossEntropyLoss(), sets.train, mode="eval")
    held = whole.on(sets.test)
    chosen = At([0, steps // 100, steps // 40, *(steps * i // 20 for i in range(1, 21))])
    with job.trace(**config) as trace:
        monitors = [
            Monitor(objective, [NeuralCollapse(name=name, every=chosen)], trace, on_error="raise")
            for name, objective in (("train", whole), ("test", held))
        ]
        rates = step_schedule(lr, steps)
        for step, (inputs, labels) in enumerate(batches(*sets.train, BATCH, steps, job.seed)):
            for monitor in monitors:
                monitor(step)
            set_rate(optimizer, rates[step])
            update(optimizer, lambda i=inputs, y=labels: nn.functional.cross_entropy(model(i), y))  # type: ignore[misc]
            job.progress(step, steps)
        last = {name: outcome.values or {} for monitor in monitors for name, outcome in monitor(steps).items()}
        first = {name: trace["train"][name][0] for name in KEPT}
    statistics = gather(whole)
    gather_agreement(held, statistics)
    return {
        "start": {name: float(value) for name, value in first.items()},
        **{name: {key: float(values[key]) for key in KEPT} for name, values in last.items()},
        "nc4_test": statistics.metrics(weight_of_head(model)).nc4,
        "loss": whole.value(),
        "test_loss": held.value(),
    }
