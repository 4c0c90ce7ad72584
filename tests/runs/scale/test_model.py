"""The cost model in closed form on small cases, and what must grow with what."""

import itertools
from dataclasses import replace

import pytest

from runs.scale.grid import Grid, sweep
from runs.scale.machine import A100, H100, Channel, Machine
from runs.scale.model import Cost, Layout, Setting, collective, dealt, lanczos_step, orthogonalisation, product
from runs.scale.network import Network, Work, of_size
from runs.scale.plan import best, memory, planned

# one second for each thing it is asked for
UNIT = Machine(
    name="unit",
    flops={"float32": 1.0, "float64": 1.0, "bfloat16": 1.0},
    bandwidth=1.0,
    orthogonalise=1.0,
    memory=1e4,
    host_memory=2e5,
    disk_memory=1e9,
    launch=1.0,
    asynchronous=False,
    node=4,
    all_reduce=Channel(1.0, 1.0),
    all_gather=Channel(2.0, 1.0),
    reduce_scatter=Channel(4.0, 1.0),
    nic=0.125,
    pcie=1.0,
    disk=0.5,
    start=3.0,
)
KINDS = ("gradient", "hessian", "gauss-newton")
SMALL = Network("small", 120, 30, 6, 2, {k: Work(5.0, 7.0) for k in KINDS}, {k: Work(0, 0, 11.0) for k in KINDS}, 3.0)
SIZES = (1e6, 1e7, 1e8, 1e9, 1e10)


def test_collectives():
    whole = collective("all_reduce", UNIT, 4, 100.0)
    assert whole.sent == 2 * 100 * 3 / 4
    assert whole.seconds == {"network latency": 2.0, "network bandwidth": 150.0}
    assert collective("all_gather", UNIT, 2, 100.0).total == 2.0 + 50.0
    assert collective("reduce_scatter", UNIT, 1, 100.0) == Cost({})
    # past a node the four cards of each node carry the ring, or one card where one rank of each node takes part
    assert collective("all_reduce", UNIT, 8, 100.0).seconds["network bandwidth"] == 175.0 / 0.5
    assert collective("all_reduce", UNIT, 2, 100.0, scattered=True).seconds["network bandwidth"] == 100.0 / 0.125


def test_data_is_dealt_out_in_whole_sequences():
    assert dealt(SMALL, Setting(rows=100, batch=8), Layout(1)) == (8, 13)
    assert dealt(SMALL, Setting(rows=100, batch=8), Layout(20)) == (6, 1)
    assert dealt(SMALL, Setting(rows=100, batch=8), Layout(1000)) == (2, 1)


def test_a_product_under_ddp():
    setting = Setting(rows=16, batch=4)
    found = product(SMALL, setting, Layout(2), UNIT)
    batches, n = 2, 120
    assert found.seconds["arithmetic"] == batches * 4 * 5.0
    assert found.seconds["memory bandwidth"] == batches * 4 * 7.0 * 4
    assert found.seconds["launches"] == batches * 11.0
    assert found.seconds["network bandwidth"] == found.sent == 2 * n * 4 / 2
    rebuilt = product(SMALL, setting, Layout(2), UNIT, kept=0.5)
    assert rebuilt.seconds["arithmetic"] == 1.5 * found.seconds["arithmetic"]
    assert rebuilt.sent == found.sent


def test_a_product_under_fsdp2_gathers_three_times_and_scatters_once_for_each_batch():
    setting = Setting(rows=16, batch=4)
    found, rebuilt = (product(SMALL, setting, Layout(2, 2), UNIT, kept) for kept in (1.0, 0.0))
    once = 120 * 4 / 2
    assert found.sent == pytest.approx(2 * (3 + 1) * once)
    assert rebuilt.sent == pytest.approx(2 * (4 + 2) * once)
    assert found.seconds["network latency"] == pytest.approx(2 * 6 * (3 * 2.0 + 4.0))
    hybrid = product(SMALL, Setting(rows=32, batch=4), Layout(4, 2), UNIT)
    assert hybrid.sent == pytest.approx(found.sent + 2 * (120 / 2) * 4 / 2)


def test_an_orthogonalisation_is_two_passes_over_the_basis():
    setting, column = Setting(columns=10), 120 * 4
    found = orthogonalisation(SMALL, setting, Layout(1), UNIT)
    assert found.seconds["memory bandwidth"] == 2 * (10 + 3) * column
    sharded = orthogonalisation(SMALL, setting, Layout(4, 4), UNIT)
    assert sharded.seconds["memory bandwidth"] == found.seconds["memory bandwidth"] / 4
    assert sharded.seconds["network latency"] == 4 * 2.0
    assert sharded.sent == pytest.approx(2 * (10 + 10 + 1 + 1) * 8 * 3 / 4)
    assert orthogonalisation(SMALL, setting, Layout(4), UNIT).seconds == found.seconds  # DDP does all of it on each
    host, disk = (orthogonalisation(SMALL, setting, Layout(1), UNIT, place) for place in ("host", "disk"))
    assert host.total - found.total == 20 * column
    assert disk.total - host.total == 20 * column / 0.5


def test_a_large_basis_is_taken_in_chunks_with_a_reduction_each():
    long = replace(SMALL, parameters=1 << 30)
    latency = orthogonalisation(long, Setting(columns=64), Layout(4, 4), UNIT).seconds["network latency"]
    assert latency == (2 * 64 / 4 + 2) * 2.0


def test_memory_of_a_rank():
    found = memory(SMALL, Setting(rows=16, batch=4, columns=10), Layout(2, 2), UNIT)
    assert found.parameters == 60 * 4
    assert found.gathered == 3 * 30 * 4
    assert found.vectors == 4 * 60 * 4
    assert found.graph == (3 * 4 + 60) * 4
    assert found.basis == 10 * 60 * 4
    assert (found.place, found.kept, found.batch, found.fits) == ("device", 1.0, 4, True)
    assert memory(SMALL, Setting(columns=10), Layout(2), UNIT).gathered == 0.0
    places = [
        memory(SMALL, Setting(columns=columns), Layout(1), UNIT).place for columns in (5, 100, 10_000, 10_000_000)
    ]
    assert places == ["device", "host", "disk", "restart"]
    assert not memory(SMALL, Setting(), Layout(1), replace(UNIT, memory=3000.0)).fits


def test_a_batch_is_cut_to_what_fits():
    graph = 3.0 * 4
    found = memory(SMALL, Setting(rows=1 << 10, batch=1 << 10), Layout(1), UNIT)
    assert found.batch < 1 << 10
    assert found.graph <= (UNIT.memory - found.parameters - found.vectors) / 2 < found.graph + found.batch * graph + 24


def test_launches_hide_behind_work_only_where_they_run_ahead():
    ahead = replace(UNIT, asynchronous=True)
    short, long = Setting(rows=2, batch=2), Setting(rows=1 << 10, batch=1 << 10)
    assert "launches" not in product(SMALL, long, Layout(1), ahead).seconds
    tight = replace(ahead, launch=1e3)
    assert product(SMALL, short, Layout(1), tight).bottleneck == "launches"
    assert product(SMALL, short, Layout(1), tight).total == 11e3


def test_layouts():
    assert [Layout(1).name, Layout(8).name, Layout(8, 8).name, Layout(16, 8).name] == ["1", "DDP", "FSDP2", "hybrid 8"]
    with pytest.raises(ValueError, match="8 ranks are no whole number of groups of 3"):
        Layout(8, 3)


@pytest.mark.parametrize("machine", [H100, A100, UNIT])
def test_what_grows_with_what(machine):
    setting = Setting()
    for ranks, shards in ((1, 1), (64, 1), (64, 8), (64, 64)):
        layout = Layout(ranks, shards)
        steps = [lanczos_step(of_size(size), setting, layout, machine) for size in SIZES]
        assert all(a.total < b.total and a.sent <= b.sent for a, b in itertools.pairwise(steps))
        used = [memory(of_size(size), setting, layout, machine) for size in SIZES]
        assert all(a.parameters < b.parameters and a.vectors < b.vectors for a, b in itertools.pairwise(used))
    network = of_size(1e9)
    shares = [memory(network, setting, Layout(64, shards), machine).parameters for shards in (1, 8, 64)]
    assert shares == sorted(shares, reverse=True)
    costs = [orthogonalisation(network, replace(setting, columns=m), Layout(1), machine).total for m in (1, 8, 64)]
    assert costs == sorted(costs)
    sent = [collective("all_reduce", machine, ranks, 1.0).sent for ranks in (1, 2, 8, 1024)]
    assert sent == sorted(sent)
    assert sent[-1] < 2.0


@pytest.mark.parametrize("size", SIZES)
def test_the_best_layout_is_no_slower_than_any_that_fits(size):
    network, setting = of_size(size), Setting()
    for ranks in (1, 8, 64, 1024):
        found = best(network, setting, ranks, H100)
        others = [planned(network, setting, Layout(ranks, shards), H100) for shards in {1, min(8, ranks), ranks}]
        possible = [plan.step.total for plan in others if plan.step is not None]
        assert (found.step is None) == (not possible)
        assert found.step is None or found.step.total == min(possible)
        assert found.bottleneck in ("memory", *(found.step.seconds if found.step else ()))


def test_sweeps():
    network, setting, grid = of_size(1e6), Setting(), Grid(runs=100)
    one, ten = (sweep(network, grid, setting, ranks, H100) for ranks in (1, 10))
    assert one.seconds == pytest.approx(100 * one.run)
    assert ten.seconds == pytest.approx(one.seconds / 10)
    assert one.run == one.start + one.training + one.measuring
    many = sweep(network, grid, setting, 1024, H100)
    assert many.ranks > 1  # there are more GPUs than runs: each takes several
    assert many.seconds < ten.seconds
    assert many.idle == pytest.approx(1 - 100 / (1024 // many.ranks))
    assert one.bottleneck == "start"
    assert sweep(of_size(1e8), grid, setting, 1, H100).bottleneck == "measuring"
    assert sweep(of_size(1e11), grid, setting, 8, H100) is None
