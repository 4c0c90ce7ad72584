"""What a command says and how it ends, run in this process, where torch is imported once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    status: int
    out: str
    err: str


Landscape = Callable[..., Result]
