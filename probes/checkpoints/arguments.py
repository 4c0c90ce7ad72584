"""What is typed after `--probe` and `--steps`, turned into probes and numbers.

A probe is a name with options, `spectrum:k=10,tol=1e-4`; the options are the keyword arguments of its class.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from probes.errors import UserError, did_you_mean, one_line
from probes.instruments.registry import PROBES
from probes.session import OPERATORS

# What the command decides itself: checkpoints are its schedule, the last one is the end point.
_NOT_OPTIONS = {"self", "every", "end"}


def parse_steps(text: str | None) -> list[int] | None:
    """`"0,100,200"` as numbers; `None` stays `None`. Raises `UserError` (status 2) for anything else."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--steps takes whole numbers such as 0,100,200, not {text!r}", status=2) from None


def parse_probes(texts: Sequence[str], operator: str) -> list[Any]:
    """The probes that the texts name, with `operator` where they take one and name none themselves.

    Raises `UserError` (status 2) for an unknown probe, operator or option, and for two probes of one name.
    """
    _check_operator(operator)
    probes = [_parse_probe(text, operator) for text in texts]
    names = [probe.name for probe in probes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two probes are named {name!r}: tell them apart, --probe {name}:name=...", status=2)
        if name == "loss":
            raise UserError("the name 'loss' is taken by the loss itself: give the probe another name=", status=2)
    return probes


def options_of(kind: type) -> list[str]:
    """The options that a probe class takes after its colon."""
    return [name for name in inspect.signature(kind).parameters if name not in _NOT_OPTIONS]


def _parse_probe(text: str, operator: str) -> Any:
    name, _, rest = text.partition(":")
    if name not in PROBES:
        near = did_you_mean(name, PROBES)
        raise UserError(f"there is no probe {name!r}{near or ':'} known are {', '.join(PROBES)}", status=2)
    kind = PROBES[name]
    known = options_of(kind)
    options: dict[str, Any] = {"operator": operator} if "operator" in known else {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"{part!r} in --probe {text} is no option: write {name}:option=value", status=2)
        if key not in known:
            near = did_you_mean(key, known)
            raise UserError(
                f"the probe {name} has no option {key!r}{near or ':'} it takes {', '.join(known)}", status=2
            )
        options[key] = value.strip() if key == "name" else _value(value.strip())
    if "operator" in options:
        _check_operator(options["operator"])
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"--probe {text}: {one_line(error)}", status=2) from error


def _check_operator(operator: Any) -> None:
    if operator not in OPERATORS:
        near = did_you_mean(str(operator), OPERATORS)
        raise UserError(f"there is no operator {operator!r}{near or ':'} known are {_listing(OPERATORS)}", status=2)


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names)


def _value(text: str) -> Any:
    """A number, True, False or None where the text is one, else the text: `rtol=1e-2`, `method=xtrace`."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
