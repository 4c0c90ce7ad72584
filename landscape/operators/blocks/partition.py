"""Which parameters make a block: those of a layer, each by itself, or what patterns say; attention may go by heads."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from landscape.operators.blocks.heads import Heads, Split, splits_of

By = Literal["layer", "parameter"] | int | Mapping[str, str | Sequence[str]] | Sequence[str]

_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Piece:
    """Of a parameter with that name: all of it, or the entries `start` to `stop` along a dimension."""

    name: str
    split: Split | None = None

    def of(self, tensor: Tensor) -> Tensor:
        """A view of this piece of `(k, *shape of the parameter)`."""
        if self.split is None:
            return tensor
        return tensor.narrow(1 + self.split.dim, self.split.start, self.split.stop - self.split.start)


@dataclass(frozen=True)
class Block:
    """Some entries of the flat vector: the pieces of parameters one after the other, in the order of that vector."""

    pieces: tuple[Piece, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that it has a piece of."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces))

    @property
    def whole(self) -> bool:
        """Whether these parameters belong to it wholly."""
        return all(piece.split is None for piece in self.pieces)

    def take(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Its rows `(k, entries)` of vectors in the shapes of the parameters, `(k, *shape)` by name."""
        return torch.cat([piece.of(parts[piece.name]).flatten(1) for piece in self.pieces], dim=1)

    def put(self, rows: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Write rows `(k, entries)` where `take` reads them."""
        places = [piece.of(parts[piece.name]) for piece in self.pieces]
        sizes = [place.shape[1:].numel() for place in places]
        for place, part in zip(places, rows.split(sizes, dim=1), strict=True):
            place.copy_(part.reshape(place.shape))


def partition(objective: Objective, by: By, heads: Heads) -> dict[str, Block]:
    """The blocks by name, in the order in which their first parameters come; every entry lies in exactly one.

    Raises `ValueError` for a pattern that matches nothing, patterns that overlap, and parameters that none matches.
    """
    split = {} if heads is None else splits_of(objective, heads)
    blocks: dict[str, list[Piece]] = {}
    for label, names in _groups(objective, by).items():
        attentions = {one.attention for name in names for one in split.get(name, ())}
        for name in names:
            for one in split.get(name, ()):
                place = label if len(attentions) == 1 else f"{label}: {one.attention}"
                blocks.setdefault(f"{place}, {one.role} {one.head}", []).append(Piece(name, one))
            if name not in split:
                blocks.setdefault(label, []).append(Piece(name))
    return {label: Block(tuple(pieces)) for label, pieces in blocks.items()}


def _groups(objective: Objective, by: By) -> dict[str, list[str]]:
    """The names of the parameters of each block."""
    if by == "parameter":
        return {name: [name] for name in objective.names}
    layers = {name: layer_of(objective, name) for name in objective.names}
    if by == "layer":
        return _grouped(layers)
    if isinstance(by, int) and by > 0 and not isinstance(by, bool):
        return _grouped({name: ".".join(layer.split(".")[:by]) for name, layer in layers.items()})
    if isinstance(by, str | int):
        raise ValueError(
            f'by is "layer", "parameter", how many parts of the layers\' names tell blocks apart, or patterns, '
            f'{{"attention": "*.attn.*", ...}}; not {by!r}'
        )
    return _matched(objective, by if isinstance(by, Mapping) else {pattern: pattern for pattern in by})


def restricted(blocks: Mapping[str, Block], names: Iterable[str]) -> dict[str, Block]:
    """What is left of the blocks with these parameters only."""
    kept = set(names)
    left = {label: Block(tuple(p for p in block.pieces if p.name in kept)) for label, block in blocks.items()}
    return {label: block for label, block in left.items() if block.pieces}


def layer_of(objective: Objective, name: str) -> str:
    """The module that a parameter belongs to; a parametrization is a part of the module it stands in."""
    module = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
    return module or type(objective.module).__name__  # parameters of the model itself


def _grouped(labels: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, label in labels.items():
        groups.setdefault(label, []).append(name)
    return groups


def _matched(objective: Objective, patterns: Mapping[str, str | Sequence[str]]) -> dict[str, list[str]]:
    """The parameters of each block, where each of them is in one."""
    aliases: dict[int, list[str]] = {}  # a tied parameter answers to all its names
    for name, p in objective.module.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(p), []).append(name)
    answers = {names[0]: names for names in aliases.values()}
    home: dict[str, str] = {}
    for label, globs in patterns.items():
        for pattern in [globs] if isinstance(globs, str) else globs:
            found = [name for name in objective.names if any(_matches(one, pattern) for one in answers[name])]
            if not found:
                raise ValueError(f"block {label!r}: {pattern!r} matches none of {_few(objective.names)}")
            for name in found:
                if home.setdefault(name, label) != label:
                    raise ValueError(
                        f"{name!r} would be in two blocks, {home[name]!r} and {label!r}: make their patterns disjoint"
                    )
    left = [name for name in objective.names if name not in home]
    if left:
        raise ValueError(
            f"{_few(left)} belong to no block: name one for them, or BlockDiagonal(A.restrict([...]), ...)"
        )
    return _grouped({name: home[name] for name in objective.names})


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
