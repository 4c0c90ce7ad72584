"""Which models can be measured at all: those whose parameters are whole, real and here."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def refuse_absent(model: nn.Module) -> None:
    """Raises `ValueError`, one line, for a model with a parameter or buffer that is not here with its numbers.

    These are models under DistributedDataParallel in a group of several ranks, sharded ones (FSDP, tensor parallel),
    weights on the meta device and lazy layers before their first batch.
    """
    for name, module in model.named_modules():
        _refuse_wrapper(name, module)
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, t in named:
            _refuse_tensor(kind, name, t)


def _refuse_wrapper(name: str, module: nn.Module) -> None:
    place = f" {name!r}" if name else ""
    if any(base.__name__ in ("FSDPModule", "FullyShardedDataParallel") for base in type(module).__mro__):
        raise ValueError(
            f"the model{place} is sharded over ranks (FSDP): this rank holds a part of its parameters only. Load the "
            "full state_dict into a model that is not sharded and measure that, on one rank"
        )


def _refuse_tensor(kind: str, name: str, t: Tensor) -> None:
    if is_lazy(t):
        raise ValueError(
            f"the {kind} {name!r} is not initialised yet (a lazy layer): run the model on one batch before measuring"
        )
    if hasattr(t, "placements") and hasattr(t, "to_local"):  # a DTensor, or what passes for one
        raise ValueError(
            f"the {kind} {name!r} is a DTensor (sharded or tensor parallel): give the model with the whole tensor "
            "(its full_tensor()), on one rank"
        )
    if t.device.type == "meta":
        raise ValueError(
            f"the {kind} {name!r} is on the meta device and has no numbers: load the model's weights to a real device "
            "before measuring (from_pretrained without offloading, or to_empty() and load_state_dict)"
        )
