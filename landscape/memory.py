"""How many bytes a measurement may use: the budget given, or half of what the device, the host or the disk has free."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import torch

Memory = int | Literal["auto"]

_FALLBACK = 2 << 30  # where the system does not tell
_ON_DISK = "/var/tmp"


def budget(memory: Memory, device: torch.device, held: int = 0) -> int:
    """The bytes that a measurement may use on `device`: those given, or for "auto" half of what is free.

    held: bytes that the caller keeps there already; they count as free to it.
    """
    return available_memory(device) + held if memory == "auto" else int(memory)


def available_memory(device: torch.device) -> int:
    """Half of the bytes that are free on `device` now (a product in flight needs about as much as it keeps)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + cached) // 2
    return host_budget()


def host_budget() -> int:
    """Half of the bytes that the host's memory has free now."""
    return _host_available() // 2


def available_disk() -> int:
    """Half of the bytes that are free for temporary files; 0 where none can be made."""
    try:
        return shutil.disk_usage(scratch_folder()).free // 2
    except OSError:
        return 0


def scratch_folder() -> str:
    """Where temporary files go that are too large for memory: `TMPDIR`, else the system's folder.

    Many systems keep that one in memory, then it is /var/tmp. Raises `FileNotFoundError` where no folder can be
    written.
    """
    folder = tempfile.gettempdir()
    chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return _ON_DISK if not chosen and _in_memory(folder) and os.access(_ON_DISK, os.W_OK) else folder


def in_words(size: int) -> str:
    """A number of bytes for people: 1.2 GiB, 3.4 MiB, 12 KiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{-(-size // 1024)} KiB"


def _in_memory(folder: str) -> bool:
    """Whether the folder lies on a file system that is kept in memory, as far as the system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    inside = [(place, kind) for _, place, kind, *_ in mounts if Path(folder).is_relative_to(place)]
    return max(inside, key=lambda mount: len(mount[0]), default=("", ""))[1] in ("tmpfs", "ramfs")


def _host_available() -> int:
    candidates = [value for value in (_proc_meminfo(), _cgroup_available()) if value is not None]
    if candidates:
        return max(0, min(candidates))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _FALLBACK


def _proc_meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_available() -> int | None:
    """In a container the limit of the group is lower than what the host has free."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
        return None if limit == "max" else int(limit) - int(used)
    except (OSError, ValueError):
        return None
