"""`landscape show`: each probe's value stands beside its own error, and what is no error is not shown as one."""

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from landscape import MatrixOperator, Objective
from landscape.spectra import density
from probes import (
    Alignment,
    BatchSharpness,
    ConditionNumber,
    CriticalSharpness,
    CurvatureTrace,
    Field,
    GaussNewtonConditioning,
    Gradient,
    Monitor,
    SAMSharpness,
    Sharpness,
    Spectrum,
    Trace,
    Updates,
    measure_once,
)
from probes.numbers import plus_minus
from probes.views.cells import below_zero
from probes.views.tables import steps_table


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "a.h5"
    torch.manual_seed(0)
    X, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    objective = Objective(model, nn.CrossEntropyLoss(), [(a, b) for a, b in zip(X.split(10), y.split(10), strict=True)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probes = [Sharpness(), BatchSharpness(), CriticalSharpness(), Gradient(), SAMSharpness(), Alignment(k=2), Updates()]
    with Trace.create(path, seed=0) as trace:
        monitor = Monitor(objective, probes, trace, optimizer=optimizer, on_error="raise")
        for step in range(2):
            monitor(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), y).backward()
            optimizer.step()
    return Trace.open(path)


def shown(trace):
    console = Console(width=250, color_system=None)
    with console.capture() as capture:
        console.print(steps_table(trace, width=250))
    return capture.get()


@pytest.mark.parametrize(
    ("probe", "field", "error"),
    [
        ("sharpness", "value", "residual"),
        ("batch-sharpness", "value", "stderr"),
        ("sam-sharpness", "value", "error"),
        ("gradient", "noise_scale", "noise_scale_stderr"),
        ("alignment", "total", "total_bound"),
    ],
)
def test_values_come_with_their_errors(trace, probe, field, error):
    text = shown(trace)
    for row in range(2):
        assert plus_minus(float(trace[probe][field][row]), float(trace[probe][error][row])) in text


def test_a_batch_sharpness_is_not_taken_for_a_trace(trace):
    assert "one standard error" not in shown(trace)


def test_a_first_step_has_no_update(trace):
    text = shown(trace)
    assert "nan" not in text
    assert "|update| / |weight|" in text


def told(tmp_path, *probes, objective, steps=1, name="b.h5"):
    with Trace.create(tmp_path / name, seed=0) as trace:
        for step in range(steps):
            measure_once(objective, probes, trace, step, on_error="raise")
    return " ".join(shown(Trace.open(tmp_path / name)).split())


def objective(n=12, dtype=torch.float32, loss=None, scale=1.0):
    torch.manual_seed(0)
    X, y = torch.randn(n, 4, dtype=dtype) * scale, torch.randint(0, 3, (n,))
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    return Objective(model, loss or nn.CrossEntropyLoss(), (X, y))


@pytest.mark.parametrize(
    ("which", "end"),
    [
        ("LA", "spectrum: largest eigenvalues "),
        ("SA", "spectrum: smallest eigenvalues"),
        ("LM", "largest eigenvalues in absolute value"),
    ],
)
def test_a_spectrum_says_which_end_it_is_of(tmp_path, which, end):
    assert end in told(tmp_path, Spectrum(k=2, which=which), objective=objective())


@pytest.mark.parametrize("probe", [ConditionNumber(), GaussNewtonConditioning()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kappa_says_what_limits_it(tmp_path, probe, dtype):
    # features of sizes 1 to 1e-12: eigenvalues reach from 1 to 1e-24 of the largest
    torch.manual_seed(0)
    X, y = (torch.randn(120, 60, dtype=torch.float64) * torch.logspace(0, -12, 60)).to(dtype), torch.zeros(120, 1)
    network = nn.Sequential(nn.Linear(60, 1, bias=False), nn.Tanh()).to(dtype)
    text = told(tmp_path, probe, objective=Objective(network, nn.MSELoss(), (X, y.to(dtype))))
    name = str(dtype).removeprefix("torch.")
    assert f"{probe.name}: kappa, limited by {name}" in text
    assert f"limited by {name}: the threshold cuts through the spectrum" in text
    assert ("Objective(..., dtype=torch.float64)" in text) == (dtype == torch.float32)
    well = told(tmp_path, probe, objective=objective(200), name="well.h5")
    assert "limited by float64" not in well


def test_a_bound_prints_as_a_bound(tmp_path):
    with Trace.create(tmp_path / "c.h5") as trace:
        fields = {name: Field() for name in ("kappa", "largest", "smallest", "threshold")}
        fields |= {"rank": Field(dtype="int64"), "converged": Field(dtype="bool")}
        fields |= {"thresholds": Field((1,)), "ranks": Field((1,), "int64"), "kappas": Field((1,))}
        trace.declare("c", fields, settings={"probe": "ConditionNumber"})
        row = {"kappa": 50.0, "largest": 1.0, "smallest": 0.02, "threshold": 1e-5, "rank": 7}
        trace.record("c", 0, **row, converged=False, thresholds=[1e-2], ranks=[7], kappas=[50.0])
    text = shown(Trace.open(tmp_path / "c.h5"))
    assert text.count("≥ 7") == 2
    assert text.count("≥ 50") == 2
    assert "≥: a lower bound" in text


def test_one_batch_says_why_it_has_no_error(tmp_path):
    text = told(tmp_path, BatchSharpness(), objective=objective())
    assert "± inf" in text
    assert "the data is one batch, which has no standard error; batch_size= splits it" in text
    assert "no threshold: there was no optimizer" in text
    split = told(tmp_path, BatchSharpness(batch_size=3, lr=0.1), objective=objective(), name="split.h5")
    assert "inf" not in split
    assert "no threshold" not in split


def test_a_first_step_says_why_updates_are_empty(tmp_path):
    f = objective()
    with Trace.create(tmp_path / "u.h5") as trace:
        Monitor(f, [Updates()], trace, on_error="raise")(0)
    text = " ".join(shown(Trace.open(tmp_path / "u.h5")).split())
    assert "|update| / |weight|" in text
    assert "updates: -: the first step has none before it" in text


def test_a_trace_of_the_past_is_shown(tmp_path):
    with Trace.create(tmp_path / "d.h5") as trace:
        fields = {"nodes": Field((2, 3)), "weights": Field((2, 3)), "n": Field(dtype="int64")}
        trace.declare("density", fields)
        trace.record("density", 0, nodes=[[-1, 0, 2]] * 2, weights=[[0.1, 0.6, 0.3]] * 2, n=10)
    text = shown(Trace.open(tmp_path / "d.h5"))
    assert "0 .. 70 %" in text  # 10 % are below 0, give or take the node there and the node beside 0


@pytest.mark.parametrize("seed", range(4))
def test_the_share_below_zero_lies_in_its_range(seed):
    rng = np.random.default_rng(seed)
    d = np.concatenate([rng.normal(size=300) * 10 ** rng.uniform(-5, 0, size=300), [5.0, 9.0]])
    A, generator = MatrixOperator(torch.diag(torch.tensor(d))), torch.Generator().manual_seed(seed)
    found = density(A, probes=4, steps=24, generator=generator)
    low, high = below_zero(found.nodes.numpy(), found.weights.numpy(), found.noise * 9)
    assert low <= (d < 0).mean() <= high
    assert 0 < low < high < 1
    assert below_zero(found.nodes.abs().numpy(), found.weights.numpy(), 1e-9) == (0, 0)


class Own(nn.Module):
    """A model that returns its own loss."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, labels):
        return nn.functional.cross_entropy(self.layer(x), labels)


@pytest.mark.parametrize("probe", [Spectrum(k=2, operator="gauss-newton"), CurvatureTrace(operator="gauss-newton")])
def test_a_zero_says_why(tmp_path, probe):
    torch.manual_seed(0)
    data = {"x": torch.randn(12, 4), "labels": torch.arange(12) % 3}
    own = Objective(Own(), lambda outputs, labels: outputs, data, count=lambda outputs, labels: len(labels))
    text = told(tmp_path, probe, objective=own)
    assert "the matrix is exactly zero, as it is where the loss is linear in the outputs" in text
    assert "one output in all" in told(tmp_path, GaussNewtonConditioning(), objective=own, name="one.h5")


def test_checks_and_noise_stand_below_the_table(tmp_path):
    text = told(tmp_path, CurvatureTrace(), objective=objective(), steps=2)
    assert text.count("second derivatives: agrees with differences") == 1
    assert "noise" not in text
    torch.manual_seed(0)
    model = nn.Linear(4, 3).bfloat16()
    half = Objective(model, nn.CrossEntropyLoss(), (torch.randn(9, 4).bfloat16(), torch.arange(9) % 3))
    assert "relative noise of a product 0.0" in told(tmp_path, CurvatureTrace(), objective=half, name="half.h5")


def test_what_differs_from_row_to_row_says_of_which(tmp_path):
    with Trace.create(tmp_path / "m.h5") as trace:
        trace.declare("t", {"value": Field(), "noise": Field(), "note": Field(dtype="S40")})
        for step in range(6):
            trace.record("t", step, value=1.0, noise=0.01 * (step == 2), note="it is odd" * (step % 2))
    text = " ".join(shown(Trace.open(tmp_path / "m.h5")).split())
    assert "relative noise of a product 0.01 (step 2)" in text
    assert "it is odd (step 1, 3, 5)" in text
