"""Checkpoint files before they are read: whether they are there, and which step of a run each one is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from probes.errors import UserError

# Decimal numbers (a loss, a learning rate) are matched so that they are not taken for two whole ones.
_NUMBER = re.compile(r"\d+\.\d+|\d+")
_LABELS = ("step", "iter", "epoch")


def checkpoint_steps(paths: Sequence[str | Path], steps: Sequence[int] | None = None) -> list[tuple[int, Path]]:
    """`(step, path)` for each checkpoint, sorted by step.

    A step is the one given, else the number that differs among the names (`model_v2_step100.pt` and
    `model_v2_step200.pt` are 100 and 200; several that differ: the one called step, iter or epoch), else the
    position on the command line. Raises `UserError` when two checkpoints claim one step.
    """
    files = [Path(path) for path in paths]
    if steps is not None and len(steps) != len(files):
        raise UserError(f"--steps has {len(steps)} numbers for {len(files)} checkpoints: give one for each", status=2)
    if steps is not None and min(steps, default=0) < 0:
        raise UserError(f"--steps must not be negative, got {min(steps)}", status=2)
    found = list(steps) if steps is not None else _steps_in_names(files)
    pairs = sorted(zip(found, files, strict=True), key=lambda pair: pair[0])
    for (step, path), (other_step, other) in pairwise(pairs):
        if step == other_step:
            what = f"{path} is given twice" if path == other else f"{path} and {other} both claim step {step}"
            raise UserError(f"{what}: name different checkpoints, or their steps with --steps")
    return pairs


def _steps_in_names(files: Sequence[Path]) -> list[int]:
    positions = list(range(len(files)))
    if len(files) == 1:
        numbers = _numbers(files[0].stem)
        # nothing to compare with: a number that belongs to a word (resnet18, v2) is not a step
        free = [n for n, word in numbers if word in ("", *_LABELS, "checkpoint", "ckpt", "model")]
        return free if len(free) == 1 else [n for n, word in numbers if word == "step"][:1] or positions
    if len(set(files)) < len(files):
        twice = next(path for path in files if files.count(path) > 1)
        raise UserError(f"{twice} is given twice: name different checkpoints, or their steps with --steps")
    for texts in ([path.stem for path in files], [str(path.with_suffix("")) for path in files]):
        numbers_of = [_numbers(text) for text in texts]
        if len({len(numbers) for numbers in numbers_of}) != 1:
            continue
        columns = list(zip(*numbers_of, strict=True))
        varying = [column for column in columns if len({n for n, _ in column}) > 1]
        distinct = [column for column in varying if len({n for n, _ in column}) == len(files)] or varying
        if len(distinct) > 1:
            labelled = [c for label in _LABELS for c in distinct if all(word == label for _, word in c)]
            distinct = labelled[:1]
        if distinct:
            return [n for n, _ in distinct[0]]
    return positions


def _numbers(text: str) -> list[tuple[int, str]]:
    """The whole numbers in a name, each with the word before it (`step` of `step=100`, empty for `_100`)."""
    found = []
    for number in _NUMBER.finditer(text):
        if number.group().isdigit() and len(number.group()) <= 18:  # a step is stored as int64
            word = re.search(r"([A-Za-z]+)[=_-]?$", text[: number.start()])
            joined = word is not None and (word.group()[-1] not in "_-" or word.group(1).lower() in _LABELS)
            found.append((int(number.group()), word.group(1).lower() if word is not None and joined else ""))
    return found
