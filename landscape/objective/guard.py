"""The first measurement of a model, on a few samples: is f one function, and what does a pass over the model move?

The whole state is compared before and after: parameters, buffers, attributes, containers, generators. What can be put
back is put back at every measurement, and what cannot be made one function is refused by name. Two passes from the
same state must give the same numbers, with gradients recorded and without.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from landscape.objective.batch import Batch, tensors_in
from landscape.objective.belongings import Belongings
from landscape.objective.contents import Contents
from landscape.objective.criterion import Criterion
from landscape.objective.evaluation import Evaluation
from landscape.objective.network import Habits, Network
from landscape.objective.remembered import identity, remembered, structure
from landscape.objective.tables import in_words

_SAMPLES = 32
_SAMPLES_OF_A_VALUE = 2  # a graph is built for them, which a value does not need memory for otherwise

Numbers = list[Tensor]


class Measured(Protocol):
    """What the examination needs of an `Objective`."""

    module: nn.Module
    criterion: Criterion

    def sample(self, size: int = 32) -> Measured: ...  # noqa: D102
    def measuring(self) -> AbstractContextManager[None]: ...  # noqa: D102
    def sweep(self) -> Iterator[Batch]: ...  # noqa: D102
    def evaluate(self, batch: Batch) -> Evaluation: ...  # noqa: D102


def habits(objective: Measured, network: Network, derivative: bool) -> Habits:
    """Of the objective's model: found out once for each model object, structure, loss and forward.

    Raises `ValueError`, one line with the name of the module, for a model that is not one function of its parameters
    or that puts other parameters or modules in the place of its own while it runs.
    """
    functions = tuple(identity(f) for f in (objective.criterion.loss, objective.criterion.counter, network.function))
    key = (structure(objective.module), functions, network.mode, derivative)
    try:
        return remembered(objective.module, "habits", key, lambda: _examine(objective, network, derivative))
    except _Untold:
        return Habits()


class _Untold(Exception):
    """The model, the loss or the data fail by themselves, and the measurement will say how."""


def _examine(objective: Measured, network: Network, derivative: bool) -> Habits:
    try:
        network.tried = Habits(records=True)
        few = objective.sample(_SAMPLES if derivative else _SAMPLES_OF_A_VALUE)
        with few.measuring():
            return _Examination(few, network, derivative).found()
    except _Refused:
        raise
    except Exception as error:
        raise _Untold from error
    finally:
        network.tried = None


class _Refused(ValueError):
    """The model is not one function."""


class _Examination:
    def __init__(self, few: Measured, network: Network, derivative: bool) -> None:
        assert network.belongings is not None
        self.few = few
        self.network = network
        self.belongings = network.belongings
        self.contents = Contents(self.belongings)
        self.batch = next(few.sweep())
        self.derivative = derivative
        self.rewritten: frozenset[str] = frozenset()

    def found(self) -> Habits:
        """What two passes tell, and one in the other mode of recording."""
        recorded = self.derivative or self.run(False) is None
        first, slopes = self.must_run(recorded)
        again, slopes_again = self.must_run(recorded)
        if not _agree(first + slopes, again + slopes_again):
            raise _Refused(self.who(recorded, _agree(first, again), _agree(first[:-1], again[:-1])))
        other = self.run(not recorded)
        records = recorded if other is None else not _agree(first, other[0], loosely=True)
        return Habits(self.rewritten, records)

    def must_run(self, recorded: bool) -> tuple[Numbers, Numbers]:
        result = self.run(recorded)
        if result is None:
            raise _Untold
        return result

    def run(self, recorded: bool) -> tuple[Numbers, Numbers] | None:
        """Outputs and loss, and the gradient where it is wanted; None where the model fails."""
        self.network.tried = Habits(self.rewritten, recorded)
        try:
            with torch.set_grad_enabled(recorded):
                e = self.few.evaluate(self.batch)
                loss = e.loss()
                slopes: Sequence[Tensor] = ()
                if recorded and self.derivative and loss.requires_grad:
                    slopes = torch.autograd.grad(loss, e.leaves, allow_unused=True, materialize_grads=True)
            _refuse_replaced(self.belongings)
            return [t.detach().clone() for t in (*tensors_in(e.outputs), loss)], [t.clone() for t in slopes]
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, _Refused):
                raise
            return None
        finally:
            self.rewritten |= self.contents.put_back()

    def who(self, recorded: bool, same: bool, same_outputs: bool) -> str:
        """The message: what gives other numbers each time."""
        way = (
            "it draws random numbers, reads a clock or counts calls out of sight, so f is no function of the "
            "parameters. Keep the generator or counter as an attribute of the module, draw from torch's, numpy's or "
            "Python's own global generator, or leave that out while measuring"
        )
        if same:
            return f"the gradient is another one each time that it is computed: {way}"
        if same_outputs:
            return f"the loss gives another number each time for the same outputs: {way}"
        first, second = self.trace(recorded), self.trace(recorded)
        for (name, a), (_, b) in zip(first, second, strict=False):
            if not _agree(a, b):
                return f"{name} gives other outputs each time for the same inputs: {way}"
        return f"the model (or forward=) gives other outputs each time for the same inputs: {way}"

    def trace(self, recorded: bool) -> list[tuple[str, Numbers]]:
        """The outputs of all modules in the order in which they return."""
        seen: list[tuple[str, Numbers]] = []

        def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
            label = f"the module {name!r} ({type(module).__name__})" if name else f"the model {type(module).__name__}"
            seen.append((label, [t.detach().clone() for t in tensors_in(output)]))

        named = self.few.module.named_modules()
        handles = [module.register_forward_hook(functools.partial(note, name)) for name, module in named]
        try:
            self.run(recorded)
        finally:
            for handle in handles:
                handle.remove()
        return seen


def _refuse_replaced(belongings: Belongings) -> None:
    for table in belongings.tables:
        for name in table.moved() if table.keyed else ():
            now = table.owner.get(name)
            if isinstance(now, nn.Parameter | nn.Module):
                what = "parameter" if isinstance(now, nn.Parameter) else "module"
                raise _Refused(
                    f"the model makes its {what} {in_words((table.path, name))!r} in the forward pass, so that it is "
                    "not among those that are measured: make it in __init__, or run the model on one batch before "
                    "measuring if that happens only once"
                )


def _agree(first: Numbers, second: Numbers, loosely: bool = False) -> bool:
    """The same numbers; `loosely` to half of the digits, else to rounding in another order."""
    return len(first) == len(second) and all(
        torch.equal(a, b) or _near(a, b, loosely) for a, b in zip(first, second, strict=True)
    )


def _near(a: Tensor, b: Tensor, loosely: bool) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or not a.is_floating_point():
        return False
    eps = torch.finfo(a.dtype).eps
    tolerance = eps**0.5 if loosely else (64.0 if eps < 1e-5 else 2.0) * eps
    a, b = a.cpu().double(), b.cpu().double()
    if not torch.equal(a.isfinite(), b.isfinite()) or not a.numel():
        return False
    gap, scale = (float(torch.nan_to_num(t, 0.0, 0.0, 0.0).abs().max()) for t in (a - b, a))
    return gap <= tolerance * scale
