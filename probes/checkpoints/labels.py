"""Labels of texts as a model of the library understands them, and the loss that goes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from probes.errors import UserError, first_few


def labels_of(values: Sequence[Any], config: Any, path: Path) -> tuple[list[Any], nn.Module]:
    """The labels as numbers, and the loss: by the config's `problem_type`, else as the library tells it.

    One output: numbers, mean squared error. Several: the number or the name of a class, cross-entropy; a list of a
    zero or one for each, binary cross-entropy. Raises `UserError` for a label that is none, with its number.
    """
    count, kind = config.num_labels, config.problem_type
    if kind is None:
        several = isinstance(values[0], list)
        kind = "regression" if count == 1 else "multi_label" if several else "single_label"
    if kind == "regression" and count == 1:
        return [_number(value, at, path) for at, value in enumerate(values, 1)], nn.MSELoss()
    if kind.startswith("single_label"):
        return [_class(value, config, at, path) for at, value in enumerate(values, 1)], nn.CrossEntropyLoss()
    lists = [_numbers(value, count, at, path) for at, value in enumerate(values, 1)]
    return lists, nn.MSELoss() if kind == "regression" else nn.BCEWithLogitsLoss()


def _number(value: Any, at: int, path: Path) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise UserError(f"{path}: the label {value!r} of text number {at} is no number, which the model predicts")
    return number


def _numbers(value: Any, count: int, at: int, path: Path) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise UserError(f"{path}: the label of text number {at} is no list of {count} numbers, one for each output")
    return [_number(one, at, path) for one in value]


def _class(value: Any, config: Any, at: int, path: Path) -> int:
    names = {str(name): int(number) for name, number in (config.label2id or {}).items()}
    text = str(value).strip()
    if text in names:
        return names[text]
    is_number = isinstance(value, int | str) and not isinstance(value, bool) and text.isdecimal()
    if is_number and int(text) < config.num_labels:
        return int(text)
    raise UserError(
        f"{path}: the label {value!r} of text number {at} is none of the {config.num_labels} that the model knows: "
        f"0 to {config.num_labels - 1}, or {first_few(names, 5)}"
    )
