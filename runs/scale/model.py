"""The cost model: bytes and seconds of a product, an orthogonalisation and a Lanczos step on any number of ranks.

Pure functions of (network, setting, layout, machine). A layout with one shard is data parallelism: the whole model and
whole vectors on every rank, one all-reduce a product. With as many shards as ranks it is FSDP2: parameters, vectors and
basis in shares, weights gathered a layer at a time. In between it is hybrid sharding. Nothing overlaps: the engine
computes, then communicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from runs.scale.machine import ITEMSIZE, Machine
from runs.scale.network import Kind, Network, Work

# Uses of a sharded parameter by one product: all-gathers and reduce-scatters, on a kept graph and on one built anew.
GATHERS, SCATTERS = {True: 3, False: 4}, {True: 1, False: 2}
# Full reorthogonalisation is two passes of Gram-Schmidt; each also goes over a few vectors beside the basis.
PASSES, BESIDE = 2, 3
# A pass takes the basis in chunks of this many bytes, or columns, with one reduction each.
CHUNK_BYTES, CHUNK = 1 << 24, 4
# Operations of a chunk in a pass, and of a step beside them.
CHUNK_LAUNCHES, STEP_LAUNCHES = 8, 20


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        rows: of all data (tokens of a transformer).
        batch: rows of a batch, which goes through the network at once.
        kind: of product.
        dtype: of the model; vectors are float64 where it is, else float32.
        columns: of the basis that a step is orthogonalised against.
        basis: where the basis lies, a place or "auto".
    """

    rows: int = 1 << 20
    batch: int = 8192
    kind: Kind = "hessian"
    dtype: str = "float32"
    columns: int = 64
    basis: str = "auto"

    @property
    def number(self) -> int:
        """Bytes of a number of the model."""
        return ITEMSIZE[self.dtype]

    @property
    def vector(self) -> int:
        """Bytes of a number of a vector."""
        return max(4, self.number)


@dataclass(frozen=True)
class Layout:
    """So many ranks; each group of `shards` of them holds the model once, and has a part of the data of its own."""

    ranks: int
    shards: int = 1

    def __post_init__(self) -> None:
        if self.shards < 1 or self.ranks % self.shards:
            raise ValueError(f"{self.ranks} ranks are no whole number of groups of {self.shards}")

    @property
    def name(self) -> str:
        """`1`, `DDP`, `FSDP2` or `hybrid 8`."""
        if self.ranks == 1:
            return "1"
        return {1: "DDP", self.ranks: "FSDP2"}.get(self.shards, f"hybrid {self.shards}")


@dataclass(frozen=True)
class Cost:
    """Seconds by what takes them, and the bytes that a rank sends."""

    seconds: Mapping[str, float]
    sent: float = 0.0

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())

    @property
    def bottleneck(self) -> str:
        """What takes most."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    def __add__(self, other: Cost) -> Cost:
        names = {**self.seconds, **other.seconds}
        total = {name: self.seconds.get(name, 0.0) + other.seconds.get(name, 0.0) for name in names}
        return Cost(total, self.sent + other.sent)

    def __mul__(self, times: float) -> Cost:
        return Cost({name: times * seconds for name, seconds in self.seconds.items()}, times * self.sent)


def device(work: Work, setting: Setting, machine: Machine) -> Cost:
    """A pass on one device."""
    found = {
        "arithmetic": work.flops / machine.flops[setting.dtype],
        "memory bandwidth": work.moved * setting.number / machine.bandwidth,
    }
    launches = work.launches * machine.launch
    if not machine.asynchronous:
        return Cost({**found, "launches": launches})
    return Cost({"launches": launches} if launches > sum(found.values()) else found)


def collective(kind: str, machine: Machine, ranks: int, size: float, *, scattered: bool = False) -> Cost:
    """A ring's all_reduce, all_gather or reduce_scatter of `size` bytes, those of the whole."""
    if ranks == 1:
        return Cost({})
    sent = (2 if kind == "all_reduce" else 1) * size * (ranks - 1) / ranks
    channel = machine.channel(kind, ranks, scattered=scattered)
    latency = channel.seconds(ranks, 0.0)
    return Cost({"network latency": latency, "network bandwidth": channel.seconds(ranks, sent) - latency}, sent)


def dealt(network: Network, setting: Setting, layout: Layout) -> tuple[int, int]:
    """`(rows of a batch, batches)` of the rank that has most: whole sequences, batches no larger than its share."""
    sequences = math.ceil(setting.rows / network.rows / layout.ranks)
    together = max(1, min(setting.batch // network.rows, sequences))
    return together * network.rows, math.ceil(sequences / together)


def product(network: Network, setting: Setting, layout: Layout, machine: Machine, kept: float = 1.0) -> Cost:
    """One product with all data; `kept`: the share of batches whose graphs are kept."""
    rows, batches = dealt(network, setting, layout)
    cost = Cost({})
    for share, is_kept in ((kept, True), (1.0 - kept, False)):
        if share:
            work = network.work(setting.kind, rows, rebuilt=not is_kept)
            cost += (device(work, setting, machine) + gathering(network, setting, layout, machine, is_kept)) * (
                share * batches
            )
    groups, mine = layout.ranks // layout.shards, network.parameters / layout.shards
    scattered = layout.shards >= machine.node
    return cost + collective("all_reduce", machine, groups, mine * setting.vector, scattered=scattered)


def gathering(network: Network, setting: Setting, layout: Layout, machine: Machine, is_kept: bool) -> Cost:
    """What one batch's product gathers and scatters of the parameters: tensor by tensor, the larger first."""
    size = network.parameters * setting.number / network.tensors
    gathers = collective("all_gather", machine, layout.shards, size) * (GATHERS[is_kept] * network.tensors)
    return gathers + collective("reduce_scatter", machine, layout.shards, size) * (SCATTERS[is_kept] * network.tensors)


def orthogonalisation(
    network: Network, setting: Setting, layout: Layout, machine: Machine, place: str = "device"
) -> Cost:
    """Of one vector against `columns` others, in two passes. Norms and each chunk are one all-reduce of shards.

    A basis that does not lie on the device comes from there once in each pass.
    """
    mine = network.parameters / layout.shards * setting.vector
    basis = PASSES * (setting.columns + BESIDE) * mine
    chunks = PASSES * math.ceil(setting.columns / max(CHUNK, CHUNK_BYTES // (network.parameters * setting.vector)))
    seconds = {
        "memory bandwidth": basis / machine.orthogonalise,
        "launches": (CHUNK_LAUNCHES * chunks + STEP_LAUNCHES) * machine.launch,
    }
    if place in ("host", "disk") and machine.pcie is not None:
        seconds["host link"] = PASSES * setting.columns * mine / machine.pcie
    if place == "disk":
        seconds["disk"] = PASSES * setting.columns * mine / machine.disk
    numbers = 8 * PASSES * setting.columns / chunks
    reduced = collective("all_reduce", machine, layout.shards, numbers) * chunks
    return Cost(seconds) + reduced + collective("all_reduce", machine, layout.shards, 8) * PASSES


def lanczos_step(
    network: Network, setting: Setting, layout: Layout, machine: Machine, kept: float = 1.0, place: str = "device"
) -> Cost:
    """A product and the orthogonalisation of its result."""
    found = product(network, setting, layout, machine, kept)
    return found + orthogonalisation(network, setting, layout, machine, place)
