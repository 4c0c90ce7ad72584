"""Folders of `torch.distributed.checkpoint`, read by one process without a group, whatever number of ranks wrote them.

What the library unpickles by itself, the `.metadata` and objects beside the tensors, is read here with the few classes
that a checkpoint is made of: a folder cannot run code.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
import pickle
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.state_dict_loader import load

from probes.checkpoints.faults import truncation
from probes.errors import UserError, one_line

_HOMES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_PLAIN = {("pathlib", "PosixPath"), ("pathlib", "WindowsPath"), ("pathlib", "PurePosixPath"), ("torch", "Size")}
_PLAIN |= {("collections", "OrderedDict"), ("torch.serialization", "_get_layout")}


def read_distributed(path: Path) -> dict[str, Any]:
    """The content of the folder, nested as it was saved; what belongs to optimizers is left out.

    Raises `UserError` when a part of it is missing or damaged, and when its metadata is made of anything else.
    """
    metadata = _read_metadata(path / ".metadata")
    places: Mapping[str, tuple[Any, ...]] = metadata.planner_data or {}
    wanted = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype) if isinstance(entry, TensorStorageMetadata) else None
        for key, entry in metadata.state_dict_metadata.items()
        if not str(places.get(key, (key,))[0]).startswith("optim")
    }
    planner = _Planner()
    logger = logging.getLogger("torch.distributed.checkpoint")
    level = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no process group
            load(wanted, storage_reader=_Reader(path, metadata), planner=planner, no_dist=True)
    except CheckpointException as error:  # no Exception: it carries those of all ranks
        raise truncation(path, next(iter(error.failures.values()))[0]) from error
    except Exception as error:
        raise truncation(path, error) from error
    finally:
        logger.setLevel(level)
    content: dict[str, Any] = {}
    for key, value in {**wanted, **planner.objects}.items():
        if value is not None:
            _put(content, places.get(key, (key,)), value)
    return content


def _put(content: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    *outer, last = map(str, place)
    for name in outer:
        content = content.setdefault(name, {})
    content[last] = value


class _Reader(FileSystemReader):
    """Reads the tensors of a metadata that was read before."""

    def __init__(self, path: Path, metadata: Metadata) -> None:
        super().__init__(path)
        self._metadata = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._metadata


class _Planner(DefaultLoadPlanner):
    """Objects beside the tensors (a step, an epoch) are taken where they are plain, and left out otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Any] = {}

    def load_bytes(self, read_item: ReadItem, value: Any) -> None:
        with suppress(pickle.UnpicklingError):
            self.objects[read_item.dest_index.fqn] = torch.load(value, weights_only=True)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name) if module in _HOMES or (module, name) in _PLAIN else None
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype | torch.layout):
            return getattr(torch, name)
        is_record = dataclasses.is_dataclass(found) or (isinstance(found, type) and issubclass(found, enum.Enum))
        if found is None or (module in _HOMES and not is_record):
            raise pickle.UnpicklingError(f"it holds {module}.{name}")
        return found


def _read_metadata(path: Path) -> Metadata:
    try:
        with path.open("rb") as file:
            metadata = _unpickled(file)
    except Exception as error:  # a damaged pickle raises anything
        raise UserError(f"{path} is no metadata of a distributed checkpoint: {one_line(error, limit=120)}") from error
    if not isinstance(metadata, Metadata):
        raise UserError(f"{path} is no metadata of a distributed checkpoint: it holds a {type(metadata).__name__}")
    return metadata


def _unpickled(file: BinaryIO) -> Any:
    return _Unpickler(file).load()
