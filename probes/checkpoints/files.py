"""Where the weights of a checkpoint lie: in a file, in shards with an index, or in a folder of a known form.

step100.pt, .pth, .ckpt, .bin, .safetensors        a file; told by its first bytes, not by its name
model.safetensors.index.json                       the shards that it names
a folder with config.json                          what `from_pretrained` reads: one of the names in `_PRETRAINED`
a folder with .metadata                            torch.distributed.checkpoint
run.h5@300                                         a trace: its snapshot of that step
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from probes.checkpoints.snapshots import address_of, step_of
from probes.errors import UserError, first_few, one_line

# In the order in which transformers and diffusers look for them.
_PRETRAINED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)
_SUFFIXES = {".pt", ".pth", ".ckpt", ".safetensors", ".bin"}
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.(?:safetensors|bin)$")
_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Place:
    """What to read: weights in a file, an index with its shards, `torch.distributed.checkpoint`'s folder, a snapshot.

    Attributes:
        kind: how it is read.
        path: the file or folder itself.
        shards: of an index, file -> the keys that it holds.
    """

    kind: Literal["torch", "safetensors", "index", "distributed", "snapshot"]
    path: Path
    shards: dict[Path, list[str]] | None = None


def locate(path: str | Path) -> Place:
    """Where the weights of the checkpoint are.

    Raises `UserError` for what is missing, empty or unreadable, for one shard of several, for a folder that is no
    checkpoint (it names what lies in it), for an adapter without its model, and for a trace without the snapshot.
    """
    path = Path(path)
    if (address := address_of(path)) is not None:
        step_of(address)
        return Place("snapshot", path)
    if path.is_dir():
        return _in_folder(path)
    start = _first_bytes(path)
    if start.lstrip()[:1] == b"{" and start[8:9] != b"{":
        return _index(path)
    shard = _SHARD.search(path.name)
    if shard:
        raise UserError(f"{path} is one of {int(shard[1])} shards: give the folder, or the index that names them")
    if start[8:] == b"{" and start[:2] != b"PK":
        return Place("safetensors", path)
    if start[:1] != b"\x80" and start[:2] != b"PK":
        raise UserError(f"{path} is no checkpoint: it starts like neither a torch file nor a safetensors file")
    return Place("torch", path)


def is_pretrained(path: Path) -> bool:
    """Whether it is a folder that `from_pretrained` reads: it has a config.json."""
    return (path / "config.json").is_file()


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        hint = " (does the pattern match nothing?)" if any(sign in str(path) for sign in "*?[") else ""
        raise UserError(f"there is no checkpoint {path}{hint}") from None
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error.strerror}") from error
    if not start:
        raise UserError(f"the checkpoint {path} is empty: it was not written to the end")
    return start


def _in_folder(path: Path) -> Place:
    if (path / ".metadata").is_file():
        return Place("distributed", path)
    for name in _PRETRAINED:
        if (path / name).is_file():
            return locate(path / name)
    for name in _ADAPTER:
        if (path / name).is_file():
            raise UserError(
                f"{path} holds an adapter ({name}) without its model: merge it, "
                "model.merge_and_unload().save_pretrained(folder), and give that folder"
            )
    indices = sorted(path.glob("*.index.json"))
    if len(indices) == 1:
        return _index(indices[0])
    raise UserError(f"{path} is a folder: {_what_else(path)}")


def _what_else(path: Path) -> str:
    """What a person who gave this folder may have meant."""
    if any(path.glob("*.distcp")):
        return "its .metadata is missing: the checkpoint was not written to the end"
    shards = [p for p in sorted(path.iterdir()) if _SHARD.search(p.name)]
    if shards:
        return f"it holds shards ({shards[0].name}) and no index that names them: copy the .index.json too"
    inside = sorted(p for p in path.iterdir() if p.is_dir() and _is_checkpoint(p))
    if inside:
        return f"name the checkpoints in it, such as {inside[0]}"
    files = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and p.name != "training_args.bin")
    if files:
        return f"name the files in it, such as {files[0]}"
    if is_pretrained(path):
        return f"it has a config.json and no weights, none of {first_few(_PRETRAINED, 4)}: was all of it copied?"
    return "name a checkpoint file"


def _is_checkpoint(folder: Path) -> bool:
    return (folder / ".metadata").is_file() or any((folder / name).is_file() for name in _PRETRAINED)


def _index(path: Path) -> Place:
    try:
        content = json.loads(path.read_text())
        names = content.get("weight_map") if isinstance(content, dict) else None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no index of shards: {one_line(error, limit=120)}") from error
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path} is no index of shards: it has no weight_map of keys and files")
    shards: dict[Path, list[str]] = {}
    for key, name in names.items():
        shards.setdefault(path.parent / name, []).append(key)
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise UserError(f"{path} names shards that are not there: {first_few(missing)}: copy them too")
    return Place("index", path, shards)


def same_twice(paths: Sequence[Path]) -> tuple[Path, Path] | None:
    """Two of the paths that are one file or folder, links resolved; None when there are none."""
    seen: dict[Path, Path] = {}
    for path in paths:
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            return other, path
    return None
