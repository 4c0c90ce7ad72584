"""The loss of a batch, and the number of loss terms that it is the mean of."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from landscape.objective.batch import Batch, samples
from landscape.objective.losses import KnownLoss, recognise
from landscape.objective.outputs.forms import Form
from landscape.objective.outputs.nests import main_output, own_loss


class Criterion:
    """`loss(outputs, targets)`, checked, with the denominator of its mean.

    Attributes:
        counter: the user's `count(outputs, targets)`, or None.
        alike: each batch counts the same by the user's wish, whatever its loss divides by.
    """

    def __init__(
        self,
        loss: Callable[[Any, Any], Tensor],
        counter: Callable[[Any, Any], float | Tensor] | Literal["batches"] | None,
        reduction: Literal["mean", "sum"],
    ) -> None:
        if not callable(loss):
            raise TypeError(f"loss must be callable as loss(outputs, targets), not {type(loss).__name__}")
        if isinstance(loss, type):
            raise TypeError(f"loss is the class {loss.__name__}: pass an object of it, {loss.__name__}()")
        self.alike = counter == "batches"
        if counter == "batches":
            counter = _one
        if counter is not None and not callable(counter):
            raise TypeError(f'count must be "batches" or callable as count(outputs, targets), not {counter!r}')
        if reduction not in ("mean", "sum"):
            raise ValueError(f'reduction is "mean" or "sum", not {reduction!r}: f needs one number per batch')
        self.loss = loss
        self.counter = counter
        self.form: Form | None = None  # of a loss of outputs that are no tensor, once it was `asked` for
        self.asked = False
        self._reduction: Literal["mean", "sum"] = reduction
        if self.known is not None and self.known.reduction == "none":
            raise ValueError('the loss has reduction="none": f needs one number per batch, use "mean" or "sum"')

    @property
    def known(self) -> KnownLoss | None:
        """The loss where it is one of torch's own, with the options that it has now; else None."""
        return recognise(self.loss)

    @property
    def reduction(self) -> Literal["mean", "sum"]:
        """What is asked for, or "sum" where a torch loss says so itself."""
        known = self.known
        return "sum" if known is not None and known.reduction == "sum" else self._reduction

    def of(self, known: KnownLoss) -> Criterion:
        """The criterion of a torch loss that this one was found to be."""
        return Criterion(functools.partial(known.function, **known.options), None, self.reduction)

    def __call__(self, outputs: Any, targets: Any) -> Tensor:
        """The loss, a scalar tensor. Raises `ValueError`/`TypeError` when it is not one."""
        loss = self._of_nest(outputs, targets) if not isinstance(outputs, Tensor) else self._of(outputs, targets)
        if not isinstance(loss, Tensor):  # loss=lambda outputs, targets: outputs
            loss = own_loss(loss) if own_loss(loss) is not None else loss
        if not isinstance(loss, Tensor):
            raise TypeError(f"the loss must be a scalar tensor, not {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(
                f"the loss must be a scalar, but has shape {tuple(loss.shape)}: return its mean (or its sum)"
            )
        return loss.reshape(())

    def _of(self, outputs: Any, targets: Any) -> Any:
        try:
            return self.loss(outputs, targets)
        except (TypeError, AttributeError) as error:
            if targets is not None:
                raise
            raise TypeError(
                f"the data has no targets and the loss cannot do without ({error}): give (inputs, targets), for an "
                "autoencoder (X, X), or a loss that takes None for them"
            ) from error

    def _of_nest(self, outputs: Any, targets: Any) -> Any:
        """A torch loss takes the outputs' logits, one of the user's own the outputs as they are, else the logits."""
        main = main_output(outputs)
        if self.known is not None and main is not None:
            _refuse_classes_last(self.known, main, targets)
            return self._of(main, targets)
        try:
            return self.loss(outputs, targets)
        except (TypeError, AttributeError) as error:
            if main is not None:
                with contextlib.suppress(TypeError, AttributeError):
                    return self.loss(main, targets)
            raise TypeError(
                f"the loss cannot take the model's outputs of type {type(outputs).__name__} ({error}): give "
                "forward=lambda model, x: ... that returns the tensor the loss needs"
            ) from error

    def count(self, outputs: Any, batch: Batch) -> float:
        """The denominator of the batch mean. Raises `ValueError` when it cannot be known."""
        if self.counter is not None:
            count = float(self.counter(outputs, batch.targets))
        elif self.known is not None and isinstance(batch.targets, Tensor) and isinstance(outputs, Tensor):
            count = self.known.count(outputs, batch.targets)
        else:
            count = _samples(batch)
        if not 0.0 <= count < float("inf"):
            raise ValueError(f"count= must be a finite number of loss terms, got {count} for batch {batch.index}")
        return count


def _refuse_classes_last(known: KnownLoss, logits: Tensor, targets: Any) -> None:
    """`(N, T, C)` logits with `(N, T)` labels are not torch's layout, and a causal model's labels are to be shifted."""
    last = isinstance(targets, Tensor) and logits.ndim > 2 and logits.shape[:-1] == targets.shape
    if known.denominator == "classes" and last:
        raise ValueError(
            f"torch's {known.kind} takes the classes in dimension 1, the model's logits {tuple(logits.shape)} have "
            "them in the last one: use the model's own loss, loss=lambda outputs, targets: outputs.loss (causal ones "
            "shift the labels), or a loss of your own with count="
        )


def _samples(batch: Batch) -> float:
    """Without a known loss each sample of the batch counts as one term."""
    try:
        return float(samples(batch))
    except ValueError:
        raise ValueError("the number of loss terms of a batch cannot be told from its inputs: pass count=") from None


def _one(outputs: Any, targets: Any) -> float:
    return 1.0
