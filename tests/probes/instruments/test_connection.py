"""What lies between two networks: closed forms, permuted copies, running statistics, and going on after a stop."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Hessian, Objective
from landscape.objective.running import own_buffers
from landscape.surface import barrier
from probes import Connection, Trace, measure_once
from probes.instruments.stations import Station

QUICK = {"share": 0.0, "curvature": False, "kind": "none"}


def ring():
    """f = (|w|^2 - 1)^2, 0 on a circle."""
    model = nn.Linear(1, 2, bias=False).double()
    return Objective(model, lambda w, _: (w.square().sum(dim=-1) - 1).square().mean(), torch.ones(1, 1).double())


def network(norm=False, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh(), nn.Linear(5, 3)]
    model = nn.Sequential(*layers).double()
    g = torch.Generator().manual_seed(1)
    X, y = torch.randn(20, 6, generator=g).double(), torch.randint(0, 3, (20,), generator=g)
    return Objective(model, nn.CrossEntropyLoss(), [(X[:8], y[:8]), (X[8:], y[8:])], mode="eval")


def trained(f, seed):
    """A network with running statistics of its own."""
    other = network(norm=True, seed=seed)
    other.model.train()
    with torch.no_grad():
        for _ in range(3):
            other.model(2 * torch.randn(50, 6, dtype=torch.float64) + 1)
    other.model.eval()
    return other, Station(seed, other.theta(), own_buffers(other))


def measured(f, trace, step=1, **options):
    probe = Connection(**options)
    return measure_once(f, [probe], trace, step=step, on_error="raise")["connection"].values


def test_a_ring(tmp_path):
    f = ring()
    ends = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        found = measured(f, trace, through=ends, points=21, share=0.0)
    t = found["t"]
    np.testing.assert_allclose(found["straight"], (t**2 + (1 - t) ** 2 - 1) ** 2, atol=1e-14)
    assert found["height"][0] == pytest.approx(0.25, abs=1e-12)
    assert 0 <= found["height"][2] < 0.01
    assert found["ends"].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(found["distance"][0], 2**0.5)
    # H = 4 (|w|^2 - 1) I + 8 w w^T with |w|^2 = 1 +- sqrt(f)
    by_hand = [12 * (1 + sign * np.sqrt(found["trained"])) - 4 for sign in (-1, 1)]
    nearest = np.min(np.abs(found["eigenvalue"] - by_hand), axis=0)
    assert (nearest <= 1e-3 * found["eigenvalue"]).all()
    assert np.isnan(found["dropout"]).all()
    assert found["gradients"] == 200
    assert found["converged"]


def test_a_permuted_copy_has_no_barrier_when_it_is_aligned(tmp_path):
    f = network()
    a = f.theta()
    order = torch.tensor([3, 0, 4, 1, 2])
    pieces = f.unflatten(a)
    b = f.flatten(
        {
            "0.weight": pieces["0.weight"][order],
            "0.bias": pieces["0.bias"][order],
            "2.weight": pieces["2.weight"][:, order],
            "2.bias": pieces["2.bias"],
        }
    )
    with Trace.create(tmp_path / "run.h5") as trace:
        found = measured(f, trace, through=[a, b], **QUICK)
    assert np.ptp(found["straight"]) > 0.01
    np.testing.assert_allclose(found["aligned"], found["ends"][0], rtol=1e-12)
    assert found["height"][1] <= found["height_error"][1]
    np.testing.assert_allclose(found["distance"], [float((a - b).norm()), 0.0], atol=1e-12)
    assert np.isnan(found["height"][2])
    assert np.isnan(found["trained"]).all()


def test_each_end_has_its_own_running_statistics(tmp_path):
    f = network(norm=True)
    (one, a), (two, b) = trained(f, 1), trained(f, 2)
    before = [t.clone() for t in (*f.model.parameters(), *f.model.buffers())]
    with Trace.create(tmp_path / "run.h5") as trace:
        found = measured(f, trace, through=[a, b], share=0.4, curvature=False, steps=5)
    for way in ("straight", "aligned", "trained"):
        np.testing.assert_allclose(found[way][[0, -1]], [one.value(), two.value()], rtol=1e-12)
    np.testing.assert_allclose(found["ends"], [one.value(), two.value()], rtol=1e-12)
    between = barrier(f, a.theta, b.theta)
    np.testing.assert_allclose(found["straight"][1:-1], between.values[1:-1], rtol=1e-12)
    np.testing.assert_allclose(found["recomputed"], between.values[[0, -1]], rtol=1e-12)
    apart = np.abs(found["recomputed"] - found["ends"]).max()
    assert apart > 1e-3
    assert (found["height_error"] >= apart).all()
    assert "running statistics" in found["note"]
    assert (found["dropout"] > found["ends"]).any()
    after = [*f.model.parameters(), *f.model.buffers()]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_eigenvalues_along_the_path_are_those_of_dense_matrices(tmp_path):
    f = network()
    a, b = f.theta(), network(seed=3).theta()
    with Trace.create(tmp_path / "run.h5") as trace:
        found = measured(f, trace, through=[a, b], points=5, steps=3, share=0.0)
    for end, i in ((a, 0), (b, -1)):
        with f.at(end):
            top = float(torch.linalg.eigvalsh(Hessian(f).to_dense())[-1])
        assert abs(found["eigenvalue"][i] - top) <= max(found["eigenvalue_error"][i], 1e-9)


class Stopped(Exception):
    pass


def to_be_stopped():
    f = network()
    return f, Connection(through=[f.theta(), network(seed=3).theta()], points=9, steps=20, share=0.2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    f, probe = to_be_stopped()
    with Trace.create(tmp_path_factory.mktemp("whole") / "run.h5", seed=1) as trace:
        return measure_once(f, [probe], trace, step=1, on_error="raise")["connection"].values


@pytest.mark.parametrize("calls", [1, 12, 30, 36, 47])
def test_it_goes_on_where_it_was_stopped(tmp_path, whole, calls):
    (f, probe), count = to_be_stopped(), []

    def stop(done, total, value):
        count.append(done)
        if len(count) == calls:
            raise Stopped

    with Trace.create(tmp_path / "run.h5", seed=1) as trace, pytest.raises(Stopped):
        measure_once(f, [probe], trace, step=1, on_error="raise", callback=stop)
    with Trace.resume(tmp_path / "run.h5") as trace:
        found = measure_once(f, [probe], trace, step=1, on_error="raise")["connection"].values
    for name in ("straight", "aligned", "trained", "height", "ends", "dropout"):
        np.testing.assert_array_equal(found[name], whole[name])
    np.testing.assert_allclose(found["eigenvalue"], whole["eigenvalue"], rtol=1e-6)
    assert found["evaluations"] + found["matvecs"] < whole["evaluations"] + whole["matvecs"] or calls == 1


def test_what_is_not_possible_is_said(tmp_path):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 4).double(), nn.Linear(4, 3).double()

        def forward(self, x):
            return self.second(torch.fft.fft(self.first(x)).real)

    g = torch.Generator().manual_seed(1)
    data = torch.randn(20, 6, generator=g).double(), torch.randint(0, 3, (20,), generator=g)
    f = Objective(Mixed(), nn.CrossEntropyLoss(), data)
    with Trace.create(tmp_path / "run.h5") as trace:
        found = measured(f, trace, through=[f.theta(), f.theta() + 0.1], kind="none", share=0.3)
    assert np.isfinite(found["height"][0])
    assert np.isnan(found["aligned"]).all()
    assert "not aligned:" in found["note"]
    with Trace.create(tmp_path / "other.h5") as trace:
        with pytest.raises(ValueError, match="connection: there are two networks to connect, not 0"):
            measured(f, trace)
        with pytest.raises(ValueError, match="not 3"):
            measured(f, trace, through=[f.theta()] * 3)


@pytest.mark.parametrize("options", [{"points": 2}, {"share": 1.0}, {"kind": "spline"}, {"samples": 1}, {"steps": 0}])
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Connection(**options)
