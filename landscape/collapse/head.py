"""The head of a classifier: the one last linear layer, what goes into it, and the logits that come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.objective.batch import Batch
from landscape.objective.hooks import first_input, hooked
from landscape.objective.objective import Objective
from landscape.objective.outputs.nests import main_output
from landscape.objective.wrappers import unwrap

Head = str | nn.Module | None


class Reader:
    """The head's inputs `(..., dim)` with their class indices, batch by batch; the head is found on the first one.

    Of a batch that only keeps the ranks in step none of its samples.
    """

    def __init__(self, objective: Objective, head: Head) -> None:
        self.objective = objective
        self._head = None if head is None else _look_up(objective, head)
        self._linear = [module for module in objective.module.modules() if isinstance(module, nn.Linear)]
        if self._head is None and not self._linear:
            raise ValueError("the model has no Linear layer: say which layer is the head with head=")

    @property
    def shape(self) -> tuple[int, int]:
        """(classes, dim) of the head's weight."""
        with torch.no_grad():
            rows, dim = self._weight().shape
        return rows, dim

    def weights(self, classes: int) -> tuple[Tensor, Tensor | None]:
        """The head's weight and bias, the first `classes` rows."""
        with torch.no_grad():  # of a sharded model they are gathered here
            bias = getattr(self._head, "bias", None)
            return self._weight().detach()[:classes], bias.detach()[:classes] if isinstance(bias, Tensor) else None

    def _weight(self) -> Tensor:
        assert self._head is not None
        assert isinstance(self._head.weight, Tensor)
        return self._head.weight

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.objective.sweep():
            calls, outputs = self._run(batch)
            if self._head is None:
                logits = _logits(outputs)
                if logits.numel() == 0:  # an empty batch does not tell
                    continue
                self._head = _find(self.objective, calls, logits)
                calls = [call for call in calls if call.module is self._head]
            if len(calls) != 1:
                raise ValueError(
                    f"the head is used {len(calls)} times in one forward pass: its features must be one per sample"
                )
            features, labels = calls[0].features, batch.targets
            if batch.padding and isinstance(labels, Tensor):
                features, labels = features[:0], labels[:0]
            yield features, labels

    def _run(self, batch: Batch) -> tuple[list[_Call], Any]:
        """What the head (while it is not known: each Linear layer) is called with on a batch, and the outputs."""
        calls: list[_Call] = []

        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            features = first_input(args, kwargs)
            if features is not None and isinstance(output, Tensor):
                calls.append(_Call(module, features.detach(), output, output._version))

        with hooked(self._linear if self._head is None else [self._head], seen), torch.no_grad():
            outputs = self.objective.evaluate(batch).outputs
        return calls, outputs


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    features: Tensor
    output: Tensor
    version: int  # of the output: has what follows overwritten it?


def _find(objective: Objective, calls: list[_Call], outputs: Tensor) -> nn.Module:
    """The one Linear whose output is the model's, to the last bit; of several the one whose memory it shares."""
    same = [call for call in calls if _equals(call, outputs)]
    if len({call.module for call in same}) > 1:
        same = [call for call in same if call.output.data_ptr() == outputs.data_ptr()] or same
    modules = list(dict.fromkeys(call.module for call in same))
    if len(modules) == 1:
        return modules[0]
    if modules:
        raise ValueError(
            "the output of several Linear layers is the model's output: choose one with head=, of "
            f"{_listing(objective, modules)}"
        )
    raise ValueError(
        f"no Linear layer's output is the model's output of shape {tuple(outputs.shape)}: say which one is the last "
        f"layer with head=, of {_listing(objective)}"
    )


def _equals(call: _Call, outputs: Tensor) -> bool:
    z = call.output
    if z.numel() != outputs.numel() or z._version != call.version:
        return False
    a, b = z.reshape(-1).to(outputs.dtype), outputs.reshape(-1)
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _look_up(objective: Objective, head: str | nn.Module) -> nn.Module:
    modules = dict(objective.module.named_modules())
    if isinstance(head, nn.Module):
        names = [name for name, module in modules.items() if module is head]
        names += [name for name, module in unwrap(objective.model).named_modules() if module is head]
        if not names:
            raise ValueError(f"the head {type(head).__name__} is no part of the model: there are {_listing(objective)}")
        name = names[0]
    elif isinstance(head, str):
        name = head
        while name not in modules and name.startswith(("module.", "_orig_mod.")):
            name = name.partition(".")[2]
        if name not in modules:
            raise ValueError(f"the model has no layer {head!r}: its Linear layers are {_listing(objective)}")
    else:
        raise TypeError(f"head is the name of a layer or a module, not {type(head).__name__}")
    weight = getattr(modules[name], "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else "none"
        raise ValueError(
            f"the layer {name!r} is no head: its weight must have the shape (classes, dim), and it is {shape}"
        )
    return modules[name]


def _logits(outputs: Any) -> Tensor:
    logits = main_output(outputs)
    if logits is None:
        raise TypeError(
            f"the model's outputs are a {type(outputs).__name__} without logits: give the objective "
            "forward=lambda model, x: ... that returns them, or name the last layer with head="
        )
    return logits


def _listing(objective: Objective, modules: list[nn.Module] | None = None) -> str:
    found = [
        f"{name} ({module.in_features} -> {module.out_features})"
        for name, module in objective.module.named_modules()
        if isinstance(module, nn.Linear) and (modules is None or module in modules)
    ]
    shown = [*found[:4], "...", *found[-4:]] if len(found) > 9 else found
    return ", ".join(shown) or "none"
