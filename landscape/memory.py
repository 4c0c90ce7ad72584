"""How many bytes a measurement may use: the budget given, or half of what the device has free."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

Memory = int | Literal["auto"]

_FALLBACK = 2 << 30  # where the system does not tell


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
    return _host_available() // 2


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
