"""What fits on a rank, and how a Lanczos step is done best on so many of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from runs.scale.machine import Machine
from runs.scale.model import Cost, Layout, Setting, dealt, orthogonalisation, product
from runs.scale.network import Network

# Vectors alive beside the basis: that of the product, its result, the candidate, a sum.
VECTORS = 4
# Columns without which no Krylov process is worth its name.
LEAST = 5


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank, and what follows from them.

    Attributes:
        parameters: of the rank.
        gathered: alive at once: twice the largest tensor, and its cotangent.
        graph: of one batch, with the gradient that it ends in.
        vectors: beside the basis.
        basis: all columns.
        batch: rows of a batch: those asked for, or as many sequences as fit.
        kept: the share of batches whose graphs are kept.
        place: where the basis lies; "restart" where it fits nowhere.
        columns: of the basis, fewer where it restarts.
        capacity: of the rank.
        alive: graphs at once, at least.
    """

    parameters: float
    gathered: float
    graph: float
    vectors: float
    basis: float
    batch: int
    kept: float
    place: str
    columns: int
    capacity: float
    alive: int

    @property
    def least(self) -> float:
        """Without which no product can be made: of several batches one graph is kept and one in flight."""
        return self.parameters + self.gathered + self.alive * self.graph + self.vectors

    @property
    def fits(self) -> bool:
        """Whether a product and five columns find room."""
        return self.least <= self.capacity and self.columns >= LEAST


def memory(network: Network, setting: Setting, layout: Layout, machine: Machine) -> Memory:
    """What a rank holds. Of what parameters and vectors leave, graphs get a half and the basis the other."""
    mine = network.parameters / layout.shards
    parameters, vectors = mine * setting.number, VECTORS * mine * setting.vector
    gathered = 3.0 * network.largest * setting.number if layout.shards > 1 else 0.0
    room = (machine.memory - parameters - gathered - vectors) / 2
    rows, _ = dealt(network, setting, layout)

    def graph(rows: int) -> float:
        return (network.kept * rows + mine) * setting.number

    while graph(rows) > room and rows > network.rows:
        rows = max(network.rows, rows // network.rows // 2 * network.rows)
    _, batches = dealt(network, replace(setting, batch=rows), layout)
    kept = min(1.0, max(1, int(room / graph(rows))) / batches)  # the first one is kept whatever its size
    column = mine * setting.vector
    places = {"device": room, "host": machine.host_memory / 2, "disk": machine.disk_memory / 2}
    found = [
        name for name, size in places.items() if setting.columns * column <= size and setting.basis in ("auto", name)
    ]
    columns = setting.columns if found else max(0, int(room / column))
    return Memory(
        parameters=parameters,
        gathered=gathered,
        graph=graph(rows),
        vectors=vectors,
        basis=columns * column,
        batch=rows,
        kept=kept,
        place=found[0] if found else "restart",
        columns=columns,
        capacity=machine.memory,
        alive=min(batches, 2),
    )


@dataclass(frozen=True)
class Plan:
    """How a step would be done best on so many ranks, and what it costs there; None where it cannot be done."""

    layout: Layout
    memory: Memory
    product: Cost | None = None
    orthogonalisation: Cost | None = None

    @property
    def step(self) -> Cost | None:
        """One Lanczos step."""
        return None if self.product is None or self.orthogonalisation is None else self.product + self.orthogonalisation

    @property
    def bottleneck(self) -> str:
        """What takes most of a step, or keeps it from being done."""
        return "memory" if self.step is None else self.step.bottleneck


def planned(network: Network, setting: Setting, layout: Layout, machine: Machine) -> Plan:
    """A step in this layout."""
    found = memory(network, setting, layout, machine)
    if not found.fits:
        return Plan(layout, found)
    fitted = replace(setting, batch=found.batch, columns=found.columns)
    place = "device" if found.place == "restart" else found.place
    return Plan(
        layout,
        found,
        product(network, fitted, layout, machine, found.kept),
        orthogonalisation(network, fitted, layout, machine, place),
    )


def best(network: Network, setting: Setting, ranks: int, machine: Machine) -> Plan:
    """The fastest of the layouts that fit; the one that needs least memory where none does."""
    shards = sorted({1, min(machine.node, ranks), ranks})
    plans = [planned(network, setting, Layout(ranks, count), machine) for count in shards if ranks % count == 0]
    possible = [plan for plan in plans if plan.step is not None]
    if not possible:
        return min(plans, key=lambda plan: plan.memory.least)
    return min(possible, key=lambda plan: plan.step.total if plan.step else math.inf)
