"""A comparison of runs as a table: a row per place of the axis, a column per experiment."""

from __future__ import annotations

import numpy as np
from rich.console import Group
from rich.text import Text

from probes.numbers import plus_minus, short
from probes.views.comparison.select import Comparison, Repeated
from probes.views.tables import side_by_side, with_notes


def comparison_table(comparison: Comparison, *, width: int = 200, rows: int = 15) -> Group:
    """Mean and standard error of each experiment at up to `rows` places of the axis, in the order of training.

    What does not fit `width` columns beside each other goes into a table below.
    """
    places = comparison.grid(rows)
    if comparison.by == "loss":
        places = places[::-1]
    labels = place_labels(places)
    columns: dict[str, dict[str, str]] = {}
    for group in comparison.groups:
        heading = group.heading
        while heading in columns:  # values that read the same, as 1 and "1" do
            heading += "'"
        columns[heading] = dict(zip(labels, cells_at(group, places), strict=True))
    # not as the title of a table, which is folded to the table's width
    title = Text(comparison.title, style="bold")
    views = side_by_side(columns, labels, width, comparison.by)
    return with_notes([title, *views], [method(comparison), *comparison.notes])


def cells_at(group: Repeated, places: np.ndarray) -> list[str]:
    """Mean and standard error of an experiment at each place, "" where no run has been."""
    found = group.average(places)
    return [
        _cell(float(mean), float(stderr), int(count), len(group.names))
        for mean, stderr, count in zip(found.mean, found.stderr, found.runs, strict=True)
    ]


def method(comparison: Comparison) -> str:
    """One line on how the numbers came about."""
    parts = ["± one standard error over the runs of a column; [n]: n of them were there"] * comparison.repeated
    return "; ".join([*parts, comparison.how])


def place_labels(places: np.ndarray) -> list[str]:
    """Places of the axis as short texts that differ."""
    if np.all(places == np.round(places)):
        return [str(int(place)) for place in places]
    for digits in (3, 4, 5, 6, 8, 10, 12):
        labels = [short(float(place), digits) for place in places]
        if len(set(labels)) == len(labels):
            return labels
    return [repr(float(place)) for place in places]


def _cell(mean: float, stderr: float, count: int, runs: int) -> str:
    if count == 0:
        return ""
    text = plus_minus(mean, stderr) if count > 1 else short(mean, 5)
    return f"{text} [{count}]" if count < runs else text
