"""Models and losses made to give a wrong number: each operator is right about them, or refuses them in one line."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from wrong_layers import ScaledGradient

from landscape import EmpiricalFisher, GaussNewton, Hessian, Objective, TangentKernel
from landscape.conditioning import gauss_newton
from landscape.operators.check import WrongDerivatives

DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def network(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), *between, nn.Tanh(), nn.Linear(4, 3)).double()


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(n, 3, dtype=DOUBLE), torch.randint(3, (n,))) for n in sizes]


def dense(model: nn.Module, value) -> Tensor:
    """The Hessian of `value()` in the model's parameters, by double backward."""
    leaves = list(model.parameters())
    g = torch.cat([t.reshape(-1) for t in torch.autograd.grad(value(), leaves, create_graph=True)])
    rows = [torch.autograd.grad(gi, leaves, retain_graph=True, allow_unused=True, materialize_grads=True) for gi in g]
    return torch.stack([torch.cat([t.reshape(-1) for t in row]) for row in rows])


@pytest.mark.parametrize(
    "measure",
    [
        lambda f: TangentKernel(f).gram(),
        lambda f: TangentKernel(f).to_dense(),
        lambda f: gauss_newton(f),
        lambda f: gauss_newton(f, loss_hessian=True),
    ],
    ids=["gram", "dense", "condition", "condition with B"],
)
def test_a_jacobian_that_is_not_the_outputs_own_is_refused_where_no_product_is_made(measure):
    f = Objective(network(ScaledGradient()), nn.CrossEntropyLoss(), batches(5))
    with pytest.raises(WrongDerivatives, match="ScaledGradient"):
        measure(f)


def test_the_condition_number_carries_the_check():
    checked = gauss_newton(Objective(network(), nn.CrossEntropyLoss(), batches(5))).checked
    assert checked is not None
    assert checked.verdict == "agrees"


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: F.cross_entropy(z @ z.T, torch.arange(len(z))),
        lambda z, y: F.mse_loss(z, F.one_hot(y, 3).double()).sqrt(),
    ],
    ids=["contrastive", "root of the mean"],
)
def test_a_loss_that_couples_samples_has_no_fisher_matrix(loss):
    f = Objective(network(), loss, batches(5))
    with pytest.raises(TypeError, match="not the mean of its samples' own losses"):
        EmpiricalFisher(f, per="sample") @ torch.ones(f.size)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_of_ones_own_that_is_a_mean_or_sum_over_samples_has_one(reduction):
    def focal(z: Tensor, y: Tensor) -> Tensor:
        log_p = F.log_softmax(z, -1).gather(1, y[:, None])[:, 0]
        each = -((1 - log_p.exp()) ** 2) * log_p
        return each.mean() if reduction == "mean" else each.sum()

    model, data = network(), batches(5, 2)
    f = Objective(model, focal, data, reduction=reduction)
    leaves = list(model.parameters())
    slopes = [
        torch.cat([t.reshape(-1) for t in torch.autograd.grad(focal(model(x[None]), y[None]), leaves)])
        for X, Y in data
        for x, y in zip(X, Y, strict=True)
    ]
    J = torch.stack(slopes)
    expected = J.T @ J / (7 if reduction == "mean" else 1)
    torch.testing.assert_close(EmpiricalFisher(f, per="sample").to_dense(), expected)


def test_parts_of_a_sum_are_restricted_by_one_pattern():
    f = Objective(network(), nn.CrossEntropyLoss(), batches(5, 2))
    A = Hessian(f) + GaussNewton(f)
    own = f.slices["2.weight"].start
    torch.testing.assert_close(A.restrict("2.*").to_dense(), A.to_dense()[own:, own:])


class Laplacian(nn.Module):
    """Second derivatives in the inputs, by torch.func inside the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 4), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        bend = torch.func.hessian(lambda row: torch.tanh(self.inner(row)).square().sum())
        return self.outer(torch.func.vmap(bend)(x).diagonal(dim1=1, dim2=2))


def test_derivatives_by_torch_func_inside_the_model():
    model, ((x, y),) = Laplacian().double(), batches(5)
    f = Objective(model, nn.CrossEntropyLoss(), (x, y))
    t = lambda z: torch.tanh(model.inner(z))  # noqa: E731

    def value() -> Tensor:
        W, a = model.inner.weight, t(x)
        slope, bend = 1 - a**2, -2 * a * (1 - a**2)
        return F.cross_entropy(model.outer((2 * slope**2 + 2 * a * bend) @ W**2), y)  # of sum of tanh^2, by hand

    assert f.value() == pytest.approx(float(value().detach()))
    torch.testing.assert_close(Hessian(f).to_dense(), dense(model, value))


class _Less(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return 0.3 * g


def _shown(z: Tensor, y: Tensor) -> Tensor:
    """The error rate for the reader, with the slope of something smooth."""
    smooth, rate = F.cross_entropy(z, y), (z.argmax(1) != y).double().mean()
    return smooth + (rate - smooth).detach()


@pytest.mark.parametrize("loss", [lambda z, y: _Less.apply(F.cross_entropy(z, y)), _shown], ids=["scaled", "shown"])
@pytest.mark.parametrize("matrix", [Hessian, GaussNewton, lambda f: EmpiricalFisher(f, per="sample")])
def test_a_loss_whose_gradient_is_not_that_of_its_values_is_refused(loss, matrix):
    f = Objective(network(), loss, batches(5, 4))
    with pytest.raises((WrongDerivatives, TypeError)):
        matrix(f) @ torch.ones(f.size)


@pytest.mark.parametrize("matrix", [Hessian, GaussNewton])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("offset", [1e3, 1e6])
@pytest.mark.parametrize("away", [1e-4, 1e-8, 1e-12])
def test_values_that_do_not_change_near_a_minimum_accuse_nobody(matrix, dtype, offset, away):
    model, x = nn.Linear(3, 2).to(dtype), torch.randn(20, 3, dtype=dtype)
    y = model(x).detach()
    with torch.no_grad():
        model.weight.add_(away * torch.randn(2, 3, dtype=dtype))
    A = matrix(Objective(model, lambda z, t: F.mse_loss(z, t) + offset, (x, y)))
    expected = torch.kron(torch.eye(2, dtype=dtype), x.T @ x / 20)
    torch.testing.assert_close(A.restrict("weight").to_dense(), expected)


class Long(nn.Module):
    """Batches of more than four samples go through another layer."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.first, self.other, self.last = nn.Linear(3, 4), other, nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(self.other(h) if len(x) > 4 else torch.tanh(h))


@pytest.mark.parametrize("matrix", [Hessian, GaussNewton])
def test_a_layer_that_the_first_batch_does_not_use_is_checked_too(matrix):
    data = batches(3, 4, 5)
    A = matrix(Objective(Long(ScaledGradient()).double(), nn.CrossEntropyLoss(), data))
    with pytest.raises(WrongDerivatives, match="ScaledGradient"):
        A @ torch.ones(A.shape[0])
    model = Long(nn.SiLU()).double()
    A = matrix(Objective(model, nn.CrossEntropyLoss(), data))
    A @ torch.ones(A.shape[0])
    assert A.checked.verdict == "agrees"
