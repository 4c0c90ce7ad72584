"""Checkpoints: from what somebody saved to the parameters of a model, or one line that says why not.

Read are torch files (never anything but weights), safetensors, Lightning `.ckpt`, folders of `from_pretrained`, shards
with an index, folders of torch.distributed.checkpoint, and snapshots in a trace. All is checked (keys, shapes, finite
numbers) before the first parameter changes: a model is never half loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from probes.checkpoints.files import is_pretrained
from probes.checkpoints.match import match
from probes.checkpoints.pretrained import is_transformer, load_pretrained
from probes.checkpoints.saved import Saved, Say, read_saved
from probes.checkpoints.values import check_finite, sharded_as
from probes.errors import UserError, one_line


def load_checkpoint(path: str | Path, model: nn.Module) -> None:
    """Load the weights in a file, a folder or a snapshot, `run.h5@300`, into a model, in place and all or nothing.

    Raises `UserError`, with the model untouched, when it cannot be read, holds no weights, does not fit the model
    (keys, shapes) or holds parameters that are not finite.

    Example:
        >>> import torch
        >>> from probes import load_checkpoint
        >>> torch.save({"state_dict": {"module.weight": torch.ones(1, 2)}}, "step1.ckpt")
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> load_checkpoint("step1.ckpt", model)
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """
    try:
        model.load_state_dict(sharded_as(match_checkpoint(path, model), model), strict=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be loaded into {type(model).__name__}: {one_line(error)}") from error


def match_checkpoint(path: str | Path, model: nn.Module, say: Say | None = None) -> dict[str, Any]:
    """Read a checkpoint and fit it to a model: the state dict to load, under the model's own keys, checked.

    `say` hears, in one line each, what was decided: a prefix that was looked through, weights that were left out.
    """
    path = Path(path)
    if path.is_dir() and is_pretrained(path) and is_transformer(model):
        # the library renames and joins weights of older versions as it loads them
        saved = Saved(dict(load_pretrained(path, type(model), say).state_dict()), {})
    else:
        saved = read_saved(path)
    if say is not None:
        for note in saved.notes:
            say(note)
    matched = match(saved.state, model, path, say)
    check_finite(matched, model, path)
    return matched
