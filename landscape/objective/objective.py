"""The objective: a model, a loss and data seen as one function f of one flat vector of parameters.

f(theta) = sum over batches of (count * batch mean) / sum of counts, where count is the batch mean's own
denominator: loss terms, not batches, carry equal weight. With `reduction="sum"` f is the plain sum.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.memory import Memory
from landscape.objective import state
from landscape.objective.batch import Batch, move
from landscape.objective.data import Batches, first_dimension
from landscape.objective.losses import recognise
from landscape.objective.network import Forward, Network, inner_selection
from landscape.objective.parameters import FlatView, Selection, half_rounding, vector_dtype

Mode = Literal["as-is", "eval", "train"]


class Objective:
    """f(theta) of a model on data, with everything that a curvature operator needs to differentiate it.

    Args:
        model: any `nn.Module`; compiled and DDP wrappers are looked through.
        loss: `loss(outputs, targets)` -> scalar, the mean over the batch's loss terms.
        data: `(inputs, targets)`, a dict, or an iterable of such batches (a DataLoader).
        parameters: names, globs, or a predicate of (name) or (name, parameter); default all that require grad.
        forward: `forward(model, inputs)` -> outputs, for models that are not called as `model(inputs)`.
        count: `count(outputs, targets)` -> the denominator of the batch mean, for losses that are not torch's own.
        mode: "as-is" leaves each module's training flag, "eval" and "train" set them while measuring. Dropout in
            train mode becomes one fixed function: each batch's forward pass starts from the same seed.
        reduction: "mean", or "sum" for losses that sum (f is then the sum over all data).
        device, dtype: measure on a converted private copy that follows the model's parameters.
        memory: bytes that one operator may use to keep graphs, or "auto" (half of what is free).

    Attributes:
        model, names, slices (name -> slice of the flat vector), size, device, dtype (float64 if any parameter is,
        else float32).

    Raises:
        TypeError, ValueError: one line that says what is wrong with the model, the selection or the data.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        data: Any,
        *,
        parameters: Selection = None,
        forward: Callable[[Any, Any], Any] | None = None,
        count: Callable[[Any, Any], float | Tensor] | None = None,
        mode: Mode = "as-is",
        reduction: Literal["mean", "sum"] = "mean",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory: Memory = "auto",
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
        if not callable(loss):
            raise TypeError(f"loss must be callable as loss(outputs, targets), not {type(loss).__name__}")
        if mode not in ("as-is", "eval", "train"):
            raise ValueError(f'mode is "as-is", "eval" or "train", not {mode!r}')
        if reduction not in ("mean", "sum"):
            raise ValueError(f'reduction is "mean" or "sum", not {reduction!r}: f needs one number per batch')
        self.model = model
        self.loss = loss
        self.mode = mode
        self.memory: Memory = memory
        self.known = recognise(loss)
        if self.known is not None and self.known.reduction == "none":
            raise ValueError('the loss has reduction="none": f needs one number per batch, use "mean" or "sum"')
        # a torch loss says itself that it sums
        self.reduction = "sum" if self.known is not None and self.known.reduction == "sum" else reduction
        self._forward = forward
        self._count = count
        self._net = Network(model, device, dtype)
        self._view = FlatView(self._net.module, inner_selection(model, parameters))
        self._parts: state.Parts | None = None  # while measuring: walking over a large model is not free
        leaves = self.leaves()
        self.device = leaves[0].device
        self.dtype = vector_dtype(leaves)
        self._cast = dtype
        self._batches = Batches(data, memory=memory)
        self.ways: dict[str, str] = {}  # which way of a product was fastest here, by operator

    # -- the flat vector -------------------------------------------------------------------------------------

    @property
    def module(self) -> nn.Module:
        """The module that is measured: the model without its wrappers, or the converted copy of it."""
        return self._net.module

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
    def rounding(self) -> float:
        """Relative rounding of the forward pass beyond `dtype`: eps of the lowest half precision used, else 0."""
        return half_rounding(self._net.module.parameters())

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """`(n,)` from tensors by name."""
        return self._view.flatten(values, self.dtype, self.device)

    def unflatten(self, v: Tensor) -> dict[str, Tensor]:
        """Views of a vector `(n,)` by name, in the parameters' shapes."""
        return self._view.unflatten(v)

    def split(self, v: Tensor) -> list[Tensor]:
        """Views of `(..., n)` in the parameters' shapes, in order."""
        return self._view.split(v)

    def theta(self) -> Tensor:
        """`(n,)`, a copy of the parameters as they stand."""
        self._net.follow()
        leaves = self.leaves()
        return torch.cat([p.detach().reshape(-1).to(device=self.device, dtype=self.dtype) for p in leaves])

    @contextmanager
    def at(self, theta: Tensor) -> Iterator[None]:
        """Inside the block the parameters are `theta` `(n,)`, cast to their dtypes; afterwards what they were.

        The parameters' storages are exchanged and put back, so no version counter moves and nothing is rounded.
        """
        self._net.follow()
        pieces = self.unflatten(torch.as_tensor(theta).detach())
        leaves = self.leaves()
        owned = [p.data for p in leaves]
        self._net.pinned += 1
        try:
            with torch.inference_mode(False):
                for p, piece in zip(leaves, pieces.values(), strict=True):
                    p.data = piece.to(device=p.device, dtype=p.dtype).clone()
            yield
        finally:
            self._net.pinned -= 1
            for p, data in zip(leaves, owned, strict=True):
                p.data = data

    def restrict(self, names: Iterable[str] | str) -> Objective:
        """The same function with the other parameters held fixed (names or globs among the chosen ones)."""
        patterns = [names] if isinstance(names, str) else list(names)
        other = copy.copy(self)
        other._view = FlatView(self._net.module, patterns)
        outside = [name for name in other._view.names if name not in self._view.slices]
        if outside:
            raise ValueError(f"{outside[0]!r} is not among the parameters of this objective")
        other.ways = {}
        other._parts = None
        other.dtype = vector_dtype(other.leaves())
        return other

    def on(self, data: Any) -> Objective:
        """The same model, loss and parameters on other data, e.g. a mini-batch of the training loop."""
        other = copy.copy(self)
        other._batches = Batches(data, memory=self.memory)
        other.ways = {}
        other._parts = None
        return other

    # -- the function ------------------------------------------------------------------------------------------

    def value(self) -> float:
        """f at the parameters as they stand."""
        total, terms = 0.0, 0.0
        with self.measuring(), torch.no_grad():
            for batch in self.sweep():
                outputs = self.outputs(batch)
                count = self.terms(outputs, batch)
                if count:
                    total += count * float(self.batch_loss(outputs, batch))
                    terms += count
        return self.normalise(total, terms)

    def gradient(self) -> Tensor:
        """`(n,)`: the gradient of f at the parameters as they stand."""
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """f and its gradient `(n,)` from one pass."""
        terms = 0.0
        with self.measuring():
            value = torch.zeros((), dtype=torch.float64, device=self.device)  # read once, at the end
            total = torch.zeros(self.size, dtype=self.dtype, device=self.device)
            leaves = self.leaves()
            for batch in self.sweep():
                outputs = self.outputs(batch)
                count = self.terms(outputs, batch)
                if count:
                    loss = self.differentiable_loss(outputs, batch)
                    pieces = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
                    total.add_(self.gather(pieces), alpha=count)
                    value += count * loss.detach().double()
                    terms += count
        return float(self.normalise(value, terms)), self.normalise(total, terms)

    # -- what operators use --------------------------------------------------------------------------------------

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """A scope in which the model may be run and differentiated twice, and which leaves no mark on it."""
        with ExitStack() as stack:
            self._net.follow()
            outer, self._parts = self._parts, state.Parts(self._net.module)
            stack.callback(setattr, self, "_parts", outer)
            stack.enter_context(state.random_states(self.device))
            stack.enter_context(state.differentiable_twice(self._parts.modules, self.device))
            stack.enter_context(state.flags(self._parts, self.leaves(), self.mode))
            yield

    def leaves(self) -> list[nn.Parameter]:
        """The chosen parameter objects, resolved by name."""
        return self._view.resolve(self._walk().parameters)

    def snapshot(self) -> state.Snapshot:
        """The model's state now, to notice later that a kept graph is stale."""
        return self._walk().snapshot()

    def unchanged(self, snapshot: state.Snapshot) -> bool:
        """Whether the model still is as it was at the snapshot."""
        return self._walk().unchanged(snapshot)

    def _walk(self) -> state.Parts:
        """The model's parts: found once per measurement, anew outside of one."""
        return self._parts if self._parts is not None else state.Parts(self._net.module)

    def sweep(self, skip: Callable[[int], bool] = lambda index: False) -> Iterator[Batch]:
        """One pass over the data, on the device; batches that `skip` names are yielded where they lie."""
        for batch in self._batches:
            if skip(batch.index):
                yield batch
            else:
                yield move(batch, self.device, self._cast)

    def outputs(self, batch: Batch, call: Callable[..., Any] | None = None) -> Any:
        """The model's outputs on a batch. `call(module, *args, **kwargs)` replaces the module's own call."""
        state.seed_everything(batch.index, self.device)
        module = self._net.module
        with state.borrowed_buffers(module):
            if call is not None:
                return call(Forward(module, self._forward), batch.inputs)
            return Forward(module, self._forward)(batch.inputs)

    def batch_loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar tensor. Raises `ValueError`/`TypeError` when it is not one."""
        try:
            loss = self.loss(outputs, batch.targets)
        except (TypeError, AttributeError) as error:
            if isinstance(outputs, Tensor):
                raise
            raise TypeError(
                f"the loss cannot take the model's outputs of type {type(outputs).__name__} ({error}): give "
                "forward=lambda model, x: ... that returns the tensor the loss needs"
            ) from error
        if not isinstance(loss, Tensor):
            raise TypeError(f"the loss must be a scalar tensor, not {type(loss).__name__}")
        if loss.numel() != 1:
            raise ValueError(
                f"the loss must be a scalar, but has shape {tuple(loss.shape)}: return its mean (or its sum)"
            )
        return loss.reshape(())

    def differentiable_loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss of a batch with its graph; a constant one where no chosen parameter is used in it.

        Raises `ValueError` when the loss has no graph back to any parameter of the model.
        """
        loss = self.batch_loss(outputs, batch)
        if loss.requires_grad:
            return loss
        if not self._loses_its_graph(batch):
            return self.attached(loss)
        raise ValueError(
            "the loss has no graph back to the model's parameters: it is computed under no_grad, or detached, or does "
            "not use them"
        )

    def _loses_its_graph(self, batch: Batch) -> bool:
        """Whether the loss has no graph even when every parameter requires grad: not the selection's fault."""
        every = [p for p in self._walk().parameters.values() if p.is_floating_point()]
        with state.flags(self._walk(), every, "as-is"):
            return not self.batch_loss(self.outputs(batch), batch).requires_grad

    def attached(self, value: Tensor) -> Tensor:
        """The same value as a (constant) function of the chosen parameters, ready to be differentiated."""
        return value if value.requires_grad else value + self.leaves()[0].reshape(-1)[:0].sum().to(value.dtype)

    def terms(self, outputs: Any, batch: Batch) -> float:
        """The weight of a batch in f: its number of loss terms; 1 where losses sum."""
        if self.reduction == "sum":
            return 1.0
        return self.count(outputs, batch)

    def count(self, outputs: Any, batch: Batch) -> float:
        """The denominator of the batch mean. Raises `ValueError` when it cannot be known."""
        if self._count is not None:
            count = float(self._count(outputs, batch.targets))
        elif self.known is not None and isinstance(outputs, Tensor) and isinstance(batch.targets, Tensor):
            count = self.known.count(outputs, batch.targets)
        else:
            count = first_dimension(batch)
        if not 0.0 <= count < float("inf"):
            raise ValueError(f"count= must be a finite number of loss terms, got {count} for batch {batch.index}")
        return count

    def gather(self, pieces: Iterable[Tensor]) -> Tensor:
        """`(..., n)` in the objective's dtype from pieces in the parameters' shapes (with leading dimensions)."""
        flat = []
        for piece, shape in zip(pieces, self._view.shapes.values(), strict=True):
            lead = piece.shape[: piece.ndim - len(shape)]
            flat.append(piece.detach().reshape(*lead, -1).to(dtype=self.dtype, device=self.device))
        return torch.cat(flat, dim=-1)

    def normalise(self, total: Any, terms: float) -> Any:
        """Divide an accumulated sum by the number of loss terms. Raises `ValueError` when there are none."""
        if terms == 0.0:
            raise ValueError("the data has no loss terms: every batch is empty or all its targets are ignored")
        return total if self.reduction == "sum" else total / terms

    def __repr__(self) -> str:
        return f"Objective({type(self.model).__name__}, n={self.size}, dtype={self.dtype}, device={self.device})"
