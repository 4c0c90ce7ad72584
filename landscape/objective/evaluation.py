"""One evaluated batch: outputs, weight and loss of the model on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from landscape.objective import state
from landscape.objective.batch import Batch
from landscape.objective.counts.audit import Audit, advice
from landscape.objective.criterion import Criterion
from landscape.objective.network import Network
from landscape.objective.outputs.forms import Form, close
from landscape.objective.outputs.nests import real_tensors
from landscape.objective.outputs.resolve import form_of, recognised

if TYPE_CHECKING:
    from landscape.objective.sharded.gather import Chain


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the model returns on a batch, and what the loss makes of it.

    Attributes:
        batch: inputs and targets, on the device.
        outputs: what the model returns, with its graph.
        criterion: the loss with its count.
        network: the model, to see why a loss has no graph.
        leaves: the parameters that the outputs are a function of.
        audit: what compares the counts of the data's batches, or None.
        lockstep: batches without weight are run as well.
        chain: through all reads of a sharded model's parameters that led to the outputs.
    """

    batch: Batch
    outputs: Any
    criterion: Criterion
    network: Network
    leaves: Sequence[nn.Parameter]
    audit: Audit | None = None
    lockstep: bool = False
    chain: Chain | None = None

    @cached_property
    def count(self) -> float:
        """The denominator of the batch mean. Raises `ValueError` when it cannot be known."""
        with self.network.generators_kept():
            return self._counted()

    def _counted(self) -> float:
        criterion, form = self.criterion, self._inner_form()
        if form is not None:
            right = form.count(self.outputs, self.batch)
            if criterion.counter is None:
                self._confirm(form, right)
                return right
            count = criterion.count(self.outputs, self.batch)
            if self.audit is not None and form.counted and not criterion.alike:
                self.audit.proportional(self.batch, count, right, form.counted)
            return count
        self._refuse_ignored()
        count = criterion.count(self.outputs, self.batch)
        if criterion.known is None and self.audit is not None and not criterion.alike:
            if self._inside():
                if not self.network.shards.cut:  # else it would run the model on this rank alone
                    self.audit.inside.check(criterion, self.network, self.batch, count)
            else:
                self.audit.check(criterion, self.batch, self.outputs, count, self._used)
        return count

    def _inner_form(self) -> Form | None:
        """The torch loss of a tensor among the outputs, where these are no tensor."""
        if isinstance(self.outputs, Tensor):
            return None
        try:
            form = self.form
        except TypeError:  # a loss that uses no tensor of them, or several
            return None
        return form if form is not None and form.known is not None else None

    @property
    def _used(self) -> tuple[int, ...]:
        """Which of the outputs' floating tensors the loss uses; () for all."""
        form = None if isinstance(self.outputs, Tensor) else self.criterion.form
        return () if form is None else form.used

    def _inside(self) -> bool:
        """Whether the loss is one number that the model computes, in a way that is not known here."""
        every = real_tensors(self.outputs)
        used = self._used or range(len(every))
        unknown = not isinstance(self.outputs, Tensor) and self.criterion.asked and self.criterion.form is None
        return unknown or all(every[i].ndim == 0 for i in used)

    def _refuse_ignored(self) -> None:
        """Targets of -100 have no term in most losses: a loss of the user's own needs a count of the others."""
        criterion, targets = self.criterion, self.batch.targets
        if criterion.known is not None or criterion.counter is not None or not isinstance(targets, Tensor):
            return
        if targets.is_floating_point() or not bool((targets == -100).any()):
            return
        form = None if self.network.shards.cut else recognised(criterion, self.network, self.batch)
        found = form.counted if form is not None else None
        if found is None:
            found = advice(criterion, self.batch, self.outputs, self._used)
        shift = "" if found else ", or (targets[:, 1:] != -100).sum() where the loss shifts the targets by one,"
        raise ValueError(
            "the targets contain -100 (ignored positions) and the loss is a function of your own: pass "
            f"count=lambda outputs, targets: {found or '(targets != -100).sum()'}{shift} so that batches are weighted "
            "rightly"
        )

    @property
    def weight(self) -> float:
        """Of the batch in f: its number of loss terms; 1 where losses sum; 0 for padding."""
        if self.batch.padding:
            if self.network.shards.cut:
                self.count  # noqa: B018 what it runs the model for is run on all ranks
            return 0.0
        return 1.0 if self.criterion.reduction == "sum" else self.count

    @property
    def carried(self) -> float:
        """The part of the weight that a loss is multiplied by before it is differentiated: all of it where
        differentiating sums over the ranks, as in a sharded model.
        """
        return self.weight if self.network.shards.cut else 1.0

    @property
    def rest(self) -> float:
        """The part of the weight that derivatives are multiplied by afterwards."""
        return 1.0 if self.network.shards.cut else self.weight

    @property
    def form(self) -> Form | None:
        """How the loss is a function of one tensor of the outputs, where these are no tensor; None: it cannot be told.

        Found out on the first batch.
        """
        if not self.criterion.asked or self.criterion.known is not None:  # the options of a known one may be others
            found = form_of(self.criterion, self.network, self.batch, self.outputs)
            self.criterion.form, self.criterion.asked = found, True
        return self.criterion.form

    @property
    def z(self) -> Tensor:
        """The outputs as the one tensor that the loss is a function of. Raises `TypeError` where there is none."""
        if isinstance(self.outputs, Tensor):
            return real(self.outputs)
        form = self.form
        if form is None:
            raise TypeError(
                "the loss is computed inside the model and is none of the losses of logits that are known here: give "
                "forward=lambda model, x: model(**x).logits and a loss of these, as Gauss-Newton and Fisher need it"
            )
        return real(form.read(self.outputs))

    @cached_property
    def single(self) -> Evaluation:
        """The same with the outputs as one tensor, ready to be differentiated, and the loss as a function of it."""
        outputs = self._connected(self.z)
        if isinstance(self.outputs, Tensor):
            return replace(self, outputs=outputs)
        form, own = self.form, self.criterion
        assert form is not None
        batch = replace(self.batch, targets=form.labels(self.outputs, self.batch))
        if form.known is not None:
            return replace(self, outputs=outputs, batch=batch, criterion=own.of(form.known), audit=None)
        rebuild = form.rebuild
        assert rebuild is not None

        def loss(z: Tensor, targets: Any) -> Tensor:
            return own(rebuild(self.outputs, z), targets)

        counter = None if own.counter is None else lambda outputs, targets: self.count
        return replace(self, outputs=outputs, criterion=Criterion(loss, counter, own.reduction), audit=None)

    @property
    def tensor(self) -> Tensor:
        """`z`, ready to be differentiated."""
        return self._connected(self.z)

    @property
    def rows(self) -> Tensor:
        """`tensor` as `(samples, ...)`; a single number is one sample."""
        outputs = self.tensor
        return outputs.reshape(1) if outputs.ndim == 0 else outputs

    def loss(self) -> Tensor:
        """The batch's loss with its graph; a constant one where no chosen parameter is used in it.

        0 for a batch that is run in lockstep without weight: its own loss may be nan, 0 / 0.

        Raises `ValueError` when the loss has no graph back to any parameter of the model, though autograd records.
        """
        with self.network.shards.failing_together():
            loss = self._own_loss()
        return self.network.shards.tied(loss, self.chain)

    def _own_loss(self) -> Tensor:
        silent = self.lockstep and not self.weight
        if not silent or self.network.shards.cut:  # what a loss asks of other ranks (a full_tensor()), all have to ask
            with self.network.recording():
                loss = self.criterion(self.outputs, self.batch.targets)
            self.network.shards.confirm(loss)
        if silent:
            loss = self._silent()
        if not torch.is_grad_enabled():
            return loss
        lost = not loss.requires_grad
        if self.network.shards.anywhere(lost) and self._loses_its_graph() and lost:
            raise ValueError(
                "the loss has no graph back to the model's parameters: it is computed under no_grad, or detached, or "
                "does not use them"
            )
        return self._made_of_parameters(loss)

    def carried_loss(self) -> Tensor:
        """`loss()` with what it carries of the weight."""
        loss = self.loss()
        return loss if self.carried == 1.0 else loss * self.carried

    def loss_and_gradient(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss without its graph, which is used up, and its gradient in the parameters' shapes."""
        loss = self.loss()
        carrying = loss if self.carried == 1.0 else loss * self.carried
        return loss.detach(), torch.autograd.grad(carrying, self.leaves, allow_unused=True, materialize_grads=True)

    def detach(self) -> Evaluation:
        """`single` with outputs that have no graph. Raises `TypeError` when the loss is not of one tensor."""
        single = self.single
        return replace(single, outputs=single.outputs.detach())

    def _confirm(self, form: Form, count: float) -> None:
        """The loss of this batch is what it was recognised to be on the first. Raises `ValueError` where it is not."""
        if self.criterion.known is not None or not form.whole or count == 0.0:
            return
        known = form.known
        assert known is not None
        with torch.no_grad(), state.random_states(self.network.device):
            expected = Criterion.of(self.criterion, known)(
                form.read(self.outputs), form.labels(self.outputs, self.batch)
            )
            found = self.criterion(self.outputs, self.batch.targets)
        if not close(found.reshape(1), expected.reshape(1)):
            raise ValueError(
                f"the loss of batch {self.batch.index} is {float(found):.6g}, and not {float(expected):.6g}, the "
                f"{known.kind} of its logits that it was on the first batch: pass count= to weight batches rightly"
            )

    def _silent(self) -> Tensor:
        """0, as a function of all outputs."""
        floating = [t for t in real_tensors(self.outputs) if t.is_floating_point()]
        return self._made_of_parameters(
            sum((0.0 * t.sum() for t in floating), torch.zeros((), device=self.network.device))
        )

    def _connected(self, value: Tensor) -> Tensor:
        """The same value, ready to be differentiated in the parameters."""
        return self.network.shards.tied(self._made_of_parameters(value), self.chain)

    def _made_of_parameters(self, value: Tensor) -> Tensor:
        """The same value as a (constant) function of the parameters."""
        return value if value.requires_grad else value + self.leaves[0].reshape(-1)[:0].sum().to(value.dtype)

    def _loses_its_graph(self) -> bool:
        """Whether the loss has no graph even when every parameter requires grad: not the selection's fault."""
        parts = self.network.parts()
        every = [p for p in parts.parameters.values() if p.is_floating_point()]
        with state.flags(parts, every, "as-is"):
            return not self.criterion(self.network.outputs(self.batch), self.batch.targets).requires_grad


def real(outputs: Tensor) -> Tensor:
    """The outputs themselves. Raises `TypeError` when they are no floating numbers."""
    if not outputs.is_floating_point():
        raise TypeError(f"the model's outputs are {outputs.dtype}: they cannot be differentiated")
    return outputs
