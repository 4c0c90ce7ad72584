"""Probes under a Hugging Face trainer.

from probes import Spectrum
from probes.integrations.transformers import MonitorCallback

trainer = transformers.Trainer(..., callbacks=[MonitorCallback([Spectrum(k=3)], "run.h5", every=100)])
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from landscape import Objective
from probes.files import atomic_file
from probes.integrations.training import Training, ranks_of

_STATE = "landscape.json"  # in the folder of a checkpoint


class MonitorCallback(TrainerCallback):
    """Measures probes while `trainer.train` runs, and closes the trace when it ends.

    What is measured is the model's own loss (the labels are in the batch) on a fixed choice of the training samples,
    collated by the trainer in batches of its size, in training mode (dropout with one fixed mask a batch), without
    the trainer's autocast. Records stand at the trainer's `global_step`, the number of updates made; 0 is before the
    first one. `training` holds the loss that the trainer logs. A trainer tells its callbacks of no exception: after
    one, the trace is whole but stays open until the next training or the end of the process.

    Args:
        probes: as for `Monitor`; those that need the optimizer are given the trainer's. One that needs the batch is
            refused: this trainer does not show it to callbacks.
        trace: a path, or a `Trace` open for writing. Where training goes on from a checkpoint, the trace at that path
            is resumed at its step.
        every: when the probes that have no `every` of their own measure: a number of steps or a schedule.
        budget: the share of wall-clock time that measuring may take, as in `Monitor`.
        objective: what to measure instead, an `Objective` of the model or a function of the model that makes one.
            Needed where the trainer's loss is not the model's: label smoothing is refused without; a `compute_loss`
            or `compute_loss_func` of one's own cannot be seen from here.
        data: batches to measure on instead, as the model takes them: a DataLoader or a list of dicts.
        samples: how many samples to choose.
        mode: "eval" to measure in evaluation mode.
        overwrite: whether a trace that exists may be replaced by that of a new training.
        on_error: as in `Monitor`.

    Under torchrun (DDP) all ranks measure together, on shares of the samples, and rank 0 writes the trace.

    Raises `ValueError` when training starts for what `Monitor` refuses, for models that are sharded over processes, and
    for data that no samples can be chosen of.

    Example:
        >>> from probes import Sharpness
        >>> callback = MonitorCallback([Sharpness()], "run.h5", every=100)
        >>> trainer = transformers.Trainer(model, args, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, probes: Any, trace: Any, *, every: Any = None, budget: float | None = None, **more: Any) -> None:
        self._training = Training(probes, trace, every=every, budget=budget, **more)
        for probe in self._training.probes:
            if "batch" in probe.needs:
                raise ValueError(
                    f"the probe {probe.name!r} needs the batch of a training loop, which transformers.Trainer does not "
                    "show to callbacks: leave it out"
                )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open or resume the trace, make the monitor, and measure before the first update."""
        if self._training.on_own and args.label_smoothing_factor:
            raise ValueError(
                "the trainer smooths labels, so its loss is not the model's own: pass MonitorCallback(..., "
                "objective=lambda model: Objective(...))"
            )
        model, optimizer = kwargs["model"], kwargs.get("optimizer")
        kept = _checkpoint(args, state) / _STATE
        if state.global_step and kept.exists():
            self._training.load_state_dict(json.loads(kept.read_text()))
        self._training.begin(
            model,
            lambda data: Objective(model, own_loss, data, forward=_forward_of(model), mode=self._training.mode),
            lambda: kwargs["train_dataloader"],
            dict,
            step=state.global_step,
            ranks=ranks_of(args.world_size, not (args.fsdp or args.deepspeed)),
            optimizer=getattr(optimizer, "optimizer", optimizer),  # accelerate wraps it
            config=_changed(args),
            seed=args.seed,
        )
        if state.global_step == 0:
            self._training(0, epoch=0.0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure after an update."""
        self._training(state.global_step, loss=_logged(state), epoch=state.epoch)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the loss that the trainer reports."""
        if logs is not None and "loss" in logs:
            self._training.note_loss(state.global_step, logs["loss"], state.epoch)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Where schedules and budget stand, beside the checkpoint; the trace is flushed."""
        folder = _checkpoint(args, state)
        if folder.is_dir() and state.is_world_process_zero:
            with atomic_file(folder / _STATE) as partial:
                partial.write_text(json.dumps(self._training.state_dict()))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the trace."""
        self._training.end()


def own_loss(outputs: Any, targets: Any) -> Tensor:
    """The loss that a model returns. Raises `ValueError` where there is none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0]
    if not isinstance(loss, Tensor):
        raise ValueError("the model returned no loss: its batches have no labels; pass objective=")
    return loss


def _forward_of(model: nn.Module) -> Any:
    """None, but for mixed precision: accelerate then puts autocast around a model's own `forward`."""
    return _without_autocast if "_original_forward" in vars(model) else None


def _without_autocast(model: nn.Module, batch: Mapping[str, Any]) -> Any:
    own = vars(model)
    patched, own["forward"] = own["forward"], own["_original_forward"]
    try:
        return model(**batch)
    finally:
        own["forward"] = patched


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of the checkpoint of this step."""
    return Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"


def _logged(state: TrainerState) -> float | None:
    """The loss that was reported last."""
    return next((float(entry["loss"]) for entry in reversed(state.log_history) if "loss" in entry), None)


def _changed(args: TrainingArguments) -> dict[str, Any]:
    """The settings of a run that are not the defaults, but for where it writes and what it shows."""
    quiet = ("dir", "name", "report", "tqdm", "logging", "save", "push", "hub", "use_cpu")
    return {
        field.name: value
        for field in dataclasses.fields(args)
        if isinstance(value := getattr(args, field.name), bool | int | float | str)
        and value not in (field.default, False)
        and not any(word in field.name for word in quiet)
    }
