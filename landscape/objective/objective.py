"""The objective: a model, a loss and data seen as one function f of one flat vector of parameters.

f(theta) = sum over batches of (count * batch mean) / sum of counts, where count is the batch mean's own
denominator: loss terms, not batches, carry equal weight. With `reduction="sum"` f is the plain sum.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from landscape.memory import Memory
from landscape.objective.batch import Batch
from landscape.objective.criterion import Criterion
from landscape.objective.data import Batches
from landscape.objective.evaluation import Evaluation
from landscape.objective.network import Mode, Network
from landscape.objective.noise import measured_noise
from landscape.objective.parameters import Selection, join, split, vector_dtype
from landscape.objective.remembered import remembered
from landscape.objective.state import Snapshot
from landscape.objective.together import ProcessGroup, Sum, Together, ranks_of
from landscape.precision import accurate
from landscape.tuning import Tuning

CheckWhen = Literal["auto", "always", False]


class Objective(Together):
    """f(theta) of a model on data, with everything that a curvature operator needs to differentiate it.

    Args:
        model: any `nn.Module`; compiled and DDP wrappers are looked through. Under `fully_shard` vectors are the rank's
            rows; `size` and `slices` are of the whole.
        loss: `loss(outputs, targets)` -> scalar, the mean over the batch's loss terms.
        data: `(inputs, targets)`, a dict, or an iterable of such batches (a DataLoader). Targets may be anything that
            the loss takes; those of inputs alone, `X`, are None. Numpy arrays become tensors.
        parameters: names, globs, or a predicate of (name) or (name, parameter); default all that require grad.
        forward: `forward(model, inputs)` -> outputs, for models that are not called as `model(inputs)`.
        count: `count(outputs, targets)` -> the denominator of the batch mean, for losses that are not torch's own
            (else each sample is a term). One that the loss does not divide by is refused, as samples of two batches
            show; where a loss is no mean over terms (contrastive ones) it is the weight of the batch's loss. "batches":
            f is the mean over batches, as a training loop has it, whatever the loss of each divides by.
        mode: "as-is" leaves each module's training flag, "eval" and "train" set them while measuring. Dropout in
            train mode becomes one fixed function: each batch's forward pass starts from the same seed. Autocast around
            a measurement is off: f is computed in the model's own precision.
        reduction: "mean", or "sum" for losses that sum (f is then the sum over all data).
        device, dtype: measure on converted tensors, which follow the model's own and take their places meanwhile.
        memory: bytes that one operator may use to keep graphs, or "auto" (half of what is free).
        check: "auto" holds the first product of a curvature matrix against differences of gradients, once per model
            as it is built; "always" does it for every operator, False never.
        process_group: "auto": under DistributedDataParallel or `fully_shard` f is the function of all ranks' data, and
            all make the same calls; a group: so for any model that is the same on its ranks; None: this process alone.

    Attributes:
        model, names, slices (by name), size, device (of vectors), dtype (float64 if a parameter is, else float32).
        module: what is measured: the model without its wrappers.

    Raises:
        TypeError, ValueError: one line that says what is wrong with the model, the selection or the data.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.eye(2), torch.ones(2, 1)))
        >>> with f.at(torch.tensor([3.0, 1.0])):
        ...     print(f.value(), f.gradient().tolist())
        2.0 [2.0, 0.0]
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        data: Any,
        *,
        parameters: Selection = None,
        forward: Callable[[Any, Any], Any] | None = None,
        count: Callable[[Any, Any], float | Tensor] | Literal["batches"] | None = None,
        mode: Mode = "as-is",
        reduction: Literal["mean", "sum"] = "mean",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory: Memory = "auto",
        check: CheckWhen = "auto",
        process_group: ProcessGroup = "auto",
    ) -> None:
        if check not in ("auto", "always", False):
            raise ValueError(f'check is "auto", "always" or False, not {check!r}')
        self.model = model
        self.memory: Memory = memory
        self.check: CheckWhen = check
        self.criterion = Criterion(loss, count, reduction)
        self._network = Network(model, forward, mode, device, dtype, loss)
        self.module = self._network.module
        self.device = self._network.device
        self._view = self._network.view(parameters)
        self.dtype = vector_dtype(self.leaves())
        self.ranks = ranks_of(model, process_group, self._network)
        self._batches = Batches(data, memory=memory, dtype=self.dtype, ranks=self.ranks)
        self.tuning = Tuning(self.device, fixed=self.sharded)

    # -- the flat vector -------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the chosen parameters, in the order of the flat vector."""
        return list(self._view.names)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each chosen parameter lies in the flat vector."""
        return dict(self._view.slices)

    @property
    def size(self) -> int:
        """n, the length of the flat vector."""
        return self._view.size

    @property
    def noise(self) -> float:
        """Relative error of the model's arithmetic beyond the rounding of `dtype`, measured; 0.0 when there is none.

        On a few samples against the same function in float64, once for each model as it is built.
        """
        return remembered(self.module, "noise", (self.structure(), self.ranks.size), self._noisiest, self.ranks)

    def _noisiest(self) -> float:
        return max(self.gathered(functools.partial(measured_noise, self.alone().sample())))

    @property
    def rounding(self) -> float:
        """Relative rounding of the forward pass: eps of `dtype`, or `noise` where that is larger."""
        return max(torch.finfo(self.dtype).eps, self.noise)

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """`(n,)` from tensors by name."""
        return self._view.flatten(values, self.dtype, self.device)

    def unflatten(self, v: Tensor) -> dict[str, Tensor]:
        """Views of a vector `(n,)` by name, in the parameters' shapes."""
        return self._view.unflatten(v)

    def split(self, v: Tensor) -> list[Tensor]:
        """Views of `(..., n)` in the parameters' shapes, in order."""
        return split(v, self._view.shapes.values())

    def join(self, pieces: Iterable[Tensor]) -> Tensor:
        """`(..., n)` in the objective's dtype from pieces in the parameters' shapes, with leading dimensions."""
        return join(pieces, self._view.shapes.values(), self.dtype, self.device)

    def theta(self) -> Tensor:
        """`(n,)`, a copy of the parameters as they stand."""
        self._network.follow()
        return self.join(self.leaves())

    @contextmanager
    def at(self, theta: Tensor) -> Iterator[None]:
        """Inside the block the parameters are `theta` `(n,)`, cast to their dtypes; afterwards what they were."""
        # storages are exchanged and put back: no version counter moves, and nothing is rounded
        self._network.follow()
        pieces = self.unflatten(torch.as_tensor(theta).detach())
        leaves = self.leaves()
        owned = [p.data for p in leaves]
        self._network.pinned += 1
        try:
            with torch.inference_mode(False):
                for p, piece in zip(leaves, pieces.values(), strict=True):
                    p.data = piece.to(device=p.device, dtype=p.dtype).clone()
            yield
        finally:
            self._network.pinned -= 1
            for p, data in zip(leaves, owned, strict=True):
                p.data = data

    def restrict(self, names: Iterable[str] | str) -> Objective:
        """The same function with the other parameters held fixed (names or globs among the chosen ones)."""
        patterns = [names] if isinstance(names, str) else list(names)
        other = copy.copy(self)
        other._view = self._network.view(patterns)
        outside = [name for name in other._view.names if name not in self._view.slices]
        if outside:
            raise ValueError(f"{outside[0]!r} is not among the parameters of this objective")
        other.dtype = vector_dtype(other.leaves())
        other.tuning = self.tuning.part()
        return other

    def on(self, data: Any) -> Self:
        """The same model, loss and parameters on other data, e.g. a mini-batch of the training loop."""
        other = copy.copy(self)
        other._batches = Batches(data, memory=self.memory, dtype=self.dtype, ranks=self.ranks)
        other.tuning = Tuning(self.device, fixed=self.sharded)
        return other

    def converted(self, dtype: torch.dtype) -> Objective:
        """The same function computed in another dtype."""
        other = copy.copy(self)
        other._network = self._network.converted_to(dtype, self.criterion.loss)
        other.dtype = vector_dtype(other.leaves())
        other.tuning = Tuning(self.device, fixed=self.sharded)
        return other

    # -- the function ------------------------------------------------------------------------------------------

    def value(self) -> float:
        """f at the parameters as they stand."""

        def work() -> Sum:
            total, weight = 0.0, 0.0
            with self.measuring(derivative=False), torch.no_grad():
                for e in self.evaluations():
                    total += e.weight * float(e.loss().detach())
                    weight += e.weight
            return torch.tensor(total, dtype=torch.float64), 1.0, weight

        return float(self.mean(work, lambda: torch.zeros((), dtype=torch.float64)))

    def gradient(self) -> Tensor:
        """`(n,)`: the gradient of f at the parameters as they stand."""
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """f and its gradient `(n,)` from one pass."""
        total = torch.zeros(self._view.rows, dtype=self.dtype, device=self.device)

        def work() -> Sum:
            value, weight = accurate(torch.zeros((), device=self.device)), 0.0  # value is read once, at the end
            with self.measuring():
                for e in self.evaluations():
                    loss, pieces = e.loss_and_gradient()
                    total.add_(self.join(pieces), alpha=e.rest)
                    value += e.weight * accurate(loss)
                    weight += e.weight
            return value.cpu(), 1.0, weight

        value, _, weight = self.summed(work, lambda: torch.zeros((), dtype=torch.float64))
        total = self.normalise(total if self.sharded else self.ranks.sum(total), weight)
        return float(self.normalise(value, weight)), total

    def forward(self, inputs: Any) -> Any:
        """The outputs of the user's own model as a training step has them: nothing is put back."""
        return self._network.plain(self.model, inputs)

    # -- what operators use --------------------------------------------------------------------------------------

    def measuring(self, derivative: bool = True) -> AbstractContextManager[None]:
        """A scope to run the model in and to differentiate it; no mark is left. `ValueError`: f is not one function."""
        (network := self._network).confirm(self.criterion.loss, self._follows)
        return network.measuring(self._view, self.criterion, derivative, lambda: self._habits(derivative))

    def _follows(self) -> bool:
        few = self.alone().sample()
        with few.measuring():
            return self._network.converted.follows(lambda: next(few.evaluations()).loss())

    def structure(self) -> Hashable:
        """All that decides what the derivatives are, except the numbers: to know that a question was put before."""
        return self._network.key(self.criterion.loss), tuple(self.names), self.criterion.reduction

    def leaves(self) -> list[nn.Parameter]:
        """The chosen parameter objects, resolved by name."""
        return self._view.resolve(self._network.parts().parameters)

    def moved(self) -> list[str]:
        """Names that default parameters would no longer hold, or hold now: frozen or unfrozen since this was made."""
        return self._view.moved(self.module)

    def snapshot(self) -> Snapshot:
        """The model's state now, to notice later that a kept graph is stale."""
        return Snapshot(lambda: self._network.contents(self.criterion.loss))

    def sweep(self, skip: Callable[[int], bool] = lambda index: False) -> Iterator[Batch]:
        """One pass over the data, on the device; batches that `skip` names are yielded where they lie."""
        for batch in self._batches:
            yield batch if skip(batch.index) else self._network.place(batch)

    def evaluate(self, batch: Batch, parameters: Iterable[Tensor] | None = None) -> Evaluation:
        """The model on a batch (inside `measuring()`), with these tensors for the chosen parameters if given."""
        replaced = None if parameters is None else dict(zip(self._view.names, parameters, strict=True))
        network, audit = self._network, self._batches.audit if self.check else None
        outputs, chain = network.outputs(batch, replaced), network.shards.chain
        return Evaluation(batch, outputs, self.criterion, network, self.leaves(), audit, self.lockstep, chain)

    def evaluations(self) -> Iterator[Evaluation]:
        """One pass: the model on each batch that has loss terms, in lockstep on each (inside `measuring()`)."""
        for batch in self.sweep():
            e = self.evaluate(batch)
            if e.weight or self.lockstep:
                yield e

    def __repr__(self) -> str:
        return f"Objective({type(self.model).__name__}, n={self.size}, dtype={self.dtype}, device={self.device})"
