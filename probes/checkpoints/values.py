"""The tensors of a state dict held against the model's: shapes, types, ties, finite numbers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.checkpoints.faults import sharded
from probes.errors import UserError
from probes.instruments.packing import memory_of


def check_values(state: Mapping[str, Any], target: Mapping[str, Any], model: nn.Module, path: str | Path) -> None:
    """Raise `UserError` for the first value that cannot be loaded in place of the model's own, by name."""
    wrong = []
    first: dict[tuple[Any, ...], str] = {}
    for name, own in target.items():
        value = state[name]
        if not isinstance(own, Tensor) or not isinstance(value, Tensor):
            if isinstance(own, Tensor) != isinstance(value, Tensor):
                raise UserError(f"{name} in {path} is a {type(value).__name__}, in the model a {type(own).__name__}")
            continue
        _check_kind(name, value, own, type(model).__name__, path)
        if value.shape != own.shape:
            wrong.append(f"{name} has shape {tuple(value.shape)} in the file and {tuple(own.shape)} in the model")
        memory = memory_of(own)
        twin = first.setdefault(memory, name) if memory is not None else name
        if twin != name and not wrong and not torch.equal(value, state[twin]):
            raise UserError(
                f"{twin} and {name} are one tied parameter in {type(model).__name__} but differ in {path}: "
                f"untie them in the problem function, or is it a checkpoint of another model?"
            )
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"the shapes of {path} do not match {type(model).__name__}: {wrong[0]}{more}")


def _check_kind(name: str, value: Tensor, own: Tensor, model: str, path: str | Path) -> None:
    if own.is_meta:
        raise UserError(
            f"{name} of {model} is on the meta device and has no memory to load into: build the model on the CPU in "
            "the problem function, or give it memory, model.to_empty(device='cpu')"
        )
    if value.is_meta:
        raise UserError(
            f"{name} in {path} is on the meta device: its values were never saved (offloaded, or not yet loaded): "
            "save the model when all of it is in memory"
        )
    if type(value).__name__ in ("DTensor", "ShardedTensor"):
        raise sharded(path)
    if own.is_floating_point() and not (value.is_floating_point() or value.is_complex()):
        raise UserError(
            f"{name} in {path} is {value.dtype}, in the model {own.dtype}: quantised weights have no second "
            "derivatives; give the checkpoint before quantisation, or save the model dequantised"
        )
    if value.is_complex() and not own.is_complex():
        raise UserError(f"{name} in {path} is complex, in the model it is {own.dtype}")


def sharded_as(state: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """The state with this rank's shards of the tensors that the model holds as shards; as it is where there are none.

    Every rank has the whole of `state`, so that nothing is sent.
    """
    shards = {name: own for name, own in model.state_dict().items() if hasattr(own, "device_mesh")}
    if not shards:
        return state
    from torch.distributed.tensor import distribute_tensor

    cut = copy.copy(state)
    for name, own in shards.items():
        whole = state[name].to(own.dtype)
        cut[name] = distribute_tensor(whole, own.device_mesh, own.placements, src_data_rank=None)  # type: ignore[index]
    return cut


def check_finite(state: Mapping[str, Any], model: nn.Module, path: str | Path) -> None:
    """Raise `UserError` for a parameter that is not finite, or a buffer that is nan."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, value in state.items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            continue
        value = value.float() if value.element_size() == 1 else value  # float8 has no isfinite
        # a buffer may hold an attention mask of -inf, a parameter may not
        bad = ~torch.isfinite(value) if name in parameters else torch.isnan(value)
        count = int(bad.sum())
        if count:
            raise UserError(
                f"{name} in {path} is not finite in {count} of {value.numel()} entries (NaN or inf): "
                f"training had diverged there; leave this checkpoint out"
            )
