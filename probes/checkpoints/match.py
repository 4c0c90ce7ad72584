"""A state dict fitted to a model: under the model's own keys, prefixes stripped and tied parameters filled in.

Prefixes that frameworks are known for are stripped without a word. Where that is not enough, the whole model may lie
under one name that is not known, `net.` of a Lightning module: it is looked through, and that is said.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from probes.checkpoints.saved import Say
from probes.checkpoints.values import check_values
from probes.errors import UserError, first_few
from probes.instruments.packing import memory_of

# What frameworks put before every key: DataParallel and DDP, torch.compile, Lightning's attribute, Fabric.
_PREFIXES = ("module.", "_orig_mod.", "model.", "_forward_module.")
# Wrappers that also sit inside a name, when only a part of the model was compiled, sharded or checkpointed.
_INNER = re.compile(
    r"^(?:(?:module|_forward_module)\.)+|(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_ADAPTER = re.compile(r"\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)\b")
_QUANTISED = re.compile(
    r"\.(?:qweight|qzeros|g_idx|SCB|absmax|quant_map|quant_state\.\S+|_packed_params\S*|zero_point)$"
)


def match(
    state: Mapping[str, Any], model: nn.Module, path: str | Path = "the state dict", say: Say | None = None
) -> dict[str, Any]:
    """The state dict under the model's own keys; `say` hears of prefixes that were not known.

    Raises `UserError` naming the first keys that are missing or unexpected, the shapes that differ, and what cannot
    be loaded: adapters, quantised weights, tensors without memory.
    """
    target = dict(model.state_dict())
    # torch's AveragedModel counts beside the weights that it averages
    state = {key: value for key, value in state.items() if key != "n_averaged" or key in target}
    candidates = [renamed | _tied_entries(renamed, target) for renamed in _renamings(state, target)]
    best = min(candidates, key=lambda renamed: len(renamed.keys() ^ target.keys()))
    if best.keys() != target.keys():
        best = _looked_through(state, target, path, say) or _refuse(best, target, model, path)
    check_values(best, target, model, path)
    matched = OrderedDict((name, best[name]) for name in target)
    # the versions that torch attaches to a state dict: without them modules convert as for old files
    matched._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    return matched


def bare(name: str) -> str:
    """A name without those of wrappers (DDP, compiled, checkpointed parts) in it."""
    return _INNER.sub("", name)


def _renamings(state: Mapping[str, Any], target: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The state dict under the names it may have meant, the most literal first."""
    current = dict(state)
    yield dict(current)
    while True:
        prefix = next((p for p in _PREFIXES if current and all(key.startswith(p) for key in current)), None)
        if prefix is None:
            break
        current = {key.removeprefix(prefix): value for key, value in current.items()}
        yield dict(current)
    for prefix in _PREFIXES:  # where only some keys have it, stripping must make them match, or it is not used
        yield {key.removeprefix(prefix): value for key, value in current.items()}
    # a model that is compiled here but was not there, or the other way round, or in one of its parts
    own = {_INNER.sub("", name): name for name in target}
    plain = {_INNER.sub("", key): value for key, value in current.items()}
    if len(own) == len(target) and len(plain) == len(current):
        yield {own.get(key, key): value for key, value in plain.items()}


def _looked_through(
    state: Mapping[str, Any], target: Mapping[str, Any], path: str | Path, say: Say | None
) -> dict[str, Any] | None:
    """The model under one name that is not known, in the file or in the model; None when it is nowhere.

    Raises `UserError` when it is there twice.
    """
    plain = {_INNER.sub("", key): value for key, value in state.items()}
    own = {_INNER.sub("", name): name for name in target}
    if len(plain) < len(state) or len(own) < len(target):
        return None
    note = say or (lambda text: None)
    named = {}
    for prefix in _prefixes(plain, own):
        part = {own[name]: plain[prefix + name] for name in own if prefix + name in plain}
        part |= _tied_entries(part, target)
        if part.keys() == target.keys():
            named[prefix] = part
    # one that has the names and other shapes is the one that a line about shapes is for
    found = {prefix: part for prefix, part in named.items() if _same_shapes(part, target)} or named
    if len(found) > 1:
        raise UserError(
            f"{path} holds the model {len(found)} times, under {first_few(map(repr, found))}: save the one to measure"
        )
    for prefix, part in found.items():
        rest = [key for key in plain if not key.startswith(prefix)]
        left = f"; {first_few(rest)} left out" if rest else ""
        note(f"the weights are those under {prefix!r}, which is looked through{left}")
        return part
    for prefix in dict.fromkeys(name[: dot + 1] for name in own for dot in _dots(name)):
        if all(name.startswith(prefix) for name in own):
            part = {own[prefix + key]: value for key, value in plain.items() if prefix + key in own}
            part |= _tied_entries(part, target)
            if part.keys() == target.keys() and len(plain) <= len(part):
                note(f"the keys are loaded under {prefix!r}, which the model's keys have before them")
                return part
    return None


def _prefixes(state: Mapping[str, Any], own: Mapping[str, str]) -> list[str]:
    """What stands before one of the model's names in the file, where that is a name of its own."""
    return list(
        dict.fromkeys(key[: -len(name)] for name in own for key in state if key != name and key.endswith(f".{name}"))
    )


def _dots(name: str) -> list[int]:
    return [at for at, letter in enumerate(name) if letter == "."]


def _same_shapes(part: Mapping[str, Any], target: Mapping[str, Any]) -> bool:
    return all(getattr(part[name], "shape", None) == getattr(own, "shape", None) for name, own in target.items())


def _refuse(best: Mapping[str, Any], target: Mapping[str, Any], model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Raise the one line about keys that do not match, or about what kind of file it is."""
    name = type(model).__name__
    missing = [key for key in target if key not in best]
    unexpected = [key for key in best if key not in target]
    adapters, quantised = ([key for key in unexpected if kind.search(key)] for kind in (_ADAPTER, _QUANTISED))
    if adapters or (missing and all(map(_ADAPTER.search, best))):
        raise UserError(
            f"{path} holds a LoRA adapter ({first_few(adapters or best, 2)}) that {name} cannot take alone: merge it, "
            "model.merge_and_unload(), and save that, or save all of model.state_dict()"
        )
    if quantised:
        raise UserError(
            f"{path} holds quantised weights ({first_few(quantised, 2)}): they have no second derivatives; give the "
            "checkpoint before quantisation, or save the model dequantised"
        )
    shapes = [
        f"{key} {tuple(best[key].shape)} in the file and {tuple(own.shape)} in the model"
        for key, own in target.items()
        if isinstance(own, Tensor) and isinstance(best.get(key), Tensor) and best[key].shape != own.shape
    ]
    names = {
        "missing": [key for key in target if key not in best],
        "unexpected": unexpected,
        "of another shape": shapes,
    }
    parts = "; ".join(f"{what} {first_few(some)}" for what, some in names.items() if some)
    raise UserError(f"the keys of {path} do not match {name}: {parts}: is it a checkpoint of another model?")


def _tied_entries(state: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """What the file lacks but shares its memory with something that is there (safetensors drops these)."""
    groups: dict[tuple[Any, ...], str] = {}
    for name in target:
        if name in state and (memory := memory_of(target[name])) is not None:
            groups.setdefault(memory, name)
    absent = {name: memory_of(target[name]) for name in target if name not in state}
    return {name: state[groups[memory]] for name, memory in absent.items() if memory in groups}
