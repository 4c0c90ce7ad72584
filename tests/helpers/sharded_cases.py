"""Models under `fully_shard` on several ranks, and what is measured of them: the same calls on one process and on each.

Vectors come back whole, so that they can be compared.
"""

import data_parallel_cases as cases
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard
from torch.utils._python_dispatch import TorchDispatchMode

from landscape import GaussNewton, Hessian, MonteCarloFisher, Objective
from landscape.sharpness import alignment
from landscape.spectra import density, diagonal, eigsh, trace
from solvers import NGN


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
    found["alignment"] = alignment(gradient, pairs).total
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


def trained(rank, world):
    """Losses of steps under FSDP and the state at the end, with measurements in between and without."""
    found = []
    for measure in (False, True):
        torch.manual_seed(0)
        model = shard(cases.Transformer().double())
        hooked = []
        model.blocks[0].register_forward_hook(lambda *_, hooked=hooked: hooked.append(1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        x, y = cases.tokens(torch.Generator().manual_seed(rank), 3 + rank)
        losses = []
        for _ in range(3):
            if measure:
                f = Objective(model, nn.CrossEntropyLoss(), (x, y), check=False)
                A = Hessian(f)
                versions = [p._local_tensor._version for p in model.parameters()]
                before = len(hooked)
                with f.at(f.theta() * 0.9):
                    A @ f.theta()
                model(x)  # the root stays whole after a forward pass without a backward pass
                first = A @ f.theta()
                assert len(hooked) > before  # a user's hook runs while measuring
                assert [p._local_tensor._version for p in model.parameters()] == versions
                own = [p._local_tensor.data for p in model.parameters() if rank == 0]
                copies = [t.clone() for t in own]
                for t in own:
                    t.mul_(1.001)  # on one rank alone: all have to build their graphs anew
                assert not torch.equal(A @ f.theta(), first)
                for t, copy in zip(own, copies, strict=True):
                    t.copy_(copy)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        found.append((losses, [p.full_tensor().detach() for p in model.parameters()]))
    return found


def laid_out(rank, world):
    """Products of a transformer that is cut along other dimensions, or held in two copies of two shards each."""
    x, y = cases.tokens(torch.Generator().manual_seed(1), 8)
    rows = slice(2 * rank, 2 * rank + 2) if world == 4 else slice(0, 5) if rank == 0 else slice(5, 8)
    meshes = {"last": None}
    if world == 4:
        meshes = {"hybrid": init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))}
    found = {}
    for name, mesh in meshes.items():
        torch.manual_seed(0)
        model = cases.Transformer().double()
        options = {"shard_placement_fn": lambda p: Shard(p.ndim - 1)} if name == "last" else {"mesh": mesh}
        f = Objective(shard(model, **options), nn.CrossEntropyLoss(), (x[rows], y[rows]))
        A = Hessian(f)
        v = A.space.random(2, "normal", torch.Generator().manual_seed(0))
        pairs = eigsh(A, k=1, max_matvecs=6)
        found[name] = A.space.full(A @ v), f.value(), pairs.seed, pairs.values
    return found


class Counting(TorchDispatchMode):
    """How many collectives of each kind are called."""

    def __init__(self):
        super().__init__()
        self.gathers = self.reductions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.gathers += "allgather" in str(func)
        self.reductions += "reduce_scatter" in str(func)
        return func(*args, **(kwargs or {}))


def counted(rank, world):
    """Collectives and gathered bytes of products: of a rebuilt graph and of a kept one."""
    torch.manual_seed(0)
    model = shard(cases.Transformer(width=32, blocks=4).double())
    data = cases.tokens(torch.Generator().manual_seed(rank), 2)
    f = Objective(model, nn.CrossEntropyLoss(), data, check=False)
    A = Hessian(f)
    v = f.theta()
    A @ v  # what is found out once
    A.release()
    gatherer = f._network.shards.gatherer
    gatherer.peak = 0
    with Counting() as rebuilt:
        A @ v
    between = gatherer.alive
    with Counting() as kept:
        A @ v
    largest = max(p.numel() * p.itemsize for p in model.parameters())
    return (
        (rebuilt.gathers, rebuilt.reductions),
        (kept.gathers, kept.reductions),
        A.space.gathered_peak,
        between,
        largest,
    )


class Failing(nn.Module):
    """Raises on rank 1 where it is told to: in the forward pass, in a backward pass or in the loss."""

    def __init__(self, rank):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)
        self.rank, self.when = rank, None

    def fail(self, when):
        if self.rank == 1 and self.when == when:
            raise ArithmeticError(f"told to fail in {when}")

    def forward(self, x):
        z = torch.tanh(self.first(x))
        self.fail("forward")
        if z.requires_grad:
            z.register_hook(lambda g: self.fail("backward"))
        return self.last(z)


def failing(rank, world):
    """What each rank says when rank 1 fails, and that both can go on together afterwards."""
    torch.manual_seed(0)
    model = Failing(rank).double()
    fully_shard(model)
    x, y = cases.numbers(torch.Generator().manual_seed(rank), 4)

    def loss(outputs, targets):
        model.fail("loss")
        return nn.functional.cross_entropy(outputs, targets)

    f = Objective(model, loss, (x, y), check=False)
    A, said = Hessian(f), []
    expected = A @ f.theta()
    for when in ("forward", "backward", "loss"):
        A.release()
        model.when = when
        try:
            A @ f.theta()
        except ArithmeticError as error:
            said.append(str(error))
        model.when = None
        assert torch.equal(A @ f.theta(), expected)
    if rank == 0:
        model.first.register_forward_hook(lambda *_: None)  # looked at anew, on this rank alone
    A.release()
    assert torch.equal(A @ f.theta(), expected)
    return said, penalised(model, [(x, y), (x, y)][: 2 - rank])


def penalised(model, data):
    """What is said of what would be measured in this rank's shares."""
    x, y = data[0]
    shares = list(model.parameters())  # a forward pass without a backward pass leaves whole ones in their places

    def plain():
        return nn.functional.cross_entropy(model(x), y)

    def gradient(way):
        def loss(outputs, targets):
            return nn.functional.cross_entropy(outputs, targets) + sum(way(p) for p in model.parameters())

        return Objective(model, loss, data, check=False).gradient()

    works = [
        lambda: Hessian.from_loss(plain(), shares),
        lambda: NGN(shares).step(plain),
        lambda: gradient(lambda p: (p**2).sum()),
        lambda: gradient(lambda p: (p.full_tensor() ** 2).sum()),
        lambda: gradient(lambda p: (p.to_local() ** 2).sum()),
    ]
    said = []
    for work in works:
        try:
            work()
        except TypeError as error:
            said.append(str(error))
    return said
