"""The state of a run on the disk, so that whoever does it next goes on from there and not from the beginning."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.files import atomic_file

State = Mapping[str, Any]
SECONDS = 30.0  # from one checkpoint to the next, at least
SHARE = 0.05  # of the time that saving may take


class Checkpoint:
    """A file that holds the last state of one run: tensors, numbers, texts, and containers of these.

    Args:
        path: of the file; None: nothing is kept.
        key: of the job; a state that another job has left is none.
        seconds: from one state to the next, at least; more where saving takes long. 0: one after each step.
    """

    def __init__(self, path: Path | None = None, key: str = "", seconds: float = SECONDS) -> None:
        self.path, self.key, self.seconds = path, key, seconds
        self._start = time.monotonic()
        self._next = self._start + seconds
        self._before = 0.0

    def due(self) -> bool:
        """Whether it is time for the next state."""
        return self.path is not None and time.monotonic() >= self._next

    def save(self, state: State) -> None:
        """Keep this state in the place of the last one; the file appears only when it is whole and on the disk.

        A state that cannot be pickled is given up, and with it checkpoints of this run: it is done from the start.
        """
        import torch

        if self.path is None:
            return
        start = time.monotonic()
        try:
            with atomic_file(self.path) as partial:
                torch.save({"key": self.key, "spent": self.spent(), "state": dict(state)}, partial)
        except (TypeError, AttributeError, pickle.PicklingError):
            self.path = None
            return
        now = time.monotonic()
        self._next = now + (max(self.seconds, (now - start) / SHARE) if self.seconds else 0.0)

    def load(self) -> dict[str, Any] | None:
        """The last state, on the CPU; None without one, or when it is another job's or damaged."""
        import torch

        if self.path is None or not self.path.exists():
            return None
        try:
            kept = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
            return None
        if not isinstance(kept, dict) or kept.get("key") != self.key:
            return None
        self._before = float(kept["spent"])
        return dict(kept["state"])

    def spent(self) -> float:
        """Seconds of this run until now, with those of the tries that it goes on from."""
        return self._before + time.monotonic() - self._start

    def remove(self) -> None:
        """Forget the state."""
        self._before = 0.0
        if self.path is not None:
            self.path.unlink(missing_ok=True)
