"""Which models can be measured at all: those whose parameters are real and here, whole or cut by `fully_shard`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy


def refuse_absent(model: nn.Module) -> None:
    """Raises `ValueError`, one line, for a model with a parameter or buffer that is not here with its numbers.

    These are models cut in another way than by `fully_shard`, weights on the meta device and lazy layers before their
    first batch.
    """
    for name, module in model.named_modules():
        _refuse_wrapper(name, module)
    for kind, named in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, t in named:
            _refuse_tensor(kind, name, t)
    if is_sharded(model):
        _refuse_layout(model)
        return
    for name, p in model.named_parameters():
        if _is_distributed(p):
            raise ValueError(
                f"the parameter {name!r} is a DTensor that fully_shard does not manage (tensor parallel): torch has no "
                "second derivatives of its collectives; give the model with whole tensors (full_tensor()), or under "
                "fully_shard"
            )


def refuse_synchronised(model: nn.Module, mode: str) -> None:
    """Raises `ValueError` where a SyncBatchNorm in train mode makes outputs hang on all ranks' batches."""
    for name, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm) and (mode == "train" or (mode == "as-is" and module.training)):
            raise ValueError(
                f"the module {name!r} is a SyncBatchNorm in train mode, which takes all ranks' batches together: "
                'f is no mean over batches then; measure with mode="eval", or a plain BatchNorm in its place'
            )


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` has cut the model, or parts of it."""
    return any(_is_a("FSDPModule", m) for m in model.modules())


def _is_a(name: str, module: nn.Module) -> bool:
    return any(base.__name__ == name for base in type(module).__mro__)


def _refuse_wrapper(name: str, module: nn.Module) -> None:
    place = f" {name!r}" if name else ""
    if _is_a("FullyShardedDataParallel", module):
        raise ValueError(
            f"the model{place} is sharded by FSDP1 (FullyShardedDataParallel), whose flat parameters have no second "
            "derivatives: use fully_shard (FSDP2) instead"
        )
    if type(module).__module__.startswith("torch.distributed.pipelining"):
        raise ValueError(
            f"the model{place} is a stage of a pipeline, and f needs all of them: measure the model without pipelining"
            ", sharded by fully_shard where it is too large"
        )


def _refuse_tensor(kind: str, name: str, t: Tensor) -> None:
    if is_lazy(t):
        raise ValueError(
            f"the {kind} {name!r} is not initialised yet (a lazy layer): run the model on one batch before measuring"
        )
    if t.device.type == "meta":
        raise ValueError(
            f"the {kind} {name!r} is on the meta device and has no numbers: load the model's weights to a real device "
            "before measuring (from_pretrained without offloading, or to_empty() and load_state_dict)"
        )
    if kind == "buffer" and _is_distributed(t):
        raise ValueError(f"the buffer {name!r} is a DTensor: buffers have to be whole tensors on every rank")


def _is_distributed(t: Any) -> bool:
    """A DTensor, or what passes for one."""
    return hasattr(t, "placements") and hasattr(t, "to_local")


def _refuse_layout(model: nn.Module) -> None:
    """Of a model that `fully_shard` has cut, all parameters are to be cut by it, over one mesh."""
    from landscape.objective.sharded.model import reshard

    reshard(model)
    meshes: list[Any] = []
    for name, p in model.named_parameters():
        _refuse_cut(name, p)
        meshes = meshes or [p.device_mesh]  # type: ignore[attr-defined]
        if p.device_mesh != meshes[0]:  # type: ignore[attr-defined]
            raise ValueError(f"the parameter {name!r} lies on another mesh of ranks than the first one: use one mesh")
    odd = next((name for name, m in model.named_modules() if isinstance(m, nn.RNNBase)), None)
    if odd is not None:
        raise ValueError(
            f"the module {odd!r} is recurrent: torch keeps references to its parameters, which fully_shard has cut; "
            "leave such a model whole, under DistributedDataParallel"
        )


def _refuse_cut(name: str, p: Any) -> None:
    if not _is_distributed(p):
        raise ValueError(
            f"the parameter {name!r} is a plain tensor in a model whose other parts are sharded: call fully_shard on "
            "the whole model as well (fully_shard(model))"
        )
    kinds = [type(placement).__name__ for placement in p.placements]
    if kinds not in (["Shard"], ["Replicate", "Shard"]):
        cut = ", ".join(map(str, p.placements))
        raise ValueError(
            f"the parameter {name!r} is laid out as ({cut}), as tensor parallelism does beside fully_shard: only what "
            "fully_shard cuts by itself, over one dimension of ranks or a hybrid mesh, has derivatives here"
        )
    local = p._local_tensor
    if type(local).__name__ not in ("Tensor", "Parameter"):
        raise ValueError(
            f"the shares of the parameter {name!r} are {type(local).__name__}s, which have no second derivatives: "
            "measure the model before it is quantised"
        )
    if local.device.type != p.device_mesh.device_type:
        raise ValueError(
            f"the parameter {name!r} is offloaded to the {local.device.type.upper()}: measure without CPU offloading "
            "(fully_shard without offload_policy)"
        )
