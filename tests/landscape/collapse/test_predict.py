"""`predict_nc0` against plain simulations: real networks for the SGD rules, the unconstrained features for signs."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape.collapse import predict_nc0

STEPS = 1000


def step_schedule(lr, steps=STEPS):
    return np.array([lr * 0.1 ** (t >= steps // 3) * 0.1 ** (t >= 2 * steps // 3) for t in range(steps)])


class Network(nn.Module):
    """A small CNN with batch norm and a linear head without bias."""

    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(16, 12),
            nn.Tanh(),
        )
        self.head = nn.Linear(12, classes, bias=False)

    def forward(self, x):
        return self.head(self.body(x))


def trained(rule, lrs, decay, momentum, loss=F.cross_entropy, bias=False, classes=5):
    """NC0 of a network at every step, and |sum b| of its head where it has a bias."""
    torch.manual_seed(0)
    model = Network(classes).double()
    if bias:
        model.head = nn.Linear(12, classes).double()
    X, y = torch.randn(32, 1, 6, 6, dtype=torch.float64), torch.randint(0, classes, (32,))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1.0, momentum=momentum, weight_decay=decay if rule == "sgd" else 0.0
    )

    def seen():
        return model.head.weight.sum(0).norm().item(), model.head.bias.sum().abs().item() if bias else 0.0

    values = [seen()]
    for t, lr in enumerate(lrs.tolist()):
        rows = slice(8 * (t % 4), 8 * (t % 4) + 8)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        loss(model(X[rows]), y[rows]).backward()
        if rule == "sgdw":
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(1.0 - lr * decay)
        optimizer.step()
        values.append(seen())
    return np.array(values).T


@pytest.mark.parametrize(("rule", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("sgdw", 0.9)])
def test_real_networks_follow(rule, momentum):
    lrs = step_schedule(0.02)
    found, _ = trained(rule, lrs, 0.05, momentum)
    expected = predict_nc0(rule, lrs, weight_decay=0.05, momentum=momentum, nc0_initial=found[0])
    assert expected.shape == (STEPS + 1,)
    assert expected[-1] < 0.75 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_oscillations_below_the_critical_decay_are_met():
    """With (1 + beta - lr lam)^2 < 4 beta the roots are complex: m swings through zero."""
    lrs = np.full(STEPS, 0.02)
    found, _ = trained("sgd", lrs, 0.5, 0.98)
    expected = predict_nc0("sgd", lrs, weight_decay=0.5, momentum=0.98, nc0_initial=found[0])
    m = expected[:200]
    assert ((m[1:-1] < m[:-2]) & (m[1:-1] < m[2:])).sum() > 3
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * found[0])


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0], dtype=torch.float64)),
    ],
)
def test_smoothing_weights_and_the_bias(loss):
    lrs = step_schedule(0.02, 200)
    weight, bias = trained("sgd", lrs, 0.05, 0.9, loss, bias=True)
    for found in (weight, bias):
        expected = predict_nc0("sgd", lrs, weight_decay=0.05, momentum=0.9, nc0_initial=found[0])
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_mean_squared_error_is_another_matter():
    lrs = step_schedule(0.02, 200)
    found, _ = trained("sgd", lrs, 0.05, 0.9, lambda z, y: F.mse_loss(z, F.one_hot(y, 5).double()))
    expected = predict_nc0("sgd", lrs, weight_decay=0.05, momentum=0.9, nc0_initial=found[0])
    assert abs(found[-1] / expected[-1] - 1) > 1e-3


# The paper's heat-map: ResNet9 on FashionMNIST, SGD with lr 1e-3, 200 epochs of 469 steps, lr / 10 at epochs 66 and
# 133, a start of 1.75; NC0 at the end.
HEAT_MAP = np.repeat([1e-3 * 0.1 ** ((e >= 66) + (e >= 133)) for e in range(200)], 469)


@pytest.mark.parametrize(
    ("momentum", "decay", "value", "printed"),
    [(0.0, 0.005, 1.473, 1.48), (0.9, 0.005, 0.313, 0.31), (0.0, 0.0, 1.75, 1.75), (0.98, 0.0, 1.75, 1.75)],
)
def test_the_heat_map_of_the_paper(momentum, decay, value, printed):
    found = predict_nc0("sgd", HEAT_MAP, weight_decay=decay, momentum=momentum, nc0_initial=1.75)[-1]
    assert found == pytest.approx(value, abs=1e-3)
    assert found == pytest.approx(printed, abs=1e-2)


@pytest.mark.parametrize(
    ("lr", "momentum", "decay", "ratio"),
    [(1e-3, 0.98, 0.005, 0.917), (1e-3, 0.9, 0.05, 0.93), (0.0679, 0.98, 5e-4, 0.005)],
)
def test_the_exponential_is_only_an_approximation(lr, momentum, decay, ratio):
    lrs = HEAT_MAP / 1e-3 * lr
    exact = predict_nc0("sgd", lrs, weight_decay=decay, momentum=momentum, nc0_initial=1.0)[-1]
    exponential = math.exp(-decay / (1 - momentum) * lrs.sum())
    assert exact / exponential == pytest.approx(ratio, rel=0.05)


def test_the_stability_threshold():
    for factor, falls in ((0.999, True), (1.001, False)):
        lr = factor * 2 * (1 + 0.9) / 0.5
        found = predict_nc0("sgd", np.full(20_000, lr), weight_decay=0.5, momentum=0.9, nc0_initial=1.0)
        assert (found[-1] < 1e-3) == falls


# -- signs -----------------------------------------------------------------------------------------------------------


def simplex(K):
    return (torch.eye(K, dtype=torch.float64) - 1.0 / K) / math.sqrt(K - 1)


def simulated(rule, lrs, decay, momentum, K):
    """W itself, with gradients from autograd."""
    H, y = simplex(K), torch.arange(K)
    W = torch.zeros(K, K, dtype=torch.float64, requires_grad=True)
    buffer = torch.zeros(K, K, dtype=torch.float64)
    values = [0.0]
    for lr in lrs.tolist():
        (g,) = torch.autograd.grad(F.cross_entropy((W @ H).T, y), W)
        with torch.no_grad():
            buffer.mul_(momentum).add_(g if rule == "signsgdw" else g + decay * W, alpha=1 - momentum)
            if rule == "signsgdw":
                W.mul_(1 - lr * decay)
            W -= lr * buffer.sign()
        values.append(W.detach().sum(0).norm().item())
    return np.array(values)


@pytest.mark.parametrize("K", [2, 3, 10])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("rule", ["signsgd", "signsgdw"])
def test_signs_with_unconstrained_features(rule, momentum, K):
    lrs = step_schedule(0.05)
    found = simulated(rule, lrs, 0.05, momentum, K)
    expected = predict_nc0(rule, lrs, weight_decay=0.05, momentum=momentum, nc0_initial=0.0, num_classes=K)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("K", [2, 3, 10])
def test_the_decoupled_limit(K):
    lrs = np.full(3000, 0.1)
    found = predict_nc0("signsgdw", lrs, weight_decay=0.2, nc0_initial=0.0, num_classes=K)
    t = np.arange(3001)
    np.testing.assert_allclose(found, math.sqrt(K) * (K - 2) / 0.2 * (1 - (1 - 0.02) ** t), rtol=1e-11, atol=0)
    assert found[-1] == pytest.approx(math.sqrt(K) * (K - 2) / 0.2, rel=1e-12)
    assert (np.diff(found) >= 0).all()


def test_the_coupled_rule_rises_and_then_falls_with_the_learning_rate():
    steps = 40_000
    lrs = 0.05 / (1 + np.arange(steps) / 100)
    found = predict_nc0("signsgd", lrs, weight_decay=0.02, nc0_initial=0.0, num_classes=5)
    peak = int(found.argmax())
    assert 0 < peak < steps // 4
    assert found[peak] > 1.0
    assert found[-100:].max() <= math.sqrt(5) * 2 * 5 * lrs[-100]
    constant = predict_nc0("signsgd", np.full(steps, 0.05), weight_decay=0.02, nc0_initial=0.0, num_classes=5)
    assert 0 < constant[-100:].max() <= math.sqrt(5) * 2 * 5 * 0.05


def test_signs_of_gradients_that_are_lost_to_rounding():
    """Without decay the logit gap grows to 5,773; the gradient of a simulation is zero from 40 on."""
    found = predict_nc0("signsgd", np.full(5000, 1.0), weight_decay=0.0, nc0_initial=0.0, num_classes=4)
    np.testing.assert_allclose(found, 2 * 2 * np.arange(5001.0))


# -- what it takes ---------------------------------------------------------------------------------------------------


def test_no_steps_and_lists():
    assert predict_nc0("sgdw", [], weight_decay=0.1, nc0_initial=2.0).tolist() == [2.0]
    assert predict_nc0("sgd", [0.5, 0.5], weight_decay=1.0, nc0_initial=2.0).tolist() == [2.0, 1.0, 0.5]
    assert predict_nc0("sgdw", torch.tensor([3.0]), weight_decay=1.0, nc0_initial=2.0).tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "adam"}, "sgd, sgdw, signsgd, signsgdw"),
        ({"lrs": 0.1}, "vector"),
        ({"lrs": ["a"]}, "vector of numbers"),
        ({"lrs": [0.1, -0.1]}, "not negative"),
        ({"lrs": [0.1, math.nan]}, "finite"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"nc0_initial": math.inf}, "nc0_initial"),
        ({"momentum": 1.0}, "momentum"),
        ({"rule": "signsgd", "nc0_initial": 0.0}, "num_classes"),
        ({"rule": "signsgdw", "num_classes": 3}, "W = 0"),
    ],
)
def test_bad_arguments(options, says):
    given = {"rule": "sgd", "lrs": [0.1], "weight_decay": 0.1, "nc0_initial": 1.0} | options
    with pytest.raises(ValueError, match=says):
        predict_nc0(given.pop("rule"), given.pop("lrs"), **given)
