"""What a setting of a probe may be: its type by its annotation, its range by its name; looked at before a model is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from probes.session import OPERATORS

# Settings that several probes have, and the range that they share; None is checked by the type.
_COUNTS = ("k", "steps", "probes", "parts", "batch_size", "rank", "matvecs", "num_classes", "bins")
_POSITIVE = ("c", "tol", "rtol", "lr", "rho", "scale", "span", "sigma")
_NOT_NEGATIVE = ("threshold",)

_QUOTED = r"""['"]([^'"]+)['"]"""
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "a text",
    "Sequence[str]": "a name or a tuple of names",
    "None": "None",
}


def rule_broken(name: str, value: Any, annotation: str) -> str:
    """What the value breaks, `"must be a whole number"`; "" where it breaks nothing.

    An annotation that has a type of another kind in it (a schedule, a tensor) is not looked at.
    """
    words = list(OPERATORS) if name == "operator" else words_of(annotation)
    kinds = [kind for kind in _parts(annotation) if not kind.startswith("Literal[")]
    if words and kinds in ([], ["str"]):
        return "" if value in words else f"is one of {', '.join(words)}"
    if any(kind not in _TYPES for kind in kinds):
        return ""
    is_word = isinstance(value, str) and value in words
    if not is_word and not any(_is(kind, value) for kind in kinds):
        allowed = [_TYPES[kind] for kind in kinds] + [repr(word) for word in words]
        return f"must be {' or '.join(allowed)}"
    return _range_broken(name, value) if isinstance(value, Real) and not isinstance(value, bool) else ""


def words_of(annotation: str) -> list[str]:
    """The words of `Literal["LA", "SA"]`, wherever it stands in an annotation."""
    return [word for part in _parts(annotation) if part.startswith("Literal[") for word in re.findall(_QUOTED, part)]


def _parts(annotation: str) -> list[str]:
    """`"float | None"` as its alternatives."""
    return [part.strip() for part in annotation.split("|")]


def _is(kind: str, value: Any) -> bool:
    if kind == "None":
        return value is None
    if kind == "bool":
        return isinstance(value, bool)
    if kind in ("int", "float"):
        return isinstance(value, Integral if kind == "int" else Real) and not isinstance(value, bool)
    if kind == "Sequence[str]" and not isinstance(value, str):
        return isinstance(value, Sequence) and all(isinstance(one, str) for one in value)
    return isinstance(value, str)


def _range_broken(name: str, value: Any) -> str:
    if math.isnan(value):
        return "must be a number, not nan"
    if name in _COUNTS and not value >= 1:
        return "must be at least 1"
    if name in _POSITIVE and not 0 < value < math.inf:
        return "must be positive and finite"
    if name in _NOT_NEGATIVE and not 0 <= value < math.inf:
        return "must be finite and not negative"
    return ""
