"""Running statistics of norm layers (BatchNorm in eval mode): they belong to a point, and a flat vector has none.

A network at other parameters than those its averages were taken at is another network than the one that training would
have left there. One pass over the data gives a point averages of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from landscape.objective.data import Batches
from landscape.objective.objective import Objective
from landscape.objective.together import Sum

_WHOLE: WeakKeyDictionary[Batches, Batches] = WeakKeyDictionary()


def uses_running_statistics(objective: Objective) -> bool:
    """Whether the model, in the mode that it is measured in, reads averages that training has left in its buffers."""
    return any(_reads(objective, m) for m in _layers(objective).values())


def recomputed(objective: Objective) -> list[Tensor]:
    """The model's buffers with running statistics of one pass over the data at the parameters as they stand.

    Means and unbiased variances of the batches, each batch counting the same, as torch's cumulative average has them
    (`momentum=None`). Norm layers run in train mode meanwhile, all else as it is measured. Collective.
    """
    objective = of_whole_batches(objective)
    network = objective._network
    layers = {name: m for name, m in _layers(objective).items() if _reads(objective, m)}
    spots = [f"{name}.{kind}".removeprefix(".") for name in layers for kind in ("running_mean", "running_var")]
    own = dict(objective.module.named_buffers())
    shapes = [own[spot].shape for spot in spots]
    size = sum(shape.numel() for shape in shapes)

    def work() -> Sum:
        total, batches = torch.zeros(size, dtype=torch.float64), 0.0
        with objective.measuring(derivative=False), torch.no_grad():
            for batch in objective.sweep():
                if batch.padding:
                    continue
                fresh = {spot: torch.zeros_like(objective.held(own[spot])) for spot in spots}
                network.outputs(batch, fresh)
                total += torch.cat([t.reshape(-1).double().cpu() for t in fresh.values()])
                batches += 1.0
        return total, 1.0, batches

    # a measurement puts back what its passes do to the model, so that modes are set before it begins
    with batch_statistics(objective), _of_one_batch(layers.values()):
        total, _, batches = objective.summed(work, lambda: torch.zeros(size, dtype=torch.float64))
    found = dict(zip(spots, (total / batches).split([s.numel() for s in shapes]), strict=True))
    numbers = {id(own[spot]): found[spot].reshape(own[spot].shape) for spot in spots}
    return [
        t.detach().clone() if id(b) not in numbers else numbers[id(b)].to(t)
        for b, t in zip(_each(objective.module), network.parts().buffers, strict=True)
    ]


def of_whole_batches(objective: Objective) -> Objective:
    """The same function, a batch that ranks have samples of being whole on one: statistics of parts are others.

    Collective.
    """
    batches = objective._batches
    if not objective.ranks.any(batches.cut) or batches.origin is None:
        return objective
    if batches not in _WHOLE:
        _WHOLE[batches] = batches.origin.dealt(objective.ranks, cut=False)
    other = copy.copy(objective)
    other._batches = _WHOLE[batches]
    return other


def own_buffers(objective: Objective) -> list[Tensor]:
    """The model's buffers as they are, copied, in the order of `recomputed`."""
    return [t.detach().clone() for t in objective._network.parts().buffers]


def buffer_names(objective: Objective) -> list[str]:
    """Of all buffers, in the order of `recomputed`; "" for those of norm layers, which belong to a point."""
    norms = {id(b) for m in _layers(objective).values() for b in m.buffers(recurse=False)}
    return ["" if id(b) in norms else name for name, b in objective.module.named_buffers()]


@contextmanager
def running_on(objective: Objective, buffers: list[Tensor] | None) -> Iterator[None]:
    """Inside, the objective is measured with these buffers, in the order of `recomputed`; None: with the model's own.

    So are all objectives of the same model that were made from this one.
    """
    network = objective._network
    outer = network.buffers, network.synchronises_buffers
    try:
        if buffers is not None:
            network.buffers, network.synchronises_buffers = buffers, False
        yield
    finally:
        network.buffers, network.synchronises_buffers = outer


@contextmanager
def batch_statistics(objective: Objective) -> Iterator[None]:
    """Inside, layers that read running statistics take those of each batch, as in training; all else is as before."""
    network = objective._network
    reading = [m for m in _layers(objective).values() if _reads(objective, m)]
    mode, training = network.mode, [(m, m.training) for m in objective.module.modules()]
    try:
        if mode != "as-is":
            for m, _ in training:
                m.training = mode == "train"
            network.mode = "as-is"
        for m in reading:
            m.training = True
        yield
    finally:
        network.mode = mode
        for m, was in training:
            m.training = was


def _layers(objective: Objective) -> dict[str, _NormBase]:
    found = {name: m for name, m in objective.module.named_modules() if isinstance(m, _NormBase)}
    return {name: m for name, m in found.items() if m.running_mean is not None and m.running_var is not None}


def _reads(objective: Objective, layer: nn.Module) -> bool:
    mode = objective._network.mode
    return not layer.training if mode == "as-is" else mode == "eval"


def _each(module: nn.Module) -> list[Tensor]:
    """The module's buffers in the order of a walk over it, each once."""
    return list({id(b): b for b in module.buffers()}.values())


@contextmanager
def _of_one_batch(layers: Iterable[_NormBase]) -> Iterator[None]:
    """Inside, a pass in train mode leaves the batch's own statistics in the buffers."""
    before = [(m, m.momentum) for m in layers]
    try:
        for m, _ in before:
            m.momentum = 1.0
        yield
    finally:
        for m, momentum in before:
            m.momentum = momentum
