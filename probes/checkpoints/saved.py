"""The state dict inside whatever a training loop saved, and the step that it says it was saved at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from probes.checkpoints.faults import SAVE
from probes.checkpoints.files import locate
from probes.checkpoints.read import read_content
from probes.errors import UserError, first_few

Say = Callable[[str], None]

# What training loops put around a state dict, in the order of preference.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
# What they count, the finest first.
_COUNTERS = ("global_step", "step", "iteration", "iter", "n_iter", "epoch")


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        state: the state dict, under the keys of the file.
        counters: what it says of its place in the run, `{"step": 500, "epoch": 3}`.
        notes: what was decided in finding the weights, for the person who gave the file.
    """

    state: dict[str, Any]
    counters: dict[str, int]
    notes: tuple[str, ...] = ()


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """The state dict in a file or folder, unwrapped, on the CPU; see `read_saved`."""
    return read_saved(path).state


def read_saved(path: str | Path) -> Saved:
    """What a checkpoint holds, its weights found and unwrapped, on the CPU.

    Raises `UserError` for a missing, truncated or corrupt file, a folder that is no checkpoint, and a file that holds
    no weights or more than weights.
    """
    path = Path(path)
    place = locate(path)
    content = read_content(place)
    counters = _counters_beside(place.path) | _counters(content)
    notes: list[str] = []
    while isinstance(content, Mapping) and not is_state(content):
        sets = [key for key, value in content.items() if _holds_weights(key, value)]
        key = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None and len(sets) > 1:  # which of them is the model's will be seen by the keys
            content = _flat({name: content[name] for name in sets})
            break
        if key is None and not sets:
            break
        others = [other for other in sets if other != key and _alike(content[other], content[key or other])]
        if key is None:
            (key,) = sets
            notes.append(f"the weights are those under {key!r}")
        elif others:
            notes.append(f"the weights are those under {key!r}; {first_few(map(repr, others))} left out")
        content = content[key]
        counters = _counters(content) | counters
    return Saved(_checked(content, path), counters, tuple(notes))


def is_state(content: Mapping[Any, Any]) -> bool:
    """Whether it is a state dict: tensors by name. Modules may keep an extra state of any type beside them."""
    return bool(content) and all(
        isinstance(key, str) and (isinstance(value, Tensor) or key.endswith("_extra_state"))
        for key, value in content.items()
    )


def _alike(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    """Whether both have some keys in common: an average of the weights, not what a callback keeps."""
    return bool(one.keys() & other.keys())


def _holds_weights(name: Any, value: Any) -> bool:
    """Whether a part of a checkpoint is a state dict, or has one in it at some level; optimizers do not count."""
    if not isinstance(value, Mapping) or "param_groups" in value or str(name).startswith("optim"):
        return False
    return is_state(value) or any(_holds_weights(key, inner) for key, inner in value.items())


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """The tensors of nested parts by their names joined with dots."""
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
    return found


def _checked(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict: {SAVE}")
    if {"state", "param_groups"} <= content.keys():
        raise UserError(f"{path} holds an optimizer's state and no weights: give the model's checkpoint")
    # a state dict with a step or arguments put into it
    state = {key: value for key, value in content.items() if is_state({key: value})}
    if state and not any(_holds_weights(key, value) for key, value in content.items()):
        return state
    names = [str(key) for key in content]
    raise UserError(
        f"{path} holds no weights that can be found: its keys are {first_few(names, 5) or 'none'}; expected a state "
        f"dict of tensors, or one under {', '.join(_WRAPPERS[:4])}"
    )


def _counters(content: Any) -> dict[str, int]:
    """The counters at one level of a file: whole numbers, also as tensors of one element."""
    found = {}
    for name in _COUNTERS:
        value = content.get(name) if isinstance(content, Mapping) else None
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta:
            value = value.item()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value == value // 1 < 1 << 63:
            found[name] = int(value)
    return found


def _counters_beside(path: Path) -> dict[str, int]:
    """What the trainer of transformers writes beside the weights."""
    folder = path if path.is_dir() else path.parent
    try:
        return _counters(json.loads((folder / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return {}
