"""Models under `fully_shard` on several ranks, and what is measured of them: the same calls on one process and on each.

Vectors come back whole, so that they can be compared.
"""

import data_parallel_cases as cases
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from landscape import GaussNewton, Hessian, MonteCarloFisher
from landscape.spectra import density, diagonal, eigsh, trace


class Experts(nn.Module):
    """Each sample goes to one of three experts, by the sign of its first entry: a rank may need none of some."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 7) for _ in range(3))
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        z = x.new_zeros(len(x), 7)
        kind = (x[:, 0] > 0.5).long() + (x[:, 0] > -0.5)
        for number, expert in enumerate(self.experts):
            rows = (kind == number).nonzero()[:, 0]
            if len(rows):
                z = z.index_add(0, rows, torch.tanh(expert(x[rows])))
        return self.head(z)


class Unused(nn.Module):
    """A parameter that no rank uses, one that is frozen, and a padded embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6, padding_idx=3)
        self.unused = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.head = nn.Linear(6, 11)

    def forward(self, x):
        return self.head(torch.tanh(self.frozen(self.embed(x)))).transpose(1, 2)


def convolution():
    """Weight norm by parametrisation, batch norm in eval mode, kernels."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 4, 3),
        nn.BatchNorm1d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.utils.parametrizations.weight_norm(nn.Linear(16, 3)),
    ).eval()


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 11, "n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()


def logits(model, x):
    return model(x).logits.transpose(1, 2)


OTHERS = {
    "experts": (Experts, nn.CrossEntropyLoss(), cases.numbers, (4, 3, 1, 1)),
    "unused": (Unused, nn.CrossEntropyLoss(), cases.tokens, (3, 2)),
    "convolution": (convolution, nn.CrossEntropyLoss(), cases.numbers, (4, 3)),
    "gpt2": (gpt2, nn.CrossEntropyLoss(), cases.tokens, (2, 1)),
}
cases.CASES |= OTHERS


def shard(model, **options):
    for part in [*getattr(model, "blocks", []), *getattr(getattr(model, "transformer", None), "h", [])]:
        fully_shard(part, **options)
    return fully_shard(model, **options) or model


def objective(name, data, wrap=lambda model: model, **options):
    forward = logits if name == "gpt2" else None
    return cases.objective(name, data, wrap, forward=forward, **options)


def everything(f):
    """All that has to be the same, as numbers."""
    seed = torch.Generator().manual_seed
    H = Hessian(f)
    V = H.space.shard(torch.randn(f.size, 2, generator=seed(4), dtype=f.dtype))
    value, gradient = f.value_and_gradient()
    found = {"value": f.value(), "and gradient": value, "gradient": H.space.full(gradient)}
    found["theta"] = H.space.full(f.theta())
    for A in (H, GaussNewton(f), MonteCarloFisher(f, generator=seed(5))):
        found[type(A).__name__] = A.space.full(torch.cat([A @ V, (A @ V[:, 0])[:, None]], dim=1))
    with f.at(f.theta() + 0.1 * V[:, 0]):
        found["elsewhere"] = f.value()
        found["product elsewhere"] = H.space.full(H @ V[:, 1])
    found["restricted"] = (R := H.restrict([f.names[-1]])).space.full(R @ R.space.shard(torch.arange(R.shape[0])))
    found["block"] = H.block([0, f.size - 1, 5])
    pairs = eigsh(H, k=2, max_matvecs=8, generator=seed(0))
    found |= {"eigenvalues": pairs.values, "eigenvectors": H.space.full(pairs.vectors).abs(), "products": pairs.matvecs}
    found["trace"] = trace(H, method="hutchinson", matvecs=3, generator=seed(0)).value
    found["density"] = density(H, probes=1, steps=4, generator=seed(0)).nodes
    found["diagonal"] = H.space.full(diagonal(H, matvecs=2, generator=seed(0)).value)
    found["noise"] = H.noise
    return found


def measured(rank, world, way, *names):
    """Of these cases, with what the self-check has said."""
    found = {}
    for name in names:
        f = objective(name, cases.dealt(cases.batches_of(name), rank, world, way), shard)
        found[name] = everything(f)
        A = Hessian(f)
        A @ f.theta()
        found[name]["check"] = str(A.checked)
    return found
