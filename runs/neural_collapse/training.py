"""Training runs of `runs.neural_collapse`, and what is measured of each.

The rate falls to a tenth after a third of the steps and to a hundredth after two thirds, as in the paper; all
parameters decay. A run is a dict: its settings, `start` and `train` (metrics on the training images before and after),
what the images to test on say, singular values, and, if asked for, metrics along the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from landscape.collapse import CollapseStatistics
from probes.digits import CLASSES
from runs.neural_collapse.data import Pair
from runs.neural_collapse.models import set_rate, step_schedule, weight_of_head
from runs.shared.training import update

KEPT = ("nc0", "nc0_normalized", "nc1", "nc2", "nc3", "nc4", "accuracy", "weight_norm")
BATCH = 100
Row = dict[str, Any]


def train(
    model: nn.Sequential,
    optimizer: torch.optim.Optimizer,
    images: tuple[Pair, Pair],
    lr: float,
    steps: int,
    seed: int,
    looks: Sequence[int] = (),
) -> Row:
    """Train, and measure before, after and at the steps `looks`. A run that diverges is `{"diverged": True}`."""
    x, y = images[0]
    an_epoch = len(x) // BATCH
    generator = torch.Generator().manual_seed(seed)
    first, along = measure(model, images), []
    order = torch.empty(0)
    for step, rate in enumerate(step_schedule(lr, steps)):
        if step in looks:
            along.append({"step": step, **measure(model, images)["train"]})
        if step % an_epoch == 0:
            order = torch.randperm(len(x), generator=generator)
        chosen = order[step % an_epoch * BATCH :][:BATCH]
        set_rate(optimizer, rate)
        model.train()
        loss = update(optimizer, lambda c=chosen: nn.functional.cross_entropy(model(x[c]), y[c]))  # type: ignore[misc]
        if not loss < 1e6:
            return {"diverged": True}
    try:
        last = measure(model, images)
    except ValueError:  # features or weights that are not finite
        return {"diverged": True}
    return {"start": first["train"], "singular_start": first["singular"], **last, **({"along": along} if looks else {})}


@torch.no_grad()
def measure(model: nn.Sequential, images: tuple[Pair, Pair]) -> Row:
    """Metrics and singular values on training features; NC4 and accuracy of others, by the means of training.

    The model is in evaluation mode, as in the paper, and left in it.
    """
    model.eval()
    (x, y), (other, labels) = images
    weight = weight_of_head(model).detach()
    features, held = model[:-1](x), model[:-1](other)
    train, test = (CollapseStatistics(CLASSES, features.shape[1]) for _ in range(2))
    for statistics, given, classes in ((train, features, y), (test, held, labels)):
        statistics.update(features, y)
        statistics.update_agreement(given, classes, weight)
    found, of_test = train.metrics(weight), test.metrics(weight)
    kept: Row = {key: float(getattr(found, key)) for key in KEPT}
    singular = {"weight": singular_values(weight), "means": singular_values(centred_means(features, y))}
    loss = float(nn.functional.cross_entropy(features @ weight.T, y))
    more = {"nc4_test": of_test.nc4, "accuracy_test": of_test.accuracy, "loss": loss, "singular": singular}
    return {"train": kept | {"ratio": ratio(singular["weight"])}, **more}


def centred_means(features: Tensor, y: Tensor) -> Tensor:
    """The class means less their mean, `(K, D)`."""
    means = torch.stack([features[y == k].mean(0) for k in range(CLASSES)])
    return means - means.mean(0)


def singular_values(matrix: Tensor) -> list[float]:
    """Largest first."""
    return [float(value) for value in torch.linalg.svdvals(matrix.double())]


def ratio(values: Sequence[float]) -> float:
    """The smallest over the mean of all."""
    return min(values) * len(values) / sum(values)
