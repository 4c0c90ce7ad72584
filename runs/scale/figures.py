"""The picture of the page: seconds of a Lanczos step over the number of parameters, a line for each number of GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from probes.views.pictures.axes import end_label, log_axis
from probes.views.pictures.style import figure, headline, save, sequence, style
from runs.scale.machine import Machine
from runs.scale.model import Setting
from runs.scale.network import of_size
from runs.scale.plan import best
from runs.scale.tables import RANKS, SEQUENCE

_SIZES = np.geomspace(1e6, 1e11, 41)
_MARKS = {
    "launches": "v",
    "memory bandwidth": "s",
    "arithmetic": "o",
    "network latency": "^",
    "network bandwidth": "D",
    "host link": "P",
    "disk": "X",
}


def step_picture(machine: Machine, setting: Setting, path: Path) -> Path:
    """A mark says what takes most of the step; a line ends where not even batches of one sequence fit."""
    with style():
        made, (axes,) = figure(height=5.0)
        seen: set[str] = set()
        for ranks, colour in zip(RANKS, sequence(len(RANKS)), strict=True):
            plans = [(size, best(of_size(size, SEQUENCE), setting, ranks, machine)) for size in _SIZES]
            points = [(size, plan.step.total, plan.bottleneck) for size, plan in plans if plan.step is not None]
            sizes, seconds, names = zip(*points, strict=True)
            axes.plot(sizes, seconds, color=colour, lw=1.3)
            for name in sorted(set(names)):
                at = [i for i, other in enumerate(names) if other == name]
                axes.plot([sizes[i] for i in at], [seconds[i] for i in at], _MARKS[name], color=colour, ms=4)
            seen |= set(names)
            end_label(axes, (sizes[-1], seconds[-1]), f"{ranks:,} GPU{'s' if ranks > 1 else ''}", color=colour)
        for name in (name for name in _MARKS if name in seen):
            axes.plot([], [], _MARKS[name], color="#555555", ms=5, label=name)
        log_axis(axes)
        axes.set(xscale="log", xlabel="parameters", ylabel="seconds", xlim=(_SIZES[0] / 1.3, _SIZES[-1] * 2.5))
        axes.legend(loc="upper left", title="what takes most of a step")
        headline(
            axes,
            f"One Lanczos step, {setting.rows:,} tokens",
            f"predicted, {machine.name}, {setting.dtype}; a line ends where memory does",
        )
        return save(made, path)
