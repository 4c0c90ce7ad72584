"""The probe of neural collapse: its records against the mathematics, in a trace, a table and a picture."""

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from landscape import Objective
from landscape.collapse import CollapseMetrics, measure, predict_nc0
from probes import Monitor, NeuralCollapse, Trace, measure_once
from probes.checkpoints.arguments import parse_probes
from probes.context import Context
from probes.errors import UserError
from probes.monitor.costs import UnitCosts
from probes.probe import Probe
from probes.views.kinds import kind_of
from probes.views.pictures.draw import plot_trace
from probes.views.tables import steps_table


def data(n=60):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator)


@pytest.fixture
def objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    return Objective(model, nn.CrossEntropyLoss(), data())


def trained(path, objective, probe, steps):
    optimizer = torch.optim.SGD(objective.model.parameters(), lr=0.5, weight_decay=0.01)
    X, y = data()
    with Trace.create(path, seed=0) as trace:
        monitor = Monitor(objective, [probe], trace, on_error="raise")
        for step in range(steps):
            monitor(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(objective.model(X), y).backward()
            optimizer.step()
    return Trace.open(path)


def shown(trace):
    console = Console(width=250, color_system=None)
    with console.capture() as capture:
        console.print(steps_table(trace, width=250))
    return capture.get()


def test_its_record_is_what_the_mathematics_says(tmp_path, objective):
    probe = NeuralCollapse()
    assert isinstance(probe, Probe)
    with Trace.create(tmp_path / "a.h5", seed=0) as trace:
        measure_once(objective, [probe], trace, 0, on_error="raise")
    records, expected = Trace.open(tmp_path / "a.h5")["neural-collapse"], measure(objective)
    numbers = {name for name, value in vars(expected).items() if not isinstance(value, torch.Tensor)} - {"dim"}
    assert set(records.fields) == numbers
    for name in numbers:
        assert records[name][0] == getattr(expected, name), name
    assert isinstance(expected, CollapseMetrics)
    assert kind_of(records.fields, records.settings) == "neural-collapse"


def test_in_a_loop_its_nc0_is_the_predicted_one(tmp_path, objective):
    found = trained(tmp_path / "a.h5", objective, NeuralCollapse(every=5), 21)["neural-collapse"]
    predicted = predict_nc0("sgd", np.full(20, 0.5), weight_decay=0.01, nc0_initial=float(found["nc0"][0]))
    np.testing.assert_allclose(found["nc0"], predicted[found["step"]], rtol=1e-5)


@pytest.mark.parametrize(("steps", "nc4"), [(1, True), (3, False), (62, True)])
def test_its_table_and_its_picture(tmp_path, objective, steps, nc4):
    trace = trained(tmp_path / "run.h5", objective, NeuralCollapse(nc4=nc4, name="nc-train"), steps)
    assert "trace-nc-train.png" in {path.name for path in plot_trace(trace, tmp_path)}
    heading = shown(trace).splitlines()[1]
    columns = [f"nc-train: NC{i}" for i in range(5 if nc4 else 4)]
    assert all(column in heading for column in columns)
    assert ("NC4" in heading) == nc4


def test_a_picture_of_a_diverged_and_a_collapsed_run(tmp_path):
    names = [*NeuralCollapse().fields(Context(None))]
    with Trace.create(tmp_path / "odd.h5", seed=0) as trace:
        trace.declare("neural-collapse", NeuralCollapse().fields(Context(None)))
        for step, value in enumerate((np.inf, np.nan, 0.0)):
            trace.record("neural-collapse", step, **dict.fromkeys(names[:-3], value), rank=0, classes=2, samples=4)
    assert plot_trace(Trace.open(tmp_path / "odd.h5"), tmp_path)


def test_on_the_command_line():
    (probe,) = parse_probes(["neural-collapse:head=fc,num_classes=10,nc4=false,name=test"], "hessian")
    assert probe == NeuralCollapse(head="fc", num_classes=10, nc4=False, name="test")
    assert probe.settings() == {"probe": "NeuralCollapse", "head": "fc", "num_classes": 10, "nc4": False}
    with pytest.raises(UserError, match="num_classes=1 is not possible"):
        parse_probes(["neural-collapse:num_classes=1"], "hessian")


def test_a_head_that_is_not_there_is_one_line(tmp_path, objective):
    with Trace.create(tmp_path / "a.h5", seed=0) as trace, pytest.raises(ValueError, match="no layer 'fc'"):
        measure_once(objective, [NeuralCollapse(head="fc")], trace, 0, on_error="raise")


def test_its_cost_is_known_before(objective):
    assert 0 < UnitCosts().estimate(NeuralCollapse(), Context(objective, generator=torch.Generator())) < 10
