"""Which step of a run each checkpoint is: as it is given, as the names say, as the files say, or by position."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from probes.checkpoints.files import same_twice
from probes.checkpoints.snapshots import each_of
from probes.errors import UserError

# 100, 1e3, 2.5e4, 10k; decimal numbers (a loss, a learning rate) are matched so that they are not taken for two whole
# ones. An exponent or a unit that goes on as a word is none.
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([kKM]?)(?![A-Za-z0-9])|(\d+\.\d+|\d+)")
_UNITS = {"": 1, "k": 1000, "K": 1000, "M": 1_000_000}
_LABELS = ("step", "steps", "iter", "iteration", "it", "checkpoint", "ckpt", "update", "epoch", "ep")
_CERTAIN = ("step", "steps", "iter", "iteration")  # two files that say the same number here are of one step
_LETTERS = re.compile(r"\.[A-Za-z]\w*$")

Numbers = list[tuple[int, str]]


def checkpoint_steps(
    paths: Sequence[str | Path], steps: Sequence[int] | None = None, say: Callable[[str], None] | None = None
) -> list[tuple[int, Path]]:
    """`(step, path)` for each checkpoint, sorted by step; for a trace, each of its snapshots, `run.h5@300`.

    A step is the one given, else the number that differs among the names (`model_v2_step100.pt` and
    `model_v2_step200.pt` are 100 and 200, `step1e3.pt` is 1000; several that differ: the one called step, iter,
    checkpoint or epoch), else the step, iteration or epoch that is saved inside the files, else the position on the
    command line. `say` hears when it is one of the last two. Raises `UserError` when two checkpoints claim one step or
    are one file, and for a trace without snapshots.
    """
    each = [one for path in paths for one in each_of(path)]
    files = [path for _, path in each]
    if steps is not None and len(steps) != len(files):
        raise UserError(f"--steps has {len(steps)} numbers for {len(files)} checkpoints: give one for each", status=2)
    if steps is not None and min(steps, default=0) < 0:
        raise UserError(f"--steps must not be negative, got {min(steps)}", status=2)
    twice = same_twice(files)
    if twice is not None:
        what = f"{twice[0]} is given twice" if twice[0] == twice[1] else f"{twice[0]} and {twice[1]} are one file"
        raise UserError(f"{what}: name different checkpoints")
    where, found = "", list(steps or ())
    if steps is None:
        told = {path: step for step, path in each if step is not None}
        where, others = _steps_of([path for path in files if path not in told], say)
        left = iter(others)
        found = [told[path] if path in told else next(left) for path in files]
    pairs = sorted(zip(found, files, strict=True), key=lambda pair: pair[0])
    for (step, path), (other_step, other) in pairwise(pairs):
        if step == other_step:
            both = f"{path} and {other} both claim step {step}{where}"
            raise UserError(f"{both}: name different checkpoints, or their steps with --steps")
    return pairs


def _steps_of(files: Sequence[Path], say: Callable[[str], None] | None) -> tuple[str, list[int]]:
    """Where the steps of files come from, for the line about two that are equal, and the steps."""
    found = _steps_in_names(files) if files else []
    if found is not None:
        return "", found
    counter, found = _steps_inside(files)
    if say is not None and (counter or len(files) > 1):
        what = f"the {counter} inside the files" if counter else "their positions on the command line, from 0"
        say(f"the names give no steps: they are {what}; --steps sets others")
    return f", the {counter} inside it" if counter else "", found


def _steps_in_names(files: Sequence[Path]) -> list[int] | None:
    """The numbers in the names of the files, else in their paths; None where they tell nothing."""
    if len(files) == 1:
        return _step_alone(files[0])
    stems = [_stem(path) for path in files]
    for texts in (stems, [str(path.parent / stem) for path, stem in zip(files, stems, strict=True)]):
        numbers_of = [_numbers(text) for text in texts]
        found = _labelled(numbers_of) or _varying(numbers_of)
        if found is not None:
            return found
    # one name with several endings: the same step
    return [_numbers(stems[0])[0][0]] * len(files) if len(set(stems)) == 1 and len(_numbers(stems[0])) == 1 else None


def _step_alone(path: Path) -> list[int] | None:
    # nothing to compare with: a number that belongs to a word (resnet18, v2) is not a step
    numbers = _numbers(_stem(path))
    free = [n for n, word in numbers if word in ("", *_LABELS, "model")]
    if len(free) == 1:
        return free
    for text in (_stem(path), path.parent.name):
        found = next((n for label in _LABELS for n, word in _numbers(text) if word == label), None)
        if found is not None:
            return [found]
    return None


def _labelled(numbers_of: Sequence[Numbers]) -> list[int] | None:
    """The numbers behind one of the labels: one that differs, else one that ought to and does not."""
    labels = [label for label in _LABELS if all(any(word == label for _, word in numbers) for numbers in numbers_of)]
    columns = {
        label: [next(n for n, word in reversed(numbers) if word == label) for numbers in numbers_of] for label in labels
    }
    for column in columns.values():
        if len(set(column)) == len(column):
            return column
    varying = [column for column in columns.values() if len(set(column)) > 1]
    return next(iter(varying or [columns[label] for label in labels if label in _CERTAIN]), None)


def _varying(numbers_of: Sequence[Numbers]) -> list[int] | None:
    """The one number that differs among names that have equally many."""
    if len({len(numbers) for numbers in numbers_of}) != 1:
        return None
    columns = [[n for n, _ in column] for column in zip(*numbers_of, strict=True)]
    varying = [column for column in columns if len(set(column)) > 1]
    distinct = [column for column in varying if len(set(column)) == len(column)] or varying
    return distinct[0] if len(distinct) == 1 else None


def _steps_inside(files: Sequence[Path]) -> tuple[str, list[int]]:
    """What the files say themselves, and the name of that counter; their positions where one of them says nothing."""
    from probes.checkpoints.saved import read_saved

    counters: list[Mapping[str, int]] = []
    with suppress(UserError):  # what cannot be read is told when it is loaded
        counters = [read_saved(path).counters for path in files]
    shared = [name for name in (counters or [{}])[0] if all(name in found for found in counters)]
    for name in shared:
        column = [found[name] for found in counters]
        if len(set(column)) == len(column):
            return name, column
    if shared:
        return shared[0], [found[shared[0]] for found in counters]
    return "", list(range(len(files)))


def _stem(path: Path) -> str:
    """The name without its endings: `step_2.5e4` has none, `pytorch_model.bin.index.json` has three."""
    name = path.name
    while _LETTERS.search(name):
        name = _LETTERS.sub("", name)
    return name or path.name


def _numbers(text: str) -> Numbers:
    """The whole numbers in a name, each with the word before it (`step` of `step=100`, empty for `_100`)."""
    found = []
    for number in _NUMBER.finditer(text):
        value = Decimal(number[1]) * _UNITS[number[2]] if number[1] else Decimal(number[3])
        if value == value.to_integral_value() and value < 1 << 63 and "." not in (number[3] or ""):
            word = re.search(r"([A-Za-z]+)[=_-]?$", text[: number.start()])
            joined = word is not None and (word.group()[-1] not in "_-" or word.group(1).lower() in _LABELS)
            found.append((int(value), word.group(1).lower() if word is not None and joined else ""))
    return found
