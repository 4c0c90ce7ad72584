"""What was measured on what: the head of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import first_few
from probes.numbers import duration
from probes.trace.configs import flatten
from probes.views.kinds import KINDS
from probes.views.report.page import Fact, Grid
from probes.views.report.source import Source
from probes.views.tables import cells_of, plain_text, writer_text

if TYPE_CHECKING:
    from probes.trace.trace import Trace

_LONG = 300
_RUNS = 6  # side by side at a glance
_PER_GROUP = 2
_DETAILS = ("Versions", "Trace", "Identity")


def facts_of(sources: Sequence[Source]) -> tuple[list[Fact], list[Fact]]:
    """Name and text of each fact, and of what is looked up; where runs differ, what each of them says."""
    found = list(_joined([(source.label, dict(_facts(source))) for source in sources]))
    return [f for f in found if f.name not in _DETAILS], [f for f in found if f.name in _DETAILS]


def lead_of(sources: Sequence[Source]) -> str:
    """One sentence: how much was measured."""
    steps = np.unique(np.concatenate([np.empty(0, np.int64), *(s for source in sources for s in source.steps)]))
    rows = sum(len(group.columns["step"]) for source in sources for group in source.groups)
    runs = "" if len(sources) == 1 else f" in {len(sources)} runs"
    if not rows:
        return f"Nothing has been measured{runs} yet."
    kinds = list(dict.fromkeys(group.records.name for source in sources for group in source.groups))
    count = f"{rows} measurements" if rows > 1 else "One measurement"
    span = f"at {len(steps)} steps from {steps[0]} to {steps[-1]}" if len(steps) > 1 else f"at step {steps[0]}"
    return f"{count} {span}{runs}: {first_few(kinds, 20)}."


def _facts(source: Source) -> Iterator[tuple[str, str]]:
    trace = source.trace
    config = {key: value for key, value in flatten(trace.config).items() if not key.startswith("checkpoints.")}
    subject = {str(key): value for key, value in source.subject.items()}
    for key, value in subject.items():
        yield key.capitalize(), plain_text(value)
    if "parameters" not in subject and source.size is not None:
        yield "Parameters", f"{source.size:,}"
    yield "Measured", _measured(source)
    told = "; ".join(f"{key} {plain_text(value)}" for key, value in config.items())
    if told:
        yield "Config", told if len(told) <= _LONG else f"{told[:_LONG]} ..."
    yield "Seed", str(trace.seed)
    yield "Cost", _cost(source)
    yield "Versions", _versions(trace)
    yield "Trace", f"{trace.path.name}, created {trace.created}, {writer_text(trace)}"
    yield "Identity", trace.uuid


def _measured(source: Source) -> str:
    parts = []
    for group in source.groups:
        steps = group.columns["step"]
        if len(steps):
            span = f"step {steps[0]}" if len(steps) == 1 else f"{len(steps)} times, {steps.min()} to {steps.max()}"
            parts.append(f"{group.records.name} ({span})")
    return ", ".join(parts) or "nothing yet"


def _cost(source: Source) -> str:
    costs = {g.records.name: float(np.sum(g.columns["cost"])) for g in source.groups if len(g.columns["step"])}
    costs = {name: cost for name, cost in costs.items() if np.isfinite(cost)}
    if not costs:
        return "none"
    most = max(costs, key=costs.__getitem__)
    share = f", most of it {most} ({duration(costs[most])})" if len(costs) > 1 else ""
    return f"{duration(sum(costs.values()))} of measuring{share}"


def _versions(trace: Trace) -> str:
    environment: Mapping[str, Any] = trace.environment if isinstance(trace.environment, Mapping) else {}
    packages = environment.get("packages")
    packages = dict(packages) if isinstance(packages, Mapping) else {}
    parts = [f"{name} {version}" for name, version in packages.items()]
    parts += [f"Python {environment['python']}"] * ("python" in environment)
    parts += [str(environment["system"])] * ("system" in environment)
    parts += [f"{environment['cpus']} CPUs"] * bool(environment.get("cpus"))
    return ", ".join(parts)


def _joined(told: list[tuple[str, dict[str, str]]]) -> Iterator[Fact]:
    """Facts that all runs share once, others run by run."""
    for key in dict.fromkeys(key for _, facts in told for key in facts):
        texts = {label: facts[key] for label, facts in told if key in facts}
        if len(set(texts.values())) == 1 and (len(texts) == len(told) or len(told) == 1):
            yield Fact(key, [("", next(iter(texts.values())))])
        elif key != "Identity":
            alike: dict[str, list[str]] = {}
            for label, text in texts.items():
                alike.setdefault(text, []).append(label)
            few = [(first_few(labels), text) for text, labels in alike.items()][:_RUNS]
            more = [("", f"and {len(alike) - len(few)} more")] if len(alike) > len(few) else []
            yield Fact(key, few + more)


def glance_of(sources: Sequence[Source]) -> Grid:
    """The first numbers of each group, where they began and ended: one run's first and last step, or several's last."""
    single = len(sources) == 1
    cells: dict[str, dict[int, str]] = {}
    groups = [(i, group) for i, source in enumerate(sources[:_RUNS]) for group in source.groups]
    places = [*KINDS, None]
    for column, group in sorted(groups, key=lambda pair: places.index(pair[1].kind)):
        count = len(group.columns["step"])
        wanted = {0: 0, 1: count - 1} if single else {column: count - 1}
        records = group.records
        for place, row in wanted.items() if count else ():
            values = {field: entries[row] for field, entries in group.columns.items()}
            for heading, text in list(cells_of(records.name, group.entry, records.settings, values))[:_PER_GROUP]:
                cells.setdefault(heading, {})[place] = text
    headings = ["first", "last"] if single else [source.label for source in sources[:_RUNS]]
    rows = [(heading, [texts.get(i, "") for i in range(len(headings))]) for heading, texts in cells.items()]
    left = f"the first {_RUNS} of {len(sources)} runs" if len(sources) > _RUNS else ""
    return Grid("quantity" if single else "at the last step", headings, rows, "", left)
