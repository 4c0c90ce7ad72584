import pytest
import torch

# The tensors of the tests are tiny: a second thread would only wait, and on a busy machine it waits by spinning.
torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
