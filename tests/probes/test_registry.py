"""A probe is its file and one entry: from there come its row, its cells, its picture, its lines in the command."""

import inspect

import pytest
import torch
from attending import attending
from torch import nn

import probes
from landscape import Objective
from probes import AttentionEntropy, Context, Monitor, Trace, measure_once
from probes.cli import main
from probes.instruments.entry import PYTHON_ONLY
from probes.instruments.registry import PROBES
from probes.instruments.stations import Station
from probes.views.kinds import KINDS, kind_of
from probes.views.pictures.draw import plot_trace
from probes.views.tables import cells_of
from solvers import CubicNewton


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Two measurements by each probe with its default settings."""
    path = tmp_path_factory.mktemp("registry") / "all.h5"
    torch.manual_seed(0)
    X, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), [(a, b) for a, b in zip(X.split(10), y.split(10), strict=True)])
    solver = CubicNewton(model.parameters())
    with Trace.create(path, seed=0) as trace:
        stations = [Station(0, objective.theta()), Station(1, objective.theta() + 0.1)]
        probes = [
            entry.load()().at_stations(stations)
            for entry in PROBES.values()
            if entry.class_name not in ("FunctionClass", "AttentionEntropy")
        ]
        probes.append(PROBES["function-class"].load()())
        monitor = Monitor(objective, probes, trace, optimizer=solver, on_error="raise")
        for step in range(2):
            monitor(step, batch=(X[:10], y[:10]))
            solver.step(lambda: nn.functional.cross_entropy(model(X), y))
            measure_once(attending(), [AttentionEntropy()], trace, step, on_error="raise")
    return Trace.open(path)


@pytest.fixture
def command(capsys):
    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert not stopped.value.code
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("name", PROBES)
def test_records_are_recognised_and_shown(trace, name):
    entry, records = PROBES[name], trace[name]
    assert records.settings["probe"] == entry.class_name
    assert kind_of(records.fields, records.settings) == name
    assert kind_of(records.fields) == name  # as a trace without settings
    assert kind_of(["value"], records.settings) is None  # another class of that name
    columns = records.read()
    cells = dict(
        cells_of(name, KINDS[name], records.settings, {field: column[-1] for field, column in columns.items()})
    )
    assert cells
    assert all(heading.startswith(name) and text for heading, text in cells.items())


def test_every_probe_has_a_picture(trace, tmp_path):
    written = {path.stem for path in plot_trace(trace, tmp_path)}
    assert {f"trace-{name}" for name in PROBES} <= written


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_command_lists_every_probe(command, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    listed = command("probes")
    assert max(map(len, listed.splitlines())) <= width
    helped = " ".join(command("probe", "--help").split())
    for name, entry in PROBES.items():
        assert all(text in listed for text in (name, entry.measures, entry.needs, entry.cost, entry.paper))
        line = " ".join(f"{key}={value}" for key, value in entry.options().items() if key != "name") or "-"
        assert f" {name} {line}" in helped


@pytest.mark.parametrize("name", PROBES)
def test_options_are_those_of_the_class(name):
    kind, options = PROBES[name].load(), PROBES[name].options()
    parameters = inspect.signature(kind).parameters
    assert set(options) == set(parameters) - set(PYTHON_ONLY)
    for option, text in options.items():
        assert text.split("|")[0] == str(parameters[option].default)
    assert kind().name == name
    assert getattr(probes, kind.__name__) is kind


def test_costs_are_those_that_the_probes_expect():
    model = nn.Sequential(nn.Linear(4, 50), nn.Tanh(), nn.Linear(50, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(30, 4), torch.randint(0, 3, (30,))))
    sizes = {"k": 5, "n": objective.size, "outputs": 3}
    for name, entry in PROBES.items():
        told = {"gradient": 0.0, "value": 0.0}
        # of "1 or 2 passes" the mean is expected
        text = entry.cost.partition(";")[0].removeprefix("up to ").replace("1 or 2", "1.5")
        for term in text.split(" + "):
            number, unit = (term, "") if term.isdigit() else term.rpartition(" ")[::2]
            told["value" if unit.startswith("pass") else "gradient"] += float(number or 1) * sizes.get(unit, 1)
        expected = entry.load()().expected(Context(objective, 0))
        assert told["value"] == expected.get("value", 0), name
        assert told["gradient"] == expected.get("gradient", 0) + 2 * expected.get("hessian", 0), name
