"""Every probe that the command knows, on one process, under data parallelism and on a model cut by `fully_shard`."""

import warnings
from pathlib import Path

import sharded_cases as cases
import torch
from torch import nn

from probes import Trace, measure_once
from probes.instruments.registry import PROBES
from probes.instruments.stations import Station

WRAPS = {"one": lambda model: model, "parallel": nn.parallel.DistributedDataParallel, "sharded": cases.shard}


def numbers(values):
    return {key: torch.as_tensor(v).double() for key, v in values.items() if not isinstance(v, str)}


def measured(rank, world, way, folder):
    """Values by name, or what is raised, of each probe in a measurement of its own."""
    found = {}
    for name, entry in PROBES.items():
        case = "transformer" if name == "attention-entropy" else "mlp"
        data = cases.cases.dealt(cases.cases.batches_of(case), rank, world, "dealt")
        batch = data[0] if world > 1 else data[:2]  # the loop's batch is what both ranks have of it
        f = cases.objective(case, data, WRAPS[way])
        sgd = torch.optim.SGD(f.model.parameters(), lr=0.1)
        path = Path(folder) / f"{way}-{rank}-{name}.h5"
        with warnings.catch_warnings(), Trace.create(path, seed=0) as trace:
            warnings.simplefilter("ignore")
            try:
                probe = entry.load()()
                if probe.of_all:
                    probe = probe.at_stations([Station(0, f.theta()), Station(1, 1.1 * f.theta())])
                outcome = measure_once(f, [probe], trace, step=0, optimizer=sgd, batch=batch, loss=1.0)[name]
                found[name] = outcome.error or numbers(outcome.values)
            except (TypeError, ValueError) as error:
                found[name] = str(error)
    return found
