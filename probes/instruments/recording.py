"""Two passes of one training run: the first keeps its end point and what came by, the second must repeat it exactly.

recording = Recording(objective)
for step, batch in enumerate(loader):    # first pass
    recording(step, batch)
    ...
recording.finish()

monitor = Monitor(objective, [FunctionClass(recording)], trace)
for step, batch in enumerate(loader):    # second pass: same seed, same batches
    monitor(step, batch=batch)
    ...
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from landscape.objective.objective import Objective

_FORMAT = "landscape-recording"


class ReplayError(RuntimeError):
    """The second pass is not the first one over again, so its end point is another run's."""


class Recording:
    """The first pass: fingerprints of model and batch at each step, and the parameters at the end.

    Call it as `recording(step, batch)` where the second pass calls the monitor: before the optimizer's step, so that
    the batch meets the parameters that it is about to change. It reads and changes nothing else.

    Attributes:
        end: x_K, `(n,)` on the host, after `finish()`; None before.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import FunctionClass, Recording
        >>> model, batch = nn.Linear(2, 1), (eye(2), ones(2, 1))
        >>> recording = Recording(Objective(model, nn.MSELoss(), batch))
        >>> for step in range(3):
        ...     recording(step, batch)
        ...     model.bias.data += 1
        >>> recording.finish()
        >>> probe = FunctionClass(recording)  # for the monitor of the second pass
        >>> recording.end.shape
        torch.Size([3])
    """

    def __init__(self, objective: Objective) -> None:
        self._objective: Objective | None = objective
        self._prints: dict[int, tuple[int, int]] = {}
        self.end: torch.Tensor | None = None

    def __call__(self, step: int, batch: Any = None) -> None:
        """Note the state of this step. Raises `ValueError` for a step that was noted before, or after `finish()`."""
        if self.end is not None or self._objective is None:
            raise ValueError(f"step {step} comes after finish(): the end point is already taken")
        if int(step) in self._prints:
            raise ValueError(f"step {step} was recorded before: give each step its own number")
        self._prints[int(step)] = (_model_print(self._objective), _batch_print(batch))

    def finish(self) -> None:
        """Take the parameters as they stand for the end point x_K. Raises `ValueError` without a recorded step."""
        if not self._prints or self._objective is None:
            raise ValueError("nothing was recorded: call recording(step, batch) at every step of the first pass")
        self.end = self._objective.theta().cpu()

    def check(self, step: int, objective: Objective, batch: Any) -> None:
        """Raise `ReplayError`, naming the step, unless model and batch are those of the first pass, bit by bit."""
        if self.end is None:
            raise ReplayError("the first pass has no end point yet: call recording.finish() when it is over")
        if step not in self._prints:
            last = max(self._prints)
            raise ReplayError(f"step {step} is not in the first pass, which was recorded up to step {last}")
        model, data = self._prints[step]
        if model != _model_print(objective):
            raise ReplayError(
                f"step {step}: the model is not as it was in the first pass; use the same seed, data order and "
                "starting point, and torch.use_deterministic_algorithms(True) on a GPU"
            )
        if data != _batch_print(batch):
            raise ReplayError(f"step {step}: the batch is not that of the first pass; use the same order of the data")

    def check_end(self, objective: Objective) -> None:
        """Raise `ReplayError` unless the second pass has ended where the first did."""
        import torch

        if self.end is None or not torch.equal(objective.theta().cpu(), self.end):
            raise ReplayError("the second pass did not end at the first one's end point: it is another run's")

    def save(self, path: str | Path) -> None:
        """Write it as a torch file, for a second pass in another process. Raises `ValueError` before `finish()`."""
        import torch

        if self.end is None:
            raise ValueError("the first pass has no end point yet: call finish() before save()")
        torch.save({"format": _FORMAT, "prints": self._prints, "end": self.end}, path)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """A finished recording from a file. Raises `ValueError` for a file that is something else."""
        import torch

        state = torch.load(path, weights_only=True)
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise ValueError(f"{path} is not a recording")
        recording = cls.__new__(cls)
        recording._objective = None
        recording._prints = dict(state["prints"])
        recording.end = state["end"]
        return recording


def tensor_print(tensors: Any) -> int:
    """A checksum of the bytes of tensors, in order."""
    import torch

    code = 0
    for t in tensors:
        t = t.detach().cpu().contiguous()
        code = zlib.crc32(repr((t.dtype, tuple(t.shape))).encode(), code)
        code = zlib.crc32(t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b"", code)
    return code


def _model_print(objective: Objective) -> int:
    return tensor_print([*objective.module.parameters(), *objective.module.buffers()])


def _batch_print(batch: Any) -> int:
    from landscape.objective.batch import tensors_in

    return 0 if batch is None else tensor_print(tensors_in(batch))
