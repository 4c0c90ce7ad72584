"""What a trajectory accepts, refuses and joins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from regularity_cases import random_trajectory

from landscape.regularity import (
    Trajectory,
    admissible,
    aiming,
    alpha_beta,
    alpha_beta_frontier,
    describe,
    margins,
    polyak_lojasiewicz,
    quasar_convexity,
    restricted_secant,
    violated,
)
from landscape.regularity import examples as toys

GOOD = {
    "inner": [1.0, 0.5],
    "loss": [2.0, 1.0],
    "final_loss": [0.5, 0.5],
    "infimum": 0.0,
    "grad_norm": [1.0, 1.0],
    "distance": [1.0, 0.5],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": [2.0]}, "unequal lengths .*loss 1"),
        ({"infimum": [0.0, 0.0, 0.0]}, "unequal lengths .*infimum 3"),
        ({"loss": [[2.0, 1.0]]}, r"loss must have one number a step, not the shape \(1, 2\)"),
        ({"loss": 2.0}, "loss must have one number a step"),
        ({"inner": [1.0, math.nan]}, "inner is nan at step 20: "),
        ({"loss": [math.inf, 1.0]}, "loss is inf at step 10: "),
        ({"infimum": -math.inf}, r"infimum is -inf at step 10: .*\(1 more"),
        ({"loss": [2.0, -0.1]}, "^loss is below the infimum at step 20: pass a smaller infimum$"),
        ({"final_loss": [-0.1, 0.5]}, "final_loss is below the infimum at step 10"),
        ({"grad_norm": [1.0, -1.0]}, "grad_norm is negative at step 20"),
        ({"distance": [-1.0, 1.0]}, "distance is negative at step 10"),
        ({"steps": [1, 2, 3]}, "steps labels rows, of which there are 2"),
        ({"steps": [1, 2.5]}, "steps must be integers"),
        ({"rounding": -1.0}, "rounding is a relative error"),
        ({name: [] for name in GOOD} | {"steps": None}, "the trajectory has no steps"),
        (
            {"inner": [0.0, 0.0], "loss": [0.5, 0.5], "distance": [0.0, 0.0]},
            "every step of the trajectory is its own end point x_K",
        ),
    ],
)
def test_trajectories_that_are_refused(change, words):
    with pytest.raises(ValueError, match=words) as error:
        Trajectory(**({"steps": [10, 20]} | GOOD | change))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [["a", "b"], [1.0, [2.0]], [1j, 2j], None])
def test_fields_that_hold_no_numbers(value):
    with pytest.raises(TypeError, match="loss holds no real numbers"):
        Trajectory(**(GOOD | {"loss": value}))


def test_what_a_trajectory_accepts():
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in GOOD.items()}
    from_tensors = Trajectory(**tensors)
    lists = Trajectory(**(GOOD | {"loss": [torch.tensor(2.0, requires_grad=True), torch.tensor(1.0)]}))
    half = Trajectory(**(GOOD | {"loss": torch.tensor([2.0, 1.0], dtype=torch.bfloat16)}))
    for t in (from_tensors, lists, half, Trajectory(*GOOD.values())):
        assert t.loss.dtype == np.float64
        np.testing.assert_array_equal(t.loss, GOOD["loss"])
        np.testing.assert_array_equal(t.infimum, [0.0, 0.0])
        np.testing.assert_array_equal(t.steps, [0, 1])
        assert len(t) == 2
    assert half.rounding > from_tensors.rounding == lists.rounding == 2.0**-23
    assert Trajectory(*GOOD.values()).rounding < 1e-15
    with pytest.raises(ValueError, match="read-only"):
        from_tensors.loss[0] = 3.0
    loss = np.array([2.0, 1.0])
    kept = Trajectory(**(GOOD | {"loss": loss}))
    loss[0] = 7.0
    assert kept.loss[0] == 2.0
    rounded = (
        Trajectory(**(GOOD | {"loss": [2.0, -1e-9], "infimum": [0.0, 0.0], "final_loss": [0.5, 1e-3]})) if 0 else t
    )
    assert rounded.excess[0] == 0.5


def test_losses_may_be_below_the_infimum_by_rounding():
    infimum = np.nextafter(np.float32(0.5), np.float32(1))
    t = Trajectory(**(GOOD | {"infimum": infimum}))
    assert (t.excess == 0).all()
    assert alpha_beta(t, 0.1).beta == 0
    above = Trajectory(**(GOOD | {"infimum": np.nextafter(0.5, 0), "inner": [1.0, -0.5]}))
    assert alpha_beta(above).beta == math.inf
    assert not alpha_beta(above).vacuous


def test_a_single_step():
    t = Trajectory([1.0], [2.0], [0.5], 0.0, [1.0], [1.0], steps=[7])
    assert alpha_beta(t, 1.0).beta == pytest.approx(1.0)
    assert alpha_beta(t, 1.0).binding_step == 7
    assert polyak_lojasiewicz(t).value == pytest.approx(1 / 3)
    assert describe(t).startswith("one step only (step 7); alpha-beta holds with beta = 0 at gap 0.1 (vacuous: ")


def test_concatenated_runs_satisfy_what_each_does():
    rng = np.random.default_rng(19)
    runs = [random_trajectory(rng, 50) for _ in range(4)]
    joint = Trajectory.concatenate(runs)
    assert len(joint) == 200
    found = alpha_beta(joint, 0.5)
    each = [alpha_beta(run, 0.5) for run in runs]
    assert found.beta == max(one.beta for one in each)
    worst = int(np.argmax([one.beta for one in each]))
    assert found.binding_step == each[worst].binding_step
    assert found.binding_row == 50 * worst + each[worst].binding_row
    assert quasar_convexity(joint).value == min(quasar_convexity(run).value for run in runs)
    joint = Trajectory.concatenate(iter(runs))
    assert len(quasar_convexity(joint).per_step) == len(joint) == 200
    with pytest.raises(ValueError, match="no trajectory"):
        Trajectory.concatenate([])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: alpha_beta(t, 0.0), "gap must be positive"),
        (lambda t: alpha_beta(t, math.nan), "gap must be positive"),
        (lambda t: alpha_beta(t, math.inf), "gap must be positive"),
        (lambda t: alpha_beta(t, quantile=0.0), "quantile is the share"),
        (lambda t: alpha_beta(t, quantile=1.1), "quantile is the share"),
        (lambda t: alpha_beta_frontier(t, [0.1, -1.0]), "gap must be positive"),
        (lambda t: admissible(t, math.inf, math.inf), "must be finite"),
        (lambda t: violated(t, 1.0, math.nan), "must be finite"),
        (lambda t: margins(t, [], [1.0]), "alphas must be a finite vector"),
        (lambda t: margins(t, [1.0], [math.nan]), "betas must be a finite vector"),
        (lambda t: aiming(t, "start"), 'the reference is "final" or "infimum"'),
        (lambda t: restricted_secant(t, "start"), 'the reference is "final" or "infimum"'),
        (lambda t: toys.two_minima().values([1.0, 2.0]), r"shape \(m, 2\)"),
    ],
)
def test_arguments_that_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(Trajectory(**GOOD))
