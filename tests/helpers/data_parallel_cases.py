"""Models and data for several ranks, and what is measured of them, by the same functions on one process and on each."""

import torch
from torch import distributed, nn

from landscape import EKFAC, KFAC, EmpiricalFisher, FunctionalHessian, GaussNewton, Hessian, MonteCarloFisher, Objective
from landscape.spectra import density, diagonal, eigsh, trace


class Transformer(nn.Module):
    """Two blocks over 11 tokens, the embedding tied to the head."""

    def __init__(self, width=8, blocks=2):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        z = self.embed(x)
        for block in self.blocks:
            z = block(z)
        return self.head(z).transpose(1, 2)  # classes second, as torch's losses have them


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        h = self.norm(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm(x))


def tokens(generator, rows):
    x = torch.randint(11, (rows, 5), generator=generator)
    y = x.roll(-1, 1)
    y[torch.rand(rows, 5, generator=generator) < 0.3] = -100  # ragged: some have no target
    return x, y


def numbers(generator, rows):
    return torch.randn(rows, 6, dtype=torch.float64, generator=generator), torch.randint(
        3, (rows,), generator=generator
    )


def mlp():
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def normed():
    """Batch norm in eval mode, with statistics that differ from rank to rank as they do after training under DDP."""
    model = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    with torch.no_grad():
        model[1].running_mean.add_(0.1 * rank)
        model[1].running_var.mul_(1.0 + rank)
    return model.eval()


# name: (model, loss, batches of one process)
CASES = {
    "mlp": (mlp, nn.CrossEntropyLoss(), numbers, (4, 4, 3, 5, 1)),
    "transformer": (Transformer, nn.CrossEntropyLoss(), tokens, (3, 2, 2)),
    "batch norm": (normed, nn.CrossEntropyLoss(), numbers, (4, 4, 4)),
    "sum": (mlp, nn.CrossEntropyLoss(reduction="sum"), numbers, (4, 3, 2)),
}

NAMES = tuple(CASES)  # other modules add cases of their own


def batches_of(name):
    generator = torch.Generator().manual_seed(1)
    return [CASES[name][2](generator, rows) for rows in CASES[name][3]]


def objective(name, data, wrap=lambda model: model, **options):
    torch.manual_seed(0)
    make, loss, _, _ = CASES[name]
    model = wrap(make().double())
    if name == "sum":
        options = options | {"reduction": "sum"}
    return Objective(model, loss, data, **options)


def dealt(batches, rank, world, way):
    """One rank's batches: dealt round, unequal (the last rank has what the others leave), or all on the last rank."""
    if way == "dealt":
        return batches[rank::world]
    if way == "unequal":
        return batches[world - 1 :] if rank == world - 1 else batches[rank : rank + 1]
    return batches if rank == world - 1 else []


def everything(f):
    """All that ranks have to agree on, as numbers."""
    seed = torch.Generator().manual_seed
    v = torch.randn(f.size, generator=seed(3), dtype=f.dtype)
    V = torch.randn(f.size, 3, generator=seed(4), dtype=f.dtype)
    value, gradient = f.value_and_gradient()
    found = {"value": f.value(), "and gradient": value, "gradient": gradient}
    for kind in (Hessian, GaussNewton, EmpiricalFisher, MonteCarloFisher, FunctionalHessian):
        A = kind(f) if kind is not MonteCarloFisher else kind(f, generator=seed(5))
        found[kind.__name__] = torch.cat([(A @ v)[:, None], A @ V, (A @ v)[:, None]], dim=1)
    covered = f.restrict(KFAC.covered(f))
    for kind in (KFAC, EKFAC):
        K = kind(covered)
        found[kind.__name__] = torch.cat([K @ v[: covered.size], torch.tensor([K.trace(), K.inverse(0.1).shape[0]])])
    H = Hessian(f)
    found["restricted"] = H.restrict([f.names[0]]) @ torch.ones(f.restrict([f.names[0]]).size, dtype=f.dtype)
    pairs = eigsh(H, k=3, tol=1e-12, generator=seed(0))
    found |= {"eigenvalues": pairs.values, "eigenvectors": pairs.vectors.abs(), "products": pairs.matvecs}
    found["trace"] = trace(H, method="hutchinson", matvecs=10, generator=seed(0)).value
    found["density"] = density(H, probes=2, steps=6, generator=seed(0)).nodes
    found["diagonal"] = diagonal(H, matvecs=6, generator=seed(0)).value
    found["noise"] = H.noise
    return found


def measured(rank, world, way):
    """Of every case under DistributedDataParallel."""
    wrap = nn.parallel.DistributedDataParallel
    return {name: everything(objective(name, dealt(batches_of(name), rank, world, way), wrap)) for name in NAMES}
