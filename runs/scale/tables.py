"""The tables of the command and of the page: plain cells first, then rich or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from probes.numbers import duration, short
from runs.benchmarks import command
from runs.scale.check import Check
from runs.scale.grid import Grid, sweep
from runs.scale.machine import Machine
from runs.scale.model import Setting
from runs.scale.network import of_size
from runs.scale.plan import Plan, best

SIZES = (1e6, 1e7, 1e8, 1e9, 1e10, 1e11)
RANKS = (1, 8, 64, 256, 1024)
SEQUENCE = 1024


@dataclass(frozen=True)
class Table:
    """A title, headings, and rows of text; `words`: columns that are set to the left."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: tuple[str, ...] = ()

    def rich(self) -> RichTable:
        """For the terminal."""
        return command.table(self.title, self.headings, self.rows, words=self.words)

    def markdown(self) -> str:
        """For the page, without the title."""
        left = [i == 0 or heading in self.words for i, heading in enumerate(self.headings)]
        lines = [self.headings, tuple("---" if one else "---:" for one in left), *self.rows]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def constants(machine: Machine) -> Table:
    """Every figure of a machine with its kind."""
    kind = machine.sources
    rows = [
        (f"matrix products, {dtype}", f"{rate / 1e9:,.3g} GFLOP/s", kind["flops"])
        for dtype, rate in machine.flops.items()
    ]
    rows += [
        ("element-wise operations", _rate(machine.bandwidth), kind["bandwidth"]),
        ("a basis in one pass of Gram-Schmidt", _rate(machine.orthogonalise), kind["orthogonalise"]),
        ("one operation beside its work", duration(machine.launch), kind["launch"]),
    ]
    for name in ("all_reduce", "all_gather", "reduce_scatter"):
        channel = getattr(machine, name)
        cell = f"{duration(channel.latency)} a round, {_rate(channel.bandwidth)}"
        rows.append((name.replace("_", "-"), cell, kind["collectives"]))
    if machine.nic is not None:
        rows.append(("network card of a rank", _rate(machine.nic), kind["nic"]))
    if machine.pcie is not None:
        rows.append(("host to device", _rate(machine.pcie), kind["pcie"]))
    rows += [
        ("reading a file", _rate(machine.disk), kind["disk"]),
        ("memory of a rank", _bytes(machine.memory), kind["memory"]),
        ("host memory of a rank", _bytes(machine.host_memory), kind["host_memory"]),
        ("disk of a rank", _bytes(machine.disk_memory), kind["disk_memory"]),
        ("start of a process", duration(machine.start), kind["start"]),
    ]
    return Table(f"constants: {machine.name}", ("figure", "value", "kind"), rows, ("kind",))


def checks(found: Sequence[Check]) -> Table:
    """Predicted and measured."""
    rows = [(c.name, duration(c.predicted), duration(c.measured), f"{c.ratio:.2f}", c.bottleneck) for c in found]
    headings = "two processes", "predicted", "measured", "ratio", "most of it, by the model"
    return Table("the model against two real processes", headings, rows, headings[-1:])


def networks() -> Table:
    """The transformers that the tables are of."""
    rows = []
    for size in SIZES:
        made = of_size(size, SEQUENCE)
        graph = 4 * made.kept * made.rows
        rows.append((short(size), made.name.removeprefix("transformer, "), f"{made.parameters:.3g}", _bytes(graph)))
    return Table("networks", ("parameters", "shape", "exactly", "graph of a sequence, float32"), rows, ("shape",))


def steps(machine: Machine, setting: Setting) -> Table:
    """One product, one orthogonalisation and one Lanczos step by size and ranks."""
    headings = ["parameters", "GPUs", "layout", "memory", "kept", "basis", "product", "sent", "orthogonalisation"]
    headings += ["Lanczos step", "first bottleneck"]
    rows = [_step(size, ranks, setting, machine) for size in SIZES for ranks in RANKS]
    title = f"{machine.name}: {setting.kind}, {setting.dtype}, {setting.rows:,} tokens, {setting.columns} columns"
    return Table(title, tuple(headings), rows, ("layout", "basis", headings[-1]))


def _step(size: float, ranks: int, setting: Setting, machine: Machine) -> tuple[str, ...]:
    plan = best(of_size(size, SEQUENCE), setting, ranks, machine)
    found, step = plan.memory, plan.step
    start = (short(size), f"{ranks:,}", plan.layout.name, _bytes(found.least))
    if step is None or plan.product is None or plan.orthogonalisation is None:
        return (*start, *[""] * 6, _lacking(size, plan, setting, machine))
    basis = f"{found.place}, {found.columns}" if found.place == "restart" else found.place
    times = [_time(cost.total) for cost in (plan.product, plan.orthogonalisation, step)]
    why = f"{plan.bottleneck} ({step.seconds[plan.bottleneck] / step.total:.0%})"
    return (*start, f"{found.kept:.0%}", basis, times[0], _bytes(plan.product.sent), *times[1:], why)


def _lacking(size: float, plan: Plan, setting: Setting, machine: Machine) -> str:
    """What does not fit, and with which sequences it would."""
    shorter = [SEQUENCE >> power for power in range(1, 8)]
    fitting = (s for s in shorter if best(of_size(size, s), setting, plan.layout.ranks, machine).step is not None)
    longest = next(fitting, None)
    return f"memory (sequences of {longest} fit)" if longest else "memory"


def sweeps(machine: Machine, setting: Setting, grid: Grid) -> Table:
    """A grid of runs by size and ranks."""
    headings = ("parameters", "GPUs", "GPUs a run", "a run", "the sweep", "GPU hours", "checkpoints", "most of a run")
    rows = []
    for size in SIZES:
        for ranks in RANKS:
            found = sweep(of_size(size, SEQUENCE), grid, setting, ranks, machine)
            cells = ["", "", "", "", "", "memory"]
            if found is not None:
                cells = [str(found.ranks), _time(found.run), _time(found.seconds)]
                cells += [short(found.seconds * ranks / 3600, 3), _bytes(found.kept), found.bottleneck]
            rows.append((short(size), f"{ranks:,}", *cells))
    title = f"{grid.runs:,} runs of {grid.steps:,} steps, each measured {grid.measurements} times: {machine.name}"
    return Table(title, headings, rows, headings[-1:])


def _time(seconds: float) -> str:
    for unit, name in ((365.25 * 86400, "years"), (86400.0, "days")):
        if seconds >= 2 * unit:
            return f"{short(seconds / unit, 2)} {name}"
    return duration(seconds)


def _rate(value: float) -> str:
    return f"{_bytes(value)}/s"


def _bytes(value: float) -> str:
    """In decimal units, as data sheets have them."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{short(value / unit, 3)} {name}"
    return f"{value:.0f} B"
