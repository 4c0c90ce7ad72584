"""Kept graphs: never a stale number, within the budget, and failures that say their cause."""

import pytest
import torch
from objective_cases import network, objective, reference, samples
from torch import nn
from torch.nn import functional as F

from landscape import EmpiricalFisher, FiniteDifferenceHessian, GaussNewton, Hessian, Objective


def sgd_step(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    F.cross_entropy(model(samples()[0]), samples()[1]).backward()
    optimizer.step()


def in_place(model):
    with torch.no_grad():
        model[4].weight[0, 0] += 0.5


def data_edit(model):
    model[0].weight.data[1, 2] += 0.5


def storage_swap(model):
    model[0].weight.data = model[0].weight.data * 1.5


def parameter_replaced(model):
    model[0].weight = nn.Parameter(model[0].weight.detach() * 1.5)


def state_dict_assigned(model):
    model.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()}, assign=True)


def buffer_changed(model):
    model[1].running_mean.add_(0.5)


def mode_changed(model):
    model.train()


CHANGES = [
    sgd_step,
    in_place,
    data_edit,
    storage_swap,
    parameter_replaced,
    state_dict_assigned,
    buffer_changed,
    mode_changed,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("operator", [Hessian, GaussNewton, EmpiricalFisher, FiniteDifferenceHessian])
def test_a_product_after_any_change_is_right(operator, change):
    model = network(norm=True).double().eval()
    X, y = samples()
    data = [(X[:12].double(), y[:12]), (X[12:].double(), y[12:])]

    def new():
        return operator(Objective(model, nn.CrossEntropyLoss(), data))

    A = new()
    v = torch.ones(A.shape[0], dtype=torch.float64)
    first = A @ v
    assert torch.allclose(A @ v, first, rtol=1e-10, atol=1e-12)
    if change is sgd_step:
        F.cross_entropy(model(X.double()), y).backward()
        torch.optim.SGD(model.parameters(), lr=0.5).step()
    else:
        change(model)
    second = A @ v
    assert not torch.allclose(second, first, rtol=1e-3)
    assert torch.allclose(second, new() @ v, rtol=1e-6, atol=1e-9)


def test_two_operators_and_restricted_ones_share_nothing_stale():
    o = objective()
    v = torch.ones(o.size)
    whole, part = Hessian(o), Hessian(o).restrict(["4.*"])
    with o.at(o.theta() * 1.5):
        moved = whole @ v
    assert not torch.allclose(whole @ v, moved, rtol=1e-3)
    assert part.shape[0] == 21


def test_graphs_are_kept_within_the_budget_and_dropped():
    X, y = samples()
    o = objective(data=[(X[:10], y[:10]), (X[10:], y[10:])])
    H = Hessian(o)
    H @ torch.ones(o.size)
    assert len(H._kept) == 2
    H.release()
    assert not H._kept
    one = Hessian(
        objective(data=[(X[:10], y[:10]), (X[10:], y[10:])], memory=int(H._bytes_per_input * X[:10].nbytes) + 1)
    )
    assert torch.allclose(one @ torch.ones(o.size), H @ torch.ones(o.size), atol=1e-6)
    assert len(one._kept) == 1


def test_a_graph_beyond_the_budget_is_not_held_beside_the_next_one():
    X, y = samples()
    two = [(X[:10], y[:10]), (X[10:], y[10:])]
    v = torch.ones(objective().size)
    for data, kept in ((two, 0), ([(X, y)], 1)):  # that of the only batch has to be there in any case
        H = Hessian(objective(data=data, memory=1))
        for _ in range(2):
            assert torch.allclose(H @ v, reference(v), atol=1e-6)
        assert len(H._kept) == kept


def test_an_operation_without_second_derivative_is_named():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g

    model = network()
    o = Objective(model, nn.CrossEntropyLoss(), samples(), forward=lambda m, x: m[4](Once.apply(m[:4](x))))
    with pytest.raises(RuntimeError, match="once_differentiable"):
        Hessian(o) @ torch.ones(o.size)
    assert torch.allclose(FiniteDifferenceHessian(o) @ torch.ones(o.size), reference(torch.ones(o.size)), atol=1e-2)


def test_only_convex_losses_are_known_to_be_semidefinite():
    assert GaussNewton(objective()).positive_semidefinite
    assert not GaussNewton(objective(loss=lambda o, t: F.cross_entropy(o, t))).positive_semidefinite
    assert not Hessian(objective()).positive_semidefinite


def test_blocks_count_from_the_end_too():
    A = Hessian(objective())
    n = A.shape[0]
    assert torch.equal(A.block([0, -1]), A.block([0, n - 1]))
    assert not torch.equal(A.block([0, -1]), A.block([0, 0]))
