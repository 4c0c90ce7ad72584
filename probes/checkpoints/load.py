"""Checkpoints: from a file somebody saved to the parameters of a model, or one line that says why not.

Read: torch files (never anything but weights: `weights_only=True`), safetensors, Lightning `.ckpt`. All is
checked (keys, shapes, finite numbers) before the first parameter changes: a model is never half loaded.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.errors import UserError, first_few, one_line

# What training frameworks wrap a state dict in, outermost first.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What they put before every key: DataParallel and DDP, torch.compile, Lightning's attribute.
_PREFIXES = ("module.", "_orig_mod.", "model.")
# Wrappers that also sit inside a name, when only a part of the model was compiled, sharded or checkpointed.
_INNER = re.compile(r"^(?:module\.)+|(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_SAVE = "save torch.save(model.state_dict(), path) where it was made"


def load_checkpoint(path: str | Path, model: nn.Module) -> None:
    """Load the weights in a file into a model, in place and all or nothing.

    Raises `UserError`, with the model untouched, when the file cannot be read, holds no weights, does not fit
    the model (keys, shapes) or holds parameters that are not finite.
    """
    try:
        model.load_state_dict(match_checkpoint(path, model), strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be loaded into {type(model).__name__}: {one_line(error)}") from error


def match_checkpoint(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Read a file and fit it to a model: the state dict to load, under the model's own keys, checked."""
    matched = match(read_state_dict(path), model, path)
    _check_finite(matched, model, path)
    return matched


# -- reading ------------------------------------------------------------------------------------------------


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """The state dict in a file, unwrapped, on the CPU; memory-mapped where the format allows it.

    Raises `UserError` for a missing, truncated or corrupt file, a folder, and a file that holds no weights or
    more than weights.
    """
    path = Path(path)
    start = check_file(path)
    if path.suffix == ".safetensors" or (len(start) == 9 and start[8:] == b"{" and start[:2] != b"PK"):
        return _read_safetensors(path)
    if start[:1] != b"\x80" and start[:2] != b"PK":
        raise UserError(f"{path} is no checkpoint: it starts like neither a torch file nor a safetensors file")
    return _unwrap(_read_torch(path, zipped=start[:2] == b"PK"), path)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise _truncation(path, error) from error


def _read_torch(path: Path, zipped: bool) -> Any:
    # a torch file is a zip archive whose first entry lies in a folder; the central directory is at its end
    if zipped and not zipfile.is_zipfile(path):
        raise _truncation(path, "the end of the archive is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        what = re.search(r"(?:GLOBAL|class) ([\w.]+\.\w+)", str(error))
        name = f" ({what[1]})" if what else ""
        raise UserError(f"{path} holds more than weights{name}: loading it may run code; {_SAVE}") from error
    except (RuntimeError, EOFError, KeyError, IndexError, ValueError, AttributeError, TypeError, OSError) as error:
        if "TorchScript" in str(error):
            raise UserError(f"{path} is a TorchScript program, not a state dict: {_SAVE}") from error
        if "not in a subdirectory" in str(error):
            raise UserError(f"{path} is a zip archive but no torch file: {_SAVE}") from error
        raise _truncation(path, error) from error


def _truncation(path: Path, error: BaseException | str) -> UserError:
    return UserError(f"the checkpoint {path} is truncated or corrupt ({one_line(error, limit=120)}): copy it again")


def _unwrap(content: Any, path: Path) -> dict[str, Any]:
    """The state dict inside whatever a training loop saved."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict: {_SAVE}")
    state = {str(key): value for key, value in content.items()}
    if {"state", "param_groups"} <= state.keys():
        raise UserError(f"{path} holds an optimizer's state and no weights: give the model's checkpoint")
    # modules may keep an extra state of any type beside their tensors
    if state and all(isinstance(value, Tensor) or key.endswith("_extra_state") for key, value in state.items()):
        return state
    raise UserError(
        f"{path} holds no weights that can be found: its keys are {first_few(state, 5) or 'none'}; expected "
        f"a state dict of tensors, or one under {', '.join(_WRAPPERS)}"
    )


# -- fitting to a model -------------------------------------------------------------------------------------


def match(state: Mapping[str, Any], model: nn.Module, path: str | Path = "the state dict") -> dict[str, Any]:
    """The state dict under the model's own keys, prefixes stripped and tied parameters filled in.

    Raises `UserError` naming the first keys that are missing or unexpected, or the first shape that differs.
    """
    target = dict(model.state_dict())
    candidates = [renamed | _tied_entries(renamed, target) for renamed in _renamings(state, target)]
    best = min(candidates, key=lambda renamed: len(renamed.keys() ^ target.keys()))
    if best.keys() != target.keys():
        names = {"missing": [n for n in target if n not in best], "unexpected": [n for n in best if n not in target]}
        parts = "; ".join(f"{what} {first_few(some)}" for what, some in names.items() if some)
        model_name = type(model).__name__
        raise UserError(f"the keys of {path} do not match {model_name}: {parts}: is it a checkpoint of another model?")
    _check_values(best, target, model, path)
    matched = OrderedDict((name, best[name]) for name in target)
    # the versions that torch attaches to a state dict: without them modules convert as for old files
    matched._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    return matched


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


def _tied_entries(state: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    """What the file lacks but shares its memory with something that is there (safetensors drops these)."""
    groups: dict[tuple[Any, ...], str] = {}
    for name in target:
        if name in state and (memory := _memory(target[name])) is not None:
            groups.setdefault(memory, name)
    absent = {name: _memory(target[name]) for name in target if name not in state}
    return {name: state[groups[memory]] for name, memory in absent.items() if memory in groups}


def _memory(value: Any) -> tuple[Any, ...] | None:
    """What two entries of a state dict share when they are one parameter."""
    if not isinstance(value, Tensor) or value.numel() == 0 or value.is_meta:
        return None
    return (value.device, value.data_ptr(), tuple(value.shape), tuple(value.stride()))


def _check_values(state: Mapping[str, Any], target: Mapping[str, Any], model: nn.Module, path: str | Path) -> None:
    wrong = []
    first: dict[tuple[Any, ...], str] = {}
    for name, own in target.items():
        value = state[name]
        if not isinstance(own, Tensor) or not isinstance(value, Tensor):
            if isinstance(own, Tensor) != isinstance(value, Tensor):
                raise UserError(f"{name} in {path} is a {type(value).__name__}, in the model a {type(own).__name__}")
            continue
        if value.shape != own.shape:
            wrong.append(f"{name} has shape {tuple(value.shape)} in the file and {tuple(own.shape)} in the model")
        elif value.is_complex() and not own.is_complex():
            raise UserError(f"{name} in {path} is complex, in the model it is {own.dtype}")
        memory = _memory(own)
        twin = first.setdefault(memory, name) if memory is not None else name
        if twin != name and not wrong and not torch.equal(value, state[twin]):
            raise UserError(
                f"{twin} and {name} are one tied parameter in {type(model).__name__} but differ in {path}: "
                f"untie them in the problem function, or is it a checkpoint of another model?"
            )
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(f"the shapes of {path} do not match {type(model).__name__}: {wrong[0]}{more}")


def _check_finite(state: Mapping[str, Any], model: nn.Module, path: str | Path) -> None:
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


def check_file(path: Path) -> bytes:
    """The first nine bytes of a checkpoint; `UserError` when it is missing, a folder, empty or unreadable."""
    if path.is_dir():
        files = sorted(p.name for p in path.iterdir() if p.suffix in {".pt", ".pth", ".ckpt", ".safetensors", ".bin"})
        hint = f"name the files in it, such as {path / files[0]}" if files else "name a checkpoint file"
        if any(path.glob("*.distcp")):
            hint = "convert it with python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
        raise UserError(f"{path} is a folder: {hint}")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    if not start:
        raise UserError(f"the checkpoint {path} is empty: it was not written to the end")
    return start
