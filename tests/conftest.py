import collections
import random

import pytest
import torch

import landscape.tuning

# The tensors of the tests are tiny: a second thread would only wait, and on a busy machine it waits by spinning.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Files of a few long tests go first, so that no worker is left with one at the end."""
    sizes = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: sizes[item.path])


@pytest.fixture(autouse=True)
def fastest(request, monkeypatch):
    """Which way of a product is fastest differs from run to run: each test takes one by its own name, any of them.

    A test that is right only where the clock decides as it mostly does fails here, and fails always. Since no clock
    decides, no trial is repeated for its sake: each way runs twice.
    """
    draw = random.Random(request.node.nodeid)
    monkeypatch.setattr(landscape.tuning, "_fastest", lambda seconds: draw.choice(list(seconds)))
    monkeypatch.setattr(landscape.tuning, "_SHORT", 0.0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
