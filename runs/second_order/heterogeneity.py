"""Jobs: how unlike the Hessian's blocks are in small networks, and what SGD loses to Adam on them (arXiv 2402.16788).

A CNN and a vision transformer of about 5000 parameters on the same digits with the same loss; a transformer on bytes of
text; and an MLP whose layers are multiplied by s and 1 / s in turn and start with weights that make up for it, so that
the function is the same and the blocks' curvatures are s^4 apart.

Distances between the densities of blocks depend on the unit of eigenvalues and on the width of the bell curve that each
is smoothed with. Three choices: "code", eigenvalues as they are and a width of 1e-5^(1/2), the default of the code that
the paper's authors have published; "range", a hundredth of the range of all eigenvalues of the network; "tenth", each
block in units of its 10th largest eigenvalue, as in the paper's figures, and a width of a tenth of that.

SGD has momentum 0.9. "block-sgd" is the same with a step size for each layer, in inverse proportion to the largest
|eigenvalue| of that layer's block of the Hessian at the start, the geometric mean of all of them being `lr`.
"dealt-sgd" has these step sizes too, each layer that of the next one.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from landscape import BlockDiagonal, Hessian, Objective
from landscape.spectra import BlockSpectra, block_spectra, heterogeneity
from probes.digits import build_network
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.second_order.heterogeneity_networks import Case, blocks, case
from runs.shared.training import update

SEEDS, TEXT_SEEDS, STEPS = 5, 3, 200  # those of the transformer on text are for its spectra, which cost most
PROBES, LANCZOS, BINS = 4, 32, 4096
CODE_SIGMA = 1e-5**0.5
WIDTHS: dict[str, dict[str, Any]] = {
    "code": {"normalise": "none", "sigma": CODE_SIGMA},
    "range": {"normalise": "none"},
    "tenth": {"normalise": "tenth", "sigma": 0.1},
}
SCALES = (1, 2, 4)
NETWORKS, MLPS = ("cnn", "vit", "text"), tuple(f"mlp-{scale}" for scale in SCALES)
LATE = range(5)  # the whole loss is averaged over this many evaluations at the end
EVERY = 10  # steps between them
SGD, ADAM = (0.01, 0.03, 0.1, 0.3, 1.0), (0.001, 0.003, 0.01, 0.03, 0.1)
RATES = {"sgd": SGD, "adam": ADAM, "block-sgd": SGD, "dealt-sgd": SGD}
MLP_RATES = {"sgd": (0.0003, 0.001, 0.003, *SGD[:-1]), "adam": (0.0003, *ADAM), "block-sgd": SGD}


def plan(quick: bool) -> list[Job]:
    """Spectra and training of each network; the CNN's spectra twice."""
    seeds = {"seeds": 2 if quick else SEEDS}
    less: dict[str, Any] = {"probes": PROBES, "steps": LANCZOS}
    if quick:
        less = {"probes": 2, "steps": 8, "tol": 0.5, "shown": 8}
    looked = {name: name for name in (*NETWORKS, *MLPS)} | {"cnn-again": "cnn"}
    jobs = []
    settings: dict[str, Any]
    for name, network in looked.items():
        stream = name if name == "cnn-again" else family(name)
        fewer = {"seeds": 1 if quick else TEXT_SEEDS}
        settings = {"network": network} | less | (fewer if name == "text" else seeds)
        jobs.append(Job(f"heterogeneity-{name}", spectra, settings, stream))
    for name in (*NETWORKS, *MLPS):
        rates = {k: list(v) for k, v in (MLP_RATES if name.startswith("mlp") else RATES).items()}
        settings = {"network": name, "rates": rates, "steps": STEPS}
        if quick:
            settings |= {"rates": {method: lrs[2:3] for method, lrs in rates.items()}, "steps": 12}
            settings |= {"shown": 8, "tol": 0.5}
        jobs.append(Job(f"training-{name}", training, settings | seeds, family(name)))
    return jobs


def family(name: str) -> str:
    """Networks of one family start from the same weights, and see the same batches."""
    return name.split("-")[0]


# -- spectra -------------------------------------------------------------------------------------------------


def spectra(
    job: JobContext, network: str, seeds: int, probes: int, steps: int, tol: float = 1e-2, shown: int | None = None
) -> dict[str, Any]:
    """Distances of the blocks of freshly drawn networks, by seed and choice of unit and width."""
    runs = []
    for seed in range(seeds):
        job.progress(seed, seeds)
        objective = drawn(case(network), job.seed + seed, shown or case(network).shown)
        D = blocks(network, objective)
        rng = seeded(job.seed + seed)
        found = block_spectra(D, k=10, tol=tol, probes=probes, steps=steps, generator=rng)
        runs.append(distances(found))
    return {"network": network, "parameters": objective.size, "runs": runs}


def distances(found: BlockSpectra) -> dict[str, Any]:
    """Of one network: mean distance, standard error and floor by choice; the largest |eigenvalue| of each block."""
    told: dict[str, Any] = {}
    for choice, settings in WIDTHS.items():
        one = heterogeneity(found, bins=BINS, **settings)
        pairs = [[round(d, 4) if math.isfinite(d) else None for d in row] for row in one.distances.tolist()]
        told[choice] = {
            "mean": one.mean[0],
            "stderr": one.mean[1],
            "floor": one.mean_floor,
            "sigma": one.sigma,
            "left out": list(one.left_out),
            "distances": pairs,
        }
    return told | {"norms": {name: block.norm[0] for name, block in found.blocks.items()}}


# -- training ------------------------------------------------------------------------------------------------


def training(
    job: JobContext,
    network: str,
    rates: dict[str, list[float]],
    steps: int,
    seeds: int,
    tol: float = 0.05,
    shown: int | None = None,
) -> dict[str, Any]:
    """The late training loss of each method, step size and seed; None where it is not finite."""
    found: dict[str, dict[str, list[float | None]]] = {
        method: {f"{lr:g}": [] for lr in lrs} for method, lrs in rates.items()
    }
    for seed in range(seeds):
        job.progress(seed, seeds)
        curvatures = layer_norms(case(network), job.seed + seed, shown or case(network).shown, tol)
        for method, lrs in rates.items():
            for lr in lrs:
                late = late_loss(case(network), method, lr, steps, job.seed + seed, curvatures)
                found[method][f"{lr:g}"].append(late)
    return {"network": network, "losses": found}


def late_loss(
    network: Case, method: str, lr: float, steps: int, seed: int, curvatures: dict[str, float]
) -> float | None:
    """The mean over the end of a run of the loss on all training data."""
    objective = drawn(network, seed)
    optimizer = make(method, objective, lr, curvatures)
    late = [steps - EVERY * i for i in LATE]
    losses = []
    for step, (x, y) in enumerate(batches(*network.data()[0], network.batch, steps, seed), start=1):
        loss = update(optimizer, lambda x=x, y=y: F.cross_entropy(objective.model(x), y))  # type: ignore[misc]
        if not math.isfinite(loss):
            return None
        if step in late:
            losses.append(objective.value())
    return statistics.fmean(losses) if all(map(math.isfinite, losses)) else None


def make(method: str, objective: Objective, lr: float, curvatures: dict[str, float]) -> torch.optim.Optimizer:
    """The optimizer; `curvatures` of the layers are for those that use them."""
    if method == "adam":
        return torch.optim.Adam(objective.model.parameters(), lr)
    if method == "sgd":
        return torch.optim.SGD(objective.model.parameters(), lr, momentum=0.9)
    middle = math.exp(statistics.fmean(math.log(norm) for norm in curvatures.values()))
    norms = [*curvatures.values()]
    if method == "dealt-sgd":
        norms = [*norms[1:], norms[0]]
    leaves = dict(zip(objective.names, objective.leaves(), strict=True))
    groups = [
        {"params": [leaves[piece.name] for piece in block.pieces], "lr": lr * middle / norm}
        for block, norm in zip(layers(objective).layout.values(), norms, strict=True)
    ]
    return torch.optim.SGD(groups, lr, momentum=0.9)


def layers(objective: Objective) -> BlockDiagonal:
    """The Hessian's blocks of whole layers."""
    return BlockDiagonal(Hessian(objective))


def layer_norms(network: Case, seed: int, shown: int, tol: float) -> dict[str, float]:
    """The largest |eigenvalue| of each layer's block at the start, on the first samples."""
    D = layers(drawn(network, seed, shown))
    found = block_spectra(D, tol=tol, probes=1, steps=1, generator=seeded(seed))
    return {name: block.norm[0] for name, block in found.blocks.items()}


def drawn(network: Case, seed: int, shown: int | None = None) -> Objective:
    """The network with weights of this seed, on the first samples or all."""
    x, y = network.data()[0]
    return Objective(build_network(network.make, seed), nn.CrossEntropyLoss(), (x[:shown], y[:shown]))


def seeded(seed: int) -> torch.Generator:
    """For random vectors."""
    return torch.Generator().manual_seed(seed)
