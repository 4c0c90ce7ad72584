"""What is named with options in one word, `name:key=value,key=value`: probes and solvers at the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Container
from typing import Any

from probes.errors import UserError

_COMMA = re.compile(r",(?![^(]*\))")  # in no parentheses
_OPTIONS = re.compile(r":(?=\s*\w+\s*=)")


def parse_spec(text: str, known: Container[str], what: str) -> tuple[str, dict[str, str]]:
    """The name and the options' texts. `what` comes before the text in an error: "--probe", "the solver".

    The options follow the first colon behind a known name; another name may have colons itself (`module:Class`), and
    ends where the first option begins. Raises `UserError` (status 2) for what is no option.
    """
    name, colon, rest = text.partition(":")
    if colon and name not in known:
        name, *options = _OPTIONS.split(text, maxsplit=1)
        rest = "".join(options)
    found = {}
    for part in split_commas(rest):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key.isidentifier():
            raise UserError(f"{part!r} in {what} {text} is no option: write {name}:option=value", status=2)
        found[key] = value
    return name, found


def split_commas(text: str) -> list[str]:
    """The parts of `a,b=(1,2),c` that are not empty: commas in parentheses do not count."""
    return [part.strip() for part in _COMMA.split(text) if part.strip()]


def value_of(text: str) -> Any:
    """A number, a tuple, True, False or None where the text is one, else the text: `rtol=1e-2`, `method=xtrace`."""
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text
