"""ScaledGD against plain references, its invariance and rate, and on LoRA's factors."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from solvers import SGD, ScaledGD, lora_groups


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CASES = {
    "gd": {"variant": "gd", "momentum": 0.8, "weight_decay": 0.01, "damping": 0.05},
    "adam": {"variant": "adam", "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1, "damping": 0.3},
}


def reference(start, gradient, lr, s):
    """B, A and what is in no pair, c; explicit inverses."""
    B, A, c = start
    means, squares, t = [0.0] * 3, [0.0] * 3, 0
    while True:
        t += 1
        gB, gA, gc = gradient(B, A, c, t - 1)
        identity = s["damping"] * np.eye(len(A))
        scaled = [gB @ np.linalg.inv(A @ A.T + identity), np.linalg.inv(B.T @ B + identity) @ gA, gc]
        moved = []
        for i, (x, g) in enumerate(zip((B, A, c), scaled, strict=True)):
            if s["variant"] == "gd":
                d = means[i] = s["momentum"] * means[i] + (1 - s["momentum"]) * g
            else:
                b1, b2 = s["betas"]
                means[i], squares[i] = b1 * means[i] + (1 - b1) * g, b2 * squares[i] + (1 - b2) * g**2
                d = means[i] / (1 - b1**t) / (np.sqrt(squares[i] / (1 - b2**t)) + s["eps"])
            moved.append((1 - lr * s["weight_decay"]) * x - lr * d)
        B, A, c = moved
        yield moved


@pytest.mark.parametrize("name", list(CASES))
def test_step_by_step(name):
    """||B A + c - M_k||^2 / 2 with targets in turn, 1,000 steps to 1e-12."""
    M = [normal(5, 4, seed=k).numpy() for k in range(3)]
    start = [normal(5, 2, seed=5), normal(2, 4, seed=6), normal(4, seed=7)]

    def gradient(B, A, c, k):
        R = B @ A + c - M[k % 3]
        return R @ A.T, B.T @ R, R.sum(0)

    B, A, c = (nn.Parameter(t.clone()) for t in start)
    solver = ScaledGD([c, A, B], 0.02, pairs=[(B, A)], **CASES[name])
    path = reference([t.numpy() for t in start], gradient, 0.02, CASES[name])
    for k in range(1000):
        solver.step(lambda k=k: 0.5 * (B @ A + c - torch.from_numpy(M[k % 3])).square().sum())
        expected = next(path)
    for p, x in zip((B, A, c), expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [ScaledGD, SGD])
def test_the_way_does_not_hang_on_the_split(kind):
    """From (B R, R^(-1) A) the product goes the same way; gradient descent's does not."""
    M, R = normal(6, 5), torch.tensor([[5.0, 1.0], [0.0, 0.1]]).double()
    ends = []
    for turn in (torch.eye(2).double(), R):
        B = nn.Parameter(normal(6, 2, seed=1) @ turn)
        A = nn.Parameter(torch.linalg.inv(turn) @ normal(2, 5, seed=2))
        more = {"pairs": [(B, A)], "damping": 0.0} if kind is ScaledGD else {}
        solver = kind([B, A], 0.01, momentum=0.5, **more)
        for _ in range(20):
            solver.step(lambda B=B, A=A: 0.5 * (B @ A - M).square().sum())
        ends.append((B @ A).detach())
    away = float((ends[0] - ends[1]).norm() / ends[0].norm())
    assert away < 1e-10 if kind is ScaledGD else away > 0.1


def descend(kind, values, lr, steps):
    """Singular values of B A over those of M, from aligned factors with twice those."""
    U, V = (torch.linalg.qr(normal(n, 3, seed=n))[0] for n in (6, 5))
    s = torch.tensor(values).double()
    M = (U * s) @ V.T
    B, A = nn.Parameter(U * (2 * s).sqrt()), nn.Parameter(((2 * s).sqrt() * V).T.contiguous())
    solver = kind([B, A], lr, **({"pairs": [(B, A)], "damping": 0.0} if kind is ScaledGD else {}))
    for _ in range(steps):
        solver.step(lambda: 0.5 * (B @ A - M).square().sum())
    return (U.T @ B.detach() @ A.detach() @ V).diagonal() / s


def test_the_rate_is_that_of_no_condition_number():
    """q = 1 + e of each singular value: e <- (1 - 2 lr) e + lr^2 e^2 / q; gradient descent, q <- q (1 - lr s e)^2."""
    values, q = [1000.0, 30.0, 1.0], 2.0
    for _ in range(25):
        q = 1 + (1 - 2 * 0.3) * (q - 1) + 0.09 * (q - 1) ** 2 / q
    found = descend(ScaledGD, values, 0.3, 25)
    torch.testing.assert_close(found, torch.full((3,), q, dtype=torch.float64), rtol=1e-11, atol=0)
    assert abs(q - 1) < 1e-9
    plain = []
    for s in values:
        r = 2.0
        for _ in range(25):
            r *= (1 - 0.5e-3 * s * (r - 1)) ** 2
        plain.append(r)
    found = descend(SGD, values, 0.5e-3, 25)
    torch.testing.assert_close(found, torch.tensor(plain, dtype=torch.float64), rtol=1e-9, atol=0)
    assert abs(plain[0] - 1) < 1e-6
    assert abs(plain[2] - 1) > 0.9


def test_damping_finds_a_low_rank_from_small_factors():
    """Of rank 2 and condition 100 by factors of rank 4 that begin small, as ScaledGD(lambda); GD has 1 % left."""
    U, V = (torch.linalg.qr(normal(n, 2, seed=n))[0] for n in (8, 7))
    M = (U * torch.tensor([100.0, 1.0])) @ V.T
    ends = []
    for kind, lr in ((ScaledGD, 0.3), (SGD, 0.3 / 100)):
        B, A = nn.Parameter(1e-4 * normal(8, 4, seed=1)), nn.Parameter(1e-4 * normal(4, 7, seed=2))
        solver = kind([B, A], lr, **({"pairs": [(B, A)], "damping": 0.1} if kind is ScaledGD else {}))
        for _ in range(150):
            solver.step(lambda B=B, A=A: 0.5 * (B @ A - M).square().sum())
        ends.append(float((B @ A - M).detach().norm() / M.norm()))
    assert ends[0] < 1e-6
    assert ends[1] > 0.009


def test_adapters_of_peft():
    """B = 0 first: W moves by -lr s^2 G P, G its full gradient and P the projection on the rows of A."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Embedding(3, 4), nn.Linear(6, 4)).double()
    net = nn.Sequential(base[0], base[1], base[3])
    model = peft.get_peft_model(net, peft.LoraConfig(r=3, lora_alpha=6, target_modules=["0", "2"]))
    X, Y = normal(20, 7), normal(20, 4, seed=1)
    groups = lora_groups(model)
    assert [len(group["params"]) for group in groups] == [4]
    solver = ScaledGD(groups, 0.1, damping=1e-12, rest="refuse")
    layer = model.base_model.model[2]
    weight = layer.base_layer.weight.requires_grad_(True)
    loss = lambda: (model(X) - Y).square().mean()  # noqa: E731
    G = torch.autograd.grad(loss(), weight)[0]
    weight.requires_grad_(False)
    before, A = layer.get_delta_weight("default").clone(), layer.lora_A["default"].weight.detach().clone()
    losses = [float(solver.step(loss))]
    change = layer.get_delta_weight("default").detach() - before
    torch.testing.assert_close(change, -0.1 * 4 * G @ A.T @ torch.linalg.inv(A @ A.T) @ A)
    torch.testing.assert_close(layer.lora_A["default"].weight.detach(), A)
    losses += [float(solver.step(loss)) for _ in range(20)]
    assert losses[-1] < 0.95 * losses[0]


def test_names_of_adapters_and_kernels():
    class Adapters(nn.Module):
        def __init__(self):
            super().__init__()
            self.lora_A = nn.ModuleDict({"one": nn.Conv2d(2, 3, 3, bias=False), "two": nn.Conv2d(2, 1, 3, bias=False)})
            self.lora_B = nn.ModuleDict({"one": nn.Conv2d(3, 5, 1, bias=False), "two": nn.Conv2d(1, 5, 1, bias=False)})
            self.lora_embedding_A = nn.ParameterDict({"one": torch.ones(2, 9)})
            self.lora_embedding_B = nn.ParameterDict({"one": torch.ones(4, 2)})
            self.lora_A_of_another_kind = nn.Parameter(torch.ones(3))
            self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    model = Adapters()
    groups = lora_groups(model)
    shapes = {(tuple(B.shape), tuple(A.shape)) for B, A in groups[0]["pairs"]}
    assert shapes == {((5, 3, 1, 1), (3, 2, 3, 3)), ((5, 1, 1, 1), (1, 2, 3, 3)), ((4, 2), (2, 9))}
    assert [id(p) for p in groups[1]["params"]] == [id(model.lora_A_of_another_kind)]
    solver = ScaledGD(groups, 0.1)
    B, A = model.lora_B["one"].weight, model.lora_A["one"].weight
    before, g = B.detach().clone(), torch.ones(5, 3)
    solver.step(lambda: B.sum())
    rows = A.detach().reshape(3, 18)
    expected = before.reshape(5, 3) - 0.1 * g @ torch.linalg.inv(rows @ rows.T + 1e-6 * torch.eye(3))
    torch.testing.assert_close(B.detach().reshape(5, 3), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no LoRA factors"):
        lora_groups(nn.Linear(2, 2))


def test_a_frozen_factor_scales_the_other():
    B, A = nn.Parameter(normal(4, 2)), nn.Parameter(normal(2, 3, seed=1), requires_grad=False)
    before = B.detach().clone()
    ScaledGD([B, A], 1.0, pairs=[(B, A)], damping=0.0).step(lambda: (B @ A).sum())
    moved = before - B.detach()
    torch.testing.assert_close(moved @ (A @ A.T), torch.ones(4, 3).double() @ A.T)


def test_precondition_is_what_the_next_step_does():
    B, A, c = (nn.Parameter(normal(*shape, seed=i)) for i, shape in enumerate([(4, 2), (2, 3), (3,)]))
    solver = ScaledGD([c, B, A], 0.1, pairs=[(B, A)], damping=0.2)
    loss = lambda: (B @ A + c).square().sum()  # noqa: E731
    expected = solver.precondition(torch.autograd.grad(loss(), [c, B, A]))
    before = [p.detach().clone() for p in (c, B, A)]
    solver.step(loss)
    for old, p, d in zip(before, (c, B, A), expected, strict=True):
        torch.testing.assert_close((old - p.detach()) / 0.1, d)
    with pytest.raises(TypeError, match="no preconditioner that is a linear map"):
        ScaledGD([B, A], 0.1, pairs=[(B, A)], variant="adam").precondition([B, A])


def test_narrow_factors():
    """bfloat16: steps are taken in float32, and the state goes on."""
    B, A = nn.Parameter(normal(5, 2).bfloat16()), nn.Parameter(normal(2, 4, seed=1).bfloat16())
    solver = ScaledGD([B, A], 0.2, pairs=[(B, A)], variant="adam", damping=1e-3)
    losses = [float(solver.step(lambda: (B @ A - 1).square().mean())) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert {B.dtype, solver.state[B]["mean"].dtype} == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -1.0}, "lr="),
        ({"variant": "sgd"}, "variant="),
        ({"damping": -1.0}, "damping="),
        ({"momentum": 1.0}, "momentum="),
        ({"betas": (0.9,)}, "betas="),
        ({"eps": 0.0}, "eps="),
        ({"weight_decay": -1.0}, "weight_decay="),
        ({"rest": "skip"}, "rest="),
        ({"rest": "refuse"}, r"1 parameters are in no pair, the first of shape \(3,\)"),
    ],
)
def test_bad_settings(settings, words):
    B, A, c = torch.ones(4, 2), torch.ones(2, 3), torch.ones(3)
    with pytest.raises(ValueError, match=words):
        ScaledGD([B, A, c.requires_grad_()], **{"lr": 0.1, "pairs": [(B, A)], **settings})


def test_bad_pairs():
    B, A, other = torch.ones(4, 2, requires_grad=True), torch.ones(2, 3), torch.ones(2, 3)
    for pairs, words in (
        ([(B, other)], "of one and the same group's"),
        ([(B,)], "of one and the same group's"),
        ([(B, A), (B, A)], "in two pairs"),
        ([(A, B)], r"not \(2, 3\) and \(4, 2\): is it \(A, B\)\?"),
    ):
        with pytest.raises(ValueError, match=words):
            ScaledGD([B, A], 0.1, pairs=pairs)
    B.data.zero_()
    A.requires_grad_(True)
    solver = ScaledGD([B, A], 0.1, pairs=[(B, A)], damping=0.0)
    with pytest.raises(ValueError, match=r"no full rank .* give more damping"):
        solver.step(lambda: ((B @ A) - 1).square().sum())
    assert torch.equal(B.detach(), torch.zeros(4, 2))
    again = ScaledGD(solver.param_groups, 0.1)
    assert again.param_groups[0]["pairs"] == [(0, 1)]
    assert math.isclose(again.param_groups[0]["lr"], 0.1)
