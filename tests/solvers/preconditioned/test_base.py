"""What preconditioned solvers share: wide states of narrow parameters, states that go on, when estimates are made."""

import copy

import pytest
import torch
from curved_cases import dense_hessian, recorded
from rule_cases import check_bfloat16
from small_network import flat, loss_of, network
from torch import nn

from landscape import unfused_weight_norm
from solvers import OASIS, PSGD, SANIA, SOAP, AdaHessian, Shampoo, Sophia


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


CURVED = {
    "adahessian": (AdaHessian, {"lr": 0.02, "every": 2, "probes": 2}),
    "sophia": (Sophia, {"lr": 0.01, "every": 3}),
    "sophia-g": (Sophia, {"lr": 0.01, "every": 3, "curvature": "gauss-newton"}),
    "oasis": (OASIS, {"first": 0.01, "alpha": 0.1, "momentum": 0.3}),
    "oasis-full": (OASIS, {"first": 0.01, "alpha": 0.1, "full_batch": True, "every": 2}),
    "sania": (SANIA, {"lr": 0.3, "metric": "hessian", "every": 2}),
    "sania-adam": (SANIA, {"lr": 0.3}),
    "psgd-newton": (PSGD, {"lr": 0.05, "variant": "newton", "every": 2}),
}
CASES = CURVED | {
    "shampoo": (Shampoo, {"lr": 0.05, "every": 2}),
    "shampoo-mean": (Shampoo, {"lr": 0.05, "beta": 0.9, "every": 2, "limit": 5}),
    "soap": (SOAP, {"lr": 0.02, "every": 2}),
    "psgd": (PSGD, {"lr": 0.01, "every": 2, "form": "dense", "limit": 5, "fit": "momentum"}),
}
each = pytest.mark.parametrize("name", list(CASES))


def make(name, parameters, **more):
    kind, settings = CASES[name]
    probes = {"generator": generator()} if name in CURVED else {}
    return kind(parameters, **{**settings, **probes, **more})


def tensors(value):
    """All of them in nested states."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [t for part in parts for t in tensors(part)]


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("before", [5, 6, 7])
def test_a_saved_state_goes_on_bit_by_bit(name, dtype, before, tmp_path):
    model, other = network(dtype), network(dtype)
    solver = make(name, model.parameters())
    for _ in range(before):
        solver.step(lambda: loss_of(model))
    other.load_state_dict(model.state_dict())
    again = make(name, other.parameters(), lr=0.77, **({"generator": generator(1)} if name in CURVED else {}))
    torch.save(solver.state_dict(), tmp_path / "state.pt")
    again.load_state_dict(torch.load(tmp_path / "state.pt"))
    for m, o in ((model, solver), (other, again)):
        for _ in range(6):
            o.step(lambda m=m: loss_of(m))
    assert torch.equal(flat(model), flat(other))
    assert str(solver.state_dict()) == str(again.state_dict())
    assert {v.dtype for v in tensors(again.state)} == {torch.float32}
    if name not in CURVED:
        return
    with pytest.raises(ValueError, match="not the state of"):
        again.load_state_dict(torch.optim.SGD(other.parameters(), 0.1).state_dict())


@each
def test_a_loaded_state_is_a_copy(name):
    model, other = network(), network()
    solver, again = make(name, model.parameters()), make(name, other.parameters())
    for _ in range(3):
        solver.step(lambda: loss_of(model))
    again.load_state_dict(solver.state_dict())
    kept = copy.deepcopy(again.state_dict())
    solver.step(lambda: loss_of(model))
    assert str(kept) == str(again.state_dict())


@pytest.mark.parametrize("name", ["adahessian", "sophia", "oasis", "sania", "shampoo", "soap"])
def test_bfloat16_parameters(name):
    check_bfloat16(lambda p: make(name, p), {})


def test_small_steps_add_up_in_bfloat16_states():
    """Gradients of 1, then of 1 + 1/256 for long: a mean kept in bfloat16 stands still at 1."""
    p = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    solver = AdaHessian([p], 0.0, betas=(0.99, 0.9))
    wide = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    exact = AdaHessian([wide], 0.0, betas=(0.99, 0.9))
    for k in range(300):
        slope = 1.0 if k < 100 else 1.0 + 2**-7
        solver.step(lambda slope=slope: slope * p.sum() + p.square().sum())
        exact.step(lambda slope=slope: slope * wide.sum() + wide.square().sum())
    torch.testing.assert_close(solver.state[p]["mean"].double(), exact.state[wide]["mean"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", list(CURVED))
def test_estimates_are_made_when_they_are_due(name):
    """A closure whose graph is asked for once or twice a step shows by its cost when."""
    model = network()
    solver = make(name, model.parameters())
    every, p = solver.every, next(model.parameters())
    for k in range(7):
        solver.step(lambda: loss_of(model))
        if name != "sania-adam":
            assert solver.state[p]["estimates"] == k // every + 1
    if name == "sania-adam":
        assert "estimates" not in solver.state[p]


@pytest.mark.parametrize("name", ["adahessian", "sophia", "sophia-g", "oasis", "sania"])
def test_parameters_wait_for_an_estimate_and_new_ones_get_it_at_once(name):
    model = network()
    first, last = model[0], model[2]
    first.requires_grad_(False)
    solver = make(name, model.parameters(), every=4)
    frozen, moving = first.weight.detach().clone(), last.weight.detach().clone()
    solver.step(lambda: loss_of(model))
    assert torch.equal(frozen, first.weight)
    assert not torch.equal(moving, last.weight)
    first.requires_grad_(True)
    solver.step(lambda: loss_of(model))
    assert not torch.equal(frozen, first.weight)
    assert (solver.state[first.weight]["estimates"], solver.state[last.weight]["estimates"]) == (1, 2)


def test_a_parameter_that_comes_into_use_between_estimates_is_estimated_as_zero_until_then():
    """It was there at the estimate, unused: it moves from the next estimate on."""
    a, b = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    solver = AdaHessian([a, b], 0.1, every=3)
    for k in range(4):
        solver.step(lambda k=k: a.square().sum() + (b.square().sum() if k else 0.0))
        assert torch.equal(b.detach(), torch.ones(2).double()) == (k < 3)


def test_scalars_and_four_dimensions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    temperature = nn.Parameter(torch.ones(()))
    X, y = torch.randn(6, 1, 4, 4), torch.arange(6) % 2
    for name in CASES:
        own = copy.deepcopy(model)
        parameters = [nn.Parameter(temperature.detach().clone()), *own.parameters()]
        solver = make(name, parameters)
        closure = lambda m=own, t=parameters[0]: nn.functional.cross_entropy(m(X) * t, y)  # noqa: E731
        losses = [float(solver.step(closure)) for _ in range(15)]
        assert losses[-1] < losses[0]


def test_weight_norm_is_differentiated_unfused(monkeypatch):
    """torch's fused one has a wrong second derivative."""
    drawn = recorded(monkeypatch)
    torch.manual_seed(0)
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)).double()
    X, y = torch.randn(5, 3).double(), torch.arange(5) % 2
    closure = lambda: nn.functional.cross_entropy(model(X), y)  # noqa: E731
    solver = AdaHessian(model.parameters(), 0.0, betas=(0.0, 0.0))
    solver.step(closure)
    found = torch.cat([solver.state[p]["square"].reshape(-1) for p in model.parameters()])
    with unfused_weight_norm():
        H = dense_hessian(closure, list(model.parameters()))
    torch.testing.assert_close(found, (H @ torch.tensor(drawn[0])) ** 2)


def test_a_lasting_graph_is_not_kept():
    """Nothing of a step's graph is held after it."""
    model = network()
    for name in CASES:
        solver = make(name, model.parameters())
        solver.step(lambda: loss_of(model))
        assert not any(t.requires_grad for t in tensors(solver.state))
        assert all(p.grad is None for p in model.parameters())
        assert name not in CURVED or solver._found is None
