"""Which curves of which runs are compared: the field, the axis, and the runs that repeat one experiment.

Reads the runs; the mathematics is in `curves`, what is shown in `table` and `picture`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from probes.errors import UserError, check_choice, did_you_mean, first_few
from probes.trace.columns import column_names
from probes.trace.configs import varying_keys
from probes.trace.layout import Array, Field
from probes.trace.reader import read_fields
from probes.trace.runs import Run
from probes.trace.set import TraceSet
from probes.views.comparison.curves import Average, Curve, against_loss, average, curve, loss_levels, shared_grid
from probes.views.comparison.told import notes_on_products

AXES = ("step", "epoch", "loss", "time")
_FIRST = ("sharpness", "spectrum", "trace", "loss", "gradient")  # what is compared when nobody says what
_LEVELS = 200

Tables = Mapping[str, Mapping[str, Field]]  # name of the records -> field -> what it is


class Quantity(NamedTuple):
    """One number per record: an entry (in row-major order) of a field of the records `probe`."""

    probe: str
    field: str
    entry: int
    name: str
    units: str


@dataclass(frozen=True)
class Repeated:
    """One experiment: its label, its runs, and their curves."""

    label: str
    names: tuple[str, ...]
    curves: tuple[Curve, ...]

    @property
    def heading(self) -> str:
        """The label, and how many runs there are."""
        return f"{self.label} ({len(self.names)} runs)" if len(self.names) > 1 else self.label

    def average(self, x: Array) -> Average:
        """Mean and standard error over the runs at the places x (m,)."""
        return average(self.curves, x)


@dataclass(frozen=True)
class Comparison:
    """What is compared: the field with its units, the axis ("step", ...), the experiments, what to know, and how it
    came about between the points."""

    field: str
    units: str
    by: str
    groups: tuple[Repeated, ...]
    notes: tuple[str, ...]
    how: str

    @property
    def title(self) -> str:
        """The field with its units."""
        return f"{self.field} [{self.units}]" if self.units else self.field

    @property
    def repeated(self) -> bool:
        """Whether some experiment has several runs."""
        return any(len(group.names) > 1 for group in self.groups)

    def grid(self, most: int) -> Array:
        """Up to `most` places of the axis, ascending, where some run has a point."""
        return shared_grid([line for group in self.groups for line in group.curves], most)


def compare_runs(
    runs: TraceSet, field: str | None = None, by: str = "step", keys: Sequence[str] = (), loss: str | None = None
) -> Comparison:
    """The field `probe.field` (or `probe.field.entry`) of the runs along an axis, averaged over repetitions.

    Repetitions are runs whose configs are equal apart from seeds, or equal in the `keys`; without any config each
    run stands for itself. `loss` names the field that is the loss where `by` is "loss". Raises `UserError` for
    a field, an axis or a key that no run has.
    """
    check_choice("--by", by, AXES)
    tables = {run.name: _tables(run) for run in runs}
    field = field or _default(tables.values())
    chosen = [(run, quantity) for run in runs if (quantity := find(field, tables[run.name])) is not None]
    if not chosen:
        known = sorted({f"{probe}.{name}" for t in tables.values() for probe in t for name in _numbers(t[probe])})
        near = did_you_mean(field, known)
        raise UserError(f"no run has the field {field!r}; there are {first_few(known, 12) or 'none'}{near}")
    lines, notes = _lines(chosen, tables, by, loss)
    quantity = chosen[0][1]
    notes += notes_on_products([(run, q.probe, tables[run.name][q.probe]) for run, q in chosen])
    have = [run for run, _ in chosen]
    return compare_curves(runs, lines, quantity.name, quantity.units, by, keys=keys, have=have, notes=notes)


def compare_curves(
    runs: TraceSet,
    lines: Mapping[str, Curve],
    what: str,
    units: str,
    by: str,
    *,
    keys: Sequence[str] = (),
    have: Sequence[Run] | None = None,
    notes: Sequence[str] = (),
    how: str = "",
) -> Comparison:
    """These curves of runs, by their names, averaged over repetitions. `have`: the runs that could have had one."""
    among = [run for run in runs if run.name in lines]
    groups = [
        Repeated(label, tuple(run.name for run in members), tuple(lines[run.name] for run in members))
        for label, members in _grouped(runs, among, keys)
    ]
    told = _notes(runs, among if have is None else have, groups, lines, keys, what)
    passage = "at each loss: when a run first came down to it, linear between records"
    how = how or (passage if by == "loss" else "linear between records, within each run's own range")
    return Comparison(what, units, by, tuple(groups), (*told, *notes), how)


def find(text: str, tables: Tables) -> Quantity | None:
    """The quantity that `probe`, `probe.field` or `probe.field.entry` names; None when it is not there.

    A probe alone stands for its value, its first scalar or its first entry; an array for its first entry.
    """
    for probe, fields in tables.items():
        numbers = _numbers(fields)
        if text == probe:
            scalars = [name for name, field in numbers.items() if not field.shape and field.dtype.startswith("float")]
            best = next((name for name in ("value", *scalars[:1], "values") if name in numbers), None)
            return find(f"{probe}.{best}", tables) if best else None
        if not text.startswith(f"{probe}."):
            continue
        rest = text[len(probe) + 1 :]
        for name, field in numbers.items():
            columns = column_names(name, field)
            if rest == name and len(field.shape) <= 1:
                rest = columns[0]
            if rest in columns:
                return Quantity(probe, name, columns.index(rest), f"{probe}.{rest}", field.units)
    return None


def _numbers(fields: Mapping[str, Field]) -> dict[str, Field]:
    return {name: field for name, field in fields.items() if not (field.ragged or field.is_string or field.parts)}


def _default(tables: Iterable[Tables]) -> str:
    """What most runs have: the sharpness if they do, else the largest eigenvalue, the trace, the loss."""
    found = (find(probe, table) for table in tables for probe in table)
    counts = Counter(quantity.name for quantity in found if quantity is not None)
    if not counts:
        raise UserError("these runs have no numbers to compare")
    rank = {probe: i for i, probe in enumerate(_FIRST)}
    return min(counts, key=lambda name: (-counts[name], rank.get(name.split(".")[0], len(rank)), name))


def _tables(run: Run) -> Tables:
    with run.open().reading() as file:
        return {name: read_fields(group) for name, group in file["probes"].items()}


def _lines(
    chosen: Sequence[tuple[Run, Quantity]], tables: Mapping[str, Tables], by: str, loss: str | None
) -> tuple[dict[str, Curve], list[str]]:
    """The curve of each run that can be put on the axis, and a note on those that cannot."""
    what = chosen[0][1].name
    axis = "step" if by == "loss" else by
    lines = {run.name: curve(*_columns(run, quantity, axis)) for run, quantity in chosen}
    without = f"values of {what} with {'an' if by == 'epoch' else 'a'} {by}"
    if by == "loss":
        found = {run.name: _loss(run, tables[run.name], loss) for run, _ in chosen}
        losses = {name: series for name, series in found.items() if series is not None}
        levels = loss_levels([values for _, values in losses.values()], _LEVELS)
        lines = {name: against_loss(lines[name], *series, levels) for name, series in losses.items()}
        without = f"a loss ({loss or 'a field loss, as Gradient records it, or loss.value'}) beside {what}"
    lines = {name: line for name, line in lines.items() if len(line.x)}
    empty = [run.name for run, _ in chosen if run.name not in lines]
    if not lines:
        if not any(len(run.records(quantity.probe)) for run, quantity in chosen):
            raise UserError(f"no run has a record of {what}; landscape show says what was skipped, and why")
        raise UserError(f"no run has {without}" + ("" if by == "step" else ": use --by step"))
    return lines, [f"left out, without {without}: {first_few(empty)}"] if empty else []


def _columns(run: Run, quantity: Quantity, axis: str) -> tuple[Array, Array]:
    columns = run.records(quantity.probe).read(only=(axis, quantity.field))
    values = columns[quantity.field]
    entries = int(np.prod(values.shape[1:]))  # not -1, which says nothing where there are no rows
    return columns[axis], values.reshape(len(values), entries)[:, quantity.entry] if values.ndim > 1 else values


def _loss(run: Run, tables: Tables, wanted: str | None) -> tuple[Array, Array] | None:
    """Steps (ascending) and values of the loss: the field that was asked for, `loss.value`, or a field `loss`."""
    names = [wanted] if wanted else ["loss.value", *(f"{probe}.loss" for probe in tables)]
    for name in names:
        quantity = find(name, tables)
        if quantity is not None:
            steps, values = _columns(run, quantity, "step")
            order = np.argsort(steps, kind="stable")
            return steps[order], values[order]
    return None


def _grouped(runs: TraceSet, have: Sequence[Run], keys: Sequence[str]) -> list[tuple[str, list[Run]]]:
    """Label and runs of each experiment."""
    among = TraceSet(runs.folder, have, {})
    try:
        groups = among.groups(*keys) if keys or _configured(have) else among.groups("run")
    except KeyError as error:
        raise UserError(f"--group: {error.args[0]}") from None
    return [(str(g.values["run"]) if list(g.values) == ["run"] else g.label, list(g.runs)) for g in groups]


def _configured(runs: Sequence[Run]) -> bool:
    return any(key != "seed" for run in runs for key in run.config)


def _notes(
    runs: TraceSet,
    have: Sequence[Run],
    groups: Sequence[Repeated],
    lines: Mapping[str, Curve],
    keys: Sequence[str],
    field: str,
) -> list[str]:
    """What a reader must know to read the numbers right."""
    notes = []
    missing = [run.name for run in runs if run not in have]
    if missing:
        notes.append(f"{len(missing)} of {len(runs)} runs have no {field}: {first_few(missing)}")
    if runs.unreadable:
        name, reason = next(iter(runs.unreadable.items()))
        count = "1 file" if len(runs.unreadable) == 1 else f"{len(runs.unreadable)} files"
        notes.append(f"{count} cannot be read; {name}: {reason}")
    dropped = sum(line.dropped for line in lines.values())
    if dropped:
        notes.append(f"not finite, and left out: {dropped} records")
    if not keys and len(have) > 1 and not _configured(have):
        notes.append("the runs have no config that says which repeat each other: each stands for itself")
    alike, mixed = [], set()
    for group in groups:
        configs = [run.config for run in have if run.name in group.names]
        if len({config.get("seed") for config in configs}) < len(configs):
            alike.append(group.label)
        mixed |= set(varying_keys(configs))
    if alike:
        notes.append(f"some runs have the same seed, so that the errors may be too small: {first_few(alike)}")
    if mixed:
        notes.append(f"averaged over runs that differ in {first_few(sorted(mixed))} too")
    return notes
