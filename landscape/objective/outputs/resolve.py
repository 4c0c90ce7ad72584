"""Which tensor of the outputs a loss is a function of, found by differentiating it; remembered with the model."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from landscape.objective import state
from landscape.objective.batch import Batch, part, samples
from landscape.objective.criterion import Criterion
from landscape.objective.network import Network
from landscape.objective.outputs.forms import Form, Untold, joint, recognise_slope
from landscape.objective.outputs.nests import main_output, real_tensors, with_tensors
from landscape.objective.remembered import identity, remembered, structure

_FEW = 8  # samples on which a loss is recognised


def form_of(criterion: Criterion, network: Network, batch: Batch, outputs: Any) -> Form | None:
    """How the loss is a function of one tensor of outputs that are none; None where the model alone knows.

    Raises `TypeError` when the outputs hold no tensor that the loss uses.
    """
    if criterion.known is not None:
        return Form(_main, criterion.known)
    try:
        used = _moved(network, batch, _used(criterion, network, batch, outputs))
    except RuntimeError:  # the loss differentiates the outputs in what they were made of
        return None
    found = real_tensors(outputs)
    scalar = all(found[i].ndim == 0 for i in used)
    if scalar and any(t.ndim for t in found):  # computed inside the model, beside what it was computed from
        return recognised(criterion, network, batch)
    return joint(used)


def recognised(criterion: Criterion, network: Network, batch: Batch) -> Form | None:
    """The known loss that this loss is, as its slope in the model's main output on a few samples shows."""
    key = (structure(network.module), identity(criterion.loss), identity(network.function), _names(batch.inputs))
    for some in (_few(batch), batch):
        look = functools.partial(_look, criterion, network, some)
        found, told = None, False
        with contextlib.suppress(Untold):
            found, told = remembered(network.module, "form of the loss", key, look, network.shards.ranks), True
        if not network.shards.anywhere(not told):
            return found
    return found


def _look(criterion: Criterion, network: Network, batch: Batch) -> Form | None:
    parts = network.parts()
    every = [p for p in parts.parameters.values() if p.is_floating_point()]
    with torch.enable_grad(), state.random_states(network.device), state.flags(parts, every, "as-is"):
        outputs = network.outputs(batch)
        logits = main_output(outputs)
        if logits is None or not logits.requires_grad:
            return None
        value = criterion(outputs, batch.targets)
        (slope,) = torch.autograd.grad(value, logits, allow_unused=True) if value.requires_grad else (None,)
        if slope is None:
            return None
        return recognise_slope(logits.detach(), slope.detach(), value.detach(), _labels(batch))


def _labels(batch: Batch) -> dict[str, Tensor]:
    """The tensors that may be the targets."""
    if isinstance(batch.targets, Tensor):
        return {"": batch.targets}
    inputs = batch.inputs if isinstance(batch.inputs, Mapping) else {}
    return {name: t for name, t in inputs.items() if isinstance(t, Tensor)}


def _used(criterion: Criterion, network: Network, batch: Batch, outputs: Any) -> list[int]:
    """Which of the outputs' floating tensors the loss depends on."""
    leaves = [t.detach().clone().requires_grad_(True) for t in real_tensors(outputs)]
    with torch.enable_grad(), state.random_states(network.device):
        loss = criterion(with_tensors(outputs, iter(leaves)), batch.targets)
        slopes = torch.autograd.grad(loss, leaves, allow_unused=True) if loss.requires_grad and leaves else ()
    used = [i for i, slope in enumerate(slopes) if slope is not None]
    if not used:
        raise TypeError(
            f"the loss uses no floating tensor of the model's outputs, which are a {type(outputs).__name__}: give "
            "forward=lambda model, x: ... that returns the tensor the loss needs"
        )
    return used


def _moved(network: Network, batch: Batch, used: list[int]) -> list[int]:
    """Those of several that parameters move: a mask that a model returns beside its outputs is a constant."""
    if len(used) < 2:
        return used
    parts = network.parts()
    every = [p for p in parts.parameters.values() if p.is_floating_point()]
    with torch.enable_grad(), state.random_states(network.device), state.flags(parts, every, "as-is"):
        found = real_tensors(network.outputs(_few(batch)))
    moved = [i for i in used if i < len(found) and found[i].requires_grad]
    return moved or used


def _few(batch: Batch) -> Batch:
    try:
        return part(batch, 0, min(_FEW, samples(batch)))
    except ValueError:
        return batch


def _main(outputs: Any) -> Tensor:
    main = main_output(outputs)
    if main is None:
        raise TypeError(
            f"the model returns a {type(outputs).__name__} of several tensors and no logits: give "
            "forward=lambda model, x: ... that returns the tensor the loss needs"
        )
    return main


def _names(inputs: Any) -> tuple[str, ...]:
    return tuple(sorted(map(str, inputs))) if isinstance(inputs, Mapping) else (type(inputs).__name__,)
