"""SSCN against a plain reference, the facts that its theory rests on, and bad input."""

import copy
import math

import newton_cases
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from solvers import SSCN, Adaptive, CubicNewton, NonConvex, linear_model
from solvers.second_order.acceptance import Ratio
from solvers.second_order.cubic import solve_cubic


def logistic(n=30, samples=50, seed=0):
    """Data, start and a linear model: logistic loss with the non-convex regulariser."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(samples, n, generator=generator, dtype=torch.float64)
    y = (
        torch.rand(samples, generator=generator) < torch.sigmoid(X @ torch.randn(n, generator=generator).double())
    ).double()
    start = torch.rand(n, generator=generator, dtype=torch.float64)
    return X, y, start, linear_model(X, y, "logistic", NonConvex(0.1), start=start)


def by_hand(X, y, w, weight=0.1):
    """f, gradient and Hessian of logistic regression with weight * w^2 / (1 + w^2), in numpy."""
    X, y, w = (a.detach().numpy() if isinstance(a, torch.Tensor) else a for a in (X, y, w))
    p = 1 / (1 + np.exp(-X @ w))
    f = np.mean(np.logaddexp(0, X @ w) - y * (X @ w)) + weight * np.sum(w**2 / (1 + w**2))
    g = X.T @ (p - y) / len(y) + weight * 2 * w / (1 + w**2) ** 2
    H = (X.T * (p * (1 - p))) @ X / len(y) + np.diag(weight * (2 - 6 * w**2) / (1 + w**2) ** 3)
    return f, g, H


def sscn_reference(X, y, w, tau, steps, generator, M=1.0, share=1.0):
    """The published loop in numpy with a dense Hessian.

    share = 1 has one M for the step and for its judgement; 1/2 judges the step with half of it, as the script does.
    """
    w = w.numpy().copy()
    path = []
    for _ in range(steps):
        S = (
            torch.randperm(len(w), generator=generator)[:tau].sort().values.numpy()
            if tau < len(w)
            else np.arange(len(w))
        )
        f, g, H = by_hand(X, y, w)
        step = solve_cubic(torch.tensor(g[S]), torch.tensor(H[np.ix_(S, S)]), M)
        trial = w.copy()
        trial[S] += step.h.numpy()
        new = by_hand(X, y, trial)[0]
        rho = (f - new) / (step.decrease + (1 - share) * M / 6 * np.linalg.norm(step.h) ** 3)
        if rho >= 0.05 and new <= f:
            w = trial
        M = max(M / 2, 1e-10) if rho >= 0.9 else M if rho >= 0.05 else 1.5 * M
        path.append((w.copy(), M))
    return path


@pytest.mark.parametrize("tau", [5, 30])
@pytest.mark.parametrize(("closure", "share"), [("blocks", 1.0), ("graph", 1.0), ("blocks", 0.5)])
def test_the_papers_rule_step_by_step(tau, closure, share):
    X, y, start, model = logistic()
    rule = "ratio" if share == 1.0 else Ratio(share=share)
    solver = SSCN([model.weight], tau, rule=rule, generator=torch.Generator().manual_seed(7))
    path = sscn_reference(X, y, start, tau, 60, torch.Generator().manual_seed(7), share=share)
    for w, M in path:
        before = model.value()
        loss = solver.step(model if closure == "blocks" else model.__call__)
        assert float(loss) == pytest.approx(before, rel=1e-12)
        if solver.last.stalled:
            break
        np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-8, atol=1e-10)
        assert solver.param_groups[0]["M"] == pytest.approx(M)


def adaptive_reference(X, y, w, c, smoothing, steps, generator):
    """Sizes as in the script: the first by whole norms and ||h|| = 1, then by running means and the last trial."""
    w, M, n, sizes, length = w.numpy().copy(), 1.0, len(w), [], 1.0
    f, g, H = by_hand(X, y, w)
    gradient, curvature = np.linalg.norm(g), np.linalg.norm(H, 2)
    for k in range(steps):
        under = 1 - 1e16 * c * length**2 / curvature**2
        asked = max(1 - 1e4 * c * length**2 / gradient**2, math.sqrt(under) if under > 0 else 0.0)
        wanted = min(max(int(n * asked), 1), n)
        sizes.append(wanted if k == 0 else int((1 - smoothing) * sizes[-1] + smoothing * wanted))
        tau = sizes[-1]
        S = torch.randperm(n, generator=generator)[:tau].sort().values.numpy() if tau < n else np.arange(n)
        f, g, H = by_hand(X, y, w)
        block, seen = H[np.ix_(S, S)], np.linalg.norm(g[S])
        gradient = math.sqrt(n / tau) * seen if k == 0 else 0.8 * seen + 0.2 * gradient
        largest = np.linalg.norm(block, 2)
        curvature = largest if k == 0 else 0.8 * largest + 0.2 * curvature
        step = solve_cubic(torch.tensor(g[S]), torch.tensor(block), M)
        length = float(step.h.norm())
        trial = w.copy()
        trial[S] += step.h.numpy()
        rho = (f - by_hand(X, y, trial)[0]) / step.decrease
        w = trial if rho >= 0.05 else w
        M = max(M / 2, 1e-10) if rho >= 0.9 else M if rho >= 0.05 else 1.5 * M
    return sizes, gradient


@pytest.mark.parametrize("closure", ["blocks", "graph"])
@pytest.mark.parametrize(("c", "smoothing"), [(1e-6, 1.0), (3e-5, 1.0), (3e-5, 0.4), (10.0, 1.0)])
def test_the_scripts_adaptive_sizes_step_by_step(closure, c, smoothing):
    X, y, start, model = logistic()
    schedule = Adaptive(None, c, smoothing, length="trial")
    solver, sizes = SSCN([model.weight], schedule, generator=torch.Generator().manual_seed(7)), []
    expected, gradient = adaptive_reference(X, y, start, c, smoothing, 8, torch.Generator().manual_seed(7))
    for _ in range(8):
        solver.step(model if closure == "blocks" else model.__call__)
        sizes.append(solver.last.size)
    assert sizes == expected
    assert len(set(sizes)) > (1 if c < 1 else 0)
    assert solver.seen.gradient == pytest.approx(gradient, rel=1e-6)


def test_random_directions_have_length_one():
    """One direction P in n = 4,000, of f = g.x: the step is P s, with g.P s = M s^3 / 2."""
    x = torch.zeros(4000, dtype=torch.float64, requires_grad=True)
    g = torch.randn(4000, generator=newton_cases.generator(1), dtype=torch.float64)
    solver = SSCN([x], 1, kind="gaussian", M=1.0, rule="fixed", generator=newton_cases.generator(2))
    solver.step(lambda: g @ x)
    fall = -float(g @ x.detach())
    assert float(x.detach().norm()) == pytest.approx((2 * fall) ** (1 / 3), rel=0.05)


def test_the_whole_space_is_cubic_newton():
    X, y, start, model = logistic()
    solver = SSCN([model.weight], 30, rule="fixed", M=3.0)
    w = start.numpy()
    for _ in range(5):
        _, g, H = by_hand(X, y, w)
        w = w + solve_cubic(torch.tensor(g), torch.tensor(H), 3.0).h.numpy()
        solver.step(model)
        np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", ["ratio", "doubling", "fixed"])
def test_sscn_on_the_whole_space_is_the_same(rule):
    first, second = newton_cases.logistic(), newton_cases.logistic()
    solvers = SSCN(first.parameters, 12, rule=rule, M=2.0), CubicNewton(second.parameters, 2.0, rule=rule)
    for _ in range(10):
        for solver, problem in zip(solvers, (first, second), strict=True):
            solver.step(problem.closure)
        one, two = solvers[0].last, solvers[1].last
        if one.decrease < 1e-9:
            break
        np.testing.assert_allclose(first.flat(), second.flat(), rtol=1e-9, atol=1e-11)
        assert (one.accepted, one.tries, one.M, one.used) == (two.accepted, two.tries, two.M, two.used)


def lipschitz(X, weight=0.1):
    """Of the Hessian: sum |x_i|^3 / (10 N) bounds the logistic part, 0.1 * sup |rho'''| < 0.1 * 4.7 the other."""
    return float(X.norm(dim=1).pow(3).mean()) / 10 + 4.7 * weight


@pytest.mark.parametrize("rule", ["fixed", "doubling", "ratio"])
def test_the_facts_of_the_theory(rule):
    X, y, _, model = logistic(n=12, samples=20)
    L = lipschitz(X)
    solver = SSCN(
        [model.weight], 4, rule=rule, M=L if rule == "fixed" else 1.0, generator=torch.Generator().manual_seed(1)
    )
    accepted = 0
    for _ in range(120):
        w = model.weight.detach().clone()
        f, g, H = by_hand(X, y, w)
        solver.step(model)
        last = solver.last
        if last.stalled:
            break
        M, norm = last.used, last.length
        if last.accepted:
            accepted += 1
            S = (model.weight.detach() != w).nonzero()[:, 0].numpy()
            f_new, g_new, _ = by_hand(X, y, model.weight.detach())
            if rule != "ratio":  # (i)
                assert f - f_new >= last.decrease * (1 - 1e-6) - 1e-14
            if rule == "fixed":  # (ii)
                assert np.linalg.norm(g_new[S]) <= (L + M) / 2 * norm**2 + 1e-12
            block = H[np.ix_(S, S)]
            size = np.linalg.norm(block, 2)
            gradient = np.linalg.norm(g[S])
            assert last.gradient_norm == pytest.approx(gradient, rel=1e-8)
            assert gradient <= size * norm + M / 2 * norm**2 + 1e-12  # (iii)
            assert last.lowest + M / 2 * norm >= -1e-10 * size  # (iv)
            assert last.decrease >= gradient / 3 * min(gradient / size, math.sqrt(gradient / M)) * (1 - 1e-9)  # (v)
        assert last.decrease >= M / 12 * norm**3 * (1 - 1e-9)
    assert accepted > 10


def test_small_gradients_are_reached():
    """Where differences of losses are rounding the gradient decides; the published rule stalls at 5e-9."""
    _, _, _, model = logistic(n=40, samples=60)
    solver = SSCN([model.weight], 20, generator=torch.Generator().manual_seed(0))
    stalled = False
    for _ in range(1500):
        solver.step(model)
        stalled |= solver.last.stalled
        gradient = torch.autograd.grad(model(), model.weight)[0]
        if float(gradient.norm()) < 1e-10:
            break
    assert float(gradient.norm()) < 1e-10
    assert stalled


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def network_loss(model):
    generator = torch.Generator().manual_seed(1)
    X, y = torch.randn(30, 4, generator=generator).double(), torch.randint(0, 3, (30,), generator=generator)
    return F.cross_entropy(model(X), y)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("kind", ["coordinates", "blocks", "layers", "gaussian"])
@pytest.mark.parametrize("rule", ["ratio", "doubling"])
def test_kinds_of_subspaces_train_a_network(kind, rule):
    model = network()
    solver = SSCN(model.parameters(), 10, kind=kind, rule=rule, generator=torch.Generator().manual_seed(3))
    first = float(network_loss(model).detach())
    for _ in range(80):
        before = flat(model)
        loss = float(solver.step(lambda: network_loss(model)))
        after = float(network_loss(model).detach())
        moved = (flat(model) != before).nonzero()[:, 0]
        assert after <= loss + 1e-14  # where rounding decides, the gradient does
        assert solver.last.accepted == bool(len(moved))
        assert solver.last.products == solver.last.size <= 10
        if kind == "blocks" and len(moved):
            assert int(moved[-1] - moved[0]) < 10
        if kind == "layers" and len(moved):
            ends = np.cumsum([p.numel() for p in model.parameters()])
            assert len({int(np.searchsorted(ends, i, side="right")) for i in moved.tolist()}) == 1
    assert after < 0.6 * first
    assert all(p.grad is None for p in model.parameters())


def test_a_rejected_step_restores_every_bit():
    model = network()
    solver = SSCN(model.parameters(), 8, M=1e-6, generator=torch.Generator().manual_seed(3))
    rejected = 0
    for _ in range(40):
        before = flat(model)
        solver.step(lambda: 50 * network_loss(model))
        if not solver.last.accepted:
            rejected += 1
            assert torch.equal(flat(model), before)
    assert rejected


def test_blocks_of_the_users_own():
    models = [network(), network()]
    wanted = []

    def block(indices):
        wanted.append(indices)
        loss = lambda *p: F.cross_entropy(  # noqa: E731
            torch.func.functional_call(models[1], dict(zip(names, p, strict=True)), (inputs[0],)), inputs[1]
        )
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(30, 4, generator=generator).double(), torch.randint(0, 3, (30,), generator=generator)
        names = [name for name, _ in models[1].named_parameters()]
        values = tuple(p.detach() for p in models[1].parameters())
        rows = torch.func.hessian(loss, argnums=tuple(range(len(values))))(*values)
        H = torch.cat(
            [
                torch.cat([rows[i][j].reshape(values[i].numel(), -1) for j in range(len(values))], 1)
                for i in range(len(values))
            ]
        )
        return H[indices][:, indices]

    first = SSCN(models[0].parameters(), 6, generator=torch.Generator().manual_seed(3))
    second = SSCN(models[1].parameters(), 6, hessian_block=block, generator=torch.Generator().manual_seed(3))
    for _ in range(5):
        first.step(lambda: network_loss(models[0]))
        second.step(lambda: network_loss(models[1]))
        torch.testing.assert_close(flat(models[0]), flat(models[1]), rtol=1e-10, atol=1e-12)
    assert second.last.products == 0
    assert len(wanted) == 5


def test_a_saved_state_goes_on_bit_by_bit():
    models = [network(), network()]
    solvers = [
        SSCN(model.parameters(), Adaptive(5, c=1e-9), generator=torch.Generator().manual_seed(seed))
        for model, seed in zip(models, (3, 9), strict=True)
    ]
    for _ in range(7):
        solvers[0].step(lambda: network_loss(models[0]))
    models[1].load_state_dict(models[0].state_dict())
    solvers[1].load_state_dict(copy.deepcopy(solvers[0].state_dict()))
    for _ in range(7):
        for model, solver in zip(models, solvers, strict=True):
            solver.step(lambda model=model: network_loss(model))
    assert torch.equal(flat(models[0]), flat(models[1]))
    assert solvers[0].last == solvers[1].last
    with pytest.raises(ValueError, match="not the state of SSCN"):
        solvers[0].load_state_dict(torch.optim.SGD(models[0].parameters(), 0.1).state_dict())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"subspace": 100}, "does not fit into 51"),
        ({"subspace": 0}, "at least one coordinate"),
        ({"subspace": 3, "M": 0.0}, "M=0.0"),
        ({"subspace": 3, "M": -1.0}, "M=-1.0"),
        ({"subspace": 3, "rule": "armijo"}, "rule='armijo'"),
        ({"subspace": 3, "kind": "random"}, "kind='random'"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        SSCN(network().parameters(), **settings)


def test_several_devices_are_refused():
    a = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="one device"):
        SSCN([a, nn.Parameter(torch.ones(2, device="meta"))], 1)


@pytest.mark.parametrize("rule", ["ratio", "doubling"])
def test_a_loss_that_is_not_finite(rule):
    p = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    calls = []

    def closure():
        calls.append(1)
        return (p**2).sum() if torch.is_grad_enabled() else (p**2).sum() * math.nan

    solver = SSCN([p], 2, rule=rule)
    with pytest.raises(ValueError, match="40 trial points"):
        for _ in range(50):
            solver.step(closure)
            assert not solver.last.accepted
            assert solver.param_groups[0]["M"] > 1
    assert p.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="the loss is nan before the step"):
        solver.step(lambda: (p * math.nan).sum())


def test_the_state_of_version_0_1_is_read():
    models = [network(), network()]
    first, second = (SSCN(m.parameters(), Adaptive(5), generator=torch.Generator().manual_seed(3)) for m in models)
    for _ in range(3):
        first.step(lambda: network_loss(models[0]))
    state = first.state_dict()
    own = state.pop("newton")
    assert own.pop("solver") == "SSCN"
    second.load_state_dict({**state, "sscn": own})
    assert second.param_groups[0]["M"] == first.param_groups[0]["M"]
    assert second.state_dict()["newton"]["seen"] == own["seen"]


def test_frozen_parameters_stay():
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    solver = SSCN(model.parameters(), 5, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        solver.step(lambda: network_loss(model))
    assert solver.n == 51 - 24
    assert torch.equal(model[0].weight, before)


def test_a_closure_that_fails_at_the_trial_point_leaves_no_mark():
    model = network()
    solver = SSCN(model.parameters(), 5, generator=torch.Generator().manual_seed(0))
    before = flat(model)

    def closure():
        if not torch.is_grad_enabled():
            raise KeyboardInterrupt
        return network_loss(model)

    with pytest.raises(KeyboardInterrupt):
        solver.step(closure)
    assert torch.equal(flat(model), before)


def test_a_closure_that_calls_backward():
    model = network()

    def closure():
        loss = network_loss(model)
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="called backward"):
        SSCN(model.parameters(), 3).step(closure)


def test_points_that_are_not_finite_are_counted_across_a_resume():
    problems = [nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64)) for _ in range(2)]
    solvers = [SSCN([p], 2, generator=torch.Generator().manual_seed(0)) for p in problems]

    def closure(p):
        return lambda: (p**2).sum() * (1.0 if torch.is_grad_enabled() else math.nan)

    for _ in range(39):
        solvers[0].step(closure(problems[0]))
    solvers[1].load_state_dict(solvers[0].state_dict())
    with pytest.raises(ValueError, match="at 40 trial points in a row"):
        solvers[1].step(closure(problems[1]))


def test_the_gradient_of_the_whole_is_guessed_from_the_first_subset():
    """All entries of the gradient are 3 and of the Hessian 1: ||g|| = ||g_S|| sqrt(n / size), ||H|| = 1."""
    p = nn.Parameter(torch.full((12,), 3.0, dtype=torch.float64))
    solver = SSCN([p], 3, generator=torch.Generator().manual_seed(0))
    solver.step(lambda: (p**2).sum() / 2)
    seen = solver.state_dict()["newton"]["seen"]
    assert seen["gradient"] == pytest.approx(3.0 * math.sqrt(12))
    assert seen["curvature"] == pytest.approx(1.0)
    assert seen["size"] == 3
