"""What was found out about a model once: kept weakly with the model object, under all that may change the answer.

A self-check or a measurement of noise belongs to the model, not to one `Objective`: a training loop makes many
objectives of one model. The key is the model's structure as it stands: another mode, a hook more, another loss, and
the question is put anew.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import nn

from landscape.ranks import Ranks

T = TypeVar("T")

_PER_MODEL = 64  # answers that one model may hold; the oldest go
_ALONE = Ranks()
_FOUND: dict[int, tuple[weakref.ref[nn.Module], dict[Hashable, Any]]] = {}


def remembered(model: nn.Module, kind: str, key: Hashable, find: Callable[[], T], ranks: Ranks = _ALONE) -> T:
    """What `find()` returned for this very model object, this kind of question and an equal key; else it is asked.

    ranks: those that find it together: where one of them has to ask (it alone has a hook more), all ask.
    """
    known = _FOUND.get(id(model))
    if known is None or known[0]() is not model:
        number = id(model)
        known = _FOUND[number] = (weakref.ref(model, lambda _: _FOUND.pop(number, None)), {})
    answers = known[1]
    if ranks.any((kind, key) not in answers):
        found = find()
        while len(answers) >= _PER_MODEL:
            del answers[next(iter(answers))]
        answers[(kind, key)] = found
    answer: T = answers[(kind, key)]
    return answer


def structure(module: nn.Module) -> Hashable:
    """All of a module that decides what its derivatives are, except the numbers in it.

    Classes (a parametrised module has one of its own), training flags, hooks, switches (attributes that are bool or
    str), a forward that was put over the class's, dtypes and devices, and which parameters require grad.
    """
    return tuple((name, _layer(m)) for name, m in module.named_modules())


def _layer(m: nn.Module) -> Hashable:
    hooks = [
        *m._forward_pre_hooks.values(),
        *m._forward_hooks.values(),
        *m._backward_pre_hooks.values(),
        *m._backward_hooks.values(),
    ]
    switches = tuple(
        (name, value)
        for name, value in vars(m).items()
        if isinstance(value, bool | str) and not name.startswith("_is_full")
    )
    tensors = tuple(
        (name, t.dtype, str(t.device), t.requires_grad)
        for table in (m._parameters, m._buffers)
        for name, t in table.items()
        if t is not None
    )
    over = identity(vars(m)["forward"]) if "forward" in vars(m) else None
    return type(m), tuple(identity(h) for h in hooks), switches, tensors, over


def identity(thing: Any, depth: int = 4) -> Hashable:
    """What makes two callables or settings the same: code and what it closes over, not the object that holds them.

    So the same lambda, written in a loop over steps, stays itself; an object that may be edited is known by itself.
    """
    if thing is None or isinstance(thing, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
        return type(thing), thing
    if depth == 0:
        return _Itself(thing)
    deeper = functools.partial(identity, depth=depth - 1)
    if isinstance(thing, types.FunctionType):
        cells = tuple(_contents(cell, deeper) for cell in thing.__closure__ or ())
        defaults = tuple(deeper(d) for d in thing.__defaults__ or ())
        named = tuple((name, deeper(d)) for name, d in (thing.__kwdefaults__ or {}).items())
        return thing.__code__, cells, defaults, named
    if isinstance(thing, types.MethodType):
        return deeper(thing.__self__), deeper(thing.__func__)
    if isinstance(thing, functools.partial):
        named = tuple((name, deeper(value)) for name, value in thing.keywords.items())
        return "partial", deeper(thing.func), tuple(deeper(a) for a in thing.args), named
    if isinstance(thing, tuple):
        return type(thing), tuple(deeper(item) for item in thing)
    if isinstance(thing, nn.modules.loss._Loss) and not any(True for _ in thing.buffers()):
        plain = {name: value for name, value in vars(thing).items() if not name.startswith("_") and name != "training"}
        return type(thing), tuple((name, deeper(value)) for name, value in plain.items())
    return _Itself(thing)


def _contents(cell: types.CellType, deeper: Callable[[Any], Hashable]) -> Hashable:
    try:
        return deeper(cell.cell_contents)
    except ValueError:  # not filled yet
        return None


class _Itself:
    """An object as a key: equal to that very object only, and not kept alive where Python lets it go."""

    def __init__(self, thing: Any) -> None:
        self._number = id(thing)
        try:
            self._thing: Callable[[], Any] = weakref.ref(thing)
        except TypeError:
            self._thing = lambda: thing

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Itself) or other._number != self._number:
            return False
        thing = self._thing()
        return thing is not None and other._thing() is thing
