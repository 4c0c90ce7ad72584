"""Axes of tensors that carry units (neurons, channels, heads), and which of them are the same ones.

An axis carries units in blocks: its index is (o, unit, i) with o below `outer` and i below `inner`. A flattened image
has all pixels of a channel in a row, and a projection of attention all features of a head. Axes that meet in an
operation have to be permuted alike: a union-find over units, in which units may turn out to be parts of larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass


class Units:
    """Units that are permuted together; `size` of them. `pinned`: no permutation leaves the function as it is."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pinned = size < 2
        self.parent: Axis | None = None  # where these are parts of others


@dataclass(frozen=True)
class Axis:
    """An axis of outer * units.size * inner entries."""

    units: Units
    outer: int = 1
    inner: int = 1

    @property
    def root(self) -> Axis:
        """The same axis in terms of the largest units that are known."""
        axis = self
        while (above := axis.units.parent) is not None:
            axis = Axis(above.units, axis.outer * above.outer, above.inner * axis.inner)
        return axis

    @property
    def pinned(self) -> bool:
        """Whether it must stay as it is."""
        return self.root.units.pinned


Axes = list[Axis | None]


def pin(*axes: Axis | None) -> None:
    """These must stay as they are."""
    for axis in axes:
        if axis is not None:
            axis.root.units.pinned = True


def tie(one: Axis | None, other: Axis | None) -> Axis | None:
    """Both are permuted alike; None stays as it is."""
    if one is None or other is None:
        pin(one, other)
        return None
    a, b = one.root, other.root
    if a == b:
        return a
    if a.units is b.units or not (_refine(a, b) or _refine(b, a)):
        pin(a, b)
    return one.root


def _refine(a: Axis, b: Axis) -> bool:
    """Units of a are parts of those of b, which are as large or larger, if that can be."""
    if b.outer % a.outer or b.inner % a.inner:
        return False
    b.units.pinned |= a.units.pinned
    a.units.parent = Axis(b.units, b.outer // a.outer, b.inner // a.inner)
    return True


def blocks(axis: Axis | None, size: int, outer: int = 1, inner: int = 1) -> Axis | None:
    """The axis as `size` units in blocks; those that it carries become parts of them."""
    return None if axis is None else tie(Axis(Units(size), outer, inner), axis)


def reshaped(axes: Axes, before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """The axes after a reshape: kept, flattened with their neighbours, or cut up into blocks."""
    old = [(size, axis) for size, axis in zip(before, axes, strict=True) if size != 1]
    new = [size for size in after if size != 1]
    found: Axes = []
    while old or new:
        parts, sizes = [old.pop(0)], [new.pop(0)]
        left, right = parts[0][0], sizes[0]
        while left != right:
            if left < right:
                parts.append(old.pop(0))
                left *= parts[-1][0]
            else:
                sizes.append(new.pop(0))
                right *= sizes[-1]
        found += _regrouped(parts, sizes)
    rest = iter(found)
    return [None if size == 1 else next(rest) for size in after]


def _regrouped(parts: list[tuple[int, Axis | None]], sizes: list[int]) -> Axes:
    if len(sizes) == 1:
        return [_flattened(parts)]
    if len(parts) == 1:
        return _cut(parts[0][1], sizes)
    pin(*(axis for _, axis in parts))
    return [None] * len(sizes)


def _flattened(parts: list[tuple[int, Axis | None]]) -> Axis | None:
    carrying = [i for i, (_, axis) in enumerate(parts) if axis is not None and not axis.pinned]
    if len(carrying) != 1:
        pin(*(parts[i][1] for i in carrying))
        return None
    place = carrying[0]
    axis = parts[place][1]
    assert axis is not None
    return Axis(axis.units, _product(parts[:place]) * axis.outer, axis.inner * _product(parts[place + 1 :]))


def _product(parts: list[tuple[int, Axis | None]]) -> int:
    found = 1
    for size, _ in parts:
        found *= size
    return found


def _cut(axis: Axis | None, sizes: list[int]) -> Axes:
    """One axis as several: that one carries the units whose size is theirs, else the first (heads before features)."""
    found: Axes = [None] * len(sizes)
    if axis is None or axis.pinned:
        return found
    axis = axis.root
    places = []
    for j, size in enumerate(sizes):
        before, after = _product([(s, None) for s in sizes[:j]]), _product([(s, None) for s in sizes[j + 1 :]])
        if before % axis.outer == 0 and after % axis.inner == 0:
            exact = size == axis.units.size and (before, after) == (axis.outer, axis.inner)
            three = sizes[0] == 3 and j == 1  # queries, keys and values from one projection
            places.append((not exact, not three, j, before, after))
    if not places:
        pin(axis)
        return found
    *_, j, before, after = min(places)
    units = Units(sizes[j])
    tie(axis, Axis(units, before, after))
    found[j] = Axis(units)
    return found
