"""Planes and lines against closed forms and against the objective's own values; resumed runs against whole ones."""

import math

import pytest
import torch
from sharpness_cases import Unchanged
from surface_cases import by_value, function, mlp, rosenbrock, rotation, samples, trained_norms
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from landscape.objective import running
from landscape.surface import line, plane, random_directions, values


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Grids of the tests are of several chunks."""
    monkeypatch.setattr(values, "_CHUNK", 32)


def prefer(monkeypatch, way):
    """The way that is taken where it can be."""
    monkeypatch.setattr(values.Worker, "_is_faster", lambda *_: way == "vmap")
    monkeypatch.setattr(values.Worker, "_prefers_many", lambda *_: way == "vmap")


def directions(objective, seed=0):
    return random_directions(objective, 2, generator=torch.Generator().manual_seed(seed))


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_a_quadratic_is_its_own_model():
    Q = rotation(6)
    A = (Q * torch.tensor([5.0, 3.0, 1.0, 0.5, -1.0, 2.0]).double()) @ Q.T
    b = torch.arange(6.0).double()
    f = function(torch.ones(6), lambda t: 0.5 * t @ A @ t + b @ t + 3.0)
    D, centre = rotation(6, 1)[:, :2] * 2.0, f.theta()
    surface = plane(f, D, span=1.5, points=7)
    for i, x in enumerate(surface.x):
        for j, y in enumerate(surface.y):
            at = centre + x * D[:, 0] + y * D[:, 1]
            assert surface.values[i, j] == pytest.approx(float(0.5 * at @ A @ at + b @ at + 3.0), abs=1e-10)
    torch.testing.assert_close(surface.quadratic, surface.values, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(surface.curvature, D.T @ A @ D, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(surface.gradient, D.T @ (A @ centre + b), rtol=1e-12, atol=1e-12)
    assert (surface.curvature_error < 1e-12 * 1e2).all()
    assert surface.complete
    assert surface.matvecs == 2


def test_a_rotated_rosenbrock():
    Q = rotation(4)
    f = function(torch.zeros(4), lambda t: rosenbrock(Q.T @ t) + (Q.T @ t)[2:].square().sum())
    surface = plane(f, Q[:, :2], span=2.0, points=9, centre=Q @ torch.tensor([1.0, 1.0, 0, 0]).double())
    X, Y = torch.meshgrid(surface.x + 1, surface.y + 1, indexing="ij")
    torch.testing.assert_close(surface.values, rosenbrock(torch.stack([X, Y])), rtol=1e-9, atol=1e-9)
    expected = torch.tensor([[802.0, -400.0], [-400.0, 200.0]]).double()
    torch.testing.assert_close(surface.curvature, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(surface.gradient, torch.zeros(2).double(), rtol=0, atol=1e-9)
    dx = torch.stack([X - 1, Y - 1])
    model = 0.5 * torch.einsum("aij,ab,bij->ij", dx, expected, dx)
    torch.testing.assert_close(surface.quadratic, model, rtol=1e-9, atol=1e-9)


def test_a_line():
    f = function(torch.tensor([2.0, 1.0]), lambda t: t[0] ** 4 + t[1])
    surface = line(f, torch.tensor([1.0, 0.0]).double(), span=1.0, points=5)
    assert surface.y is None
    torch.testing.assert_close(surface.values, (2 + surface.x) ** 4 + 1)
    torch.testing.assert_close(surface.quadratic, 17 + 32 * surface.x + 24 * surface.x**2)
    assert surface.curvature.item() == pytest.approx(48)
    assert surface.gradient.item() == pytest.approx(32)


def test_sharp_and_flat_minima_of_a_network():
    """One neuron w2 w1 x on y = x has the minima w1 w2 = 1; the curvature across them is w1^2 + w2^2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    X = torch.tensor([[1.0], [-1.0]]).double()
    f = Objective(model, nn.MSELoss(), (X, X))
    for w in (1.0, 4.0):
        at = torch.tensor([w, 1 / w]).double()
        across = at.flip(0) / at.norm()
        surface = line(f, across, span=0.1, points=3, centre=at)
        assert surface.values[1] == pytest.approx(0.0, abs=1e-12)
        assert surface.curvature.item() == pytest.approx(2 * (w**2 + w**-2), rel=1e-9)


# -- against the objective ---------------------------------------------------------------------------------------------


def masked(outputs, targets):
    return F.cross_entropy(outputs, targets, ignore_index=-100)


def ragged():
    X, y = samples()
    y[::3] = -100
    y[20:26] = -100
    return [(X[:20], y[:20]), (X[20:26], y[20:26]), (X[26:], y[26:])]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)
        self.head.bias.requires_grad_(False)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


def tied():
    torch.manual_seed(0)
    return Tied()


CASES = {
    "mlp": lambda: Objective(mlp(), nn.CrossEntropyLoss(), samples()),
    "ragged and masked": lambda: Objective(mlp(), nn.CrossEntropyLoss(), ragged()),
    "own loss": lambda: Objective(mlp(), masked, ragged(), count=lambda o, t: (t != -100).sum()),
    "sum": lambda: Objective(mlp(), nn.CrossEntropyLoss(reduction="sum"), ragged()),
    "dropout": lambda: Objective(
        nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.Linear(8, 3)), nn.CrossEntropyLoss(), ragged(), mode="train"
    ),
    "tied, frozen, unused": lambda: Objective(tied(), nn.CrossEntropyLoss(), ragged()),
    "some parameters": lambda: Objective(mlp(), nn.CrossEntropyLoss(), samples(), parameters="0.*"),
    "converted": lambda: Objective(mlp(), nn.CrossEntropyLoss(), samples(), dtype=torch.float64),
    "norm, train": lambda: Objective(mlp(norm=True), nn.CrossEntropyLoss(), samples(), mode="train"),
    "norm, eval": lambda: Objective(trained_norms(mlp(norm=True), samples()[0]), nn.CrossEntropyLoss(), samples()),
    "bf16": lambda: Objective(mlp(torch.bfloat16), nn.CrossEntropyLoss(), samples(dtype=torch.bfloat16)),
}


@pytest.mark.parametrize("way", ["point by point", "vmap"])
@pytest.mark.parametrize("name", CASES)
def test_values_are_the_objectives(name, way, monkeypatch):
    prefer(monkeypatch, way)
    f = CASES[name]()
    unchanged, D = Unchanged(f.model), directions(f)
    surface = plane(f, D, points=7)
    assert surface.way == (way if name != "norm, train" else "point by point")  # vmap cannot update its buffers
    unchanged.check()
    expected = by_value(f, surface, f.theta(), D)
    error = (surface.values - expected).abs().max()
    assert error <= 32 * f.rounding * expected.abs().max()
    assert surface.values[3, 3] == pytest.approx(f.value(), rel=32 * f.rounding)
    assert surface.quadratic[3, 3] == pytest.approx(f.value(), rel=32 * f.rounding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_that_reads_the_parameters(dtype, monkeypatch):
    prefer(monkeypatch, "vmap")
    model = mlp(dtype)
    f = Objective(
        model,
        lambda out, y: F.cross_entropy(out, y) + 1e-3 * sum(p.square().sum() for p in model.parameters()),
        samples(dtype=dtype),
    )
    D = directions(f)
    surface = plane(f, D, points=9)
    assert surface.way == "point by point"
    torch.testing.assert_close(surface.values, by_value(f, surface, f.theta(), D), rtol=1e-6, atol=0)


def test_a_model_that_vmap_cannot_run():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            out = self.net(x)
            return out if out.sum().item() > 0 else 2 * out

    f = Objective(Branches(), nn.CrossEntropyLoss(), samples())
    D = directions(f)
    surface = plane(f, D, points=9)
    assert surface.way == "point by point"
    torch.testing.assert_close(surface.values, by_value(f, surface, f.theta(), D), rtol=1e-6, atol=0)


def test_a_model_without_second_derivatives_has_a_surface():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return Once.apply(self.net(x))

    f = Objective(Model(), nn.CrossEntropyLoss(), samples())
    surface = plane(f, directions(f), points=3)
    assert not surface.values.isnan().any()
    assert surface.quadratic.isnan().all()
    assert "second derivative" in surface.note


# -- interrupted runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["point by point", "vmap"])
@pytest.mark.parametrize("name", ["mlp", "ragged and masked"])
def test_resumed_runs_have_the_same_bits(name, way, monkeypatch):
    monkeypatch.setattr(values, "_CHUNK", 16)
    f = CASES[name]()
    D = directions(f)
    seen = []

    def interrupted(done, total, found):
        assert (done, total) == (int((~found.isnan()).sum()), 81)
        seen.append(found)

    prefer(monkeypatch, way)
    whole = plane(f, D, points=9, callback=interrupted)
    assert whole.way == way
    assert len(seen) == 6
    monkeypatch.setattr(values.Worker, "_is_faster", lambda *_: way != "vmap")  # on the day of the resumed run
    for known in (seen[0], seen[3]):
        resumed = plane(f, D, points=9, known=known)
        assert resumed.way == way
        assert resumed.complete
        assert torch.equal(resumed.values, whole.values)


def test_a_chunk_is_evaluated_whole(monkeypatch):
    """What goes together decides the last bits under vmap."""
    prefer(monkeypatch, "vmap")
    f = CASES["mlp"]()
    D, together = directions(f), []
    run = values.Worker._at_once
    monkeypatch.setattr(values.Worker, "_at_once", lambda w, chunk: together.append(tuple(chunk)) or run(w, chunk))
    whole = plane(f, D, points=9).values
    first = set(together)
    assert {len(chunk) for chunk in first} == {32, 17}
    known = whole.clone()
    known[1:3, 2:8] = math.nan
    assert torch.equal(plane(f, D, points=9, known=known).values, whole)
    assert set(together) == first


def test_a_callback_stops():
    f = CASES["mlp"]()
    D = directions(f)
    stopped = plane(f, D, points=9, callback=lambda *_: True)
    assert not stopped.complete
    assert int(stopped.values.isnan().sum()) == 81 - 32
    few = plane(f, D, points=3, callback=lambda done, total, found: done == 2)  # so few go one by one
    assert int(few.values.isnan().sum()) == 7
    assert plane(f, D, points=3, callback=lambda done, total, found: done == total).complete


def test_known_values_are_not_evaluated_again():
    f = CASES["mlp"]()
    D = directions(f)
    whole = plane(f, D, points=9)
    again = plane(f, D, points=9, known=whole.values)
    assert again.evaluations == 0
    assert torch.equal(again.values, whole.values)
    holes = whole.values.clone()
    holes[3, 5] = math.nan
    assert torch.equal(plane(f, D, points=9, known=holes).values, whole.values)
    with pytest.raises(ValueError, match=r"known= has shape \(9, 9\), the grid \(5, 5\)"):
        plane(f, D, points=5, known=whole.values)


@pytest.mark.parametrize("points", [5, 9])
def test_known_values_that_f_does_not_have_are_refused(points):
    """Resumed on other data, or with other weights: half of the surface would be of another function."""
    f = CASES["mlp"]()
    D = directions(f)
    known = plane(f, D, points=points, callback=lambda done, total, found: done > 1).values
    plane(f, D, points=points, known=known * (1 + 1e-6))  # another machine
    with pytest.raises(ValueError, match=r"known= has .* values of another model, of other data or directions"):
        plane(f, D, points=points, known=known * 1.01)


@pytest.mark.parametrize("way", ["point by point", "vmap"])
def test_chunks_that_others_evaluate_are_the_same(way, monkeypatch):
    prefer(monkeypatch, way)
    f = CASES["mlp"]()
    D = directions(f)
    whole = plane(f, D, points=9)
    g, asked, seen = CASES["mlp"](), [], []

    def spread(worker, chunks):
        asked.extend(chunks)
        other = values.Worker(g, worker.points, worker.statistics)
        for number in reversed(chunks):
            yield number, other.run(worker.way, chunks[number])

    found = plane(f, D, points=9, spread=spread, callback=lambda done, total, values: seen.append(done))
    assert torch.equal(found.values, whole.values)
    assert (found.way, asked, seen) == (way, [1, 2], [32, 49, 81])
    assert found.evaluations == whole.evaluations
    asked.clear()
    known = torch.where(torch.rand(9, 9, generator=torch.Generator().manual_seed(0)) < 0.5, math.nan, whole.values)
    assert torch.equal(plane(f, D, points=9, spread=spread, known=known).values, whole.values)
    assert asked == [1, 2]


def test_infinite_and_nan_points():
    f = function(torch.tensor([0.0, 0.0]), lambda t: (1 - t[0]).log() + t[1])
    surface = plane(f, torch.eye(2).double(), span=2.0, points=9)
    assert surface.values[-1].isnan().all()
    assert torch.equal(surface.values[6], torch.full((9,), -math.inf).double())
    assert not surface.values[:6].isnan().any()


def test_coarse_points_come_first():
    f = CASES["mlp"]()
    seen = []
    plane(f, directions(f), points=33, callback=lambda done, total, found: seen.append(found.isnan()) or True)
    there = ~seen[0]
    assert there[::16, ::16].all()
    assert there[::8, ::8].all()


# -- running statistics ------------------------------------------------------------------------------------------------


def normed():
    X, y = samples()
    model = trained_norms(mlp(torch.float64, norm=True), X.double())
    return Objective(model, nn.CrossEntropyLoss(), [(X[:25].double(), y[:25]), (X[25:].double(), y[25:])])


def with_statistics_of(f, theta):
    """f by hand: torch's own cumulative average over the data at theta, then eval mode."""
    other = mlp(torch.float64, norm=True)
    other.load_state_dict(f.model.state_dict())
    nn.utils.vector_to_parameters(theta, other.parameters())
    other[1].reset_running_stats()
    other[1].momentum = None
    other.train()
    batches = [(b.inputs, b.targets) for b in f.sweep()]
    for X, _ in batches:
        other(X)
    other.eval()
    return sum(F.cross_entropy(other(X), y, reduction="sum").item() for X, y in batches) / 40


def test_statistics_of_each_point():
    f = normed()
    unchanged, D = Unchanged(f.model), directions(f)
    kept, own = plane(f, D, points=3), plane(f, D, points=3, statistics="recompute")
    unchanged.check()
    torch.testing.assert_close(kept.values, by_value(f, kept, f.theta(), D))
    for i, x in enumerate(own.x):
        for j, y in enumerate(own.y):
            assert own.values[i, j] == pytest.approx(with_statistics_of(f, f.theta() + x * D[:, 0] + y * D[:, 1]))
    assert (kept.values - own.values).abs().max() > 1e-3
    assert own.quadratic[1, 1] == pytest.approx(float(own.values[1, 1]))
    assert (kept.statistics, own.statistics) == ("keep", "recompute")


def test_around_another_centre_statistics_are_recomputed():
    f = normed()
    D = directions(f)
    assert plane(f, D, points=3, centre=f.theta()).statistics == "keep"
    assert plane(f, D, points=3, centre=f.theta() + 0.1).statistics == "recompute"
    plain = CASES["mlp"]()
    assert plane(plain, directions(plain), points=3, centre=plain.theta() + 0.1).statistics == "keep"


@pytest.mark.parametrize("mode", ["as-is", "eval"])
def test_batch_statistics_are_those_of_training(mode):
    f = normed()
    g = Objective(f.model, nn.CrossEntropyLoss(), [(b.inputs, b.targets) for b in f.sweep()], mode=mode)
    unchanged = Unchanged(f.model)
    with running.batch_statistics(g):
        found = g.value()
    unchanged.check()
    expected = Objective(f.model, nn.CrossEntropyLoss(), [(b.inputs, b.targets) for b in f.sweep()], mode="train")
    assert found == expected.value()
    assert g._network.mode == mode


def test_buffers_that_are_no_statistics_stay():
    X, y = samples(dtype=torch.float64)
    model = trained_norms(mlp(torch.float64, norm=True), X)
    model.register_buffer("other", torch.tensor([3.0]))
    f = Objective(model, nn.CrossEntropyLoss(), (X, y))
    found = running.recomputed(f)
    assert len(found) == len(list(model.buffers()))
    assert found[0].item() == 3.0
    hidden = X @ model[0].weight.T + model[0].bias
    torch.testing.assert_close(found[1], hidden.mean(dim=0).detach())
    torch.testing.assert_close(found[2], hidden.var(dim=0).detach())


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_refusals():
    f = CASES["mlp"]()
    D = directions(f)
    for options, text in (
        ({"span": 0.0}, "positive span"),
        ({"span": math.inf}, "positive span"),
        ({"points": 1}, "at least two points"),
        ({"centre": torch.zeros(3)}, "centre must have shape"),
        ({"statistics": "other"}, "statistics is"),
    ):
        with pytest.raises(ValueError, match=text):
            plane(f, D, **options)
    with pytest.raises(ValueError, match=r"directions must have shape \(83, 2\)"):
        plane(f, D[:, :1])
    with pytest.raises(ValueError, match=r"directions must have shape \(83, 1\)"):
        line(f, D)
