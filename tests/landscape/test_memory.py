"""What a measurement may use, of what the system says is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from landscape import memory

CPU = torch.device("cpu")
MEMINFO = "MemTotal:       9000 kB\nMemFree:         100 kB\nMemAvailable:   4000 kB\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the root of the file system."""
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / path.lstrip("/"))
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    return tmp_path


def limits(system: Path, most: str, used: str) -> None:
    (system / "sys/fs/cgroup/memory.max").write_text(most)
    (system / "sys/fs/cgroup/memory.current").write_text(used)


def test_half_of_what_is_free(system: Path) -> None:
    (system / "proc/meminfo").write_text(MEMINFO)
    assert memory.available_memory(CPU) == 4000 * 1024 // 2
    assert memory.budget("auto", CPU, held=7) == 4000 * 1024 // 2 + 7
    assert memory.budget(12, CPU, held=7) == 12


def test_a_container_may_leave_less(system: Path) -> None:
    (system / "proc/meminfo").write_text(MEMINFO)
    limits(system, "3000000\n", "1000000\n")
    assert memory.available_memory(CPU) == 1_000_000
    limits(system, "max\n", "1000000\n")
    assert memory.available_memory(CPU) == 4000 * 1024 // 2
    limits(system, "90000000\n", "1000000\n")  # more than the host has
    assert memory.available_memory(CPU) == 4000 * 1024 // 2
    limits(system, "1000\n", "2000\n")
    assert memory.available_memory(CPU) == 0


def test_where_the_system_does_not_tell(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.os, "sysconf", {"SC_AVPHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert memory.available_memory(CPU) == 10 * 4096 // 2
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.available_memory(CPU) == 1 << 30
