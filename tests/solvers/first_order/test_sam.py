"""SAM, USAM and DNSAM: against references, what the two evaluations share, and with other optimizers as the base."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext

import pytest
import torch
from rule_cases import PROBLEMS, network, spread
from torch import nn
from torch.nn import functional as F

from solvers import SGD, SSCN, AdamCoupled
from solvers.first_order.sam import SAM
from solvers.first_order.sps import SPSMax

SHARES = (1.0, 0.4, 0.1)


def gradients(loss, thetas, k):
    leaves = [t.clone().requires_grad_() for t in thetas]
    return list(torch.autograd.grad(loss(leaves, k), leaves))


def norm(gs):
    return math.sqrt(sum(float(g.square().sum()) for g in gs))


def sam_reference(loss, thetas, k, state, lrs, rhos, variant, momentum=0.0, weight_decay=0.0):
    gs = gradients(loss, thetas, k)
    length = {"sam": norm(gs), "usam": 1.0}.get(variant)
    if length is None:  # the mean of the four batches
        whole = [gradients(loss, thetas, i) for i in range(4)]
        length = norm([sum(parts) / 4 for parts in zip(*whole, strict=True)])
    uphill = [t + rho * g / length for t, g, rho in zip(thetas, gs, rhos, strict=True)]
    moves = [g + weight_decay * t for g, t in zip(gradients(loss, uphill, k), thetas, strict=True)]
    state["v"] = [
        momentum * v + g for v, g in zip(state.get("v", [torch.zeros_like(g) for g in gs]), moves, strict=True)
    ]
    return [t - lr * v for t, v, lr in zip(thetas, state["v"], lrs, strict=True)]


CASES = {
    "sam": ("sam", {}),
    "sam-momentum": ("sam", {"momentum": 0.9, "weight_decay": 0.05}),
    "usam": ("usam", {}),
    "dnsam": ("dnsam", {}),
}


@pytest.mark.parametrize(("name", "problem"), spread(CASES))
def test_the_update_is_the_documented_one(name, problem):
    """Groups with an lr and a rho of their own. At a kink of SAM, where g = 0, rounding would decide."""
    variant, settings = CASES[name]
    make, steps, largest = PROBLEMS[problem]
    start, loss = make()
    slow, fast = start, [t.clone().requires_grad_() for t in start]
    lrs = [0.05 * SHARES[i % 3] for i in range(len(start))]
    rhos = [0.02 * (1 + i) for i in range(len(start))]
    groups = [{"params": [t], "lr": lr, "rho": rho} for t, lr, rho in zip(fast, lrs, rhos, strict=True)]
    full = (lambda: sum(loss(fast, i) for i in range(4)) / 4) if variant == "dnsam" else None
    optimizer = SAM(groups, 0.05, variant=variant, full=full, **settings)
    state = {}
    for k in range(steps if variant == "sam" else min(steps, 100)):
        before = float(loss(slow, k)) if k % 20 == 0 else None
        slow = sam_reference(loss, slow, k, state, lrs, rhos, variant, **settings)
        value = optimizer.step(lambda k=k: loss(fast, k))
        assert before is None or float(value.detach()) == pytest.approx(before, rel=1e-9)
    for a, b in zip(fast, slow, strict=True):
        assert float((a.detach() - b).abs().max()) < largest


class Net(nn.Module):
    def __init__(self, dropout=0.0, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.dropout = nn.Linear(5, 16), nn.Linear(16, 3), dropout
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()

    def forward(self, x):
        return self.b(F.dropout(torch.tanh(self.norm(self.a(x))), self.dropout, self.training))


X = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
Y = torch.randint(0, 3, (20,), generator=torch.Generator().manual_seed(2))


def test_both_evaluations_meet_the_same_random_numbers():
    model = Net(dropout=0.5)
    optimizer = SAM(model.parameters(), 0.1)
    drawn = []

    def closure():
        drawn.append(torch.rand(3))
        return F.cross_entropy(model(X), Y)

    torch.manual_seed(5)
    optimizer.step(closure)
    after = torch.get_rng_state()
    assert len(drawn) == 2
    assert torch.equal(*drawn)
    torch.manual_seed(5)
    with torch.no_grad():
        closure()
    assert torch.equal(after, torch.get_rng_state())


class Broken(Exception):
    pass


@pytest.mark.parametrize("variant", ["sam", "usam"])
def test_parameters_come_back_bit_by_bit_when_the_closure_fails_uphill(variant):
    model = Net(dropout=0.5)
    optimizer = SAM(model.parameters(), 0.1, rho=3.0, variant=variant)
    before = [p.detach().clone() for p in model.parameters()]
    seen = []

    def closure(value=None):
        seen.append(optimizer.uphill)
        if optimizer.uphill:
            assert not torch.equal(model.a.weight.detach(), before[0])
            if value is None:
                raise Broken
            return F.cross_entropy(model(X), Y) * value
        return F.cross_entropy(model(X), Y)

    for wrong, value in ((Broken, None), (ValueError, math.nan)):
        torch.manual_seed(0)
        with pytest.raises(wrong):
            optimizer.step(lambda value=value: closure(value))
        assert all(torch.equal(p.detach(), b) for p, b in zip(model.parameters(), before, strict=True))
        state = torch.get_rng_state()
        torch.manual_seed(0)
        model(X)
        assert torch.equal(state, torch.get_rng_state())
    assert seen == [False, True] * 2
    assert not optimizer.uphill


def test_zero_gradients_and_none():
    x = torch.zeros(3, requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    optimizer = SAM([x, unused], 0.1, weight_decay=0.5)
    optimizer.step(lambda: x.square().sum())
    assert torch.equal(x.detach(), torch.zeros(3))
    assert torch.equal(unused.detach(), torch.ones(2))
    only = torch.tensor([3.0], requires_grad=True)
    optimizer.step(lambda: only.sum())  # uses none of the parameters
    assert torch.equal(unused.detach(), torch.ones(2))
    with pytest.raises(ValueError, match="the norm of the gradient is nan: the parameters are as before"):
        optimizer.step(lambda: (x * math.nan).sum())
    assert torch.equal(x.detach(), torch.zeros(3))


def test_grad_is_as_before():
    model = Net()
    optimizer = SAM(model.parameters(), 0.1)
    kept = model.a.weight.grad = torch.full_like(model.a.weight, 7.0)
    optimizer.step(lambda: F.cross_entropy(model(X), Y))
    assert model.a.weight.grad is kept
    assert torch.equal(kept, torch.full_like(kept, 7.0))
    assert model.b.weight.grad is None


BASES = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2),
    "ours": lambda p: AdamCoupled(p, 1e-2),
}


@pytest.mark.parametrize("name", list(BASES))
def test_with_rho_0_it_is_the_base(name):
    ends = []
    for sharp in (True, False):
        model = Net()
        make = BASES[name]
        optimizer = SAM(model.parameters(), rho=0.0, base=make) if sharp else make(model.parameters())
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        for _ in range(10):
            if sharp:
                optimizer.step(lambda model=model: F.cross_entropy(model(X), Y))
            else:
                optimizer.zero_grad()
                F.cross_entropy(model(X), Y).backward()
                optimizer.step()
            schedule.step()
        assert optimizer.param_groups[0]["lr"] < 1e-3
        ends.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("name", [*BASES, None])
def test_a_saved_state_goes_on_bit_by_bit(name):
    def make(model, rho):
        groups = [{"params": model.a.parameters()}, {"params": model.b.parameters(), "rho": 3 * rho}]
        return SAM(groups, 0.1, rho=rho, momentum=0.9) if name is None else SAM(groups, rho=rho, base=BASES[name])

    def run(model, optimizer):
        for _ in range(5):
            optimizer.step(lambda: F.cross_entropy(model(X), Y))

    first, second = Net(), Net()
    one, two = make(first, 0.05), make(second, 0.5)
    run(first, one)
    second.load_state_dict(first.state_dict())
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert [group["rho"] for group in two.param_groups] == pytest.approx([0.05, 0.15])
    assert two.param_groups is two.base.param_groups
    run(first, one)
    run(second, two)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_copy_has_its_own_base():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = SAM([x], base=BASES["adamw"])
    optimizer.step(lambda: x.square().sum())
    copied = copy.deepcopy(optimizer)
    y = copied.param_groups[0]["params"][0]
    assert y is not x
    assert copied.param_groups is copied.base.param_groups
    for one, p in ((copied, y), (optimizer, x)):
        for _ in range(3):
            one.step(lambda p=p: p.square().sum())
    assert torch.equal(x, y)


def test_groups_can_come_later():
    model = Net()
    optimizer = SAM(model.a.parameters(), rho=0.1, base=BASES["adamw"])
    optimizer.add_param_group({"params": list(model.b.parameters()), "lr": 0.5, "rho": 0.2})
    assert [group["rho"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert optimizer.param_groups[1]["weight_decay"] == 0.01
    before = model.b.weight.detach().clone()
    optimizer.step(lambda: F.cross_entropy(model(X), Y))
    assert not torch.equal(before, model.b.weight.detach())


def test_near_a_minimum_it_swings_with_a_known_amplitude():
    """On h x^2 / 2 the step x - lr h (x + rho sign x) ends in a cycle of two, |x| = lr h rho / (2 - lr h)."""
    h, lr, rho = 3.0, 0.1, 0.2
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = SAM([x], lr, rho=rho)
    for _ in range(200):
        before = float(x.detach())
        optimizer.step(lambda: 0.5 * h * x.square().sum())
    assert float(x.detach()) == pytest.approx(-before, rel=1e-12)
    assert abs(before) == pytest.approx(lr * h * rho / (2 - lr * h), rel=1e-12)


def test_batch_norm_is_updated_once_a_step():
    model, reference = Net(norm=True), Net(norm=True)
    SAM(model.parameters(), 0.1, rho=1.0).step(lambda: F.cross_entropy(model(X), Y))
    reference(X)
    assert torch.equal(model.norm.running_mean, reference.norm.running_mean)
    assert torch.equal(model.norm.running_var, reference.norm.running_var)
    assert int(model.norm.num_batches_tracked) == 1


def test_bfloat16_and_autocast():
    start, loss = network()
    thetas = [t.bfloat16().requires_grad_() for t in start]
    optimizer = SAM(thetas, 0.5, momentum=0.5)
    before = float(loss(thetas, 0).detach())
    for _ in range(20):
        optimizer.step(lambda: loss(thetas, 0))
    assert all(t.dtype == torch.bfloat16 for t in thetas)
    assert float(loss(thetas, 0).detach()) < before
    # autocast around the step keeps casted weights, which must not be those of before
    ends = []
    for outside in (False, True):
        model = Net()
        optimizer = SAM(model.parameters(), 0.1, rho=1.0)

        def closure(model=model):
            with torch.autocast("cpu", torch.bfloat16):
                return F.cross_entropy(model(X).float(), Y)

        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16) if outside else nullcontext():
                optimizer.step(closure)
        ends.append(model.a.weight.detach())
    assert torch.equal(*ends)


def test_what_cannot_be():
    x = torch.ones(2, requires_grad=True)
    optimizer = SAM([x], 0.1)
    x.grad = torch.ones(2)
    with pytest.raises(ValueError, match=r"needs step\(closure\)"):
        optimizer.step()
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(x.sum()).backward()
    with pytest.raises(ValueError, match=r"needs step\(closure\)"):
        scaler.step(optimizer)
    assert torch.equal(x.detach(), torch.ones(2))
    for settings, words in (
        ({"lr": 0.1, "rho": -1.0}, "rho=-1.0"),
        ({"lr": 0.1, "rho": math.nan}, "rho=nan"),
        ({"lr": -0.1}, "lr=-0.1"),
        ({"lr": 0.1, "variant": "asam"}, "variant='asam'"),
        ({"lr": 0.1, "variant": "dnsam"}, "'dnsam' needs full="),
        ({"lr": 0.1, "full": lambda: x.sum()}, "'dnsam' needs full="),
        ({}, "pass lr"),
        ({"lr": 0.1, "base": BASES["sgd"]}, "belong to the base"),
        ({"momentum": 0.9, "base": BASES["sgd"]}, "belong to the base"),
        ({"base": lambda p: SPSMax(p, 0.1)}, "SPSMax needs more than the gradient"),
        ({"base": lambda p: SSCN(p, 1)}, "SSCN needs more than the gradient"),
    ):
        with pytest.raises(ValueError, match=words):
            SAM([x], **settings)
    with pytest.raises(ValueError, match="rho=-2"):
        SAM([{"params": [x], "rho": -2}], 0.1)
    assert isinstance(SAM([x], 0.1).base, SGD)
