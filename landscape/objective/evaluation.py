"""One evaluated batch: outputs, weight and loss of the model on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from landscape.objective import state
from landscape.objective.batch import Batch
from landscape.objective.criterion import Criterion
from landscape.objective.network import Network


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the model returns on a batch, and what the loss makes of it.

    Attributes:
        batch: inputs and targets, on the device.
        outputs: what the model returns, with its graph.
        criterion: the loss with its count.
        network: the model, to see why a loss has no graph.
        leaves: the parameters that the outputs are a function of.
    """

    batch: Batch
    outputs: Any
    criterion: Criterion
    network: Network
    leaves: Sequence[nn.Parameter]

    @cached_property
    def count(self) -> float:
        """The denominator of the batch mean. Raises `ValueError` when it cannot be known."""
        return self.criterion.count(self.outputs, self.batch)

    @property
    def weight(self) -> float:
        """Of the batch in f: its number of loss terms; 1 where losses sum."""
        return 1.0 if self.criterion.reduction == "sum" else self.count

    @property
    def tensor(self) -> Tensor:
        """The outputs where they are one tensor, ready to be differentiated. Raises `TypeError` for others."""
        return self._connected(output_tensor(self.outputs))

    @property
    def rows(self) -> Tensor:
        """`tensor` as `(samples, ...)`; a single number is one sample."""
        outputs = self.tensor
        return outputs.reshape(1) if outputs.ndim == 0 else outputs

    def loss(self) -> Tensor:
        """The batch's loss with its graph; a constant one where no chosen parameter is used in it.

        Raises `ValueError` when the loss has no graph back to any parameter of the model, though autograd records.
        """
        with self.network.recording():
            loss = self.criterion(self.outputs, self.batch.targets)
        if loss.requires_grad or not torch.is_grad_enabled():
            return loss
        if not self._loses_its_graph():
            return self._connected(loss)
        raise ValueError(
            "the loss has no graph back to the model's parameters: it is computed under no_grad, or detached, or does "
            "not use them"
        )

    def loss_and_gradient(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss without its graph, which is used up, and its gradient in the parameters' shapes."""
        loss = self.loss()
        return loss.detach(), torch.autograd.grad(loss, self.leaves, allow_unused=True, materialize_grads=True)

    def detach(self) -> Evaluation:
        """The same with outputs that have no graph. Raises `TypeError` when they are not one tensor."""
        return replace(self, outputs=output_tensor(self.outputs).detach())

    def _connected(self, value: Tensor) -> Tensor:
        """The same value as a (constant) function of the parameters."""
        return value if value.requires_grad else value + self.leaves[0].reshape(-1)[:0].sum().to(value.dtype)

    def _loses_its_graph(self) -> bool:
        """Whether the loss has no graph even when every parameter requires grad: not the selection's fault."""
        parts = self.network.parts()
        every = [p for p in parts.parameters.values() if p.is_floating_point()]
        with state.flags(parts, every, "as-is"):
            return not self.criterion(self.network.outputs(self.batch), self.batch.targets).requires_grad


def output_tensor(outputs: Any) -> Tensor:
    """The one tensor that the model returns. Raises `TypeError` when it returns something else."""
    if not isinstance(outputs, Tensor):
        raise TypeError(
            f"Gauss-Newton and Fisher matrices need a model that returns one tensor, not {type(outputs).__name__}: "
            "give forward=lambda model, x: ... (for example model(**x).logits)"
        )
    if not outputs.is_floating_point():
        raise TypeError(f"the model's outputs are {outputs.dtype}: they cannot be differentiated")
    return outputs
