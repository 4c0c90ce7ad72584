"""Probes under a Lightning trainer.

from probes import Spectrum
from probes.integrations.lightning import MonitorCallback

trainer = lightning.Trainer(callbacks=[MonitorCallback([Spectrum(k=3)], "run.h5", every=100)])
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from landscape import Objective
from probes.integrations.training import Training, ranks_of
from probes.integrations.unheard import unheard

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ImportError:  # the same under its older name
        from pytorch_lightning import Callback

_WHOLE = ("DDPStrategy", "SingleDeviceStrategy")  # each process has all of the model


class MonitorCallback(Callback):
    """Measures probes while `trainer.fit` runs, and closes the trace when it ends or fails.

    What is measured is the mean of the module's own `training_step` over a fixed choice of the training samples, in
    batches of the trainer's size, in training mode (dropout with one fixed mask a batch), without autocast; what the
    step logs meanwhile is dropped. Records stand at the trainer's `global_step`, the number of updates made; 0 is
    before the first one. `training` holds the loss of the training batch at the steps where something was measured.

    Args:
        probes: as for `Monitor`; those that need the batch or the optimizer are given the trainer's.
        trace: a path, or a `Trace` open for writing. Where fit goes on from a checkpoint, the trace at that path is
            resumed at its step.
        every: when the probes that have no `every` of their own measure: a number of steps or a schedule.
        budget: the share of wall-clock time that measuring may take, as in `Monitor`.
        objective: what to measure instead, an `Objective` of the module or a function of the module that makes one.
            Needed for manual optimization, where `training_step` is no loss, and for probes that look at the model's
            outputs (Gauss-Newton, Fisher, neural collapse).
        data: batches to measure on instead, as `training_step` takes them: a DataLoader or a list of batches. Each
            counts the same, whatever its size.
        samples: how many samples to choose.
        mode: "eval" to measure in evaluation mode.
        overwrite: whether a trace that exists may be replaced by that of a new training.
        on_error: as in `Monitor`.

    Under DDP all ranks measure together, on shares of the samples, and rank 0 writes the trace.

    Raises `ValueError` when fit starts for what `Monitor` refuses, for models that are sharded over processes, and for
    data that no samples can be chosen of.

    Example:
        >>> import lightning
        >>> from probes import Sharpness
        >>> callback = MonitorCallback([Sharpness()], "run.h5", every=100)
        >>> trainer = lightning.Trainer(callbacks=[callback], logger=False, barebones=True)  # doctest: +SKIP
    """

    def __init__(self, probes: Any, trace: Any, *, every: Any = None, budget: float | None = None, **more: Any) -> None:
        self._training = Training(probes, trace, every=every, budget=budget, **more)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open or resume the trace, and make the monitor."""
        loss = _TrainingStep(trainer)
        if self._training.on_own and not pl_module.automatic_optimization:
            raise ValueError(
                "training_step optimizes by itself (automatic_optimization=False) and is no loss to measure: pass "
                "MonitorCallback(..., objective=lambda module: Objective(...))"
            )
        optimizers = trainer.optimizers
        self._training.begin(
            pl_module,
            lambda data: Objective(pl_module, _itself, data, forward=loss, count="batches", mode=self._training.mode),
            lambda: trainer.train_dataloader,
            _whole,
            step=trainer.global_step,
            ranks=ranks_of(trainer.world_size, type(trainer.strategy).__name__ in _WHOLE),
            optimizer=optimizers[0] if len(optimizers) == 1 else None,
            config=dict(pl_module.hparams),
            seed=int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
        )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure before the first update, when there is a batch."""
        if trainer.global_step == 0:
            self._measure(trainer, batch, _epoch(trainer, batch_idx), None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after an update."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and pl_module.automatic_optimization:
            loss = loss * trainer.accumulate_grad_batches  # which it was divided by
        self._measure(trainer, batch, _epoch(trainer, batch_idx + 1), loss)

    def _measure(self, trainer: Trainer, batch: Any, epoch: float, loss: Any) -> None:
        seen = [_whole(batch) if self._training.on_own else batch]
        loss = loss if isinstance(loss, Tensor) and loss.numel() == 1 else None
        if self._training(trainer.global_step, loss=loss, batch=seen, epoch=epoch) and loss is not None:
            self._training.note_loss(trainer.global_step, float(loss), epoch)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the trace."""
        self._training.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the trace."""
        self._training.end()

    def state_dict(self) -> dict[str, Any]:
        """Where schedules and budget stand, for a checkpoint; the trace is flushed."""
        return self._training.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._training.load_state_dict(state_dict)


class _TrainingStep:
    """`forward` of an objective: a module's loss on a batch as its trainer computes it, and no mark of it."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __call__(self, module: LightningModule, batch: Any) -> Tensor:
        trainer = self._trainer
        with unheard(module, trainer):
            if module is trainer.lightning_module:  # a converted copy's batches are converted already
                batch = trainer.precision_plugin.convert_input(batch)
            batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
            batch = module._apply_batch_transfer_handler(batch, module.device, dataloader_idx=0)
            takes = inspect.signature(module.training_step).parameters
            if "dataloader_iter" in takes:
                raise ValueError("training_step(dataloader_iter) reads the data itself: pass objective=")
            found = module.training_step(batch, 0) if len(takes) > 1 else module.training_step(batch)
        loss = found.get("loss") if isinstance(found, Mapping) else found
        if not isinstance(loss, Tensor):
            raise ValueError(f"training_step returned {type(found).__name__} without a loss: pass objective=")
        return loss


def _itself(loss: Tensor, targets: Any) -> Tensor:
    return loss


def _whole(batch: Any) -> tuple[Any, None]:
    """A batch of any kind as (inputs, targets): `training_step` takes it whole."""
    return batch, None


def _epoch(trainer: Trainer, batches: int) -> float:
    total = trainer.num_training_batches
    within = batches / total if math.isfinite(total) and total else 0.0
    return float(trainer.current_epoch + within)
