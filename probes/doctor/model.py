"""What a problem is made of: its parameters, its modules' modes, its data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from probes.doctor.finding import Finding, finding
from probes.errors import first_few
from probes.numbers import short

if TYPE_CHECKING:
    import torch
    from torch import nn

    from landscape import Objective


def examine_model(objective: Objective) -> Iterator[Finding]:
    """Parameters, modes, and the loss with its gradient."""
    yield parameters(objective)
    yield finding("values", partial(finite, objective))
    yield finding("modes", partial(modes, objective))
    yield finding("loss", partial(loss, objective))


def parameters(objective: Objective) -> Finding:
    """How many there are, how many are measured, frozen and tied, in which dtypes and on which devices."""
    model = objective.module
    once = dict(model.named_parameters())
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    tied = [name for name in names if name not in once]
    frozen = [name for name, p in once.items() if not p.requires_grad]
    total = sum(p.numel() for p in once.values())
    kinds = _counts(f"{str(p.dtype).removeprefix('torch.')} on {p.device}" for p in once.values())
    values = {
        "total": total,
        "trainable": sum(p.numel() for p in once.values() if p.requires_grad),
        "measured": objective.size,
        "frozen": sum(once[name].numel() for name in frozen),
        "tied": tied,
        "tensors": kinds,
    }
    parts = [
        f"n = {objective.size:,} measured of {total:,}",
        f"{values['frozen']:,} frozen" + (f" ({first_few(frozen, 2)})" if frozen else ""),
        f"{len(tied)} tied" + (f" ({first_few(tied, 2)})" if tied else ""),
        ", ".join(f"{count} tensors {kind}" if count > 1 else f"1 tensor {kind}" for kind, count in kinds.items()),
    ]
    return Finding("parameters", "; ".join(parts), "", values)


def finite(objective: Objective) -> Finding:
    """Whether all parameters and buffers are numbers."""
    module = objective.module
    tensors = [*module.named_parameters(), *module.named_buffers()]
    bad = [name for name, t in tensors if t.is_floating_point() and not _finite(t)]
    if bad:
        return Finding("values", f"nan or inf in {first_few(bad)}: nothing can be measured there", "FAIL", {"bad": bad})
    return Finding("values", "all parameters and buffers are finite", "ok", {"bad": []})


def _finite(t: torch.Tensor) -> bool:
    return bool(t.detach().isfinite().all())


def modes(objective: Objective) -> Finding:
    """How many modules are in train mode while measuring, and what that means for dropout and batch norm."""
    with objective.measuring():
        modules = dict(objective.module.named_modules())
        train = {name: module for name, module in modules.items() if module.training}
    dropout = [name for name, module in train.items() if _drops(module)]
    norm = [name for name, module in train.items() if _batch_statistics(module)]
    values = {"train": len(train), "eval": len(modules) - len(train), "dropout": dropout, "batch_norm": norm}
    mixed = 0 < len(train) < len(modules)
    parts = [f"{len(train)} of {len(modules)} modules in train mode" if mixed else _all_in(bool(train))]
    if dropout:
        parts.append(f"dropout is on ({first_few(dropout, 2)}): one mask for each batch, the same in every pass")
    if norm:
        parts.append(
            f"batch norm takes each batch's own statistics ({first_few(norm, 2)}): f depends on the batch size"
        )
    if dropout or norm:
        parts.append('Objective(..., mode="eval") measures without')
    return Finding("modes", "; ".join(parts), "note" if dropout or norm or mixed else "ok", values)


def _all_in(train: bool) -> str:
    return f"all modules in {'train' if train else 'eval'} mode"


def _drops(module: nn.Module) -> bool:
    rate = getattr(module, "p", None)
    own = "dropout" in type(module).__name__.lower() and isinstance(rate, float) and rate > 0
    inside = getattr(module, "dropout", None)  # as attention and recurrent layers have it
    return own or (isinstance(inside, float) and inside > 0)


def _batch_statistics(module: nn.Module) -> bool:
    return "batchnorm" in type(module).__name__.lower()


def loss(objective: Objective) -> Finding:
    """The loss and its gradient, and the parameters that it does not depend on."""
    value, gradient = objective.value_and_gradient()
    norm = float(gradient.double().norm())
    values = {"loss": value, "gradient_norm": norm}
    text = f"{short(value, 5)}, its gradient {short(norm)}"
    if not math.isfinite(value) or not math.isfinite(norm):
        return Finding("loss", f"{text}: nothing can be measured there", "FAIL", values)
    still = [name for name, piece in objective.unflatten(gradient).items() if not bool(piece.any())]
    if still:
        text += f"; exactly zero in {first_few(still)}: not used, or behind what is dead or zero"
    return Finding("loss", text, "note" if still else "ok", values | {"zero_gradient": still})


def _counts(items: Iterable[str]) -> dict[str, int]:
    return dict(Counter(items).most_common())
