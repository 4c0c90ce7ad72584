"""Machines as the cost model sees them: rates and latencies, and where each figure is from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MEASURED, SHEET, ASSUMED = "measured", "data sheet", "assumed"
ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Channel:
    """One kind of collective: its time is `latency` a round, of which it has log2 of the ranks, and the volume's."""

    latency: float
    bandwidth: float

    def seconds(self, ranks: int, volume: float) -> float:
        """For `volume` bytes that each rank sends."""
        return self.latency * math.ceil(math.log2(ranks)) + volume / self.bandwidth if ranks > 1 else 0.0


@dataclass(frozen=True)
class Machine:
    """One rank of a machine, a GPU or a process, and its connections. Seconds, bytes, and bytes a second.

    Attributes:
        flops: of matrix products, a second, by dtype of the model.
        bandwidth: of element-wise operations.
        orthogonalise: bytes of a basis that one pass of Gram-Schmidt goes through.
        memory, host_memory, disk_memory: of a rank.
        launch: seconds of one operation beside its work.
        asynchronous: launches run ahead of the work, so that the longer of the two is what takes time.
        node: ranks that share a fast link.
        all_reduce, all_gather, reduce_scatter: collectives inside a node.
        nic: of a rank between nodes; None where there is one node.
        pcie: between the device and the host's memory; None where they are the same.
        disk: reading a file.
        start: seconds until a new process computes.
        sources: what kind of figure each one is, by the attribute's name.
    """

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    orthogonalise: float
    memory: float
    host_memory: float
    disk_memory: float
    launch: float
    asynchronous: bool
    node: int
    all_reduce: Channel
    all_gather: Channel
    reduce_scatter: Channel
    nic: float | None
    pcie: float | None
    disk: float
    start: float
    sources: Mapping[str, str] = field(default_factory=dict)

    def channel(self, kind: str, ranks: int, *, scattered: bool = False) -> Channel:
        """The collective of that kind ("all_reduce", ...) over so many ranks.

        Beyond a node a ring leaves it through the network cards of all its ranks. `scattered`: one rank of each node.
        """
        inside: Channel = getattr(self, kind)
        if self.nic is None or (ranks <= self.node and not scattered):
            return inside
        outside = self.nic if scattered else self.node * self.nic
        return Channel(inside.latency, min(inside.bandwidth, outside))

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of_plain(cls, content: Mapping[str, Any]) -> Machine:
        """From what `plain` returned."""
        kinds = ("all_reduce", "all_gather", "reduce_scatter")
        return cls(**{**content, **{kind: Channel(**content[kind]) for kind in kinds}})


# Of what the data sheets promise: long matrix products, streams of memory and rings get about this share.
_REACHED = {"flops": 0.6, "bandwidth": 0.8, "link": 0.75}
# Bytes that a pass of Gram-Schmidt moves for each of the basis: inner products in float64 read a column, write it as
# float64 and read that (5), the update reads it again (1), and for every four columns the vector goes along (2).
_MOVED = 8.0
_LAUNCH, _ROUND = 5e-6, 1e-5


def _gpu(
    name: str, flops: Mapping[str, float], memory: float, bandwidth: float, link: float, nic: float, pcie: float
) -> Machine:
    """A GPU of a node of eight, from the figures of data sheets (links and cards: one direction)."""
    reached = _REACHED["bandwidth"] * bandwidth
    ring = Channel(_ROUND, _REACHED["link"] * link)
    sheet = f"{SHEET} x {{}} ({ASSUMED})"
    return Machine(
        name=name,
        flops={dtype: _REACHED["flops"] * rate for dtype, rate in flops.items()},
        bandwidth=reached,
        orthogonalise=reached / _MOVED,
        memory=memory,
        host_memory=256e9,
        disk_memory=3.84e12,
        launch=_LAUNCH,
        asynchronous=True,
        node=8,
        all_reduce=ring,
        all_gather=ring,
        reduce_scatter=ring,
        nic=_REACHED["link"] * nic,
        pcie=_REACHED["link"] * pcie,
        disk=5e9,
        start=20.0,
        sources={
            "flops": sheet.format(_REACHED["flops"]),
            "bandwidth": sheet.format(_REACHED["bandwidth"]),
            "orthogonalise": f"{sheet.format(_REACHED['bandwidth'])} / {_MOVED:.0f} (derived)",
            "memory": SHEET,
            "host_memory": f"{SHEET}: 2 TB of a node / 8",
            "disk_memory": f"{SHEET}: one drive of eight",
            "launch": ASSUMED,
            "collectives": f"bandwidth: {sheet.format(_REACHED['link'])}; latency: {ASSUMED}",
            "nic": sheet.format(_REACHED["link"]),
            "pcie": sheet.format(_REACHED["link"]),
            "disk": ASSUMED,
            "start": ASSUMED,
        },
    )


# Dense rates, without sparsity. float32 is not TF32, which loses the digits that second derivatives need.
H100 = _gpu(
    "H100 SXM 80 GB, 8 a node",
    {"float64": 67e12, "float32": 67e12, "bfloat16": 989e12},
    memory=80e9,
    bandwidth=3.35e12,
    link=450e9,
    nic=50e9,
    pcie=64e9,
)
A100 = _gpu(
    "A100 SXM 80 GB, 8 a node",
    {"float64": 19.5e12, "float32": 19.5e12, "bfloat16": 312e12},
    memory=80e9,
    bandwidth=2.039e12,
    link=300e9,
    nic=25e9,
    pcie=32e9,
)
VENDORS = {"h100": H100, "a100": A100}
