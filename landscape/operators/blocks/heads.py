"""Where attention's heads lie in its weights: rows of query, key and value, columns of the output projection.

Modules are recognised by their names, as the usual libraries have them. A fused matrix is taken to hold all query
rows, then all key rows, then all value rows (nn.MultiheadAttention, GPT-2, timm); one named `query_key_value` has the
three of each head together (GPT-NeoX, BLOOM).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from landscape.objective.objective import Objective

Heads = int | Literal["auto"] | Mapping[str, int] | None

_ROLES = ("query", "key", "value")
_NAMES = {
    "query": ("q_proj", "query", "q_lin", "q", "to_q", "wq", "query_proj"),
    "key": ("k_proj", "key", "k_lin", "k", "to_k", "wk", "key_proj"),
    "value": ("v_proj", "value", "v_lin", "v", "to_v", "wv", "value_proj"),
    "fused": ("c_attn", "qkv", "in_proj", "qkv_proj", "Wqkv", "query_key_value"),
    "projection": ("c_proj", "out_proj", "o_proj", "out_lin", "o", "wo", "Wo", "to_out.0", "proj", "dense", "out"),
}
_COUNTS = ("num_heads", "n_head", "n_heads", "num_attention_heads", "heads")


@dataclass(frozen=True)
class Split:
    """A head's part of a parameter: the entries `start` to `stop` along `dim`.

    Attributes:
        role: "query", "key", "value" or "projection".
        attention: the path of the module that the parameter belongs to as a part of attention.
    """

    role: str
    head: int
    attention: str
    dim: int
    start: int
    stop: int


@dataclass(frozen=True)
class Matrix:
    """A weight and the bias that may go with it, by name; the weight's outputs lie along `out`."""

    weight: str
    bias: str
    shape: tuple[int, ...]
    out: int

    @property
    def outputs(self) -> int:
        """Its rows as (out, in)."""
        return self.shape[self.out]

    @property
    def inputs(self) -> int:
        """Its columns as (out, in)."""
        return self.shape[1 - self.out]


def splits_of(objective: Objective, heads: Heads) -> dict[str, list[Split]]:
    """The parts of each parameter of attention that can be split, by its name.

    Raises `ValueError` where no attention is found, its number of heads is not known, or does not divide its matrices.
    """
    found: dict[str, list[Split]] = {}
    for attention, matrices in attentions(objective.module):
        count = _count(objective.module, attention, heads)
        if count is None:
            continue
        for name, splits in head_splits(attention, matrices, count).items():
            if name in objective.slices:
                found[name] = splits
    if not found:
        raise ValueError(
            f"heads={heads!r}: no attention is found among the parameters, which is known by names such as q_proj, "
            "c_attn and qkv, and as nn.MultiheadAttention: leave heads out"
        )
    return found


def attentions(model: nn.Module) -> Iterator[tuple[str, dict[str, Matrix]]]:
    """The path of each attention module, and its matrices by their roles: "query", "key", "value" or "fused", ..."""
    modules = dict(model.named_modules())
    for path, module in modules.items():
        start = f"{path}." if path else ""
        matrices: dict[str, Matrix] = {}
        if isinstance(module, nn.MultiheadAttention):
            matrices = dict(_of_torch(start, module))
        for role, names in _NAMES.items():
            for name in names:
                child = modules.get(start + name)
                if child is not None and role not in matrices and (made := _matrix(start + name, child)):
                    matrices[role] = made
        if path.rpartition(".")[2] == "self" and "projection" not in matrices:  # BERT: attention.self, attention.output
            place = f"{path.removesuffix('self')}output.dense"
            if place in modules and (made := _matrix(place, modules[place])):
                matrices["projection"] = made
        if "fused" in matrices or set(_ROLES) <= set(matrices):
            yield path or type(model).__name__, matrices


def _of_torch(start: str, module: nn.MultiheadAttention) -> Iterator[tuple[str, Matrix]]:
    if module.in_proj_weight is not None:
        yield "fused", Matrix(f"{start}in_proj_weight", f"{start}in_proj_bias", tuple(module.in_proj_weight.shape), 0)
        return
    for role in _ROLES:  # keys or values of other widths; their one bias cannot go with each
        weight = getattr(module, f"{role[0]}_proj_weight")
        yield role, Matrix(f"{start}{role[0]}_proj_weight", "", tuple(weight.shape), 0)


def _matrix(path: str, module: nn.Module) -> Matrix | None:
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        return None
    transposed = "Conv1D" in {kind.__name__ for kind in type(module).__mro__}  # of transformers: (in, out)
    return Matrix(f"{path}.weight", f"{path}.bias", tuple(weight.shape), int(transposed))


def _count(model: nn.Module, attention: str, heads: Heads) -> int | None:
    """How many heads, None where it is to be left whole."""
    if isinstance(heads, Mapping):
        return next((count for pattern, count in heads.items() if fnmatch.fnmatchcase(attention, pattern)), None)
    own = _own_count(model, attention)
    if heads == "auto":
        if own is None:
            raise ValueError(f"{attention} does not say how many heads it has: give heads=4, or {{{attention!r}: 4}}")
        return own
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise ValueError(f'heads is a whole number, "auto" or {{pattern: number}}, not {heads!r}')
    if own is not None and own != heads:
        raise ValueError(f'{attention} says that it has {own} heads, not {heads}: heads="auto" takes what each says')
    return heads


def _own_count(model: nn.Module, attention: str) -> int | None:
    modules = dict(model.named_modules())
    module = modules.get(attention, model)
    parent = modules.get(attention.rpartition(".")[0], model)
    for place in (module, getattr(module, "config", None), parent, getattr(model, "config", None)):
        for name in _COUNTS:
            value = getattr(place, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def head_splits(attention: str, matrices: Mapping[str, Matrix], heads: int) -> dict[str, list[Split]]:
    """Of each parameter the rows of query, key and value, or columns of the projection, that belong to each head."""
    fused, projection = matrices.get("fused"), matrices.get("projection")
    if fused is not None:
        # with fewer heads for keys and values, what the projection takes in tells how many rows are queries
        queries = projection.inputs if projection is not None else fused.outputs // 3
        found = _rows(fused, _fused(attention, fused, queries, heads), attention)
    else:
        found, keys = {}, matrices["key"]
        width = _divided(matrices["query"].outputs, heads, attention, matrices["query"].weight)
        fewer = _divided(keys.outputs, width, attention, keys.weight)
        for role, count in zip(_ROLES, (heads, fewer, fewer), strict=True):
            own = _divided(matrices[role].outputs, count, attention, matrices[role].weight)
            found |= _rows(matrices[role], {role: [(h * own, (h + 1) * own) for h in range(count)]}, attention)
    if projection is not None:
        own = _divided(projection.inputs, heads, attention, projection.weight)
        columns = [(h * own, (h + 1) * own) for h in range(heads)]
        found[projection.weight] = _along(1 - projection.out, "projection", columns, attention)
    return found


def _fused(attention: str, fused: Matrix, queries: int, heads: int) -> dict[str, list[tuple[int, int]]]:
    """Where the rows of each head lie in a fused matrix, by their roles."""
    width = _divided(queries, heads, attention, fused.weight)
    others = _divided(fused.outputs - queries, 2, attention, fused.weight)
    if fused.weight.endswith("query_key_value.weight"):
        if others != queries:
            raise ValueError(f"{attention}: the order of rows in {fused.weight!r} is not known: leave heads out")
        starts = {role: [(3 * h + i) * width for h in range(heads)] for i, role in enumerate(_ROLES)}
    else:
        fewer = _divided(others, width, attention, fused.weight)
        counts = (heads, fewer, fewer)
        begin = (0, queries, queries + others)
        starts = {role: [at + h * width for h in range(n)] for role, at, n in zip(_ROLES, begin, counts, strict=True)}
    return {role: [(at, at + width) for at in places] for role, places in starts.items()}


def _rows(matrix: Matrix, places: Mapping[str, list[tuple[int, int]]], attention: str) -> dict[str, list[Split]]:
    """Of a weight along its outputs, and of the bias that goes with it."""
    made = {
        name: [one for role, where in places.items() for one in _along(dim, role, where, attention)]
        for name, dim in ((matrix.weight, matrix.out), (matrix.bias, 0))
    }
    return {name: splits for name, splits in made.items() if name}


def _along(dim: int, role: str, places: list[tuple[int, int]], attention: str) -> list[Split]:
    return [Split(role, h, attention, dim, start, stop) for h, (start, stop) in enumerate(places)]


def _divided(total: int, parts: int, attention: str, name: str) -> int:
    if parts < 1 or total < 1 or total % parts:
        raise ValueError(f"{attention}: {total} rows or columns of {name!r} do not divide by {parts}: other heads=?")
    return total // parts
