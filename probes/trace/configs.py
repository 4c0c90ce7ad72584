"""Configurations of runs side by side: flattened to one level, compared, told apart by what differs.

`{"optimizer": {"lr": 0.1}}` becomes `{"optimizer.lr": 0.1}`; lists stay values. Keys named seed (also
`data.seed`) say which repetition a run is, not which experiment, and are left out when runs are grouped.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from probes.numbers import short

Config = dict[str, Any]


def flatten(config: Any, prefix: str = "") -> Config:
    """One level of keys joined by dots. A config that is no mapping gets the key "config", None has no keys."""
    if not isinstance(config, Mapping):
        return {} if config is None else {"config": config}
    flat: Config = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def is_seed(key: str) -> bool:
    """Whether a key says which repetition a run is."""
    return key.rsplit(".", 1)[-1].lower() == "seed"


def varying_keys(configs: Sequence[Config]) -> list[str]:
    """The keys whose values differ between the configs (a missing one counts as None), seeds left out."""
    keys = dict.fromkeys(key for config in configs for key in config if not is_seed(key))
    return [key for key in keys if len({freeze(config.get(key)) for config in configs}) > 1]


def freeze(value: Any) -> Hashable:
    """A JSON value that can be compared and be a key: lists as tuples, nan equal to itself, True not 1."""
    if isinstance(value, Mapping):
        return tuple(sorted((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return (type(value).__name__, value) if isinstance(value, bool) else value


def label_of(values: Mapping[str, Any]) -> str:
    """`lr=0.1 batch=32`: the values that tell a group of runs from the others."""
    return " ".join(f"{key}={_text(value)}" for key, value in values.items())


def _text(value: Any) -> str:
    return short(value, 6) if isinstance(value, float) else str(value)


def order_of(values: Iterable[Any]) -> tuple[Any, ...]:
    """A key that sorts groups: numbers by size, before texts, before what is missing."""
    return tuple(
        (0, float(value), "")
        if isinstance(value, int | float) and not math.isnan(value)
        else (2 if value is None else 1, 0.0, str(value))
        for value in values
    )
