"""Which probe a group of records is of: what its settings say, else what its fields tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from probes.instruments.entry import Entry
from probes.instruments.registry import LOSS, PROBES

KINDS: Mapping[str, Entry] = {"loss": LOSS, **PROBES}
_CLASSES = {entry.class_name: name for name, entry in PROBES.items()}


def kind_of(fields: Iterable[str], settings: Mapping[str, Any] | None = None) -> str | None:
    """The kind of a group, one of `KINDS`, else `None`. A user may call a group anything, so its name says nothing.

    Traces of the past and users' own probes are recognised by their fields: the kind that asks for most of them.
    """
    have = set(fields)
    declared = (settings or {}).get("probe")
    alternatives = [(kind, set(names.split())) for kind in KINDS for names in KINDS[kind].fields.split("|")]
    sizes = {kind: len(fields) for kind, fields in alternatives if fields <= have}
    if declared in _CLASSES:
        return _CLASSES[declared] if _CLASSES[declared] in sizes else None
    kind = max(sizes, key=sizes.__getitem__, default=None)
    # many a probe has a value and a standard error
    return None if kind == "trace" and declared is not None else kind


def function_of(entry: Entry, what: str, module: Any) -> Callable[..., Any] | None:
    """The entry's own function for its "cells", "notes" or "summary" in a module of such functions."""
    stem = entry.picture.partition(":")[2].partition("_figure")[0]
    return getattr(module, f"{stem}_{what}", None)


def settings_text(settings: Mapping[str, Any] | None) -> str:
    """A probe's settings in a few words: `operator=hessian k=10`, defaults that are unset left out."""
    said = {key: value for key, value in (settings or {}).items() if key not in ("probe", "name", "every", "through")}
    return " ".join(f"{key}={value}" for key, value in said.items() if value is not None)
