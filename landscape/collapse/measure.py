"""Neural collapse of a network on an objective's data: the last Linear is found, its input read while the model runs.

The model is run as the objective says, without gradients, and left as it was: hooks, flags, buffers, random states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.collapse.head import Head, Reader
from landscape.collapse.merged import merged
from landscape.collapse.metrics import CollapseMetrics
from landscape.collapse.statistics import CollapseStatistics
from landscape.memory import budget
from landscape.objective.objective import Objective

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

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.collapse import measure
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2))
        >>> f = Objective(model, torch.nn.CrossEntropyLoss(), (torch.eye(2), torch.tensor([0, 1])))
        >>> found = measure(f)
        >>> found.nc1, found.classes, found.samples
        (0.0, 2, 2)
    """
    free = budget(objective.memory, objective.device) if nc4 else 0
    found = objective.agreed(lambda: _gather(objective, head, num_classes, free))
    statistics = merged(found.statistics, objective.ranks)
    if nc4:
        again = objective.ranks.any(found.kept is None)
        _count_agreement(objective, statistics, lambda: found.reader if again else found.kept or [], found.reader)
    return objective.agreed(lambda: statistics.metrics(found.weight, found.bias))


def gather(objective: Objective, *, head: Head = None, num_classes: int | None = None) -> CollapseStatistics:
    """`CollapseStatistics` of the features on the objective's data; those of several loaders can be merged.

    Arguments and errors as in `measure`.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.collapse import gather
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2))
        >>> f = Objective(model, torch.nn.CrossEntropyLoss(), (torch.eye(2), torch.tensor([0, 1])))
        >>> gather(f).means.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    found = objective.agreed(lambda: _gather(objective, head, num_classes, 0))
    return merged(found.statistics, objective.ranks)


def gather_agreement(objective: Objective, statistics: CollapseStatistics, *, head: Head = None) -> None:
    """Count on the objective's data how often the head and the nearest class mean of `statistics` agree (NC4).

    With `statistics = gather(train)` and the objective on test data this is the paper's NC4, on test features.
    Errors as in `measure`.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.collapse import gather, gather_agreement
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 2))
        >>> f = Objective(model, torch.nn.CrossEntropyLoss(), (torch.eye(2), torch.tensor([0, 1])))
        >>> statistics = gather(f)
        >>> gather_agreement(f, statistics)
        >>> statistics.metrics(model[1].weight, model[1].bias).nearest_accuracy
        1.0
    """
    reader = Reader(objective, head)
    _count_agreement(objective, statistics, lambda: reader, reader)


Features = Iterable[tuple[Tensor, Tensor]]  # with their labels


@dataclass(frozen=True)
class _Gathered:
    """What one pass over this rank's data gives; `kept` are all features, None where they do not fit."""

    reader: Reader
    statistics: CollapseStatistics
    kept: list[tuple[Tensor, Tensor]] | None
    weight: Tensor
    bias: Tensor | None


def _gather(objective: Objective, head: Head, num_classes: int | None, free: int) -> _Gathered:
    """On this rank's data; features are kept if they fit into `free` bytes."""
    statistics: CollapseStatistics | None = None
    kept: list[tuple[Tensor, Tensor]] | None = []
    with objective.measuring():
        reader = Reader(objective, head)
        for features, labels in reader:
            if statistics is None:
                statistics = _empty(reader, num_classes)
            statistics.update(features, labels)
            free -= features.nbytes
            if free < 0:
                kept = None
            elif kept is not None:
                kept.append((features, labels))
        if statistics is None:
            raise ValueError("the data has no samples")
        return _Gathered(reader, statistics, kept, *reader.weights(statistics.num_classes))


def _empty(reader: Reader, num_classes: int | None) -> CollapseStatistics:
    rows, dim = reader.shape
    classes = rows if num_classes is None else num_classes
    if not 2 <= classes <= rows:
        raise ValueError(
            f"the head has {rows} output{'s' * (rows != 1)}, which does not make {max(classes, 2)} classes: "
            "neural collapse needs a logit for each class"
        )
    return CollapseStatistics(classes, dim, ignore_index=_ignored(reader.objective))


def _count_agreement(
    objective: Objective, statistics: CollapseStatistics, features: Callable[[], Features], reader: Reader
) -> None:
    """Adds what the samples of all ranks say."""
    before = statistics.agreement.clone(), statistics.misplaced.clone()

    def count() -> None:
        with objective.measuring():
            for some, labels in features():
                statistics.update_agreement(some, labels, *reader.weights(statistics.num_classes))

    objective.agreed(count)
    if objective.ranks.several:
        counted = torch.cat([statistics.agreement - before[0], (statistics.misplaced - before[1]).reshape(1)])
        objective.ranks.sum(counted)
        statistics.agreement, statistics.misplaced = before[0] + counted[:-1], before[1] + counted[-1]


def _ignored(objective: Objective) -> int:
    known = objective.criterion.known
    return int(known.options.get("ignore_index", _IGNORED)) if known is not None else _IGNORED
