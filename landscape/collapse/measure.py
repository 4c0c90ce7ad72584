"""Neural collapse of a network on an objective's data: the last Linear is found, its input read while the model runs.

The model is run as the objective says, without gradients, and left as it was: hooks, flags, buffers, random states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape.collapse.metrics import CollapseMetrics
from landscape.collapse.statistics import CollapseStatistics
from landscape.data import Batch
from landscape.memory import available_memory
from landscape.network import unwrapped
from landscape.objective import Objective

Head = str | nn.Module | None
Keep = Callable[[Tensor, Tensor], None]

_IGNORED = -100  # torch's default for targets that do not count


def measure(
    objective: Objective, *, head: Head = None, num_classes: int | None = None, nc4: bool = True
) -> CollapseMetrics:
    """The metrics of neural collapse at the parameters as they stand, on all of the objective's data.

    The modules run in the objective's mode: features of a training mode have dropout and batch statistics in them, and
    the paper measures in evaluation mode, `Objective(..., mode="eval")`. Samples whose target is ignored are left out.
    For other data (a test set) measure `objective.on(data)`; for test features against the means of training, see
    `gather_agreement`.

    Costs a forward pass, and for nc4 a second one unless the features fit the objective's memory budget.

    Args:
        objective: a classifier that ends in a Linear layer, with class indices as targets. Outputs are a tensor, or
            have one as `logits`.
        head: the last layer, by name or as the module; any with a weight `(classes, dim)`. Default the one Linear
            whose output on the first batch is the model's output, to the last bit.
        num_classes: default the rows of the head's weight; fewer takes the first of them.
        nc4: False leaves nc4 and the accuracies nan.

    Raises:
        ValueError: no such head, or several (all Linear layers are listed); targets that do not go with the features
            or are out of range; features or weights that are not finite; samples of fewer than two classes.
        TypeError: targets that are not class indices; outputs without logits.
    """
    with objective.measuring():
        reader = _Reader(objective, head)
        kept = _Kept(objective) if nc4 else None
        statistics = _gather(reader, num_classes, kept)
        weight, bias = reader.weights(statistics.num_classes)
        if kept is not None:
            for features, labels in reader if kept.pairs is None else kept.pairs:
                statistics.update_agreement(features, labels, weight, bias)
        return statistics.metrics(weight, bias)


def gather(objective: Objective, *, head: Head = None, num_classes: int | None = None) -> CollapseStatistics:
    """`CollapseStatistics` of the features on the objective's data; those of several loaders can be merged.

    Arguments and errors as in `measure`.
    """
    with objective.measuring():
        return _gather(_Reader(objective, head), num_classes, None)


def gather_agreement(objective: Objective, statistics: CollapseStatistics, *, head: Head = None) -> None:
    """Count on the objective's data how often the head and the nearest class mean of `statistics` agree (NC4).

    With `statistics = gather(train)` and the objective on test data this is the paper's NC4, on test features.
    Errors as in `measure`.
    """
    with objective.measuring():
        reader = _Reader(objective, head)
        for features, labels in reader:
            statistics.update_agreement(features, labels, *reader.weights(statistics.num_classes))


def _gather(reader: _Reader, num_classes: int | None, keep: Keep | None) -> CollapseStatistics:
    statistics: CollapseStatistics | None = None
    for features, labels in reader:
        if statistics is None:
            rows, dim = reader.shape
            classes = rows if num_classes is None else num_classes
            if not 2 <= classes <= rows:
                raise ValueError(
                    f"the head has {rows} output{'s' * (rows != 1)}, which does not make {max(classes, 2)} classes: "
                    "neural collapse needs a logit for each class"
                )
            statistics = CollapseStatistics(classes, dim, ignore_index=_ignored(reader.objective))
        statistics.update(features, labels)
        if keep is not None:
            keep(features, labels)
    if statistics is None:
        raise ValueError("the data has no samples")
    return statistics


def _ignored(objective: Objective) -> int:
    return int(objective.known.options.get("ignore_index", _IGNORED)) if objective.known is not None else _IGNORED


class _Kept:
    """Features and labels of the first pass, as long as they fit; `pairs` is None when they did not."""

    def __init__(self, objective: Objective) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] | None = []
        self._free = available_memory(objective.device) if objective.memory == "auto" else int(objective.memory)

    def __call__(self, features: Tensor, labels: Tensor) -> None:
        if self.pairs is not None:
            self._free -= features.nbytes
            self.pairs.append((features, labels))
            if self._free < 0:
                self.pairs = None


# -- the features ----------------------------------------------------------------------------------------------------


class _Reader:
    """The head's inputs `(..., dim)` with their class indices, batch by batch; the head is found on the first one."""

    def __init__(self, objective: Objective, head: Head) -> None:
        self.objective = objective
        self._head = None if head is None else _given(objective, head)
        self._linear = [module for module in objective.module.modules() if isinstance(module, nn.Linear)]
        if self._head is None and not self._linear:
            raise ValueError("the model has no Linear layer: say which layer is the head with head=")

    @property
    def shape(self) -> tuple[int, int]:
        """(classes, dim) of the head's weight."""
        rows, dim = self._weight().shape
        return rows, dim

    def weights(self, classes: int) -> tuple[Tensor, Tensor | None]:
        """The head's weight and bias, the first `classes` rows."""
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
                self._head = _found(self.objective, calls, logits)
                calls = [call for call in calls if call.module is self._head]
            if len(calls) != 1:
                raise ValueError(
                    f"the head is used {len(calls)} times in one forward pass: its features must be one per sample"
                )
            yield calls[0].features, _labels(batch, calls[0].features)

    def _run(self, batch: Batch) -> tuple[list[_Call], Any]:
        """What the head (while it is not known: each Linear layer) is called with on a batch, and the outputs."""
        calls: list[_Call] = []

        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            features = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(features, Tensor) and isinstance(output, Tensor):
                calls.append(_Call(module, features.detach(), output, output._version))

        modules = self._linear if self._head is None else [self._head]
        handles = [module.register_forward_hook(seen, with_kwargs=True) for module in modules]
        try:
            with torch.no_grad():
                outputs = self.objective.outputs(batch)
        finally:
            for handle in handles:
                handle.remove()
        return calls, outputs


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    features: Tensor
    output: Tensor
    version: int  # of the output: has what follows overwritten it?


def _labels(batch: Batch, features: Tensor) -> Tensor:
    labels = batch.targets
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(
            f"the targets must be class indices (a tensor of integers), not {kind}: neural collapse needs the class "
            "of each sample"
        )
    if labels.numel() * features.shape[-1] != features.numel():
        raise ValueError(
            f"the targets of shape {tuple(labels.shape)} do not go with features of shape {tuple(features.shape)}: "
            "there must be one per feature vector"
        )
    return labels


# -- the head --------------------------------------------------------------------------------------------------------


def _found(objective: Objective, calls: list[_Call], outputs: Tensor) -> nn.Module:
    """The one Linear whose output is the model's, to the last bit; of several the one whose memory it shares."""
    same = [call for call in calls if _is(call, outputs)]
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


def _is(call: _Call, outputs: Tensor) -> bool:
    z = call.output
    if z.numel() != outputs.numel() or z._version != call.version:
        return False
    a, b = z.reshape(-1).to(outputs.dtype), outputs.reshape(-1)
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def _given(objective: Objective, head: str | nn.Module) -> nn.Module:
    modules = dict(objective.module.named_modules())
    if isinstance(head, nn.Module):
        names = [name for name, module in modules.items() if module is head]
        names += [name for name, module in unwrapped(objective.model).named_modules() if module is head]
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
    if not isinstance(outputs, Tensor):
        outputs_of = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
        if not isinstance(outputs_of, Tensor):
            raise TypeError(
                f"the model's outputs are a {type(outputs).__name__} without logits: give the objective "
                "forward=lambda model, x: ... that returns them, or name the last layer with head="
            )
        return outputs_of
    return outputs


def _listing(objective: Objective, modules: list[nn.Module] | None = None) -> str:
    found = [
        f"{name} ({module.in_features} -> {module.out_features})"
        for name, module in objective.module.named_modules()
        if isinstance(module, nn.Linear) and (modules is None or module in modules)
    ]
    shown = [*found[:4], "...", *found[-4:]] if len(found) > 9 else found
    return ", ".join(shown) or "none"
