"""The full grid of arXiv 2602.16642: two networks, three data sets, six optimizers, 3 x 6 x 6 settings: 3,888 runs.

    python -m runs.neural_collapse.grid --dry-run                     # counted, and priced from first steps
    python -m runs.neural_collapse.grid --data FOLDER --engine submitit --slurm partition=gpu,time=60,gpus_per_node=1
    python -m runs.neural_collapse.grid --stand-in digits --epochs 2 --only 'vgg9-mnist-SGD*-lr0.01-m0.9-d0.005'

200 epochs with batches of 128, the rate a tenth from epoch 66 on and a hundredth from epoch 133, all parameters decay.
The networks are in `runs.neural_collapse.paper`, with what stands in for data that are not there.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from landscape import Objective
from landscape.collapse import gather
from probes.digits import build_network
from probes.errors import UserError
from probes.numbers import finite
from probes.seeds import derive_seed
from probes.sweep.conduct import Conditions, run_jobs
from probes.sweep.jobs import Job, JobContext
from probes.trace.layout import Field
from runs.engine.experiment import OUT
from runs.engine.options import add_data, add_engine, chosen_engine, ending, use_data
from runs.neural_collapse.models import COUPLED, OPTIMIZERS, make_optimizer, set_rate, weight_of_head
from runs.neural_collapse.paper import DATA, DIGITS, NETWORKS, RANDOM, load
from runs.shared.training import update

EPOCHS, BATCH = 200, 128
RATES = {"SGD": (1e-3, 1e-2, 0.0679), "SGDW": (1e-3, 1e-2, 0.0679)}
OTHER_RATES = (1e-3, 5e-3, 1e-2)
MOMENTA = (0.0, 0.5, 0.7, 0.9, 0.95, 0.98)
DECAYS = (0.0, 5e-5, 5e-4, 5e-3, 0.05, 0.5)
SCALED_DECAYS = (0.0, 5e-4, 0.05, 0.5, 5.0, 10.0)  # of AdamW and SignumW
EVERY = 30  # epochs from one look at the features of all images to the next
KEPT = ("nc0", "nc1", "nc2", "nc3", "accuracy")


def plan(stand_in: str = RANDOM, epochs: int = EPOCHS) -> list[Job]:
    """All runs. Those of one network on one data set start from the same weights and meet the same batches."""
    jobs = []
    for network, name, optimizer in itertools.product(NETWORKS, DATA, OPTIMIZERS):
        decays = DECAYS if optimizer in (*COUPLED, "SGDW") else SCALED_DECAYS
        for lr, momentum, decay in itertools.product(RATES.get(optimizer, OTHER_RATES), MOMENTA, decays):
            cell = {"network": network, "data": name, "optimizer": optimizer, "lr": lr, "momentum": momentum}
            settings = cell | {"decay": decay, "epochs": epochs, "stand_in": stand_in}
            label = f"{network}-{name}-{optimizer}-lr{lr:g}-m{momentum:g}-d{decay:g}"
            kind = f"{network} on {name}"
            jobs.append(Job(label, train, settings, f"{network}-{name}", kind=kind))
    return jobs


def train(
    job: JobContext,
    network: str,
    data: str,
    optimizer: str,
    lr: float,
    momentum: float,
    decay: float,
    epochs: int,
    stand_in: str,
) -> dict[str, Any]:
    """One cell, which goes on from its last checkpoint; the metrics at the start and at the end."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (t.to(device) for t in load(data, stand_in)[0])
    size = DATA[data].images if stand_in == RANDOM else len(x)  # random images are few, and met again

    def build() -> Objective:
        model = build_network(lambda: NETWORKS[network](x.shape[1]), job.seed).to(device)
        return Objective(model, nn.CrossEntropyLoss(), list(zip(x.split(500), y.split(500), strict=True)), mode="eval")

    whole, an_epoch = build(), size // BATCH
    model, steps = whole.model, epochs * an_epoch
    mover = make_optimizer(optimizer, list(model.parameters()), lr, momentum, decay)
    config = {"network": network, "data": data, "optimizer": optimizer, "lr": lr, "momentum": momentum, "decay": decay}
    trace, state = job.resume(**config, epochs=epochs)
    with trace:
        trace.declare("loss", {"value": Field((), "float64", "loss", "of the step's mini-batch")})
        trace.declare("collapse", {key: Field((), "float64", "", f"{key}, training images") for key in KEPT})
        first = 0 if state is None else int(state["step"]) + 1
        if state is not None:
            model.load_state_dict(state["model"])
            mover.load_state_dict(state["solver"])
        for step in range(first, steps + 1):
            if step == steps or (step and step % (EVERY * an_epoch) == 0):  # before the step: after its checkpoint
                last = measure(whole)
                trace.record("collapse", step, **last)
            if step == steps:
                break
            chosen = batch_of(step, an_epoch, size, job.seed) % len(x)
            set_rate(mover, lr * rate_factor(step // an_epoch, epochs))
            model.train()
            value = update(mover, lambda c=chosen: nn.functional.cross_entropy(model(x[c]), y[c]))  # type: ignore[misc]
            if step % 50 == 0:
                trace.record("loss", step, value=value)
            job.progress(step + 1, steps)
            job.keep(trace, step, steps, lambda: {"model": model.state_dict(), "solver": mover.state_dict()})
    return finite({**config, "last": last, "start": measure(build())})


def measure(objective: Objective) -> dict[str, float]:
    """The metrics on all images."""
    found = gather(objective).metrics(weight_of_head(objective.model))
    return {key: float(getattr(found, key)) for key in KEPT}


def rate_factor(epoch: int, epochs: int) -> float:
    """What the rate is multiplied by: a tenth after a third of the epochs, a hundredth after two thirds.

    Of very few, an epoch has the full rate and the next one a tenth.
    """
    return 0.1 ** ((epoch >= max(1, epochs // 3)) + (epoch >= max(2, 2 * epochs // 3)))


def batch_of(step: int, an_epoch: int, size: int, seed: int) -> torch.Tensor:
    """Which images a step meets, in a new order each epoch; what does not fill a batch is left out of the epoch."""
    epoch, place = divmod(step, an_epoch)
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    return torch.randperm(size, generator=generator)[place * BATCH : (place + 1) * BATCH]


def write(path: Path, data: Sequence[dict[str, Any]]) -> None:
    """A row for each run: its setting and its metrics at the end."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("network", "data", "optimizer", "lr", "momentum", "decay", *KEPT))
        for run in data:
            setting = (run[key] for key in ("network", "data", "optimizer", "lr", "momentum", "decay"))
            writer.writerow((*setting, *(run["last"][key] for key in KEPT)))


def main(words: Sequence[str] | None = None) -> None:
    """The command. Ctrl-C ends with status 130 and keeps what is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data(parser)
    parser.add_argument("--stand-in", choices=[DIGITS], default="", help="in the place of the data")
    parser.add_argument("--only", default="*", help="pattern of names NETWORK-DATA-OPTIMIZER-lrL-mM-dD")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--dry-run", action="store_true", help="measure first steps and say what the rest takes")
    parser.add_argument("--price", type=float, metavar="PER_HOUR", help="what an hour of one run costs")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--out", type=Path, default=OUT / "neural_collapse" / "grid")
    add_engine(parser)
    chosen = parser.parse_args(words)
    console = Console(width=None if Console().is_terminal else 140)
    with ending(console):
        use_data(chosen)
        stand_in = RANDOM if chosen.dry_run else chosen.stand_in
        jobs = [job for job in plan(stand_in, chosen.epochs) if fnmatchcase(job.name, chosen.only)]
        if not jobs:
            raise UserError(f"no run is named {chosen.only}: they are like {plan()[0].name}", status=2)
        for name in [name for name in DATA if any(job.settings["data"] == name for job in jobs)]:
            load(name, stand_in)
        conditions = Conditions(chosen_engine(chosen), dry=chosen.dry_run, per_hour=chosen.price)
        folder = chosen.out / (stand_in or "paper")
        _, found = run_jobs(jobs, folder, conditions, console, Console(stderr=True), chosen.threads)
    if found is not None:
        for name, result in found.items():
            said = result.error or "  ".join(f"{key} {result.data['last'][key]:.3g}" for key in KEPT)
            console.print(f"{name}: {said}", markup=False, soft_wrap=True)
        write(folder / "grid.csv", [result.data for result in found.values() if result.error is None])
        console.print(f"  {folder / 'grid.csv'}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
