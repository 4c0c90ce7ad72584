"""The probes of the training dynamics against dense matrices, closed forms and a training loop."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from sharpness_cases import Unchanged, normal, positive, quadratic
from torch import nn
from torch.nn import functional as F

import landscape
from landscape.spectra import Eigenpairs
from probes import (
    Alignment,
    BatchSharpness,
    CriticalSharpness,
    Gradient,
    Monitor,
    ProbeWarning,
    SAMSharpness,
    Sharpness,
    Spectrum,
    Trace,
    Updates,
    measure_once,
)
from probes.checkpoints.arguments import parse_probes
from probes.context import Context
from probes.instruments.registry import PROBES

DYNAMICS = [Sharpness(), Gradient(), BatchSharpness(), CriticalSharpness(), SAMSharpness(), Alignment(k=3), Updates()]


def problem(norm=False, dropout=0.0, batches=5):
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5), nn.BatchNorm1d(5) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout)]
    model = nn.Sequential(*layers, nn.Linear(5, 3)).double()
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=generator)
    data = list(zip(X.chunk(batches), y.chunk(batches), strict=True)) if batches > 1 else (X, y)
    return model, landscape.Objective(model, nn.CrossEntropyLoss(), data), (X, y)


def step(model, optimizer, batch):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def once(objective, probe, trace, **given):
    measure_once(objective, [probe], trace, 0, on_error="raise", **given)
    return trace[probe.name].row()


def top(A):
    return float(torch.linalg.eigvalsh(A)[-1])


def test_sharpness_and_its_threshold(trace):
    model, objective, batch = problem()
    dense = landscape.Hessian(objective).to_dense()
    row = once(objective, Sharpness(tol=1e-6), trace, optimizer=torch.optim.SGD(model.parameters(), 0.1, momentum=0.5))
    assert row["value"] == pytest.approx(top(dense), rel=1e-5)
    assert row["residual"] <= 1e-5 * row["value"]
    assert row["threshold"] == pytest.approx(30.0)
    assert math.isnan(row["preconditioned"])
    assert row["converged"]
    assert row["matvecs"] > 0
    row = once(objective, Sharpness(name="lr", lr=0.1, momentum=0.9), trace)
    assert row["threshold"] == pytest.approx(38.0)
    assert math.isnan(once(objective, Sharpness(name="none"), trace)["threshold"])
    # no threshold on the plain matrix with two learning rates, one on the scaled matrix
    groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[4].parameters()}]
    row = once(objective, Sharpness(name="two", tol=1e-6), trace, optimizer=torch.optim.SGD(groups, lr=0.1))
    d = torch.cat([torch.full((25,), 0.5), torch.full((18,), 0.1)]).double()
    assert row["preconditioned"] == pytest.approx(top(d.sqrt()[:, None] * dense * d.sqrt()), rel=1e-5)
    assert row["preconditioned_threshold"] == pytest.approx(2.0)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    assert math.isnan(once(objective, Sharpness(name="before"), trace, optimizer=adam)["preconditioned_threshold"])
    step(model, adam, batch)
    row = once(objective, Sharpness(name="adam", tol=1e-6), trace, optimizer=adam)
    d = landscape.sharpness.stability(adam, objective).scale
    scaled = d.sqrt()[:, None] * landscape.Hessian(objective).to_dense() * d.sqrt()
    assert row["preconditioned"] == pytest.approx(top(scaled), rel=1e-5)
    assert row["preconditioned_threshold"] == pytest.approx(3800.0)
    assert row["preconditioned_residual"] <= 1e-5 * row["preconditioned"]
    assert math.isnan(row["threshold"])


def test_gradient(trace):
    model, objective, (X, y) = problem()
    row = once(objective, Gradient(), trace)
    g = objective.gradient()
    parts = [objective.on((X[i : i + 12], y[i : i + 12])).gradient() for i in range(0, 60, 12)]
    noise = 12 * sum(float((p - g).square().sum()) for p in parts) / 4
    assert row["loss"] == pytest.approx(F.cross_entropy(model(X), y).item())
    assert row["norm"] == pytest.approx(float(g.norm()))
    assert row["noise_trace"] == pytest.approx(noise)
    assert row["noise_scale"] == pytest.approx(noise / float(g.norm()) ** 2)
    assert row["noise_scale_stderr"] == pytest.approx(row["noise_trace_stderr"] / float(g.norm()) ** 2)
    assert row["terms"] == 60
    finer = once(objective, Gradient(parts=4, name="finer"), trace)
    assert finer["noise_trace_stderr"] < row["noise_trace_stderr"]
    coupled = problem(norm=True, batches=1)[1]
    with pytest.warns(ProbeWarning, match="noise is not known"):
        row = once(coupled, Gradient(name="coupled"), trace)
    assert math.isnan(row["noise_scale"])
    assert row["loss"] == coupled.value()


def test_batch_critical_and_sam(trace):
    model, objective, _ = problem()
    g, H = objective.gradient(), landscape.Hessian(objective).to_dense()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    row = once(objective, BatchSharpness(), trace, optimizer=optimizer)
    direct = landscape.sharpness.batch_sharpness(objective)
    assert (row["value"], row["stderr"]) == (direct.value, direct.stderr)
    assert row["ratio_of_means"] == direct.ratio_of_means
    assert row["threshold"] == pytest.approx(20.0)
    assert row["batches"] == 5
    assert once(objective, BatchSharpness(name="small", batch_size=3, lr=0.2), trace)["batches"] == 20
    row = once(objective, CriticalSharpness(), trace, optimizer=optimizer)
    assert row["converged"]
    assert row["threshold"] == pytest.approx(20.0)
    for end, above in (("lower", True), ("upper", False)):
        with objective.at(objective.theta() - 2 / row[end] * g):
            value = objective.value()
        assert (value > objective.value()) == above
    row = once(objective, SAMSharpness(rho=0.1), trace)
    u = 0.1 * g / g.norm()
    assert row["value"] == pytest.approx(float(u @ g + u @ H @ u / 2), rel=1e-2)
    assert row["norm"] == pytest.approx(float(g.norm()))
    assert row["rho"] == 0.1
    assert row["error"] < 1e-12
    more = once(objective, SAMSharpness(rho=0.1, steps=3, name="more"), trace)
    assert more["value"] >= row["value"]
    assert once(objective, SAMSharpness(adaptive=True, name="own"), trace)["value"] > 0


def test_critical_sharpness_on_a_quadratic_follows_the_threshold(trace):
    """Along the update of gradient descent with rate 0.1 the loss rises from curvature 2 / 0.1 on."""
    A = positive(9)
    objective = quadratic(A, normal(9))
    optimizer = torch.optim.SGD(objective.model.parameters(), lr=0.1)
    probes = [CriticalSharpness(), CriticalSharpness(along="update", name="update"), Updates(), Sharpness()]
    monitor = Monitor(objective, probes, trace, optimizer=optimizer, on_error="raise")
    directions = []
    for number in range(5):
        monitor(number)
        directions.append(objective.gradient())
        optimizer.zero_grad()
        objective.model(None).backward()
        optimizer.step()
    rows = trace["critical-sharpness"].read()
    for number, g in enumerate(directions):
        truth = float(g @ A @ g / (g @ g))
        assert rows["lower"][number] <= truth * (1 + 1e-9)
        assert truth * (1 - 1e-9) <= rows["upper"][number]
    assert rows["evaluations"][0] > rows["evaluations"][-1] == 2  # warm start
    rows = trace["update"].read()
    assert math.isnan(rows["value"][0])
    assert not rows["converged"][0]
    d = directions[0]  # the update of lr 1, gone on with from where it led
    g = directions[1]
    truth = float(d @ A @ d / (g @ d))
    assert rows["lower"][1] <= truth <= rows["upper"][1]
    np.testing.assert_allclose(rows["threshold"], 20.0)
    moved = trace["updates"].read()
    assert moved["steps"].tolist() == [0, 1, 1, 1, 1]
    np.testing.assert_allclose(moved["update"][1], 0.1 * np.array([float(p.norm()) for p in directions[0].chunk(3)]))


def test_updates_over_several_steps(trace):
    """The monitor is called after three steps of training: what moved is the sum of them."""
    A = positive(9)
    objective = quadratic(A, normal(9))
    optimizer = torch.optim.SGD(objective.model.parameters(), lr=0.1)
    align = Alignment(of="update", k=2, tol=1e-8)
    probes = [CriticalSharpness(along="update", name="update"), Updates(), align]
    monitor = Monitor(objective, probes, trace, optimizer=optimizer, on_error="raise")
    monitor(0)
    start = objective.theta()
    for _ in range(3):
        optimizer.zero_grad()
        objective.model(None).backward()
        optimizer.step()
    monitor(3)
    moved, g = objective.theta() - start, objective.gradient()
    assert trace["updates"]["steps"].tolist() == [0, 3]
    expected = [float(piece.norm()) for piece in objective.split(moved)]
    np.testing.assert_allclose(trace["updates"]["update"][1], expected)
    V = torch.linalg.eigh(A).eigenvectors.flip(1)[:, :2]
    cosines = ((V.T @ moved) / moved.norm()).square()
    np.testing.assert_allclose(trace["alignment"]["cosines"][1], cosines.numpy(), atol=1e-6)
    d = -moved / (3 * 0.1)  # the update per step and unit of lr
    truth = float(d @ A @ d / (g @ d))
    row = trace["update"].row()
    assert row["lower"] <= truth <= row["upper"]


def test_both_searches_of_an_adaptive_optimizer_count(trace, monkeypatch):
    model, objective, batch = problem()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    step(model, adam, batch)
    plain = once(objective, Sharpness(name="plain"), trace)
    one = torch.ones(1, dtype=torch.float64)
    second = Eigenpairs(one, torch.ones(objective.size, 1), one, converged=False, confirmed=False, matvecs=1000, seed=0)
    monkeypatch.setattr(Sharpness, "_preconditioned", lambda *_: second)
    row = once(objective, Sharpness(name="both"), trace, optimizer=adam)
    assert plain["converged"]
    assert not row["converged"]
    assert row["matvecs"] > 1000


def test_alignment(trace):
    _, objective, (X, y) = problem()
    values, vectors = torch.linalg.eigh(landscape.Hessian(objective).to_dense())
    V = vectors.flip(1)[:, :4]
    row = once(objective, Alignment(k=4, tol=1e-8), trace)
    g = objective.gradient()
    exact = (V.T @ g).square() / g.square().sum()
    np.testing.assert_allclose(row["cosines"], exact.numpy(), atol=1e-6)
    assert row["total"] == pytest.approx(float(exact.sum()), abs=1e-6)
    np.testing.assert_allclose(row["eigenvalues"], values.flip(0)[:4].numpy(), rtol=1e-6)
    assert (row["residuals"] < 1e-6).all()
    assert (row["bounds"] < 1e-4).all()
    assert row["total_bound"] < 1e-4
    of_batch = Alignment(k=4, tol=1e-8, of="batch", name="batch")
    row = once(objective, of_batch, trace, batch=(X[:7], y[:7]))
    g = objective.on((X[:7], y[:7])).gradient()
    np.testing.assert_allclose(row["cosines"], ((V.T @ g).square() / g.square().sum()).numpy(), atol=1e-6)
    with pytest.raises(ValueError, match=r"monitor\(step, batch=batch\)"):
        once(objective, of_batch, trace)
    row = once(objective, Alignment(of="update", name="update"), trace)
    assert np.isnan(row["cosines"]).all()
    with pytest.raises(ValueError, match="k=43 eigenvectors of a matrix of size 43; use k < 43"):
        once(objective, Alignment(k=43, name="many"), trace)


def test_updates_have_names(trace):
    model, objective, batch = problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[0].weight.data.zero_()
    monitor = Monitor(objective, [Updates(every=2), Alignment(of="update", k=2, every=2)], trace, on_error="raise")
    seen = []
    for number in range(5):
        monitor(number)
        seen.append(objective.theta())
        step(model, optimizer, batch)
    records = trace["updates"]
    assert records.fields["ratio"].labels == tuple(objective.names)
    assert records["steps"].tolist() == [0, 1, 1]
    for row, number in ((1, 2), (2, 4)):
        change = objective.unflatten(seen[number] - seen[number - 1])
        weight = objective.unflatten(seen[number])
        expected = [float(change[name].norm() / weight[name].norm()) for name in objective.names]
        np.testing.assert_allclose(records["ratio"][row], expected)
    H = trace["alignment"]
    assert np.isnan(H["cosines"][0]).all()
    assert (H["total"][1:] > 0).all()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_measuring_in_a_loop_changes_nothing(tmp_path, kind):
    """Dropout, batch statistics, gradients and the random state are as they would be without the monitor."""

    def train(monitored):
        model, objective, (X, y) = problem(norm=True, dropout=0.3, batches=3)
        cls = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind]
        optimizer = cls(model.parameters(), lr=0.05)
        with Trace.create(tmp_path / f"{kind}{monitored}.h5", seed=0) as trace:
            monitor = Monitor(objective, DYNAMICS, trace, optimizer=optimizer, on_error="raise") if monitored else None
            for number in range(4):
                if monitor is not None:
                    unchanged = Unchanged(model)
                    monitor(number, batch=(X[:6], y[:6]))
                    unchanged.check()
                step(model, optimizer, (X[number::4], y[number::4]))
            if monitored:
                assert all(len(trace[probe.name]) == 4 for probe in DYNAMICS)
                assert len(trace.events) == 0
        return model

    alone, watched = train(False), train(True)
    for p, q in zip(alone.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(p, q)


def test_results_do_not_depend_on_what_was_measured_before(tmp_path):
    """But for warm starts, which move results within their own bounds."""
    _, objective, batch = problem()
    probes = [Sharpness(warm=False), Gradient(), BatchSharpness(batch_size=5), SAMSharpness(), Alignment(warm=False)]
    rows = []
    for steps in ((7,), (3, 7)):
        with Trace.create(tmp_path / f"{len(steps)}.h5", seed=0) as trace:
            for number in steps:
                measure_once(objective, probes, trace, number, batch=batch, on_error="raise")
            rows.append({probe.name: trace[probe.name].row() for probe in probes})
    for name, row in rows[0].items():
        for field, value in row.items():
            if field not in ("time", "cost"):
                np.testing.assert_array_equal(value, rows[1][name][field], err_msg=f"{name}.{field}")


def test_probes_of_a_step_share_their_work(trace):
    _, objective, _ = problem()
    shared = [Spectrum(k=3), Sharpness(), Alignment(k=3)]
    measure_once(objective, shared, trace, 0, on_error="raise")
    assert trace["sharpness"]["matvecs"][0] == trace["spectrum"]["matvecs"][0]
    assert (
        trace["sharpness"]["value"][0] == trace["spectrum"]["values"][0, 0] == trace["alignment"]["eigenvalues"][0, 0]
    )
    passes = 0
    real = objective.sweep

    def counting(*args):
        nonlocal passes
        passes += 1
        return real(*args)

    objective.sweep = counting
    measure_once(objective, [Gradient(), SAMSharpness(), CriticalSharpness()], trace, 0, on_error="raise")
    assert passes == 1 + 1 + trace["critical-sharpness"]["evaluations"][0]  # one gradient for all three


@pytest.mark.parametrize("probe", DYNAMICS, ids=lambda p: p.name)
def test_declarations(probe):
    _, objective, _ = problem()
    context = Context(objective)
    fields = probe.fields(context)
    assert all(field.description for field in fields.values())
    assert probe.needs <= {"loss", "gradient", "graph", "features", "parameters", "optimizer", "batch", "previous"}
    expected = probe.expected(context)
    assert set(expected) <= {"value", "gradient", "hessian"}
    assert all(count >= 0 for count in expected.values())
    assert PROBES[probe.name].load() is type(probe)
    assert probe.settings()["probe"] == type(probe).__name__
    assert not {"name", "every"} & set(probe.settings())


def test_expected_counts_the_second_search_of_an_adaptive_optimizer():
    model, objective, batch = problem()
    adam = torch.optim.Adam(model.parameters())
    step(model, adam, batch)
    plain = Sharpness().expected(Context(objective))["hessian"]
    assert Sharpness().expected(Context(objective, optimizer=adam))["hessian"] == 2 * plain


def test_the_command_knows_them():
    probes = parse_probes(["sharpness:lr=0.1,tol=1e-2", "critical-sharpness:along=update", "alignment:k=2"], "fisher")
    assert probes[0] == Sharpness(lr=0.1, tol=1e-2)
    assert probes[1].needs == {"loss", "optimizer", "previous"}
    assert probes[2].operator == "fisher"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sharpness(lr=0), "lr=0 is not possible"),
        (lambda: Sharpness(momentum=1.0), "momentum=1.0"),
        (lambda: Sharpness(tol=0), "tol=0"),
        (lambda: Sharpness(every=0), "every="),
        (lambda: Gradient(parts=0), "parts=0"),
        (lambda: BatchSharpness(batch_size=0), "batch_size=0"),
        (lambda: BatchSharpness(rtol=-1), "rtol=-1"),
        (lambda: CriticalSharpness(along="momentum"), "along='momentum'"),
        (lambda: CriticalSharpness(rtol=0), "rtol=0"),
        (lambda: SAMSharpness(rho=0), "rho=0"),
        (lambda: SAMSharpness(steps=0), "steps=0"),
        (lambda: Alignment(k=0), "k=0"),
        (lambda: Alignment(of="noise"), "of='noise'"),
        (lambda: Alignment(operator="jacobian"), "operator is one of"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-3), (torch.bfloat16, 0.1)])
def test_low_precision_models(tmp_path, dtype, rtol):
    torch.manual_seed(0)
    narrow = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    X, y = torch.randn(32, 4).to(dtype), torch.randint(0, 3, (32,))
    adam = torch.optim.Adam(narrow.parameters(), lr=0.01)
    for _ in range(2):
        step(narrow, adam, (X, y))
    found = {}
    for name in (dtype, torch.float64):
        model = copy.deepcopy(narrow).to(name)
        data = list(zip(X.to(name).split(8), y.split(8), strict=True))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        optimizer.load_state_dict(adam.state_dict())
        with Trace.create(tmp_path / f"{name}.h5", seed=0) as trace, warnings.catch_warnings():
            warnings.simplefilter("ignore", ProbeWarning)
            objective = landscape.Objective(model, nn.CrossEntropyLoss(), data)
            measure_once(objective, DYNAMICS, trace, 0, optimizer=optimizer, on_error="raise")
            found[name] = {
                (probe, field): float(trace[probe][field][0])
                for probe, field in (
                    ("sharpness", "value"),
                    ("sharpness", "preconditioned"),
                    ("gradient", "noise_scale"),
                    ("batch-sharpness", "value"),
                    ("sam-sharpness", "value"),
                    ("alignment", "total"),
                )
            }
    assert found[dtype] == pytest.approx(found[torch.float64], rel=rtol)
