"""A model that `fully_shard` has cut for two and three ranks has the numbers that it has on one process."""

import pytest
import sharded_cases as cases
import torch
from processes import on_ranks

NAMES = ("mlp", "transformer", "batch norm", "sum", "experts", "unused", "convolution")


@pytest.fixture(scope="module")
def one_process():
    return {name: cases.everything(cases.objective(name, cases.cases.batches_of(name))) for name in NAMES}


@pytest.mark.parametrize(
    ("world", "way", "names"),
    [(2, "dealt", NAMES), (2, "empty", ("mlp", "experts")), (3, "unequal", ("mlp", "experts", "unused", "sum"))],
)
def test_sharded_models_have_the_numbers_of_one_process(tmp_path, one_process, world, way, names):
    for found in on_ranks("sharded_cases:measured", world, tmp_path, way, *names):
        for name in names:
            agree(name, found[name], one_process[name], way)


def agree(name, found, expected, way):
    assert "agrees" in found["check"]
    for key, value in expected.items():
        if key == "MonteCarloFisher" and way != "dealt":
            continue  # draws belong to numbers of batches
        a, b = torch.as_tensor(found[key]).double(), torch.as_tensor(value).double()
        error = float((a - b).norm() / b.norm().clamp_min(1e-300))
        assert error < 1e-10, f"{name}, {key}: {error}"
