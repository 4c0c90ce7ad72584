"""Batches as people have them: targets of any kind, arrays, inputs alone, graphs, sequences, sparse matrices."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from objective_cases import network, objective, refuses, samples
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from torch.utils.data import DataLoader, TensorDataset

from landscape import DataChanged, GaussNewton, Hessian, Objective
from landscape.objective.batch import Batch, part
from landscape.objective.batch import samples as number_of_samples

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


@dataclass
class Labels:
    c: torch.Tensor


TARGETS = {
    "dict": (lambda y: {"c": y}, lambda t: t["c"]),
    "tuple": (lambda y: (y, None), lambda t: t[0]),
    "list of tensors": (list, torch.stack),
    "list of numbers": (lambda y: y.tolist(), lambda t: t),
    "numpy": (lambda y: y.numpy(), lambda t: t),
    "dataclass": (Labels, lambda t: t.c),
    "strings": (lambda y: [str(int(i)) for i in y], lambda t: torch.tensor([int(i) for i in t])),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("as_one", [tuple, list])
def test_targets_of_any_kind(kind, as_one):
    X, y = samples()
    make, read = TARGETS[kind]
    model = network()
    f = objective(model, as_one((X, make(y))), lambda o, t: F.cross_entropy(o, read(t)))
    assert f.value() == pytest.approx(F.cross_entropy(model(X), y).item(), rel=1e-6)
    halves = [(X[:12], make(y[:12])), (X[12:], make(y[12:]))]
    assert f.on(halves).value() == pytest.approx(f.value(), rel=1e-6)
    assert f.sample(5).value() == pytest.approx(F.cross_entropy(model(X[:5]), y[:5]).item(), rel=1e-6)


def test_arrays_and_lists_of_numbers_become_tensors_of_the_models_dtype():
    X, y = samples()
    model = network()
    expected = objective(model).value()
    for inputs in (X.numpy(), X.double().numpy(), X.tolist()):
        for targets in (y.numpy(), y.tolist(), y):
            assert objective(model, (inputs, targets)).value() == pytest.approx(expected, rel=1e-6)
    frozen = X.numpy().copy()
    frozen.flags.writeable = False
    assert objective(model, (frozen, y)).value() == pytest.approx(expected, rel=1e-6)


def test_two_batches_stay_two_batches():
    X, y = samples()
    for data in ([(X, y), (X, y)], ((X, y), (X, y)), [[X, y], [X, y]]):
        assert objective(data=data).value() == pytest.approx(objective().value(), rel=1e-6)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, x, labels, mask=None):
            return F.cross_entropy(self.net(x), labels)

    one, two = {"x": X, "labels": y}, {"x": X[:4], "labels": y[:4], "mask": y[:4]}
    f = Objective(Own(), lambda loss, _: loss, (one, two))
    assert f.value() == pytest.approx((19 * f.on(one).value() + 4 * f.on(two).value()) / 23, rel=1e-6)


def test_inputs_without_targets():
    X, _ = samples()
    model = nn.Linear(4, 4)
    expected = ((model(X) - X) ** 2).mean().item()

    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return ((self.net(x) - x) ** 2).mean()

    for data in (X, X.numpy(), (X, None), [X[:8], X[8:16], X[16:]], DataLoader(TensorDataset(X), 8), DataLoader(X, 8)):
        f = Objective(Auto(), lambda loss, targets: loss, data)
        assert f.value() == pytest.approx(expected, rel=1e-6)
    with refuses("autoencoder"):
        Objective(model, nn.MSELoss(), X).value()


class Graph:
    """A graph as graph libraries have it: attributes, and `.to`, which changes it in place."""

    def __init__(self, x, adjacency, y):
        self.x, self.adjacency, self.y = x, adjacency, y

    def __iter__(self):
        return iter(vars(self).items())

    def to(self, device):
        self.x, self.adjacency, self.y = (t.to(device) for t in (self.x, self.adjacency, self.y))
        return self


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x, adjacency=None):
        x, A = (x.x, x.adjacency) if adjacency is None else (x, adjacency)
        return A @ self.b(torch.tanh(A @ self.a(x)))


def nodes(n=6):
    torch.manual_seed(n)
    return torch.randn(n, 3), (torch.rand(n, n) > 0.5).float(), torch.randint(0, 2, (n,))


def test_graphs_of_a_class_of_their_own():
    (X, A, y), (X2, A2, y2) = nodes(), nodes(4)
    pairs = [((X, A), y), ((X2, A2), y2)]
    expected = Objective(Convolution(), nn.CrossEntropyLoss(), pairs)
    whole, small = Graph(X, A, y), Graph(X2, A2, y2)
    for data in ([whole, small], [(whole, y), (small, y2)]):
        f = Objective(Convolution(), nn.CrossEntropyLoss(), data)
        assert f.value() == pytest.approx(expected.value(), rel=1e-6)
        assert torch.allclose(Hessian(f).to_dense(), Hessian(expected).to_dense(), atol=1e-6)
    alone = Objective(Convolution(), nn.CrossEntropyLoss(), whole)
    assert alone.value() == pytest.approx(expected.on([pairs[0]]).value(), rel=1e-6)
    several = Objective(
        Convolution(), lambda o, t: nn.functional.cross_entropy(o, t[0]), (whole, (y, A)), count=lambda o, t: len(o)
    )
    assert several.value() == pytest.approx(alone.value(), rel=1e-6)
    exact = Objective(Convolution(), nn.CrossEntropyLoss(), copy.copy(whole), dtype=torch.float64)
    assert exact.value() == pytest.approx(alone.value(), rel=1e-5)
    assert whole.x.dtype == torch.float32
    X[0] += 1
    with pytest.raises(DataChanged, match="edited"):
        alone.value()


@pytest.mark.parametrize("sparse", ["to_sparse", "to_sparse_csr", "to_sparse_csc"])
def test_sparse_matrices_among_the_inputs(sparse):
    X, A, y = nodes()
    S = getattr(A, sparse)()
    dense = Objective(Convolution(), nn.CrossEntropyLoss(), [((X, A), y)])
    f = Objective(Convolution(), nn.CrossEntropyLoss(), [((X, S), y)])
    assert f.value() == pytest.approx(dense.value(), rel=1e-6)
    assert torch.allclose(Hessian(f).to_dense(), Hessian(dense).to_dense(), atol=1e-6)
    assert torch.allclose(GaussNewton(f).to_dense(), GaussNewton(dense).to_dense(), atol=1e-6)
    assert f.sample(3).value() == pytest.approx(f.value(), rel=1e-6)
    S.values().mul_(2) if sparse != "to_sparse" else S._values().mul_(2)
    with pytest.raises(DataChanged, match="edited"):
        f.value()


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.GRU(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[1][-1])


def test_packed_sequences():
    torch.manual_seed(0)
    long = [torch.randn(n, 2) for n in (4, 9, 2)]
    model = Last()
    data = [
        (pack_sequence(long, enforce_sorted=False), torch.tensor([0, 1, 1])),
        (pack_sequence([torch.randn(3, 2)]), torch.tensor([1])),
    ]
    expected = sum(F.cross_entropy(model(x), y, reduction="sum").item() for x, y in data) / 4
    for loss in (nn.CrossEntropyLoss(), lambda o, t: F.cross_entropy(o, t, label_smoothing=0.0)):
        assert Objective(model, loss, data).value() == pytest.approx(expected, rel=1e-6)
    exact = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float64)
    assert exact.value() == pytest.approx(expected, rel=1e-6)
    cut = part(Batch(0, *data[0]), 1, 3)
    assert number_of_samples(cut) == 2
    assert all(torch.equal(a, b) for a, b in zip(unpack_sequence(cut.inputs), long[1:], strict=True))


def test_nested_tensors():
    torch.manual_seed(0)
    rows = [torch.randn(n, 4) for n in (3, 5)]
    X = torch.nested.nested_tensor(rows, layout=torch.jagged)
    model = nn.Linear(4, 2)
    f = Objective(model, nn.CrossEntropyLoss(), [(X, torch.tensor([0, 1]))], forward=lambda m, x: m(x).sum(1))
    expected = F.cross_entropy(torch.stack([model(r).sum(0) for r in rows]), torch.tensor([0, 1]))
    assert f.value() == pytest.approx(expected.item(), rel=1e-6)
    assert f.sample(1).value() == pytest.approx(expected.item(), rel=1e-6)


def test_texts_are_cut_with_the_samples():
    class Lengths(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(1, 1)

        def forward(self, texts):
            return self.lin(torch.tensor([[float(len(t))] for t in texts]))

    texts, y = ["a", "bcd", "ef", "ghij"], torch.arange(4.0)[:, None]
    call = {"forward": lambda m, x: m(x["texts"] if isinstance(x, dict) else x)}
    for data in ([(texts, y)], [{"texts": texts, "labels": y}]):
        model = Lengths()
        f = Objective(model, nn.MSELoss(), data, **call)
        assert f.value() == pytest.approx(F.mse_loss(model(texts), y).item(), rel=1e-6)
    f = Objective(model, nn.MSELoss(), [(texts, y)], **call)
    assert f.sample(2).value() == pytest.approx(F.mse_loss(model(texts[:2]), y[:2]).item(), rel=1e-6)


def test_images_of_different_sizes_in_a_list():
    images = [torch.randn(3, n, n) for n in (2, 4, 3)]
    boxes = [{"area": torch.tensor([float(n)])} for n in (2, 4, 3)]
    batch = Batch(0, images, boxes)
    assert number_of_samples(batch) == 3
    cut = part(batch, 1, 3)
    assert [t.shape[-1] for t in cut.inputs] == [4, 3]
    assert [float(t["area"]) for t in cut.targets] == [4.0, 3.0]


def test_what_is_no_batch_is_refused():
    X, y = samples()
    with refuses("a tuple of 3 items"):
        objective(data=[(X, X, y)]).value()
    with refuses("not a str"):
        objective(data=["text"]).value()
    with refuses("not str"):
        objective(data="text")
    with refuses("split: it holds a ndarray"):
        part(Batch(0, X, np.array(["a"])), 0, 1)
