"""What a network asks of a machine, against counting every operation of the engine's own passes."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from landscape import GaussNewton, Hessian, Objective
from landscape.operators.autograd import graph_bytes
from runs.benchmarks.models import Workload, gpt
from runs.scale.network import KINDS, mlp, of_size, transformer

MATRICES = {"mm", "bmm", "addmm", "baddbmm"}
OPERATORS = {"hessian": Hessian, "gauss-newton": GaussNewton}


class Operations(TorchDispatchMode):
    """Counts operations that compute, and the numbers that all but matrix products read and write."""

    def __init__(self):
        super().__init__()
        self.launches = self.moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        read, written = ([t for t in tree_leaves(x) if isinstance(t, Tensor)] for x in (args, out))
        handed_on = any(a is b for a in read for b in written) and not function._schema.is_mutable
        name = function._overloadpacket.__name__
        if not (function.is_view or handed_on or name == "detach"):
            self.launches += 1
            self.moved += 0 if name in MATRICES else sum(t.numel() for t in read + written)
        return out


def perceptron(widths, batch):
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    drawn = lambda g: (torch.randn(batch, widths[0], generator=g), torch.randint(widths[-1], (batch,), generator=g))  # noqa: E731
    return Workload("mlp", nn.Sequential(*layers[:-1]), nn.CrossEntropyLoss(), drawn)


# shapes that the factors were not found with; (network, the same by hand, rows of a batch)
CASES = {
    "transformer": (transformer(3, 96, 4, 48, 100), lambda: gpt(2, 48, 96, 3, 4, 100), 96),
    "long": (transformer(2, 64, 8, 160, 50), lambda: gpt(1, 160, 64, 2, 8, 50), 160),
    "mlp": (mlp((200, 300, 200, 100, 10)), lambda: perceptron((200, 300, 200, 100, 10), 64), 64),
}


@pytest.fixture(params=CASES)
def case(request):
    network, make, rows = CASES[request.param]
    workload = make()
    return (
        network,
        Objective(workload.model, workload.loss, workload.batches(1, torch.device("cpu")), check=False),
        rows,
    )


def pass_of(objective, kind):
    """The pass, on a kept graph, by the way through the graph; and the operator."""
    if kind == "gradient":
        return objective.gradient, None
    operator, v = OPERATORS[kind](objective), torch.randn(objective.size)
    objective.tuning._chosen["jacobian"] = "reverse"
    return lambda: operator @ v, operator


def test_parameters(case):
    network, objective, _ = case
    sizes = [p.numel() for p in objective.leaves()]
    assert (network.parameters, network.largest, network.tensors) == (sum(sizes), max(sizes), len(sizes))


@pytest.mark.parametrize("kind", KINDS)
def test_work_is_what_is_counted(case, kind):
    network, objective, rows = case
    run, _ = pass_of(objective, kind)
    run()
    with FlopCounterMode(display=False) as flops, Operations() as counted:
        run()
    expected = network.work(kind, rows)
    assert expected.flops == flops.get_total_flops()
    assert expected.moved == pytest.approx(counted.moved, rel=0.05)
    assert expected.launches == pytest.approx(counted.launches, rel=0.15)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", CASES)
def test_what_a_graph_keeps_for_a_row(name, kind):
    network, make, rows = CASES[name]
    workload, kept = make(), []
    (X, y), (more, labels) = workload.batches(2, torch.device("cpu"))
    for batch in ((X, y), (torch.cat([X, more]), torch.cat([y, labels]))):
        objective = Objective(workload.model, workload.loss, batch, check=False)
        run, operator = pass_of(objective, kind)
        run()
        ((graph, _),) = operator._kept.values()
        kept.append(graph_bytes(graph.roots()) / 4)
    assert network.kept == pytest.approx((kept[1] - kept[0]) / rows, rel=0.05)


def test_a_rebuilt_product_costs_its_graph_too():
    network = of_size(1e7)
    gradient, kept = (network.work(kind, 1024).flops for kind in ("gradient", "hessian"))
    assert kept == 2 * gradient
    assert network.work("hessian", 1024, rebuilt=True).flops == 3 * gradient
    assert network.work("gauss-newton", 1024, rebuilt=True).flops == pytest.approx(5 / 3 * gradient)


@pytest.mark.parametrize("size", [1e6, 1e7, 1e8, 1e9, 1e10, 1e11])
def test_networks_of_a_size(size):
    assert of_size(size).parameters == pytest.approx(size, rel=0.3 if size < 1e7 else 0.06)
    per_token = of_size(size).work("gradient", 1024).flops / 1024
    assert 6 * size < per_token < 14 * size  # the rule of six, and attention over the sequence
