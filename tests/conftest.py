import collections
import random

import pytest
import torch

import landscape.tuning

# The tensors of the tests are tiny: a second thread would only wait, and on a busy machine it waits by spinning.
torch.set_num_threads(1)


# long files of many tests
LONG = {
    "test_architecture.py",
    "test_docs.py",
    "test_docstrings.py",
    "test_operators.py",
    "test_optimizer_contract.py",
    "test_works_with.py",
}


def pytest_collection_modifyitems(items):
    """Long files go first, and then those of few tests, so that no worker is left with a long one at the end."""
    sizes = collections.Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, sizes[item.path]))


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
