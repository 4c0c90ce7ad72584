"""`landscape probe --by-layer`: a curvature probe of each layer, by its name, on graphs that all of them share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probes.errors import UserError
from probes.instruments.base import Instrument
from probes.instruments.by_layer import OfLayers
from probes.instruments.curvature import CurvatureInstrument
from probes.instruments.registry import PROBES

if TYPE_CHECKING:
    from landscape import Objective

Group = tuple[Instrument, ...]  # what is measured together


def groups_of(probes: Sequence[Instrument], objective: Objective, by_layer: bool) -> list[Group]:
    """Each probe by itself; with `by_layer` those of a curvature matrix as one for each layer, `"trace h.0.mlp"`.

    Raises `UserError` (status 2) where none of them is of a curvature matrix.
    """
    if not by_layer:
        return [(probe,) for probe in probes]
    if not any(map(_is_split, probes)):
        known = [name for name, entry in PROBES.items() if issubclass(entry.load(), CurvatureInstrument)]
        able = ", ".join(name for name in known if not issubclass(PROBES[name].load(), OfLayers))
        raise UserError(f"--by-layer is for probes of a curvature matrix: {able}", status=2)
    return [_layers(probe, objective) if _is_split(probe) else (probe,) for probe in probes]


def _is_split(probe: Instrument) -> bool:
    return isinstance(probe, CurvatureInstrument) and not isinstance(probe, OfLayers)


def _layers(probe: Any, objective: Objective) -> Group:
    """The probe of each layer that it looks at."""
    from landscape import BlockDiagonal, Hessian

    chosen = objective if probe.parameters is None else objective.restrict(probe.parameters)
    made = []
    for label, block in BlockDiagonal(Hessian(chosen), by="layer").layout.items():
        size = sum(chosen.slices[name].stop - chosen.slices[name].start for name in block.names)
        fewer = {"k": min(probe.k, size)} if hasattr(probe, "k") else {}
        made.append(dataclasses.replace(probe, name=f"{probe.name} {label}", parameters=block.names, **fewer))
    return tuple(made)
