"""Jobs: how solvers' preconditioners condition the Gauss-Newton matrix, along one run of training.

A network of 1210 parameters on digits, cross-entropy, float64, trained by SGD with momentum. Beside it Adam, Shampoo,
SOAP and K-FAC take in the same gradients with lr = 0, first of as many steps at the initial weights as are in an epoch:
all see the same matrix at the same weights, and their means reach back about 100 steps. Each covers all parameters.

kappa is that of P^(-1/2) G P^(-1/2), the largest over the r-th eigenvalue. r is the number of eigenvalues of G itself
above a threshold in units of its largest, so that it is the same for all preconditioners.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import GaussNewton, Objective
from probes.digits import NETWORKS, build_network, digits
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.second_order.preconditioners import Rotated, dense
from runs.second_order.rates import descent, kappas, quadratic
from solvers import SGD, SOAP, AdamCoupled, KFACDescent, Shampoo

SEEDS, BATCH, LR = 5, 32, 0.05
IMAGES = 450  # the first ones of those that are trained on: what the matrix and the loss of a descent are of
EPOCHS = {"start": 0, "middle": 3, "end": 20}
THRESHOLDS = (1e-2, 1e-4, 1e-6, 1e-8)
EPS, DAMPING = 1e-8, 1e-3  # of Adam, Shampoo and SOAP; of K-FAC, in place of which these are looked at too
DAMPINGS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
MODEL = 1e-4  # the threshold of the local quadratic, which has G's eigenvectors above it
SOLVERS = ("adam", "shampoo", "soap", "kfac")
ROOTS = ("adam", "shampoo", "soap")  # whose P is about the root of a second moment


def plan(quick: bool) -> list[Job]:
    """One run of each network and seed."""
    settings = {"epochs": {"start": 0, "end": 1} if quick else EPOCHS, "steps_down": 20 if quick else 100}
    return [
        Job(f"precondition-{name}-{seed}", follow, {"network": name} | settings, f"precondition-{seed}", kind=name)
        for name in (["small"] if quick else NETWORKS)
        for seed in range(1 if quick else SEEDS)
    ]


def follow(job: JobContext, network: str, epochs: dict[str, int], steps_down: int) -> dict[str, Any]:
    """What `look` sees after so many epochs."""
    x, y = digits().train
    x = x.double()
    model = build_network(NETWORKS.get(network, small), job.seed % 2**63).double()
    objective = Objective(model, nn.CrossEntropyLoss(), (x[:IMAGES], y[:IMAGES]))
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(job.seed)
    watching: dict[str, Any] = {
        "adam": AdamCoupled(parameters, 0.0, betas=(0.9, 0.99), eps=EPS),
        "shampoo": Shampoo(parameters, 0.0, beta=0.99, eps=EPS, every=10),
        "soap": SOAP(parameters, 0.0, betas=(0.9, 0.99), eps=EPS),
        "kfac": KFACDescent(objective, 0.0, beta=0.9, damping=DAMPING, clip=None, generator=generator),
        "rotated": Rotated(parameters, lambda leaves: AdamCoupled(leaves, 0.0, betas=(0.9, 0.99), eps=EPS), generator),
    }
    driver = SGD(parameters, LR, momentum=0.9)
    each = len(x) // BATCH
    steps, found = (1 + max(epochs.values())) * each, {}
    moments = {(1 + epoch) * each: moment for moment, epoch in epochs.items()}  # the first one is at rest
    for step, (inputs, labels) in enumerate(batches(x, y, BATCH, steps + 1, job.seed)):
        if step in moments:
            found[moments[step]] = look(objective, watching, steps_down)
        job.progress(step, steps)
        if step == steps:
            break
        loss = F.cross_entropy(model(inputs), labels)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = g
        for name, solver in watching.items():
            solver.step(**({"batch": (inputs, labels)} if name == "kfac" else {}))
        if step >= each:
            driver.step()
    return {"network": network, "moments": found}


def small() -> nn.Module:
    """64-4-10 with tanh, 310 parameters: for the reduced run."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 10))


def look(objective: Objective, watching: dict[str, Any], steps: int) -> dict[str, Any]:
    """The condition numbers at these weights, and how fast each preconditioner descends from them.

    "kappa" has one for each threshold, also of P^2 in place of P ("shampoo squared") and of K-FAC by damping; "model"
    what `quadratic` finds on the eigenvectors of G above `MODEL`, "descended" the loss that `descent` reaches.
    """
    G = GaussNewton(objective).to_dense()
    values, vectors = torch.linalg.eigh(0.5 * (G + G.T))
    values = values.clamp_min(0.0)
    G_root = (vectors * values.sqrt()) @ vectors.T
    ranks = [int((values > threshold * values[-1]).sum()) for threshold in THRESHOLDS]
    above = values > MODEL * values[-1]
    inverses: dict[str, Tensor] = {"none": torch.eye(len(G), dtype=G.dtype)}
    inverses |= {name: dense(solver) for name, solver in watching.items()}
    kappa = {name: kappas(G_root, S, ranks) for name, S in inverses.items()}
    kappa |= {f"{name} squared": kappas(G_root, inverses[name] @ inverses[name], ranks) for name in ROOTS}
    kappa |= {f"kfac {d:g}": kappas(G_root, S, ranks) for d, S in _by_damping(watching["kfac"], inverses["kfac"])}
    model = {n: quadratic(values[above], vectors[:, above], S, objective.gradient()) for n, S in inverses.items()}
    tops = {name: float(torch.linalg.eigvalsh(G_root @ S @ G_root)[-1]) for name, S in inverses.items()}
    ends = {name: descent(objective, S, tops[name], steps) for name, S in inverses.items()}
    return {"loss": objective.value(), "ranks": ranks, "kappa": kappa, "model": model, "descended": ends}


def _by_damping(kfac: KFACDescent, known: Tensor) -> Iterator[tuple[float, Tensor]]:
    """(K + d I)^-1 for each damping d."""
    for d in DAMPINGS:
        kfac.param_groups[0]["damping"] = d
        yield d, known if d == DAMPING else dense(kfac)
    kfac.param_groups[0]["damping"] = DAMPING
