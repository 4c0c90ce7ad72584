"""A rank of two takes little more than half of what one process takes."""

import sys

import pytest
import sharded_memory
from processes import on_ranks


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_two_ranks_share_the_basis(tmp_path):
    ((size, alone, _),) = on_ranks("sharded_memory:peak", 1, tmp_path, seconds=400)
    assert size > 2e7
    layer = 4 * sharded_memory.WIDTH**2
    for same, shared, gathered in on_ranks("sharded_memory:peak", 2, tmp_path, seconds=400):
        assert same == size
        assert shared <= 0.6 * alone
        assert gathered <= 3.01 * layer  # two of the largest layer and its cotangent; biases are read beside them
