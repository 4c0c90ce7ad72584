"""What two ranks do to check the cost model, each beside what the model says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch import distributed as dist
from typing_extensions import override

from landscape import GaussNewton, Hessian, Objective
from landscape.operators.linear import LinearOperator
from landscape.operators.vectors import VectorSpace
from landscape.spectra.krylov import Krylov
from runs.benchmarks.models import Workload, gpt, mlp
from runs.scale import network
from runs.scale.machine import Machine
from runs.scale.model import GATHERS, Cost, Layout, Setting, collective, lanczos_step, orthogonalisation, product
from runs.scale.network import Kind, Network

Run = Callable[[], object]

ROUNDS = 10  # of measuring, of which the least counts
COLUMNS = 24  # of a basis
_SAMPLES, _SEQUENCES, _CONTEXT = 128, 2, 64
_MLP = network.mlp((784, 512, 512, 10))
_GPT = network.transformer(4, 128, 4, _CONTEXT, 256)
_LONG = Network("no network", 1 << 19, 1, 1, 1, {}, {}, 0.0)
_BOTH, _SHARDED = Layout(2), Layout(2, shards=2)


@dataclass(frozen=True)
class Task:
    """What both ranks run: `make(rank, device)` prepares it; and its cost on a machine by the model."""

    make: Callable[[int, torch.device], Run]
    predicted: Callable[[Machine], Cost]


def all_gather(x: Tensor) -> Tensor:
    """Of each rank's part of what is as large as x."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(whole := torch.empty_like(x), x[: len(x) // dist.get_world_size()])
    return whole


def reduce_scatter(x: Tensor) -> Tensor:
    """Of x, into parts."""
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    scatter(part := torch.empty_like(x[: len(x) // dist.get_world_size()]), x)
    return part


class ShardedRows(VectorSpace):
    """Vectors of which each rank holds as many rows."""

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, torch.float32, device, shape=(size // dist.get_world_size(),))

    @override
    def reduce(self, G: Tensor) -> Tensor:
        dist.all_reduce(G)
        return G.cpu()


class Diagonal(LinearOperator):
    """A diagonal matrix: its products cost next to nothing."""

    def __init__(self, space: VectorSpace) -> None:
        super().__init__(space.size, space.dtype, space.device)
        self.space = space
        self.diagonal = torch.linspace(0.0, 1.0, space.shape[0], device=space.device).unsqueeze(-1)

    @override
    def _matmat(self, V: Tensor) -> Tensor:
        return self.diagonal * V


def _curvature(
    kind: str, workload: Workload, rank: int, device: torch.device, *, alone: bool = False
) -> LinearOperator:
    """Of the mean over both ranks' batches; `alone`: of this one's."""
    batch = workload.batches(2, device)[rank]
    model = workload.model if alone else nn.parallel.DistributedDataParallel(workload.model)
    objective = Objective(model, workload.loss, [batch], check=False)
    return {"hessian": Hessian, "gauss-newton": GaussNewton}[kind](objective)


def _products(A: LinearOperator) -> Run:
    v = A.random(1, "normal", torch.Generator().manual_seed(0))
    A @ v  # builds the graph
    return lambda: A @ v


def steps(A: LinearOperator, seed: int) -> Run:
    """Makes the next step of a chain, beginning at `COLUMNS` columns."""
    chain = Krylov(A, COLUMNS + 2 * ROUNDS)
    start = torch.randn(*A.space.shape, 1, generator=torch.Generator().manual_seed(seed))
    chain.absorb(A @ chain.inject(start.to(A.device)))
    chain.advance(COLUMNS - 1)
    return lambda: chain.advance(1)


def _in_pieces(rank: int, device: torch.device) -> Run:
    """A product with what sharded parameters send: gathers and scatters of each tensor."""
    workload = gpt(batch=_SEQUENCES)
    own = _products(_curvature("hessian", workload, rank, device, alone=True))
    sizes = [torch.zeros(p.numel(), device=device) for p in workload.model.parameters()]

    def run() -> None:
        own()
        for p in sizes:
            for _ in range(GATHERS[True]):
                all_gather(p)
            reduce_scatter(p)

    return run


def _setting(network: Network, kind: Kind) -> Setting:
    rows = _SAMPLES if network is _MLP else _SEQUENCES * _CONTEXT
    return Setting(rows=2 * rows, batch=rows, kind=kind, columns=COLUMNS)


def _of_product(network: Network, kind: Kind, layout: Layout = _BOTH) -> Callable[[Machine], Cost]:
    return lambda machine: product(network, _setting(network, kind), layout, machine)


TASKS = {
    "all-reduce of 4 MiB": Task(
        lambda rank, device: partial(dist.all_reduce, torch.zeros(1 << 20, device=device)),
        lambda machine: collective("all_reduce", machine, 2, 4 << 20),
    ),
    "Hessian product, MLP, DDP": Task(
        lambda rank, device: _products(_curvature("hessian", mlp(_SAMPLES), rank, device)), _of_product(_MLP, "hessian")
    ),
    "Hessian product, transformer, DDP": Task(
        lambda rank, device: _products(_curvature("hessian", gpt(_SEQUENCES), rank, device)),
        _of_product(_GPT, "hessian"),
    ),
    "Gauss-Newton product, transformer, DDP": Task(
        lambda rank, device: _products(_curvature("gauss-newton", gpt(_SEQUENCES), rank, device)),
        _of_product(_GPT, "gauss-newton"),
    ),
    "Hessian product, transformer, gathers and scatters of FSDP2": Task(
        _in_pieces, _of_product(_GPT, "hessian", _SHARDED)
    ),
    f"orthogonalisation, 2 x 2^18 rows, {COLUMNS} columns": Task(
        lambda rank, device: steps(Diagonal(ShardedRows(_LONG.parameters, device)), rank),
        lambda machine: orthogonalisation(_LONG, Setting(columns=COLUMNS), _SHARDED, machine),
    ),
    f"Lanczos step, transformer, DDP, {COLUMNS} columns": Task(
        lambda rank, device: steps(_curvature("hessian", gpt(_SEQUENCES), rank, device), 0),
        lambda machine: lanczos_step(_GPT, _setting(_GPT, "hessian"), _BOTH, machine),
    ),
}
