"""Failures that the command turns into one line, and the words that such a line is made of.

Whatever a person at the command line can put right is raised as a `UserError`: what is wrong and what to do about
it, in one sentence. The command prints it on stderr and exits with its status; tracebacks are for `--debug`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """A failure that the person at the command can put right; its text is one line, `status` the exit status.

    A `command` that is to be typed then stands at its end, however long it is.
    """

    def __init__(self, message: str, *, status: int = 1, command: str = "") -> None:
        super().__init__(": ".join(filter(None, [one_line(message), command])))
        self.status = status


class LandscapeWarning(UserWarning):
    """What all warnings of this package are; each of its kinds has a name of its own, by which it is silenced.

    Attributes:
        name: for `landscape --quiet NAME`.
    """

    name = "all"


class ProbeWarning(LandscapeWarning):
    """A probe failed, or its result could not be written; the training goes on."""

    name = "probe"


class NoiseWarning(ProbeWarning):
    """A probe does not know the noise of its number, which is nan."""

    name = "noise"


class TraceWarning(LandscapeWarning):
    """Something happened to a trace that is being written, and was put right."""

    name = "trace"


class MissingExtra(UserError, ImportError):
    """A package of an extra is not installed; the message says how to install it."""


def import_extra(package: str, what: str, extra: str = "analysis") -> Any:
    """The package, imported. Raises `MissingExtra` saying that `what` needs it, and the extra that has it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        message = f'{what} needs {package}, which is not installed: pip install "landscape-engine[{extra}]"'
        raise MissingExtra(message) from None


def one_line(error: BaseException | str, limit: int = 600) -> str:
    """The text of an error as one line of at most `limit` characters; its type where there is no text."""
    text = " ".join(str(error).split())
    if isinstance(error, BaseException):
        # a KeyError's text is the bare key, an AssertionError often has none: alone they say nothing
        if isinstance(error, KeyError) or not text:
            text = f"{type(error).__name__} {text}".strip()
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return text if len(text) <= limit else text[: limit - 3] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'spectrum'?"`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def check_choice(option: str, word: str, known: Iterable[str]) -> None:
    """Raise `UserError` (status 2) where the word given for an option is none of those known."""
    names = list(known)
    if word not in names:
        listed = f"{', '.join(names[:-1])} or {names[-1]}"
        raise UserError(f"{option} is {listed}, not {word!r}{did_you_mean(word, names)}", status=2)


def first_few(names: Iterable[str], limit: int = 3) -> str:
    """The first few names, and how many more there are: what a one-line message has room for."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
