"""What a model holds beside its parameters and buffers, at one moment, and how to put it back.

Attributes of modules (tensors that hooks or the forward pass leave there, counters, caches), the containers and plain
objects among them, random generators, and the tensors that callables close over: all that a forward or backward pass
may move and that the next one may read. Looking costs about 2 microseconds a module; nothing is copied but the tables.
"""

from __future__ import annotations

import functools
import itertools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from landscape.objective.guard.contents import copy_of, overlap, put_back, version
from landscape.objective.guard.generators import GENERATORS, set_state, state_of
from landscape.objective.guard.tables import ATOMS, Path, Table, in_words

# what torch keeps in a module for itself, but for its parameters, buffers and modules
_INTERNAL = frozenset(vars(nn.Module()))
# Objects of these packages are machinery, and what owns the model (a trainer) is none of its belongings.
_MACHINERY = sys.stdlib_module_names | {"torch", "numpy", "lightning", "pytorch_lightning", "accelerate", "datasets"}
_LIBRARIES = _MACHINERY | {"transformers", "timm", "peft"}
_LONGEST = 4096  # entries of a container that is looked into
_DEPTH = 8
_MOVABLE = (list, dict, deque, Tensor, *GENERATORS)


class Belongings:
    """All of it at one moment.

    Args:
        roots: what to look through, by the name that it has in messages: modules and callables.
        rewritten: names of tensors and arrays that a pass writes into; each forward pass is given copies of them.
    """

    def __init__(self, roots: Mapping[str, Any], rewritten: frozenset[str] = frozenset()) -> None:
        self.tables: list[Table] = []
        self.buffers: list[Table] = []
        self.tensors: list[tuple[Path, Tensor, int]] = []
        self.arrays: list[tuple[Path, np.ndarray[Any, Any]]] = []
        self.generators: list[tuple[Path, Any, Any]] = []
        self._bindings: list[tuple[dict[str, Any], str, Any]] = []  # globals that functions name
        self.loose = False  # there are tensors beside parameters and buffers
        self._seen: dict[int, Any] = {}
        for name, root in roots.items():
            self._look((None, name) if name else (), root, 0, records=False)
        tables = [*self.tables, *self.buffers]
        self._dicts = [table.owner for table in tables if table.keyed]
        self._others = [table for table in tables if not table.keyed]
        self._ids = self._now()
        self._placed, self._copied = self._writable(tables, rewritten) if rewritten else ([], [])

    # -- looking -----------------------------------------------------------------------------------------------------

    def _look(self, path: Path, value: Any, depth: int, records: bool) -> None:
        kind = type(value)
        if kind in ATOMS or id(value) in self._seen or depth > _DEPTH:
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            self._module(path, value, records)
        elif isinstance(value, Tensor):
            self.loose = True
            self.tensors.append((path, value, version(value)))
        elif isinstance(value, np.ndarray):
            self.loose = True
            self.arrays.append((path, value))
        elif isinstance(value, GENERATORS):
            self.generators.append((path, value, state_of(value)))
        elif isinstance(value, dict | list | set | deque):
            if len(value) <= _LONGEST:
                self._table(path, value, depth, records)
        elif isinstance(value, tuple):
            if len(value) <= _LONGEST:
                for place, item in enumerate(value):
                    self._look((path, place), item, depth + 1, records)
        elif callable(value) and (parts := _closed_over(value)) is not None:
            self._globals(path, value)
            for key, item in parts:
                self._look((path, key), item, depth + 1, records=True)
        elif kind.__module__.partition(".")[0] not in _MACHINERY and isinstance(getattr(value, "__dict__", None), dict):
            self._table(path, value.__dict__, depth, records)

    def _module(self, path: Path, module: nn.Module, records: bool) -> None:
        for prefix, m in module.named_modules():
            if m is not module and id(m) in self._seen:
                continue
            self._seen[id(m)] = m
            own = (path, prefix) if prefix else path
            for named in (m._parameters, m._buffers):
                for name, t in named.items():
                    if t is not None and id(t) not in self._seen:
                        self._seen[id(t)] = t
                        self.tensors.append(((own, name), t, version(t)))
            if isinstance(m, torch.jit.ScriptModule):  # it keeps no attributes where Python sees them
                continue
            attributes = vars(m)
            self.tables += [Table(own, table, records) for table in (attributes, m._parameters, m._modules)]
            self.buffers.append(Table(own, m._buffers, records))
            for name, value in attributes.items():
                if name not in _INTERNAL and type(value) not in ATOMS:
                    self._look((own, name), value, 1, records)
            for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values()):
                self._look((own, "hook"), hook, 1, records=True)
            self._globals(own, type(m).forward)

    def _globals(self, path: Path, function: Any) -> None:
        """The containers, tensors and generators of a function's file that it names; none for a library's."""
        code, table = getattr(function, "__code__", None), getattr(function, "__globals__", None)
        if code is None or table is None or _is_library(str(table.get("__name__"))):
            return
        for name in code.co_names:
            value = table.get(name)
            if isinstance(value, _MOVABLE):
                self._bindings.append((table, name, value))
                self._look((path, name), value, 1, records=True)

    def _table(self, path: Path, owner: Any, depth: int, records: bool) -> None:
        self.tables.append(Table(path, owner, records))
        values = owner.items() if isinstance(owner, dict) else enumerate(owner)
        for key, value in list(values):
            if type(value) not in ATOMS:
                self._look((path, key), value, depth + 1, records)

    # -- putting back ------------------------------------------------------------------------------------------------

    def _now(self) -> list[int]:
        parts = [part for owner in self._dicts for part in (owner, owner.values())]  # keys, which may change alone
        return [*map(id, itertools.chain.from_iterable(parts))]

    def holds(self) -> bool:
        """Whether the same objects are in the same places; their contents and states may be others."""
        return self._now() == self._ids and all(table.holds() for table in self._others)

    def renewed(self) -> bool:
        """Whether they are of the present again, with versions and states as they are now."""
        if self.loose or not self.holds() or not all(t.get(name) is value for t, name, value in self._bindings):
            return False
        self.tensors = [(path, t, version(t)) for path, t, _ in self.tensors]
        self.generators = [(path, g, state_of(g)) for path, g, _ in self.generators]
        return True

    def restore(self, buffers: bool = True) -> None:
        """Everything is what it was: the same objects in the same places, generators in the same states."""
        if not self.holds():
            for table in (*self.tables, *self.buffers) if buffers else self.tables:
                table.restore()
        for value, copy in self._copied:
            put_back(value, copy)
        for _, generator, state in self.generators:
            set_state(generator, state)

    @contextmanager
    def generators_kept(self) -> Iterator[None]:
        """Afterwards the generators are where they were: for a loss that is called once more to look at it."""
        states = [(generator, state_of(generator)) for _, generator, _ in self.generators]
        try:
            yield
        finally:
            for generator, state in states:
                set_state(generator, state)

    def begin_pass(self) -> None:
        """The same, with fresh copies in the place of what a pass writes into."""
        self.restore()
        fresh: dict[int, Any] = {}
        for table, key, value in self._placed:
            if id(value) not in fresh:
                fresh[id(value)] = copy_of(value)
            table.owner[key] = fresh[id(value)]

    def _writable(
        self, tables: list[Table], rewritten: frozenset[str]
    ) -> tuple[list[tuple[Table, Any, Any]], list[tuple[Any, Any]]]:
        """What a pass writes into: the places for copies of it, and, where views of it would miss them, its copy."""
        every = [*((path, t) for path, t, _ in self.tensors), *self.arrays]
        chosen = {id(t): t for path, t in every if not isinstance(t, nn.Parameter) and in_words(path) in rewritten}
        alone = {
            key for key, t in chosen.items() if not any(other is not t and overlap(t, other) for _, other in every)
        }
        places = [(table, key, v) for table in tables for key, v in table.items() if id(v) in chosen and id(v) in alone]
        placed = {id(value) for _, _, value in places}
        return places, [(t, copy_of(t)) for key, t in chosen.items() if key not in placed]

    def replaced(self) -> list[tuple[str, str]]:
        """Kind and name of the parameters and modules that are others than before, or new."""
        if self.holds():
            return []
        tables = [table for table in self.tables if table.keyed and not table.records]
        changed = [(table.path, name, table.owner[name]) for table in tables for name in table.others()]
        return [
            ("parameter" if isinstance(now, nn.Parameter) else "module", in_words((path, name)))
            for path, name, now in changed
            if isinstance(now, nn.Parameter | nn.Module)
        ]

    def written(self) -> list[str]:
        """Names of the tensors that were written into, by their version counters."""
        return [in_words(path) for path, t, before in self.tensors if version(t) != before]


def _closed_over(function: Any) -> list[tuple[str, Any]] | None:
    """What a function, a method or a partial carries with it, by name; None for other callables."""
    if isinstance(function, types.MethodType):
        return [("self", function.__self__), ("method", function.__func__)]
    if isinstance(function, functools.partial):
        return [
            ("function", function.func),
            *((str(i), a) for i, a in enumerate(function.args)),
            *function.keywords.items(),
        ]
    if not isinstance(function, types.FunctionType):
        return None
    found: list[tuple[str, Any]] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    return found


@functools.cache
def _is_library(module: str) -> bool:
    return module.partition(".")[0] in _LIBRARIES
