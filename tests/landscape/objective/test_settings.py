"""Plain values that are edited between two products: no operator goes on with what it kept from before."""

import pytest
import torch
from objective_cases import samples
from torch import Tensor, nn
from torch.nn import functional as F

from landscape import FiniteDifferenceHessian, GaussNewton, Hessian, Objective
from landscape.operators.curvature import ObjectiveOperator

TEMPERATURE = 1.0
DATA = [samples(), samples(5)]


class Net(nn.Module):
    """Two layers with everything between that people edit while they look."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)
        self.bend: nn.Module = nn.Tanh()
        self.scale, self.scales, self.weights = 1.0, [1.0], [torch.ones(5)]

    def forward(self, x: Tensor) -> Tensor:
        h = self.bend(self.norm(self.first(x)) * self.scale * self.scales[0] * self.weights[0])
        return self.last(h)


class Loss:
    """An object with a temperature, called as itself or by a method."""

    def __init__(self) -> None:
        self.temperature = 1.0

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z / self.temperature, y)

    def of(self, z: Tensor, y: Tensor) -> Tensor:
        return self(z, y)


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.CrossEntropyLoss(weight=torch.ones(3))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.inner(z, y)


def closure():
    temperature = 1.0

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z / temperature, y)

    def edit() -> None:
        nonlocal temperature
        temperature = 0.5

    return loss, edit


def listed():
    temperature = [1.0]
    return lambda z, y: F.cross_entropy(z / temperature[0], y), lambda: temperature.__setitem__(0, 0.5)


def by_tensor():
    weight = torch.ones(3)
    return lambda z, y: (F.cross_entropy(z, y, reduction="none") * weight[y]).mean(), lambda: weight[0].fill_(5.0)


def by_global(monkeypatch):
    loss = lambda z, y: F.cross_entropy(z / TEMPERATURE, y)  # noqa: E731
    return loss, lambda: monkeypatch.setitem(globals(), "TEMPERATURE", 0.5)


def by_object():
    loss = Loss()
    return loss, lambda: setattr(loss, "temperature", 0.5)


def by_method():
    loss = Loss()
    return loss.of, lambda: setattr(loss, "temperature", 0.5)


def by_module():
    loss = Module()
    return loss, lambda: setattr(loss.inner, "weight", torch.tensor([5.0, 1.0, 1.0]))


def by_torch():
    loss = nn.CrossEntropyLoss()
    return loss, lambda: setattr(loss, "weight", torch.tensor([5.0, 1.0, 1.0]))


def by_reduction():
    loss = nn.CrossEntropyLoss()
    return loss, lambda: setattr(loss, "reduction", "sum")


MODEL_EDITS = {
    "number": lambda net: setattr(net, "scale", 2.0),
    "number in a list": lambda net: net.scales.__setitem__(0, 2.0),
    "tensor in a list": lambda net: net.weights[0].mul_(2.0),
    "another tensor": lambda net: net.weights.__setitem__(0, torch.full((5,), 2.0)),
    "setting of a layer": lambda net: setattr(net.norm, "eps", 0.5),
    "another layer": lambda net: setattr(net, "bend", nn.Sigmoid()),
}


def agrees(A, model: nn.Module, loss) -> bool:
    """With an operator that is made anew."""
    v = torch.linspace(-1.0, 1.0, A.shape[0])
    fresh = type(A)(Objective(model, loss, DATA, check=False))
    return bool((A @ v - fresh @ v).norm() <= 1e-5 * (fresh @ v).norm())


@pytest.mark.parametrize("matrix", [Hessian, GaussNewton, FiniteDifferenceHessian])
@pytest.mark.parametrize("edit", MODEL_EDITS.values(), ids=MODEL_EDITS)
def test_an_edit_of_the_model_is_seen(matrix, edit):
    model, loss = Net(), nn.CrossEntropyLoss()
    A = matrix(Objective(model, loss, DATA, check=False))
    before = A @ torch.ones(A.shape[0])
    edit(model)
    assert agrees(A, model, loss)
    assert (A @ torch.ones(A.shape[0]) - before).norm() > 1e-3 * before.norm()


@pytest.mark.parametrize("matrix", [Hessian, GaussNewton])
@pytest.mark.parametrize(
    "make",
    [closure, listed, by_tensor, by_global, by_object, by_method, by_module, by_torch, by_reduction],
    ids=lambda f: f.__name__,
)
def test_an_edit_of_the_loss_is_seen(matrix, make, monkeypatch):
    loss, edit = make(monkeypatch) if make is by_global else make()
    model = Net()
    A = matrix(Objective(model, loss, DATA, check=False))
    before = A @ torch.ones(A.shape[0])
    edit()
    assert agrees(A, model, loss)
    assert (A @ torch.ones(A.shape[0]) - before).norm() > 1e-3 * before.norm()


def counting(net: nn.Module) -> None:
    net.calls = 0
    net.register_forward_pre_hook(lambda m, inputs: setattr(m, "calls", m.calls + 1))


def remembering(net: nn.Module) -> None:
    seen = {}
    net.first.register_forward_hook(lambda m, inputs, out: seen.__setitem__("first", out.detach()))


@pytest.mark.parametrize("change", [lambda net: None, counting, remembering], ids=["plain", "counts", "remembers"])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_graphs_are_kept_where_nothing_was_edited(change, dtype, monkeypatch):
    model = Net()
    change(model)
    A = Hessian(Objective(model, nn.CrossEntropyLoss(), samples(), dtype=dtype, check=False))
    A @ torch.ones(A.shape[0])
    monkeypatch.setattr(ObjectiveOperator, "_build", lambda self, batch: pytest.fail("the graph was built again"))
    A @ torch.ones(A.shape[0])
