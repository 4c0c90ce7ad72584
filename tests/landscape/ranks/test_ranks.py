"""Ranks: what they agree on, what they raise together, and what a product costs in messages."""

import math
import signal

import pytest
from processes import ended, on_ranks, start_ranks

from landscape.ranks import Ranks


def test_one_rank_talks_to_nobody():
    alone = Ranks()
    assert (alone.rank, alone.size, alone.several) == (0, 1, False)
    assert alone.gathered("x") == ["x"]
    assert alone.shared("x", 0) == "x"
    assert alone.largest(2.0) == 2.0
    with pytest.raises(KeyError):
        alone.agreed(lambda: {}["missing"])


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_what_one_rank_raises_all_raise(tmp_path, world):
    every = on_ranks("talks:words", world, tmp_path, seconds=300)
    for rank, found in enumerate(every):
        there = "" if rank == 1 else "rank 1: "
        assert found["none fails"] == rank
        assert found["one fails"] == ("ValueError", f"{there}nothing to see", True)
        assert found["odd"] == (
            ("Odd", "one and two", True) if rank == 1 else ("RuntimeError", f"{there}Odd: one and two", True)
        )
        assert found["local"] == (
            ("Local", "hidden", True) if rank == 1 else ("RuntimeError", f"{there}Local: hidden", True)
        )
        first = "'first'" if rank == 0 else "\"rank 0: 'first'\""
        assert found["each its own"] == ("KeyError", first, True)
        kind, text, together = found["sum fails"]
        assert kind == "ZeroDivisionError"
        assert "division by zero" in text
        assert together
        assert found["summed"] == [2.0 * world, float(2 * sum(range(world)))]
        assert found["weight"] == 3.0 * world
        assert found["exact weight"] == pytest.approx(world / 3, rel=1e-15)
        assert found["apart"] == [2.0, 2.0 * rank]
        assert found["stopped"] == (True, False, False)
        assert found["asking fails"] == ("ValueError", f"{there}nothing to see", True)
        assert found["gathered"] == [{"rank": r} for r in range(world)]
        assert found["shared"] == "from 1"
        assert found["largest"] == 0.0
        assert found["any"] == (True, False)
        assert found["as first"] == ([[0.0], [0, 0], 0.0], [[float(rank)], [rank, 2 * rank], float(rank)])
        assert found["chosen"][1] == "even"
    assert every[0]["folded"] == ([float("1" * world)], [1, 2][: world - 1])
    assert {found["chosen"][0] for found in every} == {"even", "uneven"}, "they would have chosen apart"


def test_functions_of_two_ranks(tmp_path):
    every = on_ranks("talks:functions", 2, tmp_path, seconds=300)
    assert every[0]["drawn"] == every[1]["drawn"], "what a rank draws for its own batches leaves the generators alike"
    for rank, found in enumerate(every):
        assert max(found["off"].values()) < 1e-14, found["off"]
        n = found["n"]
        assert found["messages"] == [("all_reduce", n + 2)], "one sum of n numbers, with the weight and a flag"
        assert found["block again"] == [("all_reduce", 2 * n + 2)]
        assert found["same"]
        for others in ("other parameters", "turned parameters"):
            kind, text, together = found[others]
            assert kind == "ValueError"
            assert "parameters of rank 1 are not those of rank 0" in text
            assert together
        kind, text, together = found["other modes"]
        assert (kind, together) == ("ValueError", True)
        assert "train mode on one rank" in text
        kind, text, together = found["synchronised"]
        assert (kind, together) == ("ValueError", True)
        assert "module '1' is a SyncBatchNorm" in text
        assert math.isfinite(found["synchronised, eval"])
        assert found["hooked"] == (0.0, True)
        assert found["stopped"] == every[0]["stopped"] < 10
        assert found["mixed generators"][0] == "ValueError"
        assert found["no data"][0] == "NoData"
        assert found["no data"][2]
        there = "" if rank == 1 else "rank 1: "
        assert found["picky"] == ("ValueError", f"{there}a loss that does not like this batch", True)
        kind, text, together = found["picky, collapse"]
        assert kind == "ValueError"
        assert "labels outside 0 .. 2" in text
        assert together
        error, kept = found["buffers"]
        assert error < 1e-14
        assert kept
        assert found["branches"] < 1e-12
        assert found["training"] == 0.0


def test_a_rank_that_is_killed_ends_the_others_with_one_line(tmp_path):
    (status, said, _), (killed, *_) = ended(start_ranks("talks:lost", 2, tmp_path, seconds=60), seconds=200)
    assert killed == -signal.SIGKILL
    assert status == 1
    last = said.strip().splitlines()[-1]
    assert "RanksLost: another rank is gone or out of step, so rank 0 cannot go on" in last, said
