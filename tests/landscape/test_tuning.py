"""The fastest way is found once, wrong and failing ways are left out, and refusals are shared with parts."""

import time

import pytest
import torch

from landscape.memory import budget
from landscape.tuning import Tuning

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fastest():
    """Here the clock decides, in place of the draw that other tests take."""


def test_no_clock_decides_where_torch_is_to_be_deterministic():
    def slow():
        time.sleep(0.01)
        return torch.ones(1)

    def fails():
        raise NotImplementedError

    ways = {"fails": fails, "slow": slow, "fast": lambda: torch.ones(1)}
    torch.use_deterministic_algorithms(True)
    try:
        tuning = Tuning(CPU)
        tuning.fastest("product", ways)
    finally:
        torch.use_deterministic_algorithms(False)
    assert tuning.choice("product") == "slow"


def test_a_way_that_is_none_for_other_data_gives_place_to_the_first_one():
    def right():
        return torch.ones(1)

    def fails():
        raise RuntimeError

    tuning = Tuning(CPU)
    tuning.fastest("product", {"first": lambda: time.sleep(0.01) or right(), "second": right})
    assert tuning.choice("product") == "second"
    assert tuning.fastest("product", {"first": right}).tolist() == [1.0]
    assert tuning.choice("product") == "second"
    assert tuning.fastest("product", {"first": right, "second": fails}).tolist() == [1.0]
    assert tuning.choice("product") == "first"


def test_the_fastest_right_way_is_kept():
    calls = []

    def way(name, seconds, value):
        def run():
            calls.append(name)
            time.sleep(seconds)
            return torch.full((3,), value)

        return run

    def fails():
        raise NotImplementedError

    ways = {
        "fails": fails,
        "slow": way("slow", 0.02, 1.0),
        "fast": way("fast", 0.0, 1.0),
        "wrong": way("wrong", 0, 2.0),
    }
    tuning = Tuning(CPU)
    assert tuning.choice("product") is None
    assert tuning.fastest("product", ways).tolist() == [1.0, 1.0, 1.0]
    assert tuning.choice("product") == "fast"
    calls.clear()
    tuning.fastest("product", ways)
    assert calls == ["fast"]
    with pytest.raises(NotImplementedError):
        tuning.fastest("another", {"fails": fails})


def test_a_part_shares_what_does_not_work_and_finds_its_own_fastest_way():
    tuning = Tuning(CPU)
    tuning.fastest("product", {"only": lambda: torch.ones(1)})
    part = tuning.part()
    part.refuse("dual")
    assert tuning.refused("dual")
    assert not tuning.refused("rows")
    assert part.choice("product") is None


def test_a_budget_is_the_bytes_given_or_what_is_free_with_what_is_held():
    assert budget(64, CPU) == budget(64, CPU, held=8) == 64
    assert budget("auto", CPU) > 0
    assert budget("auto", CPU, held=1 << 50) > 1 << 50
