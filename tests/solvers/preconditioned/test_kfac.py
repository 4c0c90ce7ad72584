"""K-FAC and EKFAC as optimizers: a plain reference of one layer, dense matrices, Gauss-Newton where it is exact."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import EKFAC, KFAC, GaussNewton, Objective
from solvers import KFACDescent


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def classifier(dtype=torch.float64):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    X = torch.randn(24, 4, generator=generator(1)).to(dtype)
    y = torch.randint(0, 3, (24,), generator=generator(2))
    return model, Objective(model, nn.CrossEntropyLoss(), (X, y)), X, y


def kfac_reference(W, batches, lr, damping, beta, momentum, clip, decay, every, factored):
    """Of one layer W [x; 1] and squared error, from the formulas: W `(out, in + 1)`, batches (X with a 1, Y)."""
    A = B = velocity = 0.0
    t = count = 0
    while True:
        X, Y = batches(t)
        N, out = Y.shape
        if t % every == 0:
            count += 1
            A = beta * A + (1 - beta) * X.T @ X / N
            B = beta * B + (1 - beta) * 2 / out * np.eye(out)
        scale = 1 - beta**count
        G = 2 * (X @ W.T - Y).T @ X / (N * out)
        if factored:
            pi = np.sqrt((np.trace(A) / len(A)) / (np.trace(B) / len(B)))
            left, right = (
                B / scale + np.sqrt(damping) / pi * np.eye(out),
                A / scale + np.sqrt(damping) * pi * np.eye(len(A)),
            )
            D = np.linalg.solve(left, G) @ np.linalg.inv(right)
        else:
            K = np.kron(B / scale, A / scale)
            D = np.linalg.solve(K + damping * np.eye(len(K)), G.reshape(-1)).reshape(G.shape)
        nu = 1.0 if clip is None else min(1.0, np.sqrt(clip / (lr**2 * np.sum(D * G))))
        velocity = momentum * velocity + (1 - momentum) * nu * D
        W = (1 - lr * decay) * W - lr * velocity
        t += 1
        yield W


CASES = {
    "plain": {"momentum": 0.0, "clip": None, "decay": 0.0, "every": 1, "factored": False},
    "all else": {"momentum": 0.8, "clip": 1e-3, "decay": 0.1, "every": 3, "factored": False},
    "factored": {"momentum": 0.5, "clip": None, "decay": 0.0, "every": 2, "factored": True},
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("way", ["closure", "backward"])
def test_step_by_step_on_one_layer(case, way):
    settings = {"lr": 0.1, "damping": 0.05, "beta": 0.8, **CASES[case]}
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    rng = np.random.default_rng(0)
    Xs, Ys = rng.standard_normal((5, 8, 3)), rng.standard_normal((5, 8, 2))
    start = torch.cat([model.weight, model.bias[:, None]], 1).detach().numpy().copy()
    path = kfac_reference(start, lambda t: (np.c_[Xs[t % 5], np.ones(8)], Ys[t % 5]), **settings)
    objective = Objective(model, nn.MSELoss(), (torch.tensor(Xs[0]), torch.tensor(Ys[0])))
    settings["method"] = "factored" if settings.pop("factored") else "exact"
    settings["weight_decay"] = settings.pop("decay")
    solver = KFACDescent(objective, curvature="gauss-newton", **settings)
    for t in range(40):
        batch = torch.tensor(Xs[t % 5]), torch.tensor(Ys[t % 5])
        closure = lambda b=batch: F.mse_loss(model(b[0]), b[1])  # noqa: E731
        if way == "closure":
            solver.step(closure, batch=batch)
        else:
            solver.zero_grad()
            closure().backward()
            assert solver.step(batch=batch) is None
        found = torch.cat([model.weight, model.bias[:, None]], 1).detach().numpy()
        np.testing.assert_allclose(found, next(path), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kind", "operator"), [("kfac", KFAC), ("ekfac", EKFAC)])
def test_the_direction_is_by_the_dense_matrix_of_the_operator(kind, operator):
    model, objective, X, y = classifier()
    solver = KFACDescent(objective, 0.5, kind=kind, curvature="gauss-newton", momentum=0.0, clip=None, damping=0.01)
    K, g, start = operator(objective).to_dense(), objective.gradient(), flat(model)
    loss = solver.step(lambda: F.cross_entropy(model(X), y))
    expected = start - 0.5 * torch.linalg.solve(K + 0.01 * torch.eye(len(K)).double(), g)
    torch.testing.assert_close(flat(model), expected, rtol=1e-9, atol=1e-11)
    assert float(loss) == pytest.approx(float(F.cross_entropy(_at(model, start)(X), y).detach()))


def _at(model, theta):
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p, piece in zip(other.parameters(), theta.split([p.numel() for p in other.parameters()]), strict=True):
            p.copy_(piece.view_as(p))
    return other


def test_one_layer_with_squared_error_is_gauss_newton():
    torch.manual_seed(0)
    model = nn.Linear(4, 2).double()
    X, Y = torch.randn(30, 4).double(), torch.randn(30, 2).double()
    objective = Objective(model, nn.MSELoss(), (X, Y))
    settings = {"curvature": "gauss-newton", "damping": 1e-12, "clip": None, "momentum": 0.0}
    KFACDescent(objective, 1.0, **settings).step(lambda: F.mse_loss(model(X), Y))
    assert float(objective.gradient().norm()) < 1e-9


def test_the_clip_bounds_the_step_in_the_models_metric():
    model, objective, X, y = classifier()
    start, G = flat(model), GaussNewton(objective).to_dense()
    solver = KFACDescent(objective, 10.0, curvature="gauss-newton", momentum=0.0, clip=1e-3, damping=1e-4)
    solver.step(lambda: F.cross_entropy(model(X), y))
    step = flat(model) - start
    with objective.at(start):
        assert 0.9e-3 < float(step @ (KFAC(objective) @ step)) < 1e-3  # less what the damping takes
    assert float(step @ G @ step) < 3e-3


def test_mini_batches_and_the_whole_data():
    """Without a batch the factors are those of all data: with one the mean is over what was shown."""
    model, _, X, y = classifier()
    settings = {"curvature": "gauss-newton", "every": 1, "beta": 0.0, "momentum": 0.0, "clip": None}
    half = slice(0, 12)
    ends = []
    for batch in (None, (X, y), (X[half], y[half])):
        own = copy.deepcopy(model)
        solver = KFACDescent(Objective(own, nn.CrossEntropyLoss(), (X, y)), 0.1, **settings)
        solver.step(lambda own=own: F.cross_entropy(own(X), y), batch=batch)
        ends.append(flat(own))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(ends[0], ends[2], atol=1e-6)


@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("before", [4, 5, 6])
def test_a_saved_state_goes_on_bit_by_bit(kind, dtype, before, tmp_path):
    settings = {"kind": kind, "every": 3, "beta": 0.7}
    model, objective, X, y = classifier(dtype)
    other, fresh, *_ = classifier(dtype)
    solver = KFACDescent(objective, 0.1, **settings, generator=generator())
    losses = [float(solver.step(lambda: F.cross_entropy(model(X), y), batch=(X, y))) for _ in range(before)]
    other.load_state_dict(model.state_dict())
    again = KFACDescent(fresh, 0.7, **settings, generator=generator(9))
    torch.save(solver.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    for m, s in ((model, solver), (other, again)):
        for _ in range(5):
            loss = s.step(lambda m=m: F.cross_entropy(m(X), y), batch=(X, y))
    assert torch.equal(flat(model), flat(other))
    assert float(loss) < losses[0]
    assert all(p.dtype == dtype for p in model.parameters())
    assert all(state["mean"].dtype == torch.float32 for state in again.state.values())
    with pytest.raises(ValueError, match="not the state of KFACDescent"):
        again.load_state_dict(torch.optim.SGD(other.parameters(), 0.1).state_dict())


def test_a_state_before_the_first_step():
    _, objective, X, y = classifier()
    solver = KFACDescent(objective)
    solver.load_state_dict(solver.state_dict())
    assert float(solver.step(lambda: F.cross_entropy(objective.model(X), y))) > 0


def test_convolutions_norms_and_a_drop_in_the_loss():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    X, y = torch.randn(20, 1, 8, 8, generator=generator()), torch.arange(20) % 3
    objective = Objective(model.train(), nn.CrossEntropyLoss(), (X, y))
    solver = KFACDescent(objective, 0.3, every=2, generator=generator())
    losses = [float(solver.step(lambda: F.cross_entropy(model(X), y), batch=(X, y))) for _ in range(25)]
    assert losses[-1] < 0.3 * losses[0]
    assert int(model[1].num_batches_tracked) == 25


def test_what_there_is_no_rule_for_is_named_and_can_be_left_out():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.odd = nn.Linear(3, 2), nn.Parameter(torch.tensor([[2.0, 1.0], [0.0, 1.0]]))

        def forward(self, x):
            return self.linear(x) @ torch.linalg.inv(self.odd)

    model = Own()
    X, y = torch.randn(8, 3), torch.arange(8) % 2
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    with pytest.raises(TypeError, match="no rule for odd"):
        KFACDescent(objective).step(lambda: F.cross_entropy(model(X), y))
    rest = objective.restrict(KFAC.covered(objective))
    before = model.odd.detach().clone()
    KFACDescent(rest).step(lambda: F.cross_entropy(model(X), y))
    assert torch.equal(before, model.odd)


def test_frozen_and_unused_parameters_stay():
    model, _, X, y = classifier()
    unused = nn.Parameter(torch.ones(3).double())
    model.register_parameter("unused", unused)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, y))
    solver = KFACDescent(objective, 0.1, weight_decay=0.1, every=1)
    model[0].weight.requires_grad_(False)
    frozen, moving = model[0].weight.detach().clone(), model[2].weight.detach().clone()
    for _ in range(2):
        solver.step(lambda: F.cross_entropy(model(X), y))
    assert torch.equal(frozen, model[0].weight)
    assert not torch.equal(moving, model[2].weight)
    assert torch.equal(unused, torch.ones(3).double())
    model[0].weight.requires_grad_(True)
    solver.step(lambda: F.cross_entropy(model(X), y))
    assert not torch.equal(frozen, model[0].weight)


def test_a_gradient_that_is_not_finite_and_a_second_group():
    model, objective, X, y = classifier()
    solver, before = KFACDescent(objective), flat(model)
    solver.step(lambda: F.cross_entropy(model(X), y))
    before = flat(model)
    with pytest.raises(ValueError, match="the gradient is not finite: nothing was moved"):
        solver.step(lambda: F.cross_entropy(model(X), y) * float("nan"))
    assert torch.equal(before, flat(model))
    with pytest.raises(ValueError, match="give groups of them as groups="):
        solver.add_param_group({"params": [nn.Parameter(torch.ones(2))]})


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("kind", ["kfac", "ekfac"])
def test_groups_have_settings_of_their_own_and_one_clip(kind, clip):
    """Two steps of each layer by its dense block, the length of a step by both."""
    model, objective, X, y = classifier()
    groups = {"2.*": {"lr": 0.1, "damping": 0.3, "momentum": 0.5, "weight_decay": 0.2}}
    settings = {"kind": kind, "curvature": "gauss-newton", "momentum": 0.0, "damping": 0.01, "every": 1, "beta": 0.0}
    solver = KFACDescent(objective, 0.5, clip=clip, groups=groups, **settings)
    first, second = slice(0, 25), slice(25, 43)
    mean = 0.0
    for _ in range(2):
        K = {"kfac": KFAC, "ekfac": EKFAC}[kind](objective).to_dense()
        g, start = objective.gradient(), flat(model)
        damped = ((first, 0.01), (second, 0.3))
        d = [torch.linalg.solve(K[s, s] + c * torch.eye(len(g[s])).double(), g[s]) for s, c in damped]
        square = 0.5**2 * d[0] @ g[first] + 0.1**2 * d[1] @ g[second]
        nu = 1.0 if clip is None else min(1.0, (clip / float(square)) ** 0.5)
        mean = 0.5 * mean + 0.5 * nu * d[1]
        expected = torch.cat([start[first] - 0.5 * nu * d[0], (1 - 0.1 * 0.2) * start[second] - 0.1 * mean])
        solver.step(lambda: F.cross_entropy(model(X), y))
        torch.testing.assert_close(flat(model), expected, rtol=1e-9, atol=1e-11)


def test_groups_that_are_alike_are_one_and_their_state_goes_on():
    ends = []
    for groups in (None, {"0.weight": {"lr": 0.1}, "2.*": {"momentum": 0.9}}):
        model, objective, X, y = classifier()
        solver = KFACDescent(objective, 0.1, groups=groups, every=2, generator=generator())
        for step in range(5):
            if step == 3:
                state = copy.deepcopy(solver.state_dict())
                solver = KFACDescent(objective, 0.7, groups=groups, every=2)
                solver.load_state_dict(state)
            solver.step(lambda: F.cross_entropy(model(X), y))  # noqa: B023
        ends.append(flat(model))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"2.*": {"damping": 0.0}}, "damping="),
        ({"2.*": {"clip": 1.0}}, "of its own, not clip"),
        ({"2.*": {}, "*.weight": {}}, "2.weight is in two groups"),
        ({"3.*": {}}, "matches none"),
    ],
)
def test_groups_that_are_not_possible(groups, words):
    with pytest.raises(ValueError, match=words):
        KFACDescent(classifier()[1], groups=groups)


def test_a_block_has_one_damping():
    model, objective, X, y = classifier()
    before = flat(model)
    with pytest.raises(ValueError, match=r"0\.weight, 0\.bias are one block of K: give them one damping"):
        KFACDescent(objective, groups={"0.bias": {"damping": 1.0}}).step(lambda: F.cross_entropy(model(X), y))
    assert torch.equal(before, flat(model))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "foof"}, "kind="),
        ({"kind": "ekfac", "method": "factored"}, "method="),
        ({"damping": 0.0}, "damping="),
        ({"beta": 1.0}, "beta="),
        ({"clip": 0.0}, "clip="),
        ({"every": 0}, "every="),
        ({"curvature": "hessian"}, "curvature is one of"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        KFACDescent(classifier()[1], **settings)
