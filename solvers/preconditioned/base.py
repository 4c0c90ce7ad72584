"""What preconditioned solvers share: states that are wide enough, and a closure whose curvature is looked at.

States and steps are in float32 at least, whatever the dtype of the parameters: running means of bfloat16 gradients in
bfloat16 would stand still once a change falls below 1/256. A saved state comes back in the dtype in which it was saved.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from landscape.objective.weight_norm import unfused_weight_norm
from landscape.randomness import fresh_generator
from solvers.base import MANUAL, Closure, Parameters, check, check_loss, explain_backward
from solvers.distributed import average_gradients
from solvers.first_order.base import FirstOrder, Update


class Preconditioned(FirstOrder):
    """A first-order solver whose states and steps are in float32 at least."""

    @override
    def _apply(self, loss: Tensor | float | None, updates: list[Update]) -> None:
        wide = [
            update._replace(
                parameters=[widened(p) for p in update.parameters], gradients=[widened(g) for g in update.gradients]
            )
            for update in updates
        ]
        super()._apply(loss, wide)
        for update, moved in zip(updates, wide, strict=True):
            for p, q in zip(update.parameters, moved.parameters, strict=True):
                if p is not q:
                    p.copy_(q)

    @override
    def precondition(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        return super().precondition([widened(v) for v in vectors])

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but for the dtype of the states: it stays as it was saved."""
        given: dict[str, Any] = {}
        before = self.register_load_state_dict_pre_hook(lambda _, state: given.update(state))
        after = self.register_load_state_dict_post_hook(lambda _: self._keep_dtypes(given), prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _keep_dtypes(self, state_dict: dict[str, Any]) -> None:
        """Put the tensors of a saved state in the places of those that torch has cast to the parameters' dtype."""
        order = [index for group in state_dict["param_groups"] for index in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, p in zip(order, parameters, strict=True):
            for name, value in state_dict["state"].get(index, {}).items():
                self.state[p][name] = _on_device(value, p.device)


class Curved(Preconditioned):
    """A solver whose closure is differentiated twice, every so often, for an estimate of the curvature's diagonal.

    A subclass says in `_estimate` how it is made, in `_absorb` what is remembered of it, and in `_move` how a step
    follows. Estimates are made at the first step, then at every `every`-th, and whenever other parameters require grad
    than at the last one. A parameter does not move before there is an estimate of its curvature.

    Args:
        params: parameters, or groups with settings of their own.
        defaults: of the groups.
        every: steps from one estimate to the next, >= 1.
        probes: random vectors of an estimate, >= 1; each costs about two gradients.
        generator: for them; its state is part of `state_dict`. None: a fresh seed.
    """

    takes_complex = False
    maximizes = False

    def __init__(
        self,
        params: Parameters,
        defaults: dict[str, Any],
        *,
        every: int = 1,
        probes: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        check(every=(every, every >= 1), probes=(probes, probes >= 1))
        super().__init__(params, defaults)
        self.every, self.probes, self.generator = every, probes, generator or fresh_generator()
        self._steps = 0
        self._members: list[int] | None = None  # which parameters required grad at the last estimate
        self._found: dict[int, Tensor] | None = None  # this step's estimates, by their parameter's state

    @abstractmethod
    def _estimate(self, loss: Tensor, leaves: list[Tensor], trusted: bool) -> tuple[list[Tensor | None], list[Tensor]]:
        """The gradient, None for a leaf that the loss does not use, and the estimated diagonal, wide.

        `trusted`: the same leaves have had an estimate, so that their graph need not be looked through again.
        """

    @abstractmethod
    def _absorb(self, update: Update, estimates: list[Tensor]) -> None:
        """Take fresh estimates of a group into its states."""

    def _due(self) -> bool:
        """Whether this step makes an estimate by the schedule."""
        return self._steps % self.every == 0

    @override
    def step(self, closure: Closure | None = None, *, loss: Tensor | float | None = None) -> Any:  # type: ignore[override]
        """One step; returns the loss at the point where it began.

        Raises `ValueError` without a closure, or with a loss beside it.
        """
        if closure is None:
            raise ValueError(
                f"{type(self).__name__} needs step(closure), for it differentiates the loss twice: {MANUAL}; "
                "transformers.Trainer has no closure to give"
            )
        return super().step(closure, loss=loss)

    @override
    def evaluate(self, closure: Closure) -> tuple[Any, dict[Tensor, Tensor]]:
        """As of the base class; where an estimate is due, it is made from the same graph."""
        self._found = None
        everything = [p for group in self.param_groups for p in group["params"]]
        members = [i for i, p in enumerate(everything) if p.requires_grad]
        if not members or (members == self._members and not self._due()):
            return super().evaluate(closure)
        leaves = self.leaves()
        with torch.enable_grad(), unfused_weight_norm():
            loss = check_loss(closure())
            with explain_backward():
                gradients, estimates = self._estimate(loss.sum(), leaves, members == self._members)
        given = {p: g.detach() for p, g in zip(leaves, gradients, strict=True) if g is not None}
        found = dict(zip(leaves, estimates, strict=True))
        average_gradients(leaves, given)
        average_gradients(leaves, found)
        self._found, self._members = {id(self.state[p]): found[p] for p in given}, members
        return loss.detach(), given

    @override
    def _apply(self, loss: Tensor | float | None, updates: list[Update]) -> None:
        super()._apply(loss, updates)
        self._steps, self._found = self._steps + 1, None

    @override
    def _move_groups(self, updates: list[Update]) -> None:
        super()._move_groups(self._with_curvature(updates))

    def _with_curvature(self, updates: list[Update]) -> list[Update]:
        """Fresh estimates are absorbed; what there is no estimate of by then is left out."""
        ready = []
        for update in updates:
            if self._found is not None:
                self._absorb(update, [self._found[id(state)] for state in update.states])
                for state in update.states:
                    state["estimates"] = state.get("estimates", 0) + 1
            known = [i for i, state in enumerate(update.states) if "estimates" in state]
            if known:
                ready.append(update.part(known))
        return ready

    @override
    def state_dict(self) -> dict[str, Any]:
        """Of the base class, with the random generator's state and when an estimate is due."""
        own = {"solver": type(self).__name__, "generator": self.generator.get_state()}
        return {**super().state_dict(), "curvature": own | {"steps": self._steps, "members": self._members}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on bit by bit. Raises `ValueError` for the state of another solver; nothing has changed then."""
        own = state_dict.get("curvature", {})
        if own.get("solver") != type(self).__name__:
            raise ValueError(f"this is not the state of {type(self).__name__}")
        super().load_state_dict(state_dict)
        self.generator.set_state(own["generator"].cpu())
        self._steps, self._members = own["steps"], own["members"]


def widened(t: Tensor) -> Tensor:
    """The tensor, or its float32 form where it is narrower."""
    return t.float() if t.dtype.itemsize < 4 else t


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone().to(device)
    if isinstance(value, list):
        return [_on_device(one, device) for one in value]
    if isinstance(value, dict):
        return {key: _on_device(one, device) for key, one in value.items()}
    return value
