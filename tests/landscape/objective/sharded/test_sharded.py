"""A model that `fully_shard` has cut for two and three ranks has the numbers that it has on one process."""

import pytest
import sharded_cases as cases
import torch
from processes import on_ranks
from torch import nn

from landscape import Hessian, Objective

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


@pytest.mark.slow
def test_a_failure_on_one_rank_is_raised_on_all_and_they_go_on_together(tmp_path):
    expected = [f"rank 1: told to fail in {when}" for when in ("forward", "backward", "loss")]
    (other, penalties), (own, _) = on_ranks("sharded_cases:failing", 2, tmp_path)
    assert other == expected
    assert own == [text.removeprefix("rank 1: ") for text in expected]
    assert ["DTensors" in text for text in penalties] == [True, True, False, False, False]
    assert all("walks over the parameters of the sharded model" in text for text in penalties[2:])


@pytest.mark.slow
def test_training_goes_on_as_without_measuring(tmp_path):
    for without, measured in on_ranks("sharded_cases:trained", 2, tmp_path, seconds=300):
        torch.testing.assert_close(measured[0], without[0], rtol=1e-12, atol=0.0)
        for a, b in zip(measured[1], without[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_any_dimension_may_be_cut_and_shards_may_be_held_twice(tmp_path):
    torch.manual_seed(0)
    data = cases.cases.tokens(torch.Generator().manual_seed(1), 8)
    A = Hessian(Objective(cases.cases.Transformer().double(), nn.CrossEntropyLoss(), data))
    v = A.space.random(2, "normal", torch.Generator().manual_seed(0))
    product, value = A @ v, A.objective.value()
    for world in (2, 4):
        every = on_ranks("sharded_cases:laid_out", world, tmp_path, seconds=300)
        assert len({found[2] for result in every for found in result.values()}) == 1  # the seed of the first rank
        for result in every:
            for found, f, _, values in result.values():
                torch.testing.assert_close(found, product, rtol=1e-10, atol=1e-12)
                assert f == pytest.approx(value, rel=1e-12)
                torch.testing.assert_close(values, every[0][next(iter(result))][3], rtol=0.0, atol=0.0)


@pytest.mark.slow
def test_collectives_and_whole_weights_of_a_product_are_bounded(tmp_path):
    for rebuilt, kept, peak, between, largest in on_ranks("sharded_cases:counted", 2, tmp_path, seconds=300):
        uses = kept[1]
        assert uses > 40
        assert kept[0] <= 3 * uses
        assert rebuilt[0] <= 4 * uses
        assert rebuilt[1] == 2 * uses
        assert between == 0
        assert largest < peak <= 3 * largest  # two of the largest weight, and what is differentiated along
