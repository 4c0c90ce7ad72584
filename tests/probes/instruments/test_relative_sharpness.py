"""The probe of one loss along the steps of another, in loops whose losses are quadratic."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Hessian, Objective
from landscape.sharpness import stability
from probes import Monitor, RelativeCriticalSharpness, Trace, measure_once


@pytest.fixture
def trace(tmp_path):
    with Trace.create(tmp_path / "run.h5", seed=0) as trace:
        yield trace


def problem():
    """A linear model, on which square losses are quadratics; the monitor's objective and the training's batch."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    X, y = torch.randn(30, 4).double(), torch.randn(30, 2).double()
    held_out = Objective(model, nn.MSELoss(), (X[:20], y[:20]))
    return model, held_out, (X[20:], y[20:])


def holds(row, update, objective):
    g, H = objective.gradient(), Hessian(objective).to_dense()
    truth = float(update @ H @ update / (update @ g))
    return row["lower"] * (1 - 1e-9) <= truth <= row["upper"] * (1 + 1e-9)


def measured(probe, trace, objective, **options):
    return measure_once(objective, [probe], trace, 0, on_error="raise", **options)[probe.name].values


def test_the_batch_moves_and_the_objective_is_watched(trace):
    model, held_out, batch = problem()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    row = measured(RelativeCriticalSharpness(), trace, held_out, batch=batch, optimizer=sgd)
    train = held_out.on(batch)
    assert holds(row, train.gradient(), held_out)
    assert row["slope"] == pytest.approx(-float(train.gradient() @ held_out.gradient()))
    assert row["threshold"] == pytest.approx(20.0)
    assert (row["ascent"], row["converged"]) == (False, True)
    # the other way round, and with an objective of one's own in the batch's place
    other = RelativeCriticalSharpness(moves="objective", watched="batch", name="other")
    row = measured(other, trace, held_out, batch=batch)
    assert holds(row, held_out.gradient(), train)
    assert math.isnan(row["threshold"])
    own = RelativeCriticalSharpness(moves="objective", watched=train, name="own", lr=0.5)
    assert own.needs == {"loss", "gradient"}
    again = measured(own, trace, held_out)
    assert (again["value"], again["slope"], again["threshold"]) == (row["value"], row["slope"], 4.0)
    assert trace["own"].settings["watched"] == "MSELoss on 10 samples in one batch"


def test_the_preconditioner_of_the_optimizer_is_in_the_update(trace):
    model, held_out, batch = problem()
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    train = held_out.on(batch)
    for _ in range(3):
        adam.zero_grad()
        nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
        adam.step()
    row = measured(RelativeCriticalSharpness(), trace, held_out, batch=batch, optimizer=adam)
    known = stability(adam, held_out)
    assert holds(row, known.scale * train.gradient(), held_out)
    assert not holds(row, train.gradient(), held_out)
    assert row["threshold"] == known.preconditioned_threshold


def test_updates_of_training_are_per_unit_of_the_learning_rate(trace):
    model, held_out, batch = problem()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    probe = RelativeCriticalSharpness(moves="update", name="update")
    monitor = Monitor(held_out, [probe], trace, optimizer=sgd, on_error="raise")
    updates, rows = [None], []
    for number in range(3):
        rows.append(monitor(number)["update"].values)
        assert number == 0 or holds(rows[-1], updates[-1], held_out)
        updates.append(held_out.on(batch).gradient())
        sgd.zero_grad()
        nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
        sgd.step()
    assert math.isnan(rows[0]["value"])
    assert not rows[0]["converged"]
    assert rows[2]["evaluations"] < 8  # from the last step
    np.testing.assert_allclose(trace["update"]["threshold"], 20.0)


def test_a_loss_that_rises_at_once(trace):
    _, held_out, (X, _) = problem()
    away = (X, 2 * held_out.model(X).detach() + 1)
    against = held_out.on((X, -away[1]))
    probe = RelativeCriticalSharpness(watched=against)
    row = measured(probe, trace, held_out, batch=away)
    slope = -float(held_out.on(away).gradient() @ against.gradient())
    assert slope > 0
    assert (row["value"], row["ascent"], row["converged"], row["evaluations"]) == (math.inf, True, True, 0)
    assert row["slope"] == pytest.approx(slope)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"moves": "train"}, "moves is one of batch, objective, update, or an Objective"),
        ({"watched": "update"}, "watched is one of objective, batch, or an Objective"),
        ({"moves": "objective"}, "CriticalSharpness measures that"),
        ({"rtol": 0}, "rtol=0"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        RelativeCriticalSharpness(**options)


def test_an_objective_of_another_model_is_refused(trace):
    _, held_out, batch = problem()
    with pytest.raises(ValueError, match="different parameters"):
        measured(RelativeCriticalSharpness(watched=problem()[1]), trace, held_out, batch=batch)
