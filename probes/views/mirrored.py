"""A trace for TensorBoard and for Weights & Biases: its curves with their errors, its settings, and its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.errors import UserError, import_extra
from probes.files import atomic_folder
from probes.mirrors.mirror import TensorBoard, WeightsAndBiases, show_record

if TYPE_CHECKING:
    from probes.trace.trace import Trace

FOLDERS = ("tensorboard", "wandb-offline")


def write_folder(trace: Trace, kind: str, names: Sequence[str], output: Path | None, overwrite: bool) -> Path:
    """A folder of that kind with these groups of records, by default beside the trace; its path.

    Raises `UserError` for a folder that is there (unless `overwrite`), and `MissingExtra`.
    """
    from probes.views.pictures.draw import figures

    target = trace.path.with_name(f"{trace.path.stem}-{kind}") if output is None else output
    if target.is_file():
        raise UserError(f"{target} is a file: -o names a folder for --format {kind}")
    opened = _tensorboard if kind == "tensorboard" else _wandb
    with atomic_folder(target, overwrite) as folder, opened(trace, folder) as mirror:
        last, fields = 0, {name: trace[name].fields for name in names}
        for step, name, values in _in_time(trace, names):
            show_record(mirror, name, step, values, fields[name])
            last = step
        for name, figure in figures(trace, names):
            mirror.picture(f"pictures/{name}", figure, last)
    return target


@contextmanager
def _tensorboard(trace: Trace, folder: Path) -> Iterator[TensorBoard]:
    import_extra("tensorboard", "--format tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:
        writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in trace.config.items()))
        yield TensorBoard(writer)


@contextmanager
def _wandb(trace: Trace, folder: Path) -> Iterator[WeightsAndBiases]:
    wandb = import_extra("wandb", "--format wandb-offline", "wandb")
    settings = wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
    run = wandb.init(
        project="landscape",
        name=trace.path.stem,
        dir=folder,
        config=dict(trace.config),
        mode="offline",
        settings=settings,
    )
    try:
        yield WeightsAndBiases(run)
    finally:
        run.finish()


def _in_time(trace: Trace, names: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The records of all groups by their steps: what reads them in order may not go back."""
    columns = {name: trace[name].read() for name in names}
    rows = ((int(step), name, i) for name in names for i, step in enumerate(columns[name]["step"]))
    for step, name, i in sorted(rows, key=lambda row: row[0]):
        yield step, name, {field: column[i] for field, column in columns[name].items()}
