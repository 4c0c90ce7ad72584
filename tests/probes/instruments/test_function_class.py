"""Rows of a trajectory as a training run gives them: exact, per sample, sketched; two passes that must be one run."""

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from landscape.regularity.measure import estimate_infimum, measure, measure_samples
from probes import Field, FunctionClass, Monitor, Recording, ReplayError, Trace
from probes.cli import main
from probes.instruments.function_class import trajectory


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 3)).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(30, 4, generator=generator).double()
    return list(zip(X.split(10), torch.randint(0, 3, (30,), generator=generator).split(10), strict=True))


def train(model, call, steps=12, lr=0.3):
    torch.manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    data = batches()
    for step in range(steps):
        X, y = data[step % 3]
        call(step, (X, y))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.fixture
def recorded():
    model = network()
    objective = Objective(model, nn.CrossEntropyLoss(), batches())
    recording = Recording(objective)
    train(model, recording)
    recording.finish()
    return recording


def second_pass(path, recording, *, model=None, **settings):
    model = model or network()
    objective = Objective(model, nn.CrossEntropyLoss(), batches())
    iterates = []
    with Trace.create(path, seed=0) as trace:
        monitor = Monitor(objective, [FunctionClass(recording, **settings)], trace, on_error="raise")

        def call(step, batch):
            iterates.append(flat(model))
            monitor(step, batch=batch)

        train(model, call)
    return Trace.open(path)["function-class"], iterates, objective


def by_hand(theta, end, X, y):
    """The row of one batch by plain autograd on a network of its own."""

    def at(vector):
        model = network()
        nn.utils.vector_to_parameters(vector.clone(), model.parameters())
        loss = nn.functional.cross_entropy(model(X), y)
        g = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
        return float(loss.detach()), g

    (loss, g), (final, _) = at(theta), at(end)
    return [float(g @ (theta - end)), loss, final, float(g.norm()), float((theta - end).norm())]


def test_rows_are_those_of_each_steps_own_batch(tmp_path, recorded):
    rows, iterates, objective = second_pass(tmp_path / "a.h5", recorded)
    data = batches()
    for step, theta in enumerate(iterates):
        expected = by_hand(theta, recorded.end, *data[step % 3])
        found = [rows[name][step] for name in ("inner", "loss", "final_loss", "grad_norm", "distance")]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    recorded.check_end(objective)
    t = trajectory(rows)
    np.testing.assert_array_equal(t.inner, rows["inner"])
    np.testing.assert_array_equal(t.infimum, 0.0)


def test_a_file_serves_the_second_pass(tmp_path, recorded):
    recorded.save(tmp_path / "first.pt")
    again = Recording.load(tmp_path / "first.pt")
    rows, _, objective = second_pass(tmp_path / "a.h5", again)
    assert len(rows["step"]) == 12
    again.check_end(objective)
    torch.save({"end": again.end}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="not a recording"):
        Recording.load(tmp_path / "other.pt")


def test_a_replay_that_differs_names_the_step(tmp_path, recorded):
    model = network()
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-15
    with pytest.raises(ReplayError, match="step 0: the model is not as it was"):
        second_pass(tmp_path / "a.h5", recorded, model=model)
    with pytest.raises(ReplayError, match="did not end"):
        recorded.check_end(Objective(model, nn.CrossEntropyLoss(), batches()))
    objective = Objective(network(), nn.CrossEntropyLoss(), batches())
    with pytest.raises(ReplayError, match="step 0: the batch is not"):
        recorded.check(0, objective, batches()[1])
    with pytest.raises(ReplayError, match=r"step 12 is not in the first pass, .* up to step 11"):
        recorded.check(12, objective, batches()[0])


def test_a_recording_is_used_as_it_is_meant():
    recording = Recording(Objective(network(), nn.CrossEntropyLoss(), batches()))
    with pytest.raises(ValueError, match="nothing was recorded"):
        recording.finish()
    recording(0)
    with pytest.raises(ValueError, match="recorded before"):
        recording(0)
    with pytest.raises(ReplayError, match="no end point yet"):
        recording.check(0, Objective(network(), nn.CrossEntropyLoss(), batches()), None)
    recording.finish()
    with pytest.raises(ValueError, match="after finish"):
        recording(1)


def test_recording_leaves_no_mark():
    models = [network(0.5), network(0.5)]
    recording = Recording(Objective(models[0], nn.CrossEntropyLoss(), batches()))
    train(models[0], recording)
    train(models[1], lambda step, batch: None)
    assert torch.equal(flat(models[0]), flat(models[1]))


def test_dropout_is_off_and_on_again():
    model = network(0.5).train()
    objective = Objective(model, nn.CrossEntropyLoss(), batches())
    end = objective.theta() + 0.1
    row = measure(objective, end)
    calm = measure(Objective(network(0.0).train(), nn.CrossEntropyLoss(), batches()), end)
    assert row == calm
    assert model[2].training


def test_every_sample_has_its_row():
    objective = Objective(network(), nn.CrossEntropyLoss(), batches())
    end = objective.theta() + 0.1
    rows = measure_samples(objective, end)
    whole = measure(objective, end)
    assert len(rows) == 30
    for name in ("inner", "loss", "final_loss"):
        assert np.mean([getattr(row, name) for row in rows]) == pytest.approx(getattr(whole, name), rel=1e-12)
    X, y = batches()[2]
    expected = by_hand(objective.theta(), end, X[-1:], y[-1:])
    row = rows[-1]
    np.testing.assert_allclose([row.inner, row.loss, row.final_loss, row.grad_norm, row.distance], expected, rtol=1e-10)


def test_ignored_samples_have_none():
    X, y = batches()[0]
    y = y.clone()
    y[::2] = -100
    objective = Objective(network(), nn.CrossEntropyLoss(), (X, y))
    assert len(measure_samples(objective, objective.theta() + 0.1)) == 5


def test_samples_in_a_trace(tmp_path, recorded):
    rows, _, _ = second_pass(tmp_path / "a.h5", recorded, per="sample")
    t = trajectory(rows)
    assert len(t.inner) == 12 * 10
    np.testing.assert_array_equal(t.steps, np.repeat(np.arange(12), 10))


def test_the_infimum_of_a_quadratic():
    model = nn.Linear(3, 1).double()
    X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double()
    y = X @ torch.ones(3, 1).double() + torch.randn(20, 1, generator=torch.Generator().manual_seed(1)).double()
    A = torch.cat([X, torch.ones(20, 1).double()], 1)
    exact = float((A @ torch.linalg.lstsq(A, y).solution - y).square().mean())
    objective = Objective(model, nn.MSELoss(), (X, y))
    before = objective.theta()
    assert estimate_infimum(objective, []) == pytest.approx(exact, rel=1e-6)
    assert torch.equal(objective.theta(), before)
    row = measure(objective, before + 1.0, infimum="estimate")
    assert row.infimum == pytest.approx(exact, rel=1e-6)
    assert row.infimum <= min(row.loss, row.final_loss)


def test_bad_ends_are_refused():
    objective = Objective(network(), nn.CrossEntropyLoss(), batches())
    with pytest.raises(ValueError, match="end point has shape"):
        measure(objective, torch.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        measure(objective, torch.full((objective.size,), float("nan")))


@pytest.mark.parametrize(
    "settings", [{"per": "batches"}, {"infimum": "guess"}, {"infimum": float("nan")}, {"sketch": 2}]
)
def test_settings_are_checked(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        FunctionClass(torch.zeros(3), **settings)


def test_what_needs_an_end_point_says_so():
    for settings in ({"per": "sample"}, {"infimum": "estimate"}):
        with pytest.raises(ValueError, match="need an end point"):
            FunctionClass(**settings)


@pytest.mark.parametrize("seed", range(8))
def test_without_an_end_point_estimates_with_their_error(tmp_path, seed):
    model = network()
    objective = Objective(model, nn.CrossEntropyLoss(), batches())
    iterates = []
    with Trace.create(tmp_path / "a.h5", seed=seed) as trace:
        monitor = Monitor(objective, [FunctionClass(sketch=64)], trace, on_error="raise")

        def call(step, batch):
            iterates.append((flat(model), objective.gradient()))
            monitor(step, batch=batch)

        train(model, call)
    t = trajectory(Trace.open(tmp_path / "a.h5")["function-class"])
    end = iterates[-1][0]
    exact = np.array([float(g @ (x - end)) for x, g in iterates[:-1]])
    distance = np.array([float((x - end).norm()) for x, _ in iterates[:-1]])
    assert len(t.inner) == 11
    # one sketch serves all steps, so that the errors of a run go together: 3.5 standard errors for 8 runs
    assert np.all(np.abs(t.inner - exact) <= 3.5 * np.sqrt(2 / 64) * t.grad_norm * distance)
    np.testing.assert_allclose(t.distance, distance, rtol=0.35)  # 1 / sqrt(2 * 64), 4 times
    np.testing.assert_allclose(t.final_loss, t.final_loss[0])


def test_sketches_are_unbiased():
    from probes.instruments.function_class import _Sketch

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500, generator=generator).double()
    products = [float((_Sketch(500, 32, seed)(a) * _Sketch(500, 32, seed)(b)).sum()) for seed in range(400)]
    spread = np.std(products) / np.sqrt(400)
    assert abs(np.mean(products) - float(a @ b)) < 4 * spread
    assert np.std(products) == pytest.approx(float(a.norm() * b.norm()) / np.sqrt(32), rel=0.2)


PROBLEM = """
import torch
from torch import nn
from landscape import Objective

def small():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(30, 4, generator=generator)
    y = torch.randint(0, 3, (30,), generator=generator)
    return Objective(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), nn.CrossEntropyLoss(), (X, y))
"""


def test_over_a_folder_of_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "problem_fc.py").write_text(PROBLEM)
    thetas = []
    for step in (0, 10, 20):
        torch.manual_seed(step)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        torch.save(model.state_dict(), f"step{step}.pt")
        thetas.append(flat(model))
    arguments = ["probe", "step0.pt", "step10.pt", "step20.pt", "--problem", "problem_fc.py:small"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--probe", "function-class", "-o", "fc.h5"])
    assert not stopped.value.code
    rows = Trace.open("fc.h5")["function-class"]
    expected = [float((theta - thetas[-1]).norm()) for theta in thetas]
    np.testing.assert_allclose(rows["distance"], expected, rtol=1e-6)
    assert rows["final_loss"][0] == rows["loss"][2]
    t = trajectory(rows)
    assert t.rounding == pytest.approx(2.0**-23)
    with pytest.raises(ValueError, match="no records of a FunctionClass"):
        trajectory(Trace.open("fc.h5")["loss"])


def test_a_trajectory_is_as_rough_as_its_roughest_row():
    names = ("inner", "loss", "final_loss", "infimum", "grad_norm", "distance")

    class Rows:
        fields = dict.fromkeys(names, Field(()))

        def read(self):
            ones = {name: np.ones(2) for name in names}
            return ones | {"step": np.arange(2), "rounding": np.array([1e-16, 1e-7])}

    assert trajectory(Rows()).rounding == 1e-7
