"""The same data on every pass, or a refusal."""

import random

import numpy as np
import pytest
import torch
from objective_cases import objective, reference, samples
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from landscape import DataChanged, Hessian


@pytest.mark.parametrize("memory", ["auto", 64], ids=["held", "streamed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_shuffling_loaders_give_one_function(workers, memory):
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(*samples()), batch_size=6, shuffle=True, num_workers=workers, generator=generator)
    state = generator.get_state()
    o = objective(data=loader, memory=memory)
    v = torch.ones(o.size)
    H = Hessian(o)
    for _ in range(3):
        assert torch.allclose(H @ v, reference(v), atol=1e-6)
    assert torch.equal(generator.get_state(), state)


def test_measuring_inside_an_epoch_over_a_loader_with_persistent_workers():
    loader = DataLoader(TensorDataset(*samples()), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)
    o = objective(data=loader)
    seen = 0
    for X, _ in loader:
        Hessian(o) @ torch.ones(o.size)
        seen += len(X)
    assert seen == 19


class Augmenting(Dataset):
    def __len__(self):
        return 19

    def __getitem__(self, i):
        X, y = samples()
        return X[i] + 0.1 * torch.randn(4) + 0.1 * random.random(), y[i]


@pytest.mark.parametrize("memory", ["auto", 64], ids=["held", "streamed"])
def test_random_transforms_are_frozen(memory):
    o = objective(data=DataLoader(Augmenting(), batch_size=5), memory=memory)
    assert o.value() == o.value()
    H = Hessian(o)
    assert torch.equal(H @ torch.ones(o.size), H @ torch.ones(o.size))


class Restless(Dataset):
    """A data set with a random state of its own, which nobody can seed."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self):
        return 19

    def __getitem__(self, i):
        X, y = samples()
        return X[i] + torch.randn(4, generator=self.generator), y[i]


def test_data_that_differs_between_passes_is_refused_with_the_cause():
    o = objective(data=DataLoader(Restless(), batch_size=5), memory=64)
    o.value()
    with pytest.raises(DataChanged, match="batch 0 is not the one"):
        o.value()
    held = objective(data=DataLoader(Restless(), batch_size=5))
    assert held.value() == held.value()


class Shrinking(IterableDataset):
    left = 6  # one pass less each time: the first batch alone, what is held, what is streamed

    def __iter__(self):
        X, y = samples()
        self.left -= 1
        return iter([(X[i], y[i]) for i in range(self.left)])


def test_data_that_changes_length_is_refused():
    o = objective(data=DataLoader(Shrinking(), batch_size=1), memory=64)
    o.value()
    with pytest.raises(DataChanged, match="length"):
        o.value()


def test_one_shot_iterators_are_held_or_refused():
    X, y = samples()
    o = objective(data=((X[i : i + 5], y[i : i + 5]) for i in range(0, 19, 5)))
    v = torch.ones(o.size)
    assert torch.allclose(Hessian(o) @ v, reference(v), atol=1e-6)
    assert o.value() == o.value()
    with pytest.raises(MemoryError, match="read once"):
        objective(data=((X[i : i + 5], y[i : i + 5]) for i in range(0, 19, 5)), memory=64).value()


def test_edited_data_is_refused():
    X, y = samples()
    o = objective(data=[(X, y)])
    H = Hessian(o)
    H @ torch.ones(o.size)
    X[0] += 1
    with pytest.raises(DataChanged, match="edited"):
        H @ torch.ones(o.size)
    array = np.ones((4, 4), dtype=np.float32)
    o = objective(data=(torch.from_numpy(array), torch.zeros(4, dtype=torch.long)))
    o.value()
    array *= 2
    with pytest.raises(DataChanged, match="edited"):
        o.value()
