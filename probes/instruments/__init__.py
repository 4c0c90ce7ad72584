"""Instruments: the probes, each one an algorithm of `landscape` and the fields that it keeps.

`PROBES` has them all by name; their classes are imported when they are first used. None imports torch by itself.
"""

from __future__ import annotations

from typing import Any

from probes.instruments.registry import PROBES

__all__ = ["PROBES"]


def __getattr__(name: str) -> Any:
    for entry in PROBES.values():
        if entry.class_name == name:
            return entry.load()
    raise AttributeError(f"module 'probes.instruments' has no attribute {name!r}")
