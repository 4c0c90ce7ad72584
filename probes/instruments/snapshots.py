"""The probe that keeps the network itself, to go back to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from probes.context import Context
from probes.instruments.base import Instrument
from probes.instruments.packing import PARAMETERS, fields_of, packed, squared_distance
from probes.trace.layout import Field


@dataclass(frozen=True, kw_only=True)
class Snapshots(Instrument):
    """All parameters, trained or frozen, and all persistent buffers, bit for bit: a checkpoint in the trace.

    Fields: n, numbers of the parameters; bytes of parameters and buffers; norm of the parameters; and for each dtype
    `parameters_float32`, `buffers_int64`, ... `(numbers,)`, whose `Field.parts` has names and shapes. Tied weights are
    there once. `landscape probe run.h5` and `probes.load_checkpoint("run.h5@300", model)` take them for checkpoints;
    tables, exports and frames leave the weights out. Raises `ValueError` for a model of 1 GiB.

    Example:
        >>> from torch import eye, nn, ones
        >>> from landscape import Objective
        >>> from probes import Snapshots, Trace, load_checkpoint, measure_once
        >>> model = nn.Linear(2, 1)
        >>> with Trace.create("snapshots.h5") as trace:
        ...     _ = measure_once(Objective(model, nn.MSELoss(), (eye(2), ones(2, 1))), [Snapshots()], trace, step=300)
        >>> again = nn.Linear(2, 1)
        >>> load_checkpoint("snapshots.h5@300", again)
        >>> bool((again.weight == model.weight).all())
        True
    """

    name: str = "snapshots"
    needs: ClassVar[frozenset[str]] = frozenset({"parameters"})

    @override
    def fields(self, context: Context) -> Mapping[str, Field]:
        return {
            "n": Field((), "int64", "", "numbers of the parameters, trained or frozen, tied ones once"),
            "bytes": Field((), "int64", "byte", "of parameters and buffers"),
            "norm": Field((), "float64", "parameter", "Euclidean norm of the parameters"),
        } | fields_of(context.objective.module)

    @override
    def measure(self, context: Context) -> dict[str, Any]:
        kept = packed(context.objective.module)
        return {
            "n": sum(len(values) for name, values in kept.items() if name.startswith(PARAMETERS)),
            "bytes": sum(values.nbytes for values in kept.values()),
            "norm": math.sqrt(squared_distance(kept)),
        } | kept
