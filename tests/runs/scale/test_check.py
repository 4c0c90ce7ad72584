"""Two real processes: what they send is what the model says, and they need about the seconds that it says."""

import pytest
from processes import on_ranks

from runs.scale import check
from runs.scale.tasks import COLUMNS, TASKS

pytestmark = pytest.mark.slow  # two processes that measure

# a ring of two ranks: each sends half of the whole, for an all-reduce twice
SHARE = {"allreduce": 1.0, "allgather": 0.5, "allgather_base": 0.5, "reduce_scatter": 0.5, "reduce_scatter_base": 0.5}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    first, second = on_ranks("scale_ranks:counted", 2, tmp_path_factory.mktemp("ranks"))
    assert first == second
    return first


@pytest.mark.parametrize("name", TASKS)
def test_what_is_sent(counted, name):
    expected = counted[name]["sent"]
    assert expected > 0
    # small numbers beside it: what ranks agree on, and the columns that a chain has grown by
    assert sum(SHARE[kind] * size for kind, size in counted[name]["bytes"].items()) == pytest.approx(
        expected, rel=0.01, abs=32
    )


def test_one_all_reduce_a_product_and_four_small_ones_a_step(counted):
    calls = {name: found["calls"] for name, found in counted.items()}
    assert calls["Hessian product, transformer, DDP"] == {"allreduce": 1}
    assert calls[f"orthogonalisation, 2 x 2^18 rows, {COLUMNS} columns"] == {"allreduce": 4}


def test_a_rank_that_fails_ends_both_with_its_words(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "_RANK", "runs.scale.nothing")
    with pytest.raises(RuntimeError, match=r"rank [01] failed: .*No module named runs.scale.nothing"):
        check._run(tmp_path)


def test_ranks_that_take_too_long_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "_LIMIT", 0.2)
    with pytest.raises(RuntimeError, match="took longer than 0 s"):
        check._run(tmp_path)


@pytest.mark.slow
def test_predictions_hold_within_a_factor():
    machine, checks = check.measured()
    assert machine.flops["float32"] > 1e8
    assert {c.name for c in checks} == set(TASKS)
    assert all(0.4 < c.ratio < 2.5 for c in checks), "\n".join(f"{c.name}: {c.ratio:.2f}" for c in checks)
