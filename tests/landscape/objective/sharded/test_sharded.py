"""A model that `fully_shard` has cut for two and three ranks has the numbers that it has on one process."""

import pytest
import sharded_cases as cases
import torch
from processes import on_ranks

FAST = ("mlp", "experts", "unused")
SLOW = ("transformer", "batch norm", "sum", "convolution")


@pytest.fixture(scope="module")
def one_process():
    return {name: cases.everything(cases.objective(name, cases.cases.batches_of(name))) for name in FAST}


def test_sharded_models_have_the_numbers_of_one_process(tmp_path, one_process):
    for found in on_ranks("sharded_cases:measured", 2, tmp_path, "unequal", *FAST):
        for name in FAST:
            agree(name, found[name], one_process[name], "unequal")


@pytest.mark.slow
@pytest.mark.parametrize(("world", "way"), [(2, "dealt"), (2, "empty"), (3, "unequal")])
def test_the_same_however_the_data_is_dealt_out(tmp_path, one_process, world, way):
    for found in on_ranks("sharded_cases:measured", world, tmp_path, way, *FAST, seconds=300):
        for name in FAST:
            agree(name, found[name], one_process[name], way)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SLOW, "gpt2"])
def test_layers_of_many_kinds_have_the_numbers_of_one_process(tmp_path, name):
    if name == "gpt2":
        pytest.importorskip("transformers", reason="needs transformers: pip install 'landscape-engine[integrations]'")
    expected = cases.everything(cases.objective(name, cases.cases.batches_of(name)))
    for found in on_ranks("sharded_cases:measured", 2, tmp_path, "dealt", name, seconds=300):
        agree(name, found[name], expected, "dealt")


def agree(name, found, expected, way):
    assert "agrees" in found["check"]
    for key, value in expected.items():
        if key == "MonteCarloFisher" and way != "dealt":
            continue  # draws belong to numbers of batches
        a, b = torch.as_tensor(found[key]).double(), torch.as_tensor(value).double()
        error = float((a - b).norm() / b.norm().clamp_min(1e-300))
        assert error < 1e-10, f"{name}, {key}: {error}"
