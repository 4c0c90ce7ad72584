"""Thresholds and preconditioners against torch's own optimizers, run on quadratics at either side of the edge."""

import math

import pytest
import torch
from sharpness_cases import normal, positive, quadratic
from spectra_cases import ShardedOperator, matrix, seeded_generator, spectra
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop

from landscape import GaussNewton, Hessian, MatrixOperator, Objective
from landscape.sharpness import Preconditioned, plain_threshold, stability
from landscape.spectra import eigsh

N = 9
STILL = 1 - 1e-12  # a second moment with this decay does not move
ADAM = {"betas": (0.9, STILL)}


def groups(model, *settings):
    """One parameter group per parameter, with the settings of each."""
    return [{"params": [p], **extra} for p, extra in zip(model.parameters(), settings, strict=True)]


OPTIMIZERS = {
    "gd": lambda m: SGD(m.parameters(), lr=0.1),
    "gd-dampening-without-momentum": lambda m: SGD(m.parameters(), lr=0.1, dampening=0.5),
    "gd-decay": lambda m: SGD(m.parameters(), lr=0.1, weight_decay=4.0),
    "heavy-ball": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9),
    "dampened": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.8, dampening=0.3, weight_decay=1.0),
    "nesterov": lambda m: SGD(m.parameters(), lr=torch.tensor(0.1), momentum=0.7, nesterov=True, weight_decay=1.0),
    "gd-two-rates": lambda m: SGD(groups(m, {"lr": 0.3}, {}, {}), lr=0.1),
    "heavy-ball-rates-and-decays": lambda m: SGD(
        groups(m, {"lr": 0.3, "weight_decay": 2.0}, {"lr": 0.02}, {"weight_decay": 5.0}), lr=0.1, momentum=0.9
    ),
    "one-rate-two-decays": lambda m: SGD(groups(m, {"weight_decay": 5.0}, {}, {}), lr=0.1, momentum=0.5),
    "gd-some": lambda m: SGD([m.a, m.c], lr=0.1),
    "adam": lambda m: Adam(m.parameters(), lr=0.1, **ADAM),
    "adam-0.5": lambda m: Adam(m.parameters(), lr=0.1, betas=(0.5, STILL), eps=0.1, weight_decay=1.0),
    "adam-rates": lambda m: Adam(groups(m, {"lr": 0.3}, {"lr": 0.01}, {}), lr=0.1, **ADAM),
    "amsgrad": lambda m: Adam(m.parameters(), lr=0.1, amsgrad=True, **ADAM),
    "adamw": lambda m: AdamW(m.parameters(), lr=0.1, weight_decay=4.0, **ADAM),
    "adamw-capturable-rate": lambda m: AdamW(
        m.parameters(), lr=torch.tensor(0.1), weight_decay=0.0, foreach=False, **ADAM
    ),
    "rmsprop": lambda m: RMSprop(m.parameters(), lr=0.1, alpha=STILL, eps=0.05, weight_decay=0.5),
    "rmsprop-momentum": lambda m: RMSprop(m.parameters(), lr=0.1, alpha=STILL, momentum=0.6),
    "rmsprop-centered": lambda m: RMSprop(m.parameters(), lr=0.1, alpha=STILL, centered=True),
    "adagrad": lambda m: Adagrad(m.parameters(), lr=0.1, eps=0.01, weight_decay=0.3),
}
MANY_STEPS = 10_000_000  # so that Adam's bias corrections stand still


def freeze(optimizer):
    """Give adaptive optimizers a second moment that stays: large beside the tiny gradients of the test."""
    for number, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        v = torch.rand(p.shape, dtype=p.dtype, generator=seeded_generator(number)) + 0.05
        step = torch.tensor(float(MANY_STEPS), dtype=torch.float64)
        if isinstance(optimizer, Adam):
            v *= 1 - STILL**MANY_STEPS
            state = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": v}
            if optimizer.defaults["amsgrad"]:
                state |= {"exp_avg_sq": 0.1 * v, "max_exp_avg_sq": v}
        elif isinstance(optimizer, RMSprop):
            state = {"step": step, "square_avg": v}
            if optimizer.defaults["momentum"]:
                state["momentum_buffer"] = torch.zeros_like(p)
            if optimizer.defaults["centered"]:
                state["grad_avg"] = 0.5 * v.sqrt()
        elif isinstance(optimizer, Adagrad):
            state = {"step": step, "sum": v}
        else:
            return
        optimizer.state[p] = state


def at_the_edge(make, ratio):
    """A quadratic whose curvature is `ratio` times what the optimizer bears, and the optimizer on it."""
    A = positive(N)

    def prepared(scale):
        objective = quadratic(scale * A, 1e-8 * normal(N, 3))
        optimizer = make(objective.model)
        freeze(optimizer)
        return objective, optimizer

    found = stability(*reversed(prepared(1.0)))

    def load(scale):
        H = MatrixOperator(scale * A)
        if found.scale is None:
            return eigenvalue(H) / found.threshold
        return eigenvalue(found.operator(H)) / found.preconditioned_threshold

    low, high = 1e-4, 1e6
    for _ in range(40):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if load(middle) < ratio else (low, middle)
    return prepared(low)


def eigenvalue(A):
    return float(torch.linalg.eigvalsh(A.to_dense())[-1])


def run(objective, optimizer, steps=400):
    """|theta| of what the optimizer moves at the end, relative to the start; stops when it is certain to diverge."""
    moved = [p for group in optimizer.param_groups for p in group["params"]]
    for p in objective.model.parameters():
        if not any(p is q for q in moved):
            p.data.zero_()
    start = torch.cat([p.detach().clone() for p in moved]).norm()
    for _ in range(steps):
        optimizer.zero_grad()
        objective.model(None).backward()
        optimizer.step()
        grown = float(torch.cat([p.detach() for p in moved]).norm() / start)
        if grown > 1e3:
            break
    return grown


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_edge(name):
    below = run(*at_the_edge(OPTIMIZERS[name], 0.99)[:2])
    above = run(*at_the_edge(OPTIMIZERS[name], 1.01)[:2])
    assert below < 1.0 < 30.0 < above, (below, above)


def test_closed_forms():
    objective = quadratic(positive(N), normal(N))
    p = list(objective.model.parameters())
    assert stability(SGD(p, lr=0.1), objective).threshold == pytest.approx(20.0)
    assert stability(SGD(p, lr=0.1, momentum=0.9), objective).threshold == pytest.approx(38.0)
    assert stability(SGD(p, lr=0.1, weight_decay=0.5), objective).threshold == pytest.approx(19.5)
    nesterov = stability(SGD(p, lr=0.1, momentum=0.9, nesterov=True), objective)
    assert nesterov.threshold == pytest.approx(2 * 1.9 / (0.1 * 2.8)) == plain_threshold(0.1, 0.9, True)
    assert plain_threshold(0.1) == pytest.approx(20.0)
    assert nesterov.scale is None
    assert nesterov.preconditioner is None
    assert math.isnan(nesterov.preconditioned_threshold)
    with pytest.raises(ValueError, match="no preconditioner"):
        nesterov.operator(Hessian(objective))
    assert stability(SGD(p, lr=0.0), objective).threshold == math.inf
    # two coupled decays: the plain threshold is sound, the preconditioned one exact
    two = stability(SGD(groups(objective.model, {"weight_decay": 0.5}, {}, {}), lr=0.1), objective)
    assert two.threshold == pytest.approx(19.5)
    assert two.preconditioned_threshold == pytest.approx(20.0)


ADAPTIVE = {
    "adam": lambda p: Adam(p, lr=0.01),
    "adam-decay": lambda p: Adam(p, lr=0.01, weight_decay=0.1, eps=1e-3, betas=(0.8, 0.9)),
    "amsgrad": lambda p: Adam(p, lr=0.01, amsgrad=True, betas=(0.9, 0.5)),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: RMSprop(p, lr=0.01, weight_decay=0.1),
    "rmsprop-centered": lambda p: RMSprop(p, lr=0.01, centered=True),
    "adagrad": lambda p: Adagrad(p, lr=0.01, lr_decay=0.3, weight_decay=0.1),
}


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_scale_is_that_of_the_real_step(name, steps):
    objective = quadratic(positive(N), normal(N))
    optimizer = ADAPTIVE[name](objective.model.parameters())
    for number in range(steps):
        before = objective.theta()
        for i, p in enumerate(objective.model.parameters()):
            p.grad = torch.randn(p.shape, dtype=p.dtype, generator=seeded_generator(10 * number + i))
        optimizer.step()
    move = objective.theta() - before
    parameters = dict(objective.model.named_parameters())
    if isinstance(optimizer, Adam):
        m = objective.flatten({name: optimizer.state[p]["exp_avg"] for name, p in parameters.items()})
    else:
        m = objective.flatten({name: p.grad for name, p in parameters.items()})
        m = m + optimizer.defaults["weight_decay"] * before
    if isinstance(optimizer, AdamW):
        move = move + 0.01 * 0.1 * before
    found = stability(optimizer, objective)
    assert found.adaptive
    assert not found.note
    torch.testing.assert_close(-0.01 * found.scale * m, move, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.preconditioner, 1 / found.scale)
    assert math.isnan(found.threshold)
    if isinstance(optimizer, Adam):
        beta = optimizer.defaults["betas"][0]
        s = 0.01 * 0.1 if isinstance(optimizer, AdamW) else 0.0
        assert found.preconditioned_threshold == pytest.approx((1 + beta) * (2 - s) / ((1 - beta) * 0.01))


class Shared(nn.Module):
    """Tied, frozen and unused parameters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.frozen(torch.tanh(self.second(torch.tanh(self.first(x)))))


def trained(model, optimizer, steps=3):
    x = torch.randn(16, 3, generator=seeded_generator(0))
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return x


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float64}, {"parameters": ["second.*"]}])
def test_parameters_are_found_by_identity(options):
    torch.manual_seed(0)
    model = Shared()
    optimizer = Adam(reversed(list(model.parameters())), lr=0.01)
    x = trained(model, optimizer)
    objective = Objective(model, nn.MSELoss(), (x, torch.zeros(16, 3)), **options)
    found = stability(optimizer, objective)
    for name, where in objective.slices.items():
        p = dict(model.named_parameters())[name]
        state = optimizer.state.get(p)
        if not state:
            assert not found.scale[where].any(), name
        else:
            P = (1 - 0.9**3) * ((state["exp_avg_sq"].double() / (1 - 0.999**3)).sqrt() + 1e-8)
            torch.testing.assert_close(found.preconditioner[where], P.reshape(-1))
    assert ("unused.weight" in found.note) == ("parameters" not in options)
    top = eigsh(found.operator(Hessian(objective)), 1, tol=1e-6)
    D = found.scale.double()
    dense = D.sqrt()[:, None] * Hessian(objective).to_dense().double() * D.sqrt()
    assert float(top.values[0]) == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-4)


def test_what_is_not_known_says_why():
    objective = quadratic(positive(N), normal(N))
    p = list(objective.model.parameters())
    stranger = [nn.Parameter(torch.zeros(2))]
    different = groups(objective.model, {"momentum": 0.5}, {}, {})

    class Own(SGD):
        pass

    for optimizer, reason in [
        (Adam(p), "before its first step"),
        (Adagrad(p), "before its first step"),
        (NAdam(p), "no stability threshold is known for NAdam"),
        (Own(p, lr=0.1), "no stability threshold is known for Own"),
        (SGD(p, lr=0.1, maximize=True), "maximizes"),
        (SGD(different, lr=0.1), "different momentum"),
        (SGD(stranger, lr=0.1), "none of the objective's parameters"),
    ]:
        found = stability(optimizer, objective)
        assert reason in found.note
        assert math.isnan(found.threshold)
        assert math.isnan(found.preconditioned_threshold)
        assert found.scale is None
    with pytest.raises(TypeError, match=r"torch\.optim\.Optimizer, not str"):
        stability("sgd", objective)
    with pytest.raises(ValueError, match="lr must be positive"):
        plain_threshold(0.0)


def test_half_precision():
    torch.manual_seed(0)
    model = Shared().bfloat16()
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    x = trained(model.float(), optimizer)
    model.bfloat16()
    for state in optimizer.state.values():
        state["exp_avg_sq"] = state["exp_avg_sq"].bfloat16()
    objective = Objective(model, nn.MSELoss(), (x.bfloat16(), torch.zeros(16, 3).bfloat16()))
    found = stability(optimizer, objective)
    assert found.scale.dtype == torch.float64
    assert bool(torch.isfinite(found.scale).all())
    A = found.operator(Hessian(objective))
    assert A.noise > 0
    assert bool(torch.isfinite(A @ A.random(1, generator=seeded_generator(0))).all())


# -- the preconditioned operator ---------------------------------------------------------------------------------------


def test_preconditioned_is_an_operator_like_the_others():
    A = matrix(spectra(40)["indefinite"])
    d = torch.rand(40, dtype=torch.float64, generator=seeded_generator(1))
    d[:5] = 0
    dense = d.sqrt()[:, None] * A * d.sqrt()
    P = Preconditioned(MatrixOperator(A), d)
    torch.testing.assert_close(P.to_dense(), dense)
    torch.testing.assert_close(P.block([3, 9]), dense[[3, 9]][:, [3, 9]])
    assert P.matvecs == 42
    v = torch.ones(40, dtype=torch.float64)
    torch.testing.assert_close((2.0 * P + P.shifted(1.0)) @ v, 3 * dense @ v + v)
    pairs = eigsh(P, 3, tol=1e-8, generator=seeded_generator(2))
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(dense).flip(0)[:3])
    sharded = ShardedOperator(A)
    Q = Preconditioned(sharded, sharded.space.shard(d))
    torch.testing.assert_close(eigsh(Q, 3, tol=1e-8, generator=seeded_generator(2)).values, pairs.values)


def test_preconditioned_refuses_and_restricts():
    A = MatrixOperator(torch.eye(4))
    for scale, message in [
        (torch.ones(3), "shape of a vector"),
        (-torch.ones(4), "finite and not negative"),
        (torch.full((4,), math.inf), "finite and not negative"),
    ]:
        with pytest.raises(ValueError, match=message):
            Preconditioned(A, scale)
    with pytest.raises(TypeError, match="no named parameters"):
        Preconditioned(A, torch.ones(4)).restrict(["a"])
    assert not Preconditioned(A, torch.ones(4)).positive_semidefinite
    objective = quadratic(positive(N), normal(N))
    d = torch.rand(N, dtype=torch.float64, generator=seeded_generator(1))
    whole = Preconditioned(Hessian(objective), d)
    rows = torch.cat([torch.arange(N)[objective.slices[name]] for name in ("a", "c")])
    torch.testing.assert_close(whole.restrict(["a", "c"]).to_dense(), whole.to_dense()[rows][:, rows])
    assert Preconditioned(GaussNewton(linear()), torch.ones(4)).positive_semidefinite


def linear():
    return Objective(nn.Linear(3, 1), nn.MSELoss(), (torch.ones(2, 3), torch.ones(2, 1)))
