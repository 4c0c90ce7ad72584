"""First-order solvers against plain references over many steps, and what every solver must do."""

import copy
import math

import pytest
import torch
from small_network import data, flat, loss_of, network
from torch import nn

from solvers import SGD, AdamCoupled, SignSGD, Signum

STEPS = 500


# -- references: one parameter, plain operations -------------------------------------------------------------------


def sgd_reference(theta, g, state, lr, momentum, weight_decay, decoupled):
    if not decoupled:
        g = g + weight_decay * theta
    state["v"] = momentum * state.get("v", torch.zeros_like(theta)) + g
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    return shrink * theta - lr * state["v"]


def signum_reference(theta, g, state, lr, momentum, weight_decay, decoupled):
    if not decoupled:
        g = g + weight_decay * theta
    state["m"] = momentum * state.get("m", torch.zeros_like(theta)) + (1 - momentum) * g
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    return shrink * theta - lr * torch.sign(state["m"])


def signsgd_reference(theta, g, state, lr, weight_decay, decoupled):
    return signum_reference(theta, g, state, lr, 0.0, weight_decay, decoupled)


def adam_reference(theta, g, state, lr, betas, eps, coupled, decoupled):
    g = g + coupled * theta
    t = state["t"] = state.get("t", 0) + 1
    state["m"] = betas[0] * state.get("m", torch.zeros_like(theta)) + (1 - betas[0]) * g
    state["s"] = betas[1] * state.get("s", torch.zeros_like(theta)) + (1 - betas[1]) * g * g
    m, s = state["m"] / (1 - betas[0] ** t), state["s"] / (1 - betas[1] ** t)
    return (1 - lr * decoupled) * (theta - lr * m / (s.sqrt() + eps))


decay = {"weight_decay": 0.05}
CASES = {
    "sgd": (SGD, sgd_reference, {"lr": 0.05, "momentum": 0.0, "weight_decay": 0.0, "decoupled": False}),
    "sgd-coupled": (SGD, sgd_reference, {"lr": 0.05, "momentum": 0.9, **decay, "decoupled": False}),
    "sgd-decoupled": (SGD, sgd_reference, {"lr": 0.05, "momentum": 0.9, **decay, "decoupled": True}),
    "signsgd-coupled": (SignSGD, signsgd_reference, {"lr": 0.003, **decay, "decoupled": False}),
    "signsgd-decoupled": (SignSGD, signsgd_reference, {"lr": 0.003, **decay, "decoupled": True}),
    "signum-coupled": (Signum, signum_reference, {"lr": 0.003, "momentum": 0.9, **decay, "decoupled": False}),
    "signum-decoupled": (Signum, signum_reference, {"lr": 0.003, "momentum": 0.9, **decay, "decoupled": True}),
    "adam": (
        AdamCoupled,
        adam_reference,
        {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "coupled": 0.0, "decoupled": 0.0},
    ),
    "adam-both": (
        AdamCoupled,
        adam_reference,
        {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-6, "coupled": 0.02, "decoupled": 0.3},
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_the_update_is_the_documented_one(name):
    solver, reference, settings = CASES[name]
    fast, slow = network(), network()
    optimizer = solver(fast.parameters(), **settings)
    states = [{} for _ in slow.parameters()]
    for step in range(STEPS):
        # the same gradients go to both: what is compared is the rule, not how a network amplifies rounding
        gradients = torch.autograd.grad(loss_of(fast), list(fast.parameters()))
        if step % 2:
            optimizer.step(lambda: loss_of(fast))
        else:
            for p, g in zip(fast.parameters(), gradients, strict=True):
                p.grad = g.clone()
            optimizer.step()
        with torch.no_grad():
            for p, g, state in zip(slow.parameters(), gradients, states, strict=True):
                p.copy_(reference(p, g, state, **settings))
    assert float((flat(fast) - flat(slow)).abs().max()) < 1e-11


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
            lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        ),
        (lambda p: AdamCoupled(p, 0.01, coupled=0.1), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1)),
        (lambda p: AdamCoupled(p, 0.01), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.0)),
    ],
    ids=["sgd", "adam", "adamw without decay"],
)
def test_torch_has_the_same(ours, theirs):
    models = [network(), network()]
    optimizers = [ours(models[0].parameters()), theirs(models[1].parameters())]
    for _ in range(100):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
    torch.testing.assert_close(flat(models[0]), flat(models[1]), rtol=1e-12, atol=1e-13)


def test_the_decoupled_part_comes_after_adams_step():
    """With its decay one step later, torch's AdamW is the same: it shrinks before the step."""
    models = [network(), network()]
    ours = AdamCoupled(models[0].parameters(), 0.01, decoupled=0.5)
    theirs = torch.optim.AdamW(models[1].parameters(), 0.01, weight_decay=0.5)
    with torch.no_grad():
        for p in models[1].parameters():
            p.div_(1 - 0.01 * 0.5)
    gradients = torch.autograd.grad(loss_of(models[0]), list(models[0].parameters()))
    for model in models:
        for p, g in zip(model.parameters(), gradients, strict=True):
            p.grad = g.clone()
    theirs.step()
    ours.step()
    torch.testing.assert_close(flat(models[0]), flat(models[1]) * (1 - 0.01 * 0.5), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", list(CASES))
def test_a_saved_state_goes_on_bit_by_bit(name):
    solver, _, settings = CASES[name]
    model = network(torch.float32)
    optimizer = solver(model.parameters(), **settings)
    for _ in range(7):
        optimizer.step(lambda: loss_of(model))
    other = network(torch.float32)
    other.load_state_dict(model.state_dict())
    again = solver(other.parameters(), **{**settings, "lr": 99.0})
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for m, o in ((model, optimizer), (other, again)):
        for _ in range(5):
            o.step(lambda m=m: loss_of(m))
    assert torch.equal(flat(model), flat(other))


@pytest.mark.parametrize("name", list(CASES))
def test_groups_missing_gradients_and_late_ones(name):
    solver, reference, settings = CASES[name]
    a, b, c = (torch.full((3,), v, dtype=torch.float64, requires_grad=True) for v in (1.0, 2.0, 3.0))
    optimizer = solver([{"params": [a, c]}, {"params": [b], "lr": 0.5 * settings["lr"]}], **settings)
    late = {"b": {}, "c": {}}
    theta = {"b": b.detach().clone(), "c": c.detach().clone()}
    for step in range(6):
        uses = [("b", b, 0.5 * settings["lr"])] + ([("c", c, settings["lr"])] if step >= 3 else [])
        gradients = {key: (theta[key] ** 3).clone() for key, _, _ in uses}
        value = optimizer.step(lambda uses=uses: sum((p**4).sum() / 4 for _, p, _ in uses))
        assert float(value) == pytest.approx(sum(float((theta[key] ** 4).sum() / 4) for key, _, _ in uses))
        for key, p, lr in uses:
            theta[key] = reference(theta[key], gradients[key], late[key], **{**settings, "lr": lr})
            torch.testing.assert_close(p.detach(), theta[key], rtol=1e-12, atol=1e-14)
    assert torch.equal(a.detach(), torch.ones(3, dtype=torch.float64))  # no gradient: no decay either


def test_schedulers_act_at_once():
    p = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = SGD([p], 1.0, weight_decay=0.5, decoupled=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    expected = 1.0
    for step in range(6):
        optimizer.step(lambda: 0.0 * p.sum())
        schedule.step()
        expected *= 1 - 0.5 * 0.1 ** (step // 2)
    assert float(p.detach()) == pytest.approx(expected, rel=1e-14)


def test_closures():
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    before = float(loss_of(model).detach())
    with torch.no_grad():
        assert float(optimizer.step(lambda: loss_of(model))) == pytest.approx(before)
    assert all(p.grad is None for p in model.parameters())
    assert optimizer.step(loss=3.0) == 3.0  # no gradients: nothing moves

    with pytest.raises(TypeError, match="as a tensor, not float"):
        optimizer.step(lambda: 1.0)
    with pytest.raises(ValueError, match="scalar"):
        optimizer.step(lambda: model(data()[0]))
    with pytest.raises(ValueError, match="no graph"):
        optimizer.step(lambda: loss_of(model).detach())
    with pytest.raises(ValueError, match="not both"):
        optimizer.step(lambda: loss_of(model), loss=1.0)


@pytest.mark.parametrize("by_closure", [True, False])
def test_sparse_gradients_count_as_dense_ones(by_closure):
    tables = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embedding = nn.Embedding(5, 2, sparse=sparse)
        optimizer = SGD(embedding.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
        for index in (1, 2, 1):

            def loss(embedding=embedding, index=index):
                return embedding(torch.tensor([index, index, 3])).square().sum()

            if by_closure:
                optimizer.step(loss)
            else:
                optimizer.zero_grad()
                loss().backward()
                optimizer.step()
        tables.append(embedding.weight.detach())
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("solver", "settings", "name"),
    [
        (SGD, {"lr": -1.0}, "lr"),
        (SGD, {"lr": 0.1, "momentum": 1.0}, "momentum"),
        (SGD, {"lr": 0.1, "weight_decay": -1.0}, "weight_decay"),
        (Signum, {"lr": math.nan}, "lr"),
        (AdamCoupled, {"lr": 0.1, "betas": (0.9, 1.0)}, "betas"),
        (AdamCoupled, {"lr": 0.1, "eps": 0.0}, "eps"),
        (AdamCoupled, {"lr": 0.1, "decoupled": -0.1}, "decoupled"),
    ],
)
def test_bad_settings(solver, settings, name):
    with pytest.raises(ValueError, match=name):
        solver([torch.zeros(1, requires_grad=True)], **settings)


@pytest.mark.parametrize("solver", [SGD, Signum, AdamCoupled])
def test_bfloat16_parameters_keep_their_dtype_and_move_as_exact_ones(solver):
    narrow, exact = network(torch.bfloat16), network(torch.bfloat16).double()
    start = flat(exact)
    for model in (narrow, exact):
        optimizer = solver(model.parameters(), lr=0.1)
        for p, q in zip(model.parameters(), network(torch.bfloat16).parameters(), strict=True):
            p.grad = (1.0 + q.detach()).to(p.dtype)
        optimizer.step()
    assert all(p.dtype == torch.bfloat16 for p in narrow.parameters())
    torch.testing.assert_close(flat(narrow).double(), flat(exact), rtol=0.01, atol=1e-3)
    assert (flat(exact) - start).abs().min() > 0.02
