"""Models that move something beside their parameters when they run, and what tells whether it was put back."""

import random
from collections import deque

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune, spectral_norm
from torch.utils.checkpoint import checkpoint


class Around(nn.Module):
    """A network, and something that it has beside its parameters."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x):
        return self.net(self.moved(x))

    def moved(self, x):
        return x


class OwnGenerator(Around):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def moved(self, x):
        return x + torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


class OwnGenerators(Around):
    def __init__(self):
        super().__init__()
        self.sources = {"numpy": [np.random.default_rng(0), np.random.RandomState(1)], "python": (random.Random(2),)}

    def moved(self, x):
        modern, legacy = self.sources["numpy"]
        return x * (1 + modern.random() + legacy.rand() + self.sources["python"][0].random())


class Counter(Around):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def moved(self, x):
        self.calls += 1
        return x * (1 + 0.1 * self.calls)


class CountingBuffer(Around):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def moved(self, x):
        self.calls += 1
        return x * (1 + 0.1 * self.calls)


class History(Around):
    def __init__(self):
        super().__init__()
        self.features = []

    def moved(self, x):
        self.features.append(self.net[:2](x))
        return x * (1 + 0.1 * len(self.features))


class Cache(Around):
    """A tensor that is written into, and a view of it that is read."""

    def __init__(self):
        super().__init__()
        self.cache = torch.zeros(2, 4, dtype=torch.float64)
        self.row = self.cache[1]

    def moved(self, x):
        with torch.no_grad():
            self.cache += x.mean(0)
        return x * (1 + self.row)


class CacheOutOfSight(Around):
    """The same in a tuple and in an array."""

    def __init__(self):
        super().__init__()
        self.held = (torch.ones(4, dtype=torch.float64),)
        self.mean = np.zeros(4)

    def moved(self, x):
        self.held[0].mul_(1.5)
        self.mean += x.detach().numpy().mean(0)
        return x * self.held[0] + torch.as_tensor(self.mean)


LEVEL = torch.zeros((), dtype=torch.float64)


class GlobalLevel(Around):
    """A tensor of the file that forward names."""

    def forward(self, x):
        LEVEL.add_(0.1)
        return self.net(x * (1 + LEVEL))


class PreHook(Around):
    """A hook before a module, with a tensor that it closes over."""

    def __init__(self):
        super().__init__()
        level = torch.zeros((), dtype=torch.float64)

        def raised(module, inputs):
            level.add_(0.1)
            return (inputs[0] * (1 + level),)

        self.net[0].register_forward_pre_hook(raised)


class Queue(Around):
    def __init__(self):
        super().__init__()
        self.seen = deque([0.5], maxlen=4)

    def moved(self, x):
        self.seen.append(1.0)
        return x * (1 + 0.1 * sum(self.seen))


class Renaming(Around):
    """The same object under another key each time."""

    def __init__(self):
        super().__init__()
        self.turns = {"even": torch.ones(())}

    def moved(self, x):
        (now,) = self.turns
        self.turns["odd" if now == "even" else "even"] = self.turns.pop(now)
        return x * (1.5 if now == "even" else 1.0)


class Holder:
    mean = None


class InAnObject(Around):
    def __init__(self):
        super().__init__()
        self.holder = Holder()
        self.holder.mean = torch.zeros(4, dtype=torch.float64)

    def moved(self, x):
        self.holder.mean = 0.9 * self.holder.mean + 0.1 * x.mean(0)
        return x - self.holder.mean


class Modes(Around):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def moved(self, x):
        dropped = self.drop(x)
        self.train(not self.training)
        return dropped


class Mask(Around):
    """Drawn at the first call and kept."""

    mask = None

    def moved(self, x):
        if self.mask is None:
            self.mask = (torch.rand(4) > 0.5).to(x)
        return x * self.mask


class Seeding(Around):
    def moved(self, x):
        for seed in (torch.manual_seed, random.seed, np.random.seed):
            seed(5)
        return x + torch.randn_like(x)


class Registering(Around):
    def moved(self, x):
        self.register_buffer("mean", x.detach().mean(0))
        return x - self.mean


class Segments(Around):
    """Statistics, noise of its own and Python's in a part that is recomputed in the backward pass."""

    def __init__(self, reentrant=False):
        super().__init__()
        self.norm, self.reentrant = nn.BatchNorm1d(6), reentrant
        self.generator = torch.Generator().manual_seed(1)
        self.register_buffer("level", torch.zeros((), dtype=torch.float64))

    def part(self, x):
        self.level += 0.1
        noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        drawn = random.random() + np.random.random()
        return torch.tanh(self.norm(self.net[0](x * (1 + self.level)) * (1 + drawn)) + noise[:, :1])

    def forward(self, x):
        self.level += 0.3  # before the segment, which starts from here again
        if self.reentrant is None:
            return self.net[2](self.part(x))
        return self.net[2](checkpoint(self.part, x, use_reentrant=self.reentrant))


class BackwardHook(Around):
    def __init__(self):
        super().__init__()
        self.gradients = []
        self.net[0].register_full_backward_hook(self.seen)

    def seen(self, module, given, made):
        self.gradients.append(made)
        return tuple(None if g is None else 2 * g for g in given)


def pruned():
    model = Around()
    prune.random_unstructured(model.net[0], "weight", 0.5)
    return with_leaf_weight(model)


def old_spectral_norm():
    model = Around()
    spectral_norm(model.net[0])
    return with_leaf_weight(model.eval())


def with_leaf_weight(model):
    """After a pass without gradients the attribute that a hook sets has no graph."""
    with torch.no_grad():
        model(torch.zeros(2, 4))
    model.double()
    with torch.no_grad():
        model(torch.zeros(2, 4).double())
    return model


MODELS = {
    model.__name__: model
    for model in (
        OwnGenerator,
        OwnGenerators,
        Counter,
        CountingBuffer,
        History,
        Cache,
        CacheOutOfSight,
        GlobalLevel,
        PreHook,
        Queue,
        Renaming,
        InAnObject,
        Modes,
        Mask,
        Seeding,
        Registering,
        Segments,
        BackwardHook,
        pruned,
        old_spectral_norm,
    )
}


def batches():
    g = torch.Generator().manual_seed(1)
    X, y = torch.randn(12, 4, generator=g).double(), torch.randint(0, 3, (12,), generator=g)
    return [(X[:7], y[:7]), (X[7:], y[7:])]


def loss_of(model, X, y):
    return float(nn.CrossEntropyLoss()(model(X), y).detach())


def built(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().double()


def frozen(value):
    """Anything, as what can be compared: tensors with their identity and whether they have a graph."""
    if isinstance(value, torch.Tensor):
        return (
            id(value),
            value.dtype,
            value.detach().cpu().numpy().tobytes(),
            value.requires_grad,
            value.grad_fn is None,
        )
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return str(value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, nn.Module | Holder):
        return id(value), frozen(vars(value))
    if isinstance(value, dict):
        return [(key, frozen(item)) for key, item in value.items()]
    return [frozen(item) for item in value] if isinstance(value, list | tuple | deque) else value


def everything_of(model):
    rng = torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())
    return frozen(model), [frozen(p.grad) for p in model.parameters()], rng
