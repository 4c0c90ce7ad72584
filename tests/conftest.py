import random

import pytest
import torch

import landscape.tuning

# The tensors of the tests are tiny: a second thread would only wait, and on a busy machine it waits by spinning.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fastest(request, monkeypatch):
    """Which way of a product is fastest differs from run to run: each test takes one by its own name, any of them.

    A test that is right only where the clock decides as it mostly does fails here, and fails always.
    """
    draw = random.Random(request.node.nodeid)
    monkeypatch.setattr(landscape.tuning, "_fastest", lambda seconds: draw.choice(list(seconds)))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
