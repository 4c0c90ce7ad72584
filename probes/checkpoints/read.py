"""The content of a checkpoint, as it was saved: on the CPU, memory-mapped where the format allows it.

Nothing that a file holds is ever run: torch files are read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from probes.checkpoints.faults import SAVE, sharded, truncation
from probes.checkpoints.files import Place
from probes.checkpoints.snapshots import read_snapshot
from probes.errors import UserError, first_few


def read_content(place: Place) -> Any:
    """What was saved: a state dict, or whatever a training loop put around it.

    Raises `UserError` for a truncated or corrupt file, and for one that holds more than weights.
    """
    if place.kind == "distributed":
        from probes.checkpoints.distributed import read_distributed  # heavy, and rarely needed

        return read_distributed(place.path)
    if place.kind == "snapshot":
        return read_snapshot(place.path)
    if place.kind == "safetensors":
        return _read_safetensors(place.path)
    return _read_torch(place.path) if place.kind == "torch" else _read_shards(place)


def _read_shards(place: Place) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for path, keys in (place.shards or {}).items():
        held = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
        absent = [key for key in keys if key not in held]
        if absent:
            raise UserError(f"{path} does not hold {first_few(absent)}, which {place.path.name} says it does")
        state |= {key: held[key] for key in keys}
    return state


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise truncation(path, error) from error


def _read_torch(path: Path) -> Any:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    # a torch file is a zip archive whose first entry lies in a folder; the central directory is at its end
    if zipped and not zipfile.is_zipfile(path):
        raise truncation(path, "the end of the archive is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "DTensor" in str(error) or "ShardedTensor" in str(error):
            raise sharded(path) from error
        what = re.search(r"(?:GLOBAL|class) ([\w.]+\.\w+)", str(error))
        name = f" ({what[1]})" if what else ""
        raise UserError(f"{path} holds more than weights{name}: loading it may run code; {SAVE}") from error
    except (RuntimeError, EOFError, KeyError, IndexError, ValueError, AttributeError, TypeError, OSError) as error:
        if "TorchScript" in str(error):
            raise UserError(f"{path} is a TorchScript program, not a state dict: {SAVE}") from error
        if "not in a subdirectory" in str(error):
            raise UserError(f"{path} is a zip archive but no torch file: {SAVE}") from error
        raise truncation(path, error) from error
