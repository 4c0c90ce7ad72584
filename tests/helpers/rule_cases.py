"""Problems on which step-size rules are held against plain references, and what every rule must do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

Problem = tuple[list[Tensor], Callable[[Sequence[Tensor], int], Tensor]]
# reference(thetas, gradients, loss, state, settings of each theta's group) -> new thetas
Reference = Callable[[list[Tensor], list[Tensor], float, dict[str, Any], list[dict[str, Any]]], list[Tensor]]
SHARES = (1.0, 0.4, 0.1)  # of lr, by parameter in turn


def quadratic() -> Problem:
    """Strongly convex, curvatures in [0.2, 1] and minimum 0.1; batches tilt it."""
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(10, 10, generator=generator, dtype=torch.float64))[0]
    A = Q @ torch.diag(torch.linspace(0.2, 1, 10, dtype=torch.float64)) @ Q.T
    tilts = 0.05 * torch.randn(4, 10, generator=generator, dtype=torch.float64)

    def loss(thetas: Sequence[Tensor], k: int) -> Tensor:
        x = torch.cat([t.reshape(-1) for t in thetas])
        return 0.5 * x @ A @ x + tilts[k % 4] @ x + 0.1

    return [torch.ones(4, dtype=torch.float64), -2 * torch.ones(2, 3, dtype=torch.float64)], loss


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    return X, torch.randint(0, 3, (40,), generator=generator)


def logistic() -> Problem:
    """Three classes, a small square of the weights on top."""
    X, y = _data()

    def loss(thetas: Sequence[Tensor], k: int) -> Tensor:
        W, b = thetas
        part = slice(10 * (k % 4), 10 * (k % 4) + 10)
        return F.cross_entropy(X[part] @ W.T + b, y[part]) + 0.05 * (W.square().sum() + b.square().sum())

    return [torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)], loss


def network() -> Problem:
    """5-7-3 with tanh."""
    X, y = _data()
    generator = torch.Generator().manual_seed(2)
    shapes = (7, 5), (7,), (3, 7), (3,)
    thetas = [0.4 * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]

    def loss(thetas: Sequence[Tensor], k: int) -> Tensor:
        W, b, V, c = thetas
        part = slice(10 * (k % 4), 10 * (k % 4) + 10)
        rows = X.to(W.dtype)[part]
        return F.cross_entropy((torch.tanh(rows @ W.T + b) @ V.T + c).double(), y[part])

    return thetas, loss


# (problem, steps, largest difference): rounding grows on networks
PROBLEMS = {"quadratic": (quadratic, 1000, 1e-12), "logistic": (logistic, 1000, 1e-12), "network": (network, 50, 1e-9)}


def spread(cases: Mapping[str, Any]) -> list[Any]:
    """Each case on each problem; logistic regression, and the long runs of variants ("rule-variant"), are slow."""

    def is_slow(name: str, problem: str) -> bool:
        return problem == "logistic" or ("-" in name and problem != "network")

    return [
        pytest.param(name, problem, marks=pytest.mark.slow if is_slow(name, problem) else ())
        for name in cases
        for problem in PROBLEMS
    ]


def groups_of(thetas: Sequence[Tensor], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """A group for each parameter, with an lr of its own."""
    return [{"params": [t], "lr": settings["lr"] * SHARES[i % 3]} for i, t in enumerate(thetas)]


def check_against_reference(solver: Any, reference: Reference, settings: dict[str, Any], name: str) -> Any:
    """Both run by themselves, the solver by closures and by backward() in turn; the solver."""
    make, steps, largest = PROBLEMS[name]
    start, loss = make()
    slow = [t.clone() for t in start]
    fast = [t.clone().requires_grad_() for t in start]
    optimizer = solver(groups_of(fast, settings), **settings)
    each = [{**settings, "lr": settings["lr"] * SHARES[i % 3]} for i in range(len(start))]
    state: dict[str, Any] = {}
    for k in range(steps):
        leaves = [t.clone().requires_grad_() for t in slow]
        value = loss(leaves, k)
        slow = reference(slow, list(torch.autograd.grad(value, leaves)), float(value.detach()), state, each)
        step(optimizer, lambda k=k: loss(fast, k), by_closure=k % 2 == 0)
    for a, b in zip(fast, slow, strict=True):
        assert float((a.detach() - b).abs().max()) < largest
    return optimizer


def check_beside_reference(
    solver: Any, reference: Reference, settings: dict[str, Any], name: str, *, largest: float | None = None
) -> None:
    """Both get the gradients at the reference's points: steps of constant length never settle, and amplify rounding."""
    make, steps, own = PROBLEMS[name]
    start, loss = make()
    slow, fast = list(start), [t.clone().requires_grad_() for t in start]
    optimizer = solver(groups_of(fast, settings), **settings)
    each = [{**settings, "lr": settings["lr"] * SHARES[i % 3]} for i in range(len(start))]
    state: dict[str, Any] = {}
    for k in range(steps):
        leaves = [t.clone().requires_grad_() for t in slow]
        value = loss(leaves, k)
        gradients = list(torch.autograd.grad(value, leaves))
        for t, g in zip(fast, gradients, strict=True):
            t.grad = g.clone()
        slow = reference(slow, gradients, float(value.detach()), state, each)
        optimizer.step()
    for a, b in zip(fast, slow, strict=True):
        away = float((a.detach() - b).abs().max())
        assert away < (own if largest is None else largest), away


def step(optimizer: Any, closure: Callable[[], Tensor], *, by_closure: bool) -> None:
    """One step by either way; solvers that move by gradients alone take the loss too."""
    if by_closure:
        optimizer.step(closure)
        return
    optimizer.zero_grad()
    value = closure()
    value.backward()
    optimizer.step(loss=value.detach())


def check_resumes(solver: Any, settings: dict[str, Any]) -> None:
    """A saved state goes on bit by bit; a copy has all of it."""
    start, loss = network()
    first = [t.float().requires_grad_() for t in start]
    optimizer = solver(groups_of(first, settings), **settings)
    for k in range(7):
        optimizer.step(lambda k=k: loss(first, k))
    second = [t.detach().clone().requires_grad_() for t in first]
    again = solver(groups_of(second, settings), **{**settings, "lr": 0.77})
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for thetas, one in ((second, again), (first, optimizer)):
        for k in range(7, 12):
            one.step(lambda k=k, thetas=thetas: loss(thetas, k))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    copied = copy.deepcopy(optimizer)
    assert str(copied.state_dict()) == str(optimizer.state_dict())


def check_bfloat16(solver: Any, settings: dict[str, Any]) -> None:
    """Parameters keep their dtype, and the loss falls."""
    start, loss = network()
    thetas = [t.bfloat16().requires_grad_() for t in start]
    optimizer = solver(thetas, **settings)
    before = float(loss(thetas, 0).detach())
    for _ in range(20):
        optimizer.step(lambda: loss(thetas, 0))
    assert all(t.dtype == torch.bfloat16 for t in thetas)
    assert float(loss(thetas, 0).detach()) < before


def check_loss_rule(solver: Any, settings: dict[str, Any]) -> None:
    """No loss, a loss or a gradient that is not finite: one line, and nothing moves or is remembered."""
    p = torch.ones(3, requires_grad=True)
    optimizer = solver([p], **settings)
    p.grad = torch.ones(3)
    saved = _known(optimizer)
    with pytest.raises(ValueError, match=r"needs the loss: call step\(closure\)"):
        optimizer.step()
    with pytest.raises(ValueError, match="the loss is nan: nothing was moved"):
        optimizer.step(loss=float("nan"))
    for bad in (float("nan"), float("inf")):
        p.grad = torch.tensor([1.0, bad, 1.0])
        with pytest.raises(ValueError, match=r"gradient is .*: nothing was moved"):
            optimizer.step(loss=1.0)
    assert torch.equal(p.detach(), torch.ones(3))
    assert _known(optimizer) == saved


def _known(optimizer: Any) -> str:
    """Settings and all that is remembered."""
    return str(optimizer.param_groups) + str([state for state in optimizer.state.values() if state])


def check_grad_scaler(solver: Any, settings: dict[str, Any]) -> None:
    """Under a GradScaler the step is the one without; an overflow is skipped."""
    ends = []
    for scaled in (True, False):
        p = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
        optimizer = solver([p], **settings)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=scaled)
        for k in range(5):
            loss = (p.square() * torch.tensor([1.0, 0.5, 2.0])).sum() + 0.1
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if scaled and k == 2:
                kept = p.detach().clone()
                good = p.grad.clone()
                p.grad[0] = float("inf")
                scaler.step(optimizer, loss=loss.detach())
                assert torch.equal(p.detach(), kept)
                scaler.update(256.0)
                p.grad = good
            scaler.step(optimizer, loss=loss.detach())
            scaler.update(256.0)
        ends.append(p.detach())
    assert torch.equal(*ends)


def check_missing_gradients(solver: Any, settings: dict[str, Any]) -> None:
    """A parameter without a gradient stays; one that comes late, or leaves for a while, moves when it has one."""
    a, b, c = (torch.full((3,), v, dtype=torch.float64, requires_grad=True) for v in (1.0, 2.0, 3.0))
    optimizer = solver([{"params": [a, c]}, {"params": [b], "lr": 0.5 * settings["lr"]}], **settings)
    for k in range(8):
        before = [p.detach().clone() for p in (a, b, c)]
        uses = [b, c] if 3 <= k != 5 else [b]
        optimizer.step(lambda uses=uses: sum((0.1 * p.square().sum() for p in uses), torch.ones(())))
        for p, old in zip((a, b, c), before, strict=True):
            assert torch.equal(p.detach(), old) == (not any(p is u for u in uses))
            assert bool(torch.isfinite(p).all())
    optimizer.zero_grad()
    assert optimizer.step(loss=3.0) == 3.0  # no gradients: nothing moves
