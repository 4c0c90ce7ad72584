"""The first measurement of a model, on a few samples: is f one function, and what does a pass over the model move?

The whole state is compared before and after: parameters, buffers, attributes, containers, generators. What can be put
back is put back at every measurement, and what cannot be made one function is refused by name. Three passes from the
same state must give the same numbers, with gradients recorded and without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from landscape.objective.batch import Batch, tensors_in
from landscape.objective.criterion import Criterion
from landscape.objective.evaluation import Evaluation
from landscape.objective.forward import Habits, replaced_in_forward
from landscape.objective.guard.belongings import Belongings
from landscape.objective.guard.contents import overlap, put_back, version
from landscape.objective.guard.tables import in_words
from landscape.objective.network import Network
from landscape.objective.remembered import identity, remembered
from landscape.ranks import Ranks

_SAMPLES = 32
_SAMPLES_OF_A_VALUE = 2  # a graph is built for them, which a value does not need memory for otherwise

Numbers = list[Tensor]


class Measured(Protocol):
    """What the examination needs of an `Objective`."""

    module: nn.Module
    criterion: Criterion
    ranks: Ranks

    def sample(self, size: int = 32) -> Measured: ...  # noqa: D102
    def measuring(self) -> AbstractContextManager[None]: ...  # noqa: D102
    def sweep(self) -> Iterator[Batch]: ...  # noqa: D102
    def evaluate(self, batch: Batch) -> Evaluation: ...  # noqa: D102


def habits(of: Callable[[], Measured], network: Network, derivative: bool) -> Habits:
    """Of the objective's model: found out once for each model object, structure, loss and forward.

    Raises `ValueError`, one line with the name of the module, for a model that is not one function of its parameters
    or that puts other parameters or modules in the place of its own while it runs.
    """
    objective = of()
    key = (network.key(objective.criterion.loss), identity(objective.criterion.counter), derivative)
    try:
        return remembered(
            objective.module, "habits", key, lambda: _examine(objective, network, derivative), objective.ranks
        )
    except _Untold:
        return Habits()


class _Untold(Exception):
    """The model, the loss or the data fail by themselves, and the measurement will say how."""


def _examine(objective: Measured, network: Network, derivative: bool) -> Habits:
    try:
        network.tried = Habits(records=True, writes_inputs=True)
        with objective.measuring():
            assert network.belongings is not None
            state = _State(network.belongings)
            try:
                few = objective.sample(_SAMPLES if derivative else _SAMPLES_OF_A_VALUE)
            finally:
                state.put_back()
            return _Examination(few, network, derivative, state).found()
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    except Exception as error:
        raise _Untold from error
    finally:
        network.tried = None


class _Refused(ValueError):
    """The model is not one function."""


class _State:
    """The belongings with copies of all tensors and arrays.

    Attributes:
        written: names of those that were written into, or handed out in a way that torch does not count.
    """

    def __init__(self, belongings: Belongings) -> None:
        self.belongings = belongings
        self._tensors = [(path, t, t.detach().clone(), before) for path, t, before in belongings.tensors]
        self._arrays = [(path, array, array.copy()) for path, array in belongings.arrays]
        self.written: frozenset[str] = frozenset()

    def put_back(self) -> None:
        """Everything is what it was, contents too."""
        self.belongings.restore()
        written = [path for path, t, copy, before in self._tensors if version(t) != before or put_back(t, copy)]
        for _, t, copy, _ in self._tensors:
            put_back(t, copy)
        written += [path for path, array, copy in self._arrays if put_back(array, copy)]
        self.written |= {in_words(path) for path in written}

    def note(self, handed_out: list[Tensor]) -> None:
        """Count these as written into: `p.data` and the like can be at any time."""
        self.written |= {
            in_words(path) for path, t, _ in self.belongings.tensors if any(overlap(t, other) for other in handed_out)
        }


class _HandedOut(TorchFunctionMode):
    """Notes the tensors whose memory is given away uncounted."""

    WAYS = frozenset({Tensor.data.__get__, Tensor.numpy, Tensor.untyped_storage})  # type: ignore[attr-defined]

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.WAYS:
            self.tensors.append(args[0])
        return func(*args, **(kwargs or {}))


class _Examination:
    def __init__(self, few: Measured, network: Network, derivative: bool, state: _State) -> None:
        self.few = few
        self.network = network
        self.state = state
        self.batch = next(few.sweep())
        self.derivative = derivative
        self.writes_inputs = False

    def found(self) -> Habits:
        """What three passes tell, and one in the other mode of recording."""
        recorded = self.derivative or self.run(False) is None
        first, slopes = self.must_run(recorded)
        with _HandedOut() as noted:
            second = self.run(recorded)
        self.state.note(noted.tensors)
        third = self.must_run(recorded)
        for again, slopes_again in (second or third, third):  # what alternates agrees with the next but one
            if not _agree(first + slopes, again + slopes_again):
                raise _Refused(self.who(recorded, _agree(first, again), _agree(first[:-1], again[:-1])))
        other = self.run(not recorded)
        records = recorded if other is None else not _agree(first, other[0], loosely=True)
        return Habits(self.state.written, records, self.writes_inputs)

    def must_run(self, recorded: bool) -> tuple[Numbers, Numbers]:
        result = self.run(recorded)
        if result is None:
            raise _Untold
        return result

    def run(self, recorded: bool) -> tuple[Numbers, Numbers] | None:
        """Outputs and loss, and the gradient where it is wanted; None where the model fails."""
        self.network.tried = Habits(self.state.written, recorded, writes_inputs=True)
        try:
            with torch.set_grad_enabled(recorded):
                e = self.few.evaluate(self.batch)
                self.writes_inputs |= any(version(t) > 0 for t in self.network.given)
                with torch.set_grad_enabled(recorded and self.derivative):  # a value needs no graph to the parameters
                    loss = e.loss()
                slopes: Sequence[Tensor] = ()
                if recorded and self.derivative and loss.requires_grad:
                    slopes = torch.autograd.grad(loss, e.leaves, allow_unused=True, materialize_grads=True)
            for kind, name in self.state.belongings.replaced():
                raise _Refused(replaced_in_forward(kind, name))
            return [t.detach().clone() for t in (*tensors_in(e.outputs), loss)], [t.clone() for t in slopes]
        except (RuntimeError, ValueError, TypeError) as error:
            if isinstance(error, _Refused):
                raise
            return None
        finally:
            self.state.put_back()

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
        for (name, given, a), (_, given_again, b) in zip(first, second, strict=False):
            if _agree(given, given_again) and not _agree(a, b):
                return f"{name} gives other outputs each time for the same inputs: {way}"
        return f"the model (or forward=) gives other outputs each time for the same inputs: {way}"

    def trace(self, recorded: bool) -> list[tuple[str, Numbers, Numbers]]:
        """Inputs and outputs of all modules in the order in which they return."""
        seen: list[tuple[str, Numbers, Numbers]] = []

        def note(name: str, module: nn.Module, args: Any, output: Any) -> None:
            label = f"the module {name!r} ({type(module).__name__})" if name else f"the model {type(module).__name__}"
            given, made = ([t.detach().clone() for t in tensors_in(nest)] for nest in (args, output))
            seen.append((label, given, made))

        named = self.few.module.named_modules()
        handles = [module.register_forward_hook(functools.partial(note, name)) for name, module in named]
        try:
            self.run(recorded)
        finally:
            for handle in handles:
                handle.remove()
        return seen


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
