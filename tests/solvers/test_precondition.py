"""What a solver's preconditioner makes of vectors, against its own steps and as a matrix."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import Objective
from solvers import PSGD, SGD, SOAP, AdamCoupled, KFACDescent, Shampoo

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(12) % 4


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def kfac(model, lr=0.1, **settings):
    settings = {"momentum": 0.0, "clip": None, "every": 2, "curvature": "gauss-newton", "damping": 0.1} | settings
    return KFACDescent(Objective(model, nn.CrossEntropyLoss(), (X, Y), check=False), lr, **settings)


# without momentum a step is -lr P^-1 g; SOAP's bases change after a step, so here they do not
SOLVERS = {
    "adam": lambda model: AdamCoupled(model.parameters(), 0.1, betas=(0.0, 0.9)),
    "shampoo": lambda model: Shampoo(model.parameters(), 0.1, momentum=0.0, every=2),
    "shampoo-means": lambda model: Shampoo(model.parameters(), 0.1, momentum=0.0, beta=0.9, limit=4),
    "shampoo-diagonal": lambda model: Shampoo(model.parameters(), 0.1, momentum=0.0, beta=0.9, limit=0),
    "soap": lambda model: SOAP(model.parameters(), 0.1, betas=(0.0, 0.9), every=100),
    "psgd": lambda model: PSGD(model.parameters(), 0.1, momentum=0.0, clip=None, limit=4),
    "kfac": kfac,
    "ekfac": lambda model: kfac(model, kind="ekfac"),
    "kfac-groups": lambda model: kfac(model, groups={"2.*": {"damping": 1.0}}),
}
each = pytest.mark.parametrize("name", SOLVERS)


def taken(model, solver, steps=4):
    """Steps; of the last one the gradient, and the way in units of lr."""
    for _ in range(steps):
        loss = F.cross_entropy(model(X), Y)
        given = dict(zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True))
        before = {p: p.detach().clone() for p in model.parameters()}
        solver.step(lambda: F.cross_entropy(model(X), Y))
    return [given[p] for p in solver.leaves()], [(before[p] - p.detach()) / 0.1 for p in solver.leaves()]


def matrix(solver):
    """P^-1, by its columns."""
    leaves = solver.leaves()
    sizes = [p.numel() for p in leaves]

    def column(unit):
        parts = [v.view_as(p) for v, p in zip(unit.split(sizes), leaves, strict=True)]
        return torch.cat([v.reshape(-1) for v in solver.precondition(parts)])

    return torch.stack([column(unit) for unit in torch.eye(sum(sizes), dtype=torch.float64)])


@each
def test_it_is_what_a_step_does(name):
    model = model_of()
    solver = SOLVERS[name](model)
    gradient, way = taken(model, solver)
    for found, expected in zip(solver.precondition(gradient), way, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@each
def test_it_is_a_positive_definite_matrix_and_changes_nothing(name):
    model = model_of()
    solver = SOLVERS[name](model)
    taken(model, solver)
    P = matrix(solver)
    torch.testing.assert_close(P, P.T, rtol=1e-9, atol=1e-9 * float(P.abs().max()))
    assert float(torch.linalg.eigvalsh(P)[0]) > 0
    again = model_of()
    other = SOLVERS[name](again)
    taken(again, other)
    for one in (solver, other):
        one.step(lambda m=model if one is solver else again: F.cross_entropy(m(X), Y))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))


def test_soap_after_its_bases_have_turned():
    model = model_of()
    solver = SOAP(model.parameters(), 0.1, every=2)
    taken(model, solver)
    W, state = model[0].weight, solver.state[model[0].weight]
    Q_L, Q_R = state["bases"]
    V = torch.randn_like(W)
    root = (state["square"] / (1 - 0.95 ** state["step"])).sqrt() + 1e-8
    expected = Q_L @ (Q_L.T @ V @ Q_R / root) @ Q_R.T
    rest = [torch.zeros_like(p) for p in solver.leaves()[1:]]
    torch.testing.assert_close(solver.precondition([V, *rest])[0], expected)


def test_narrow_and_complex_parameters():
    p = torch.ones(3, 2, dtype=torch.bfloat16, requires_grad=True)
    solver = Shampoo([p], 0.1)
    solver.step(lambda: p.square().sum())
    assert solver.precondition([p.detach()])[0].dtype == torch.float32
    z = torch.tensor([3.0 + 4.0j], requires_grad=True)
    adam = AdamCoupled([z], 0.1)
    adam.step(lambda: z.abs().square().sum())  # the gradient is 6 + 8j
    torch.testing.assert_close(adam.precondition([torch.tensor([6.0 + 16.0j])])[0], torch.tensor([1.0 + 2.0j]))


def test_what_is_refused():
    model = model_of()
    with pytest.raises(TypeError, match="SGD has no preconditioner"):
        SGD(model.parameters(), 0.1).precondition([torch.ones_like(p) for p in model.parameters()])
    for make in SOLVERS.values():
        solver = make(model)
        with pytest.raises(ValueError, match="before the step"):
            solver.precondition([torch.ones_like(p) for p in solver.leaves()])
        with pytest.raises(ValueError, match="in the shape of each parameter"):
            solver.precondition([torch.ones(2)])
    soap = SOLVERS["soap"](model)
    taken(model, soap, 1)  # finds the bases and scales nothing
    with pytest.raises(ValueError, match="before the step"):
        soap.precondition([torch.ones_like(p) for p in model.parameters()])
