"""The NGN family against plain references and numerical minimisers of its model, and what every solver must do."""

import copy
import math

import numpy as np
import pytest
import torch
from processes import on_ranks
from small_network import flat, loss_of, network
from torch import nn
from torch.nn import functional as F

from solvers.first_order.ngn import NGN

# -- references: one vector, the papers' formulas ---------------------------------------------------------------------


def metric_reference(g, state, variant, beta2, eps):
    if variant not in ("md1", "md2"):
        return torch.ones_like(g)
    k = state["k"] = state.get("k", 0) + 1
    state["v"] = beta2 * state.get("v", torch.zeros_like(g)) + (1 - beta2) * g**2
    return eps + (state["v"] / (1 - beta2**k)).sqrt()


def ngn_reference(
    x, f, g, state, lr=1.0, momentum=0.0, variant="ngn", beta2=0.999, eps=1e-8, weight_decay=0.0, decay="dec"
):
    """lr and weight_decay are numbers, or vectors for groups."""
    D = metric_reference(g, state, variant, beta2, eps)
    before, state["before"] = state.get("before", x), x
    if decay == "w":
        c = lr / (1 + lr * weight_decay)
        root = 1 - (c * weight_decay * g * x).sum() / (2 * f)
        step = c * root.clamp(min=0) / (1 + (c * g**2 / D).sum() / (2 * f)) * g / D
        kept = x / (1 + lr * weight_decay)
    else:
        curve = lr * g**2 / D if variant in ("d", "md2") else (lr * g**2 / D).sum()
        step = lr / (1 + curve / (2 * f)) * g / D
        kept = x - weight_decay * lr * x
    return kept - (1 - momentum) * step + momentum * (x - before)


CASES = {
    "ngn": {"lr": 0.8},
    "ngn-m": {"lr": 0.8, "momentum": 0.9},
    "ngn-m dec": {"lr": 0.8, "momentum": 0.9, "weight_decay": 0.01},
    "ngn-m w": {"lr": 0.8, "momentum": 0.9, "weight_decay": 0.2, "decay": "w"},
    "ngn dec": {"lr": 0.8, "weight_decay": 0.05},
    "d": {"lr": 0.3, "variant": "d"},
    "d-m dec": {"lr": 0.3, "variant": "d", "momentum": 0.5, "weight_decay": 0.01},
    "md1": {"lr": 0.03, "variant": "md1", "momentum": 0.9},
    "md1 alone": {"lr": 0.03, "variant": "md1", "beta2": 0.9, "eps": 1e-3},
    "md1 dec": {"lr": 0.03, "variant": "md1", "momentum": 0.9, "weight_decay": 0.1},
    "md1 w": {"lr": 0.03, "variant": "md1", "momentum": 0.9, "beta2": 0.99, "weight_decay": 0.3, "decay": "w"},
    "md2": {"lr": 0.03, "variant": "md2", "momentum": 0.9},
    "md2 dec": {"lr": 0.03, "variant": "md2", "beta2": 0.95, "weight_decay": 0.1},
}
RNG = torch.Generator().manual_seed(0)
A = torch.randn(64, 6, generator=RNG, dtype=torch.float64)
b = A @ torch.ones(6, dtype=torch.float64) + torch.randn(64, generator=RNG, dtype=torch.float64)


def least_squares(x, A, b):
    residual = A @ x - b
    return float(residual @ residual) / (2 * len(b)), A.T @ residual / len(b)


def logistic(x, A, b):
    margins = b.sign() * (A @ x)
    value = float(F.softplus(-margins).mean() + 0.05 * (x @ x))
    return value, 0.1 * x - A.T @ (b.sign() * torch.sigmoid(-margins)) / len(b)


@pytest.mark.parametrize(
    ("name", "problem"), [*((name, least_squares) for name in CASES), *((name, logistic) for name in list(CASES)[2::3])]
)
def test_a_thousand_steps_are_those_of_the_formulas(name, problem):
    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    x, state, solver = torch.zeros(6, dtype=torch.float64), {}, NGN([theta], **CASES[name])
    worst = 0.0
    for rows in torch.randint(0, 64, (1000, 16), generator=torch.Generator().manual_seed(1)):
        batch = A[rows], b[rows]
        loss, theta.grad = problem(theta.detach(), *batch)
        solver.step(loss=loss)
        x = ngn_reference(x, *problem(x, *batch), state, **CASES[name])
        worst = max(worst, float((theta.detach() - x).abs().max()))
    assert worst < 1e-12
    assert 0.1 < float(x.norm()) < 10  # it went somewhere


# -- the model, minimised numerically ---------------------------------------------------------------------------------


def numerical_step(x, f, g, D, lr, weight_decay, by_coordinate):
    """argmin of the model; all arguments of shape (n,) but f."""
    root, slope = math.sqrt(f), g / (2 * math.sqrt(f))

    def model(p):
        residual = np.maximum(root + (slope * p if by_coordinate else slope @ p), 0.0)
        metric = D * (p / lr + weight_decay * (x + p))
        value = np.sum(residual**2) + 0.5 * np.sum(D * (p**2 / lr + weight_decay * (x + p) ** 2))
        return value, 2 * residual * slope + metric

    from scipy.optimize import minimize  # here, for the second process does without it

    return minimize(model, np.zeros_like(x), jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 5000}).x


@pytest.mark.parametrize(
    ("variant", "decay", "scale"),
    [("ngn", 0.0, 1.0), ("md1", 0.0, 1.0), ("d", 0.0, 1.0), ("md2", 0.0, 1.0)]
    + [(variant, 0.4, scale) for variant in ("ngn", "md1") for scale in (1.0, -1.0, 30.0)],
)
def test_the_step_of_two_groups_minimises_one_model(variant, decay, scale):
    """With scale 30, decay alone takes the model's root below 0: its gradient does not act at all."""
    start = np.array([0.5, -1.0, 0.7, 0.2, 0.9])
    a, c = (torch.tensor(v * scale, requires_grad=True) for v in (start[:3], start[3:]))
    groups = [{"params": [a], "lr": 0.7}, {"params": [c], "lr": 0.2, "weight_decay": 0.5 * decay}]
    solver = NGN(groups, variant=variant, weight_decay=decay, decay="w" if decay else "dec", beta2=0.9)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    g, f = (weights * torch.cat([a, c]).sign()).detach(), 0.8
    solver.step(lambda: f + weights @ (torch.cat([a, c]).abs() - torch.tensor(np.abs(start) * abs(scale))))
    D = 1e-8 + g.abs().numpy() if variant in ("md1", "md2") else np.ones(5)  # v / (1 - beta2) = g^2 at the first step
    lr, decays = np.repeat([0.7, 0.2], [3, 2]), np.repeat([decay, 0.5 * decay], [3, 2])
    p = numerical_step(start * scale, f, g.numpy(), D, lr, decays, variant in ("d", "md2"))
    np.testing.assert_allclose(torch.cat([a, c]).detach().numpy(), start * scale + p, rtol=1e-7, atol=1e-8)
    if variant in ("ngn", "md1"):
        assert (solver.last.shrink == 0.0) == (scale == 30.0)
        assert solver.last.norm == pytest.approx(math.sqrt(float((g.numpy() ** 2 / D).sum())))
    else:
        assert math.isnan(solver.last.shrink)


def test_groups_of_equal_settings_are_one_group():
    models = [network(), network()]
    one = NGN(models[0].parameters(), 0.5, momentum=0.9)
    two = NGN([{"params": list(models[1][i].parameters())} for i in (0, 2)], 0.5, momentum=0.9)
    for _ in range(20):
        one.step(lambda: loss_of(models[0]))
        two.step(lambda: loss_of(models[1]))
    torch.testing.assert_close(flat(models[0]), flat(models[1]), rtol=1e-12, atol=1e-13)
    assert one.last.shrink == pytest.approx(two.last.shrink, rel=1e-12)


# -- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CASES))
def test_two_groups_on_a_network(name):
    """Two groups; closure and backward() in turn. The reference sees all parameters as one vector."""
    settings = {"weight_decay": 0.0, **CASES[name]}
    fast, slow, state = network(), network(), {}
    last = {"params": fast[2].parameters(), "lr": 0.5 * settings["lr"], "weight_decay": 2 * settings["weight_decay"]}
    solver = NGN([{"params": fast[0].parameters()}, last], **settings)
    sizes = torch.tensor([42, 24])
    for key, factors in (("lr", [1.0, 0.5]), ("weight_decay", [1.0, 2.0])):
        settings[key] *= torch.tensor(factors, dtype=torch.float64).repeat_interleave(sizes)
    for step in range(50):
        if step % 2:
            value = solver.step(lambda: loss_of(fast))
        else:
            solver.zero_grad()
            loss = loss_of(fast)
            loss.backward()
            value = solver.step(loss=loss)
        f = loss_of(slow)
        g = torch.cat([g.reshape(-1) for g in torch.autograd.grad(f, list(slow.parameters()))])
        x = ngn_reference(flat(slow), f.item(), g, state, **settings)
        nn.utils.vector_to_parameters(x, slow.parameters())
        assert value.item() == pytest.approx(f.item(), rel=1e-8)
        assert solver.last.loss == value.item()
    torch.testing.assert_close(flat(fast), flat(slow), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(CASES))
def test_a_saved_state_goes_on_bit_by_bit(name):
    model, other = network(torch.float32), network(torch.float32)
    solver = NGN(model.parameters(), **CASES[name], lower_bound=-0.5)
    for _ in range(7):
        solver.step(lambda: loss_of(model))
    other.load_state_dict(model.state_dict())
    again = NGN(other.parameters(), 99.0)
    again.load_state_dict(copy.deepcopy(solver.state_dict()))
    for m, o in ((model, solver), (other, again)):
        for _ in range(5):
            o.step(lambda m=m: loss_of(m))
    assert torch.equal(flat(model), flat(other))


@pytest.mark.parametrize("name", list(CASES))
def test_missing_gradients_and_late_ones(name):
    """Each parameter counts its own steps, and the scale of the step is that of the parameters that move."""
    still, early, late = (torch.full((3,), v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.5, 0.7))
    solver = NGN([{"params": [still, early]}, {"params": [late]}], **CASES[name])
    x = {"early": early.detach().clone(), "late": late.detach().clone()}
    states: dict[str, dict] = {"early": {}, "late": {}}
    for step in range(6):
        used = {"early": early} if step < 3 else {"late": late}
        f = solver.step(lambda used=used: sum((p**4).sum() for p in used.values()))
        for key in used:
            x[key] = ngn_reference(x[key], float(f), 4 * x[key] ** 3, states[key], **CASES[name])
            torch.testing.assert_close(used[key].detach(), x[key], rtol=1e-12, atol=1e-14)
    assert torch.equal(still.detach(), torch.ones(3, dtype=torch.float64))  # no gradient: no decay either


@pytest.mark.parametrize("name", list(CASES))
def test_strides_pieces_and_mixed_dtypes(name, monkeypatch):
    """Slices, transposes and channels-last, in pieces of 5 entries, move as one contiguous vector does."""
    monkeypatch.setattr("solvers.first_order.ngn.CACHED", 5)
    generator = torch.Generator().manual_seed(3)
    values = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((4, 3), (2, 3, 2, 2), (7,), ())
    ]
    plain = [v.clone().requires_grad_() for v in values]
    wide = torch.zeros(4, 6, dtype=torch.float64)
    wide[:, ::2] = values[0]
    odd = [wide[:, ::2], values[1].clone().to(memory_format=torch.channels_last), values[2].clone(), values[3].clone()]
    odd = [p.detach().requires_grad_() for p in odd]
    single = torch.zeros(2, requires_grad=True)  # of another dtype, and with a gradient of 0
    solvers = [NGN([*plain, single], **CASES[name]), NGN([*odd, single], **CASES[name])]
    assert not any(p.is_contiguous() for p in odd[:2])
    for _ in range(10):
        for params, solver in zip((plain, odd), solvers, strict=True):
            solver.step(lambda params=params: sum((p - 1).square().sum() for p in params) + 0.0 * single.sum())
    for one, other in zip(plain, odd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    assert torch.equal(wide[:, 1::2], torch.zeros(4, 3, dtype=torch.float64))
    assert float(single.detach().abs().max()) == 0.0


@pytest.mark.parametrize("name", list(CASES))
def test_bfloat16(name):
    """Parameters and states keep the dtype; the gradients are the same, so that only rounding differs."""
    narrow, exact = network(torch.bfloat16), network(torch.bfloat16).double()
    solvers = [NGN(model.parameters(), **CASES[name]) for model in (narrow, exact)]
    for _ in range(3):
        solvers[1].zero_grad()
        loss_of(exact).backward()
        for p, q in zip(narrow.parameters(), exact.parameters(), strict=True):
            p.grad = q.grad.bfloat16()
        for solver in solvers:
            solver.step(loss=1.3)
    tensors = [v for state in solvers[0].state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    assert all(t.dtype == torch.bfloat16 for t in [*narrow.parameters(), *tensors])
    torch.testing.assert_close(flat(narrow).double(), flat(exact), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("variant", ["ngn", "md1"])
def test_a_copy_goes_on(variant):
    p = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    solver = NGN([p], 0.3, momentum=0.5, variant=variant)
    solver.step(lambda: (p**4).sum())
    copied = copy.deepcopy(solver)
    (q,) = copied.param_groups[0]["params"]
    for _ in range(3):
        solver.step(lambda: (p**4).sum())
        copied.step(lambda: (q**4).sum())
    assert torch.equal(p, q)


def test_schedulers_act_at_once():
    p = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    solver, x = NGN([p], 1.0, momentum=0.5), torch.tensor([2.0], dtype=torch.float64)
    schedule = torch.optim.lr_scheduler.LambdaLR(solver, lambda k: k / 4)  # from 0
    state: dict = {}
    for k in range(6):
        f = solver.step(lambda: (p**2).sum())
        schedule.step()
        x = ngn_reference(x, float(f), 2 * x, state, lr=k / 4, momentum=0.5)
        torch.testing.assert_close(p.detach(), x, rtol=1e-13, atol=0)


def test_a_grad_scaler():
    plain, scaled = network(torch.float32), network(torch.float32)
    solvers = [NGN(m.parameters(), 0.5, momentum=0.9) for m in (plain, scaled)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(5):
        solvers[0].step(lambda: loss_of(plain))
        solvers[1].zero_grad()
        loss = loss_of(scaled)
        scaler.scale(loss).backward()
        scaler.step(solvers[1], loss=loss)
        scaler.update()
        torch.testing.assert_close(flat(plain), flat(scaled), rtol=1e-6, atol=1e-7)
    before = flat(scaled)
    next(scaled.parameters()).grad[0] = math.inf
    scaler._per_optimizer_states.clear()
    scaler.step(solvers[1], loss=loss)  # an overflow of the scaled gradients: the scaler leaves the step out
    assert torch.equal(before, flat(scaled))


# -- several processes ------------------------------------------------------------------------------------------------


def test_two_processes_are_one_on_the_whole_batch(tmp_path):
    both = on_ranks("two_processes:trained", 2, tmp_path)
    for variant in ("ngn", "md1", "md2"):
        model = network()
        solver = NGN(model.parameters(), 0.1, momentum=0.9, variant=variant)
        for _ in range(5):
            solver.step(lambda model=model: loss_of(model))
        for found in both:
            for parameters in found[variant]:
                torch.testing.assert_close(parameters, flat(model), rtol=1e-11, atol=1e-12)


# -- losses at the bound, and what is refused -------------------------------------------------------------------------


def test_a_lower_bound_is_taken_off_the_loss():
    p, q = (torch.tensor([1.5, -2.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    above, plain = NGN([p], 0.3, momentum=0.5, lower_bound=-7.0), NGN([q], 0.3, momentum=0.5)
    for _ in range(5):
        above.step(lambda: (p**4).sum() - 7)
        plain.step(lambda: (q**4).sum())
    torch.testing.assert_close(p, q, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("gradient", [0.0, 3.0])
def test_at_the_bound_the_gradient_does_not_act(name, gradient):
    """What a differentiable loss cannot do, a gradient there, counts as the limit f -> 0: a step of 0."""
    settings = {**CASES[name], "weight_decay": 0.0, "momentum": 0.0}
    p = torch.tensor([1.0, 2.0], requires_grad=True)
    for loss, bound in ((0.0, 0.0), (5.0 - 1e-6, 5.0)):  # the second: by rounding below
        p.grad = torch.tensor([gradient, 0.0])
        NGN([p], **settings, lower_bound=bound).step(loss=loss)
        assert p.tolist() == [1.0, 2.0]


def test_tiny_losses_stay_finite():
    for variant in ("ngn", "d", "md1", "md2"):
        p = torch.tensor([1.0, 2.0], requires_grad=True)
        p.grad = torch.tensor([1e-3, 0.0])
        NGN([p], 1e6, variant=variant).step(loss=1e-300)
        assert p.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", list(CASES))
def test_a_refused_step_changes_nothing(name):
    model = network()
    solver = NGN(model.parameters(), **CASES[name])
    for _ in range(2):
        parameters, state = flat(model), copy.deepcopy(solver.state_dict()["state"])
        loss_of(model).backward()
        for bad, match in (
            (-1e-3, "f >= lower_bound=0 .*lower_bound="),
            (math.nan, "loss is nan"),
            (None, "needs the loss"),
        ):
            with pytest.raises(ValueError, match=match):
                solver.step(loss=bad)
        good = next(model.parameters()).grad[0, 0].clone()
        for bad in (math.nan, math.inf):
            next(model.parameters()).grad[0, 0] = bad
            with pytest.raises(ValueError, match="gradients is not finite"):
                solver.step(loss=1.0)
        next(model.parameters()).grad[0, 0] = good
        assert torch.equal(parameters, flat(model))
        after = solver.state_dict()["state"]
        assert all(
            torch.equal(torch.as_tensor(state[i][k]), torch.as_tensor(s[k])) for i, s in after.items() for k in s
        )
        solver.zero_grad()
        solver.step(lambda: loss_of(model))
        assert not torch.equal(parameters, flat(model))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": math.inf}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"variant": "md3"}, "variant='md3'"),
        ({"beta2": 1.0}, "beta2"),
        ({"eps": 0.0}, "eps"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"decay": "l2"}, "decay='l2'"),
        ({"lower_bound": math.nan}, "lower"),
        ({"variant": "d", "decay": "w"}, 'decay="w" is for the variants "ngn" and "md1"'),
        ({"variant": "md2", "decay": "w"}, 'decay="w" is for'),
    ],
)
def test_bad_settings(settings, match):
    p = torch.zeros(1, requires_grad=True)
    with pytest.raises(ValueError, match=match):
        NGN([p], **settings)
    with pytest.raises(ValueError, match="lower_bound belongs" if "lower_bound" in settings else match):
        NGN([{"params": [p], **settings}])
