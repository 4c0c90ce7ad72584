"""The module that is measured: the user's own, looked at through wrappers, on its own tensors or on converted ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual
from torch.func import functional_call

from landscape.objective import state
from landscape.objective.batch import Batch, convert, move, tensors_in
from landscape.objective.converted import Converted
from landscape.objective.criterion import Criterion
from landscape.objective.forward import Forward, Habits, replaced_in_forward
from landscape.objective.guard.admission import is_sharded, refuse_absent
from landscape.objective.guard.belongings import Belongings
from landscape.objective.guard.checkpointing import recomputed_alike
from landscape.objective.guard.contents import copy_of_tensor
from landscape.objective.parameters import FlatView, Selection
from landscape.objective.remembered import identity, remembered, structure
from landscape.objective.settings import settings
from landscape.objective.sharded.choice import shards_of
from landscape.objective.wrappers import data_parallel, inner_selection, unwrap

Mode = Literal["as-is", "eval", "train"]


class Network:
    """How the model is run: the user's own module, on its own tensors or on converted ones, leaving no mark.

    Attributes:
        module: the one that is run, without wrappers.
        converted: what stands for its tensors in another dtype or on another device.
        function: the user's `forward(model, inputs)`, or None.
        device: where it is, for inputs and vectors.
        pinned: how many `Objective.at` blocks hold the parameters.
        synchronises_buffers: the model's wrapper gives all ranks the buffers of the first one in a forward pass.
        buffers: those, where they are known; None for the module's own.
        shards: what this rank holds of the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[Any, Any], Any] | None,
        mode: Mode,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        loss: object = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
        if mode not in ("as-is", "eval", "train"):
            raise ValueError(f'mode is "as-is", "eval" or "train", not {mode!r}')
        refuse_absent(model)
        self.module = unwrap(model)
        self._wrapped = self.module is not model
        synchronised = is_sharded(model) or any(m.broadcast_buffers for m in data_parallel(model))
        self.synchronises_buffers = synchronised and any(True for _ in model.buffers())
        self.buffers: list[Tensor] | None = None
        self.function = forward
        self.mode = mode
        self._dtype = dtype
        self._parts: state.Parts | None = None  # while measuring: walking over a large model is not free
        self._seen: state.Snapshot | None = None
        self.pinned = 0
        self.belongings: Belongings | None = None  # while measuring
        self._habits = Habits()
        self._leaves: list[nn.Parameter] = []
        self.tried: Habits | None = None  # while they are found out
        self.given: list[Tensor] = []  # to the last pass, meanwhile
        self._known: dict[bool, tuple[Any, Habits]] = {}
        self._last: tuple[Any, Belongings] | None = None  # of the last scope: looking anew costs more than comparing
        self._confirmed = False
        # a loss may hold class weights
        measured = [self.module, loss] if isinstance(loss, nn.Module) else [self.module]
        if is_sharded(model) and not (dtype is None and device is None):
            raise TypeError(
                "a sharded model is measured as it is: convert it before fully_shard, not by dtype=, device="
            )
        self.converted = Converted(measured, None if device is None else _indexed(torch.device(device)), dtype)
        self.shards = shards_of(self.module, self.converted)
        self.device = next((self.converted(p).device for p in self.module.parameters()), torch.device("cpu"))

    def view(self, selection: Selection) -> FlatView:
        """The chosen parameters as one vector."""
        return FlatView(self.module, inner_selection(self._wrapped, selection), self.shards.layout)

    def follow(self) -> None:
        """Bring the converted tensors up to date with the model (not while `at` has set them, nor in a measurement)."""
        inside = self.pinned or self._parts is not None
        if not inside:
            self.shards.follow()
        if not self.converted or inside or (self._seen is not None and self._seen.holds()):
            return
        self._seen = state.Snapshot(lambda: state.Parts(self.module).contents())
        self.converted.follow()

    def key(self, loss: object) -> Hashable:
        """All that the derivatives of the loss depend on, except numbers: what is known of them is kept under it."""
        settings = (self.mode, self._dtype, self.device)
        return structure(self.module), identity(loss), identity(self.function), settings

    def converted_to(self, dtype: torch.dtype, loss: object) -> Network:
        """The same model run the same way in another dtype."""
        other = Network(self.module, self.function, self.mode, self.device, dtype, loss)
        other.synchronises_buffers = self.synchronises_buffers
        return other

    def take_buffers(self, buffers: list[Tensor]) -> None:
        """Run on these; where they are equal to those before, on the same objects: kept graphs hold."""
        before = self.buffers
        if before is None or not all(torch.equal(a, b) for a, b in zip(before, buffers, strict=True)):
            self.buffers = buffers

    def confirm(self, loss: object, follows: Callable[[], bool]) -> None:
        """Refuse a loss that the converted tensors do not carry whole; asked once for each model and loss."""
        if not self.converted or self._confirmed:
            return
        self._confirmed = True  # what follows measures
        try:
            if not remembered(self.module, "conversion", self.key(loss), follows):
                raise ValueError(
                    "the loss (or forward=) holds the model's parameter objects, for example in a list made before or "
                    "through an optimizer: measured with dtype= or device= that term would not move; walk "
                    "model.parameters() in it instead, or convert the model yourself and leave dtype= and device= out"
                )
        except BaseException:
            self._confirmed = False
            raise

    def parts(self) -> state.Parts:
        """The module's parts: found once per measurement, anew outside of one."""
        return self._parts if self._parts is not None else state.Parts(self.module, self.shards)

    def contents(self, loss: object) -> tuple[list[Tensor], list[Any]]:
        """All that the function depends on and that can be seen: tensors, flags, and settings of model and loss."""
        parts = self.parts()
        tensors, flags = parts.contents()
        others = settings(parts.modules, (loss, self.function), self.belongings, self._habits.rewritten)
        return [*tensors, *(self.buffers or ())], [*flags, *others]

    @contextmanager
    def measuring(
        self, view: FlatView, criterion: Criterion, derivative: bool, find: Callable[[], Habits]
    ) -> Iterator[None]:
        """A scope in which the module may be run and differentiated twice in the view's parameters.

        find: how the model's habits are found out.
        """
        with ExitStack() as stack:
            self.follow()
            parts = self.parts()
            mark = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in parts.modules]
            habits = self._known_habits(derivative, mark, find)
            outer, self._parts = self._parts, parts
            stack.callback(setattr, self, "_parts", outer)
            stack.enter_context(self.shards.in_place())
            stack.enter_context(state.random_states(self.device))
            stack.enter_context(state.differentiable_twice(parts.modules, self.device))
            leaves = view.resolve(parts.parameters)
            stack.enter_context(state.flags(parts, leaves, self.mode))
            if self.converted:
                stack.enter_context(self.converted.explained())
            outer_leaves, self._leaves = self._leaves, leaves
            stack.callback(setattr, self, "_leaves", outer_leaves)
            others = {"loss": criterion.loss, "count": criterion.counter, "forward": self.function}
            roots = {"": self.module, **others}
            stack.enter_context(recomputed_alike(self.module, roots))
            stack.enter_context(self._putting_back(roots, mark, habits))
            yield

    def _known_habits(self, derivative: bool, mark: Any, find: Callable[[], Habits]) -> Habits:
        """Found out once, and again when a training flag or a hook is another."""
        if self.tried is not None:
            return self.tried
        if self.shards.anywhere(derivative not in self._known or self._known[derivative][0] != mark):
            self._known[derivative] = (mark, find())
        return self._known[derivative][1]

    @contextmanager
    def _putting_back(self, roots: Mapping[str, Any], mark: Any, habits: Habits) -> Iterator[None]:
        outer = self.belongings, self._habits
        if self.belongings is not None:
            self.belongings.restore()
        key = (mark, habits.rewritten, [id(root) for root in roots.values()])
        last, self._last = self._last, None
        kept = last is not None and last[0] == key and last[1].renewed()
        belongings = last[1] if last is not None and kept else Belongings(roots, habits.rewritten)
        self.belongings, self._habits = belongings, habits
        try:
            yield
            if self.tried is not None:
                return
            for kind, name in belongings.replaced():
                raise RuntimeError(replaced_in_forward(kind, name))
            new = [name for name in belongings.written() if name not in habits.rewritten]
            if new:
                raise RuntimeError(
                    f"the model wrote into its tensor {new[0]!r} while it was measured, which it did not at its first "
                    "measurement, so it cannot be put back: take that out of the forward pass"
                )
        finally:
            belongings.restore()
            self.belongings, self._habits = outer
            if not belongings.loose:
                self._last = (key, belongings)

    def generators_kept(self) -> AbstractContextManager[None]:
        """Inside, the loss may be called once more: a generator that it draws from is put back."""
        return nullcontext() if self.belongings is None else self.belongings.generators_kept()

    def recording(self) -> AbstractContextManager[Any]:
        """Inside, autograd records if it did, or if the function differentiates something itself."""
        return torch.set_grad_enabled(torch.is_grad_enabled() or (self.tried or self._habits).records)

    def place(self, batch: Batch) -> Batch:
        """The batch on the device, in the dtype that was asked."""
        placed: Batch = move(batch, self.device, self._dtype)
        return placed

    def plain(self, model: nn.Module, inputs: Any) -> Any:
        """What a model returns that is run in the same way, without any care."""
        return Forward(model, self.function)(inputs)

    def outputs(self, batch: Batch, replaced: Mapping[str, Tensor] | None = None) -> Any:
        """What the module returns on a batch, with other tensors for some of its parameters where they are given."""
        state.seed_everything(batch.index, self.device)
        if self.belongings is not None:
            self.belongings.begin_pass()
        run = Forward(self.module, self.function)
        habits = self.tried or self._habits
        inputs = convert(batch.inputs, copy_of_tensor) if habits.writes_inputs else batch.inputs
        if self.tried is not None:
            self.given = list(tensors_in(inputs))
        with (
            state.borrowed_buffers(self.module, self.buffers),
            self._parameters_kept(),
            self._leaves_kept(),
            self.recording(),
            self.shards.forward(),
        ):
            if replaced is None:
                return run(inputs)
            if self.shards.cut:
                raise RuntimeError("other tensors cannot stand for the parameters of a sharded model")
            if habits.records and any(unpack_dual(t).tangent is not None for t in replaced.values()):
                raise RuntimeError("forward mode through a derivative inside the model is not to be relied on")
            return functional_call(run, {f"model.{name}": t for name, t in replaced.items()}, (inputs,))

    @contextmanager
    def _leaves_kept(self) -> Iterator[None]:
        """Refuses a forward pass that switches off what is differentiated in: its derivative would be 0."""
        yield
        off = [p for p in self._leaves if not p.requires_grad]
        for p in off:
            p.requires_grad_(True)
        if off and torch.is_grad_enabled():
            name = next(name for name, p in self.parts().parameters.items() if p is off[0])
            raise RuntimeError(
                f"the model switches requires_grad of its parameter {name!r} off in the forward pass: do that before "
                "measuring, or leave the parameter out by parameters="
            )

    @contextmanager
    def _parameters_kept(self) -> Iterator[None]:
        """Parameters that the forward pass writes into are put back; derivatives would be others than f's."""
        names = (self.tried or self._habits).rewritten
        kept = [(n, p, p.detach().clone()) for n, p in self.parts().parameters.items() if n in names]
        changed: list[str] = []
        try:
            yield
        finally:
            for name, p, copy in kept:
                if not torch.equal(p.detach(), copy):
                    changed.append(name)
                    p.data.copy_(copy)
        if changed and torch.is_grad_enabled() and self.tried is None:
            raise RuntimeError(
                f"the model gives its parameter {changed[0]!r} other values in the forward pass (as max_norm of an "
                "Embedding does, or clipping), so its derivatives are not those of f: run the model on all of the "
                "data before measuring if that has no effect twice, or take it out of the forward pass"
            )


def _indexed(device: torch.device) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device
