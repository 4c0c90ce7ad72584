"""What a function depends on beside parameters and buffers: plain values that may be edited between two products.

Attributes of modules (a temperature, eps), those of the loss, what callables close over and the numbers among the
globals that they name, and the versions of tensors in any of these.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from landscape.objective.guard.belongings import Belongings
from landscape.objective.guard.contents import version
from landscape.objective.guard.tables import in_words

PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_INTERNAL = frozenset(vars(nn.Module()))  # torch's own attributes of a module: others look at its tensors and flags
_SHORT = 8  # entries of a container that is looked into; a longer one is a log or data


def settings(
    modules: Iterable[nn.Module], callables: Iterable[Any], belongings: Belongings | None, rewritten: frozenset[str]
) -> list[Any]:
    """All of them in order: plain values, and the objects in the places of others.

    rewritten: names of tensors that a pass writes into, whose versions say nothing.
    """
    found: list[Any] = []
    for m in modules:
        found += _of_module(m)
    for thing in callables:
        found += _of_function(thing, 4)
    if belongings is not None:
        for path, t, _ in belongings.tensors if belongings.loose else ():
            if not isinstance(t, nn.Parameter) and in_words(path) not in rewritten:
                found += (t, version(t))
        for table in belongings.tables:
            if table.records and len(table.owner) <= _SHORT:
                found += table.owner.values() if table.keyed else table.owner
    return found


def same(now: Sequence[Any], before: Sequence[Any]) -> bool:
    """Whether plain values are equal, and all others the same objects."""
    return len(now) == len(before) and all(
        a is b or (type(a) is type(b) and type(a) in PLAIN and a == b) for a, b in zip(now, before, strict=True)
    )


def _of_module(m: nn.Module) -> Iterator[Any]:
    yield m
    for name, value in vars(m).items():
        if name not in _INTERNAL:
            yield value
            if type(value) in (list, tuple) and len(value) <= _SHORT:
                yield from value


def _of_function(thing: Any, depth: int) -> Iterator[Any]:
    """A function with what it closes over, its defaults, and the plain globals that it names."""
    yield thing
    if depth == 0 or thing is None:
        return
    if isinstance(thing, nn.Module):
        for m in thing.modules():
            yield from _of_module(m)
    elif isinstance(thing, types.MethodType):
        yield from _of_function(thing.__func__, depth - 1)
        yield from _of_object(thing.__self__)
    elif isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield from _of_function(cell.cell_contents, depth - 1)
            except ValueError:  # not filled yet
                continue
        yield from thing.__defaults__ or ()
        yield from (thing.__kwdefaults__ or {}).values()
        for name in thing.__code__.co_names:
            value = thing.__globals__.get(name)
            if type(value) in PLAIN:
                yield value
    elif type(thing) not in PLAIN:
        yield from _of_object(thing)


def _of_object(thing: Any) -> Iterator[Any]:
    """Plain attributes of an object of a class of its own."""
    table = getattr(thing, "__dict__", None)
    if isinstance(table, dict) and not isinstance(thing, nn.Module | type | types.ModuleType):
        yield from (value for value in table.values() if type(value) in PLAIN)
