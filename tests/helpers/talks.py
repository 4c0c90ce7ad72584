"""What ranks say to each other, and functions of several ranks, one after the other in one group of processes."""

import copy
import os
import signal
import time

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from landscape import FiniteDifferenceHessian, Hessian, Objective
from landscape.collapse import measure
from landscape.ranks import Ranks, in_step
from landscape.sharpness import batch_sharpness
from landscape.spectra import eigsh
from landscape.tuning import Tuning

DDP = nn.parallel.DistributedDataParallel


class Odd(Exception):
    """Takes what no other error takes."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raised(work):
    """Kind and text of what it raises, and whether the ranks are in step."""
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error), in_step(error)
    return None


def fails_on(rank, error):
    def work():
        if distributed.get_rank() == rank:
            raise error
        return "fine"

    return work


def words(rank, world):
    """Of `Ranks` itself."""
    ranks = Ranks(distributed.group.WORLD)
    found = {"none fails": ranks.agreed(lambda: rank), "one fails": raised(lambda: ranks.agreed(boom(rank)))}
    found["odd"] = raised(lambda: ranks.agreed(fails_on(1, Odd("one", "two"))))

    class Local(Exception):
        pass

    found["local"] = raised(lambda: ranks.agreed(fails_on(1, Local("hidden"))))
    each = [KeyError("first"), ValueError("second")][min(rank, 1)]
    found["each its own"] = raised(lambda: ranks.agreed(fails_on(rank, each)))
    blank = torch.zeros(2)
    found["sum fails"] = raised(lambda: ranks.summed(lambda: 1 / 0 if rank else (blank + 1, 1.0, 1.0), lambda: blank))
    sums, weight = ranks.summed(lambda: (torch.tensor([1.0, rank]), 2.0, 3.0), lambda: blank)
    third = blank.double()  # that is no number of fewer digits
    found["exact weight"] = ranks.summed(lambda: (third, 1.0, 1 / 3), lambda: third)[1]
    own, _ = ranks.summed(lambda: (torch.tensor([1.0, rank]), 2.0, 3.0), lambda: blank, apart=True)
    found |= {"summed": sums.tolist(), "weight": weight, "apart": own.tolist()}
    stop = [None, lambda: rank == 1, lambda: None]
    found["stopped"] = ranks.stopped(stop[min(rank, 2)]), ranks.stopped(None), ranks.stopped(lambda: False)
    found["asking fails"] = raised(lambda: ranks.stopped(boom(rank)))
    found["gathered"] = ranks.gathered({"rank": rank})
    found["shared"] = ranks.shared(f"from {rank}", 1)
    found["largest"] = ranks.largest(-float(rank))
    found["any"] = ranks.any(rank == 1), ranks.any(False)
    mine = [torch.tensor([float(rank)]), torch.tensor([rank, 2 * rank]), torch.tensor(float(rank)).double()]
    found["as first"] = [t.tolist() for t in ranks.as_first(mine)], [t.tolist() for t in mine]
    total, met = torch.tensor([10.0**rank]), []
    ranks.folded(total, lambda other, source: (met.append(source), total.add_(other)))
    found["folded"] = total.tolist(), met
    tuning = Tuning(torch.device("cpu"))
    ways = {"even": lambda: pause(0.04), "uneven": lambda: pause(0.01 if rank else 0.3)}
    tuning.fastest("way", ways)
    before = tuning.choice("way")
    tuning.settle("kind", ranks)
    return found | {"chosen": (before, tuning.choice("way"))}


def boom(rank):
    return fails_on(1, ValueError("nothing to see"))


def pause(seconds):
    time.sleep(seconds)
    return torch.ones(1)


def network(norm=False):
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(5)] if norm else []
    return nn.Sequential(nn.Linear(3, 5), *middle, nn.Tanh(), nn.Linear(5, 3)).double().eval()


def samples(rows=7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    return x, torch.arange(rows) % 3


def batches(rows=7, size=2):
    x, y = samples(rows)
    return list(zip(x.split(size), y.split(size), strict=True))


class Called(nn.Module):
    """A model of named arguments."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels):
        return {"logits": self.net(x)}


class Branching(nn.Module):
    """Another operation for long batches."""

    def __init__(self):
        super().__init__()
        self.net = network(norm=True)

    def forward(self, x):
        z = self.net(x)
        return z.sigmoid() if len(x) > 2 else z


def picky(outputs, targets):
    if bool((targets == 2).all()):
        raise ValueError("a loss that does not like this batch")
    return nn.functional.cross_entropy(outputs, targets)


def functions(rank, world):
    """Of objectives."""
    loss = nn.CrossEntropyLoss()
    expected = Objective(network(), loss, batches()).value()
    off = {}

    def told(name, f, exact=None):
        off[name] = abs(f.value() - (expected if exact is None else exact))

    x, y = samples()
    mine = TensorDataset(x[rank::world], y[rank::world])
    told("loader", Objective(DDP(network()), loss, DataLoader(mine, batch_size=3)))
    told("once", Objective(DDP(network()), loss, iter(batches()[rank::world])))
    told("world", Objective(network(), loss, batches()[rank::world], process_group=distributed.group.WORLD))
    named = {"x": x[rank::world], "labels": y[rank::world]}
    told("dict", Objective(DDP(Called()), lambda out, labels: loss(out["logits"], labels), named))
    alone = Objective(DDP(network()), loss, batches(), process_group=None)
    told("alone", alone)
    if rank == 0:  # what one rank has found out by itself
        assert alone.noise == 0.0
        Hessian(alone) @ torch.ones(alone.size)
    f = Objective(alone.model, loss, batches()[rank::world])
    off["noise"] = f.noise
    H = Hessian(f)
    v = torch.randn(f.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = H @ v
    found = {"off": off, "messages": counted(lambda: H @ v), "n": f.size, "same": bool(torch.equal(H @ v, first))}
    found["block"] = counted(lambda: H @ torch.stack([v, -v], dim=1))
    found["block again"] = counted(lambda: H @ torch.stack([v, -v], dim=1))

    other = network()
    other[0].weight.data += rank
    world_ = distributed.group.WORLD
    found["other parameters"] = raised(Objective(other, loss, batches(), process_group=world_).value)
    turned = network()
    turned[0].weight.data *= 1 - 2 * rank  # as large as on the other rank
    found["turned parameters"] = raised(Objective(turned, loss, batches(), process_group=world_).value)
    half = DDP(network())
    half.train(rank == 0)
    found["other modes"] = raised(Objective(half, loss, batches()).value)
    synced = nn.Sequential(network(), nn.SyncBatchNorm(3).double())
    found["synchronised"] = raised(Objective(synced, loss, batches(), process_group=world_).value)
    found["synchronised, eval"] = Objective(synced, loss, batches(), process_group=world_, mode="eval").value()
    if rank == 0:
        f.model.register_forward_hook(lambda *_: None)  # asked anew, on this rank alone
        f.module[0].register_forward_hook(lambda *_: None)
    found["hooked"] = f.noise, bool(torch.equal(Hessian(f) @ v, first))
    found["no data"] = raised(Objective(DDP(network()), loss, []).value)
    bad = [(x[:2], torch.tensor([2, 2]))] if rank == 1 else batches()
    found["picky"] = raised(Objective(DDP(network()), picky, bad, count=lambda o, t: len(t)).value)
    found["picky, collapse"] = raised(
        lambda: measure(Objective(DDP(network()), loss, bad, process_group=world_).on(odd(rank)))
    )
    shown = []  # one rank shows progress, and stops all
    show = (lambda *seen: shown.append(seen) or len(shown) == 2) if rank == 1 else None
    found["stopped"] = eigsh(H, k=2, callback=show, generator=torch.Generator().manual_seed(0)).matvecs
    exact = eigsh(H, tol=1e-8).values
    off["drawn for all"] = float((eigsh(FiniteDifferenceHessian(f), tol=1e-5).values - exact).abs().max()) * 1e-10
    mixed = torch.Generator() if rank else None
    found["mixed generators"] = raised(lambda: eigsh(H, generator=mixed))
    generator = torch.Generator().manual_seed(0)
    batch_sharpness(f, batch_size=1 + rank, generator=generator)
    found["drawn"] = generator.get_state().tolist()
    return found | buffers(rank, world) | branches(rank, world) | {"training": training(rank, world)}


def odd(rank):
    """Features and labels that do not go together, on one rank."""
    x, y = samples()
    return [(x, y)] if rank == 0 else [(x, torch.full((7,), 5))]


def counted(work):
    """The numbers of each message that it takes, by collective call."""
    names = ("all_reduce", "broadcast", "all_gather_object", "broadcast_object_list", "send", "recv", "all_gather")
    found, kept = [], {name: getattr(distributed, name) for name in names}

    def noted(name):
        def call(*args, **options):
            found.append((name, args[0].numel() if isinstance(args[0], torch.Tensor) else -1))
            return kept[name](*args, **options)

        return call

    try:
        for name in names:
            setattr(distributed, name, noted(name))
        work()
    finally:
        for name, function in kept.items():
            setattr(distributed, name, function)
    return found


def buffers(rank, world):
    """Those of the first rank are used, and all stay."""
    model = DDP(network(norm=True))
    model.module[1].running_mean += rank
    before = model.module[1].running_mean.clone()
    value = Objective(model, nn.CrossEntropyLoss(), batches()[rank::world]).value()
    exact = Objective(network(norm=True), nn.CrossEntropyLoss(), batches()).value()
    return {"buffers": (abs(value - exact), bool(torch.equal(before, model.module[1].running_mean)))}


def branches(rank, world):
    """A batch of one rank goes through operations that no other has, and is checked as well."""
    data = [*batches(4)[rank::world], *([samples(5)] if rank == 0 else [])]
    f = Objective(DDP(Branching().eval()), nn.CrossEntropyLoss(), data)
    whole = Objective(Branching().eval(), nn.CrossEntropyLoss(), [*batches(4), samples(5)])
    v = torch.ones(f.size)
    expected = Hessian(whole) @ v
    return {"branches": float((Hessian(f) @ v - expected).norm() / expected.norm())}


def training(rank, world):
    """How far weights are apart after training with and without measuring."""
    ends = []
    for measures in (False, True):
        model = DDP(copy.deepcopy(network(norm=True)).train())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            for x, y in batches()[:2] if rank else batches()[1:3]:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                if measures:
                    f = Objective(model, nn.CrossEntropyLoss(), [(x, y)], mode="eval")
                    Hessian(f) @ torch.ones(f.size)
                optimizer.step()
        ends.append(torch.cat([t.reshape(-1).double() for t in model.state_dict().values()]))
    return float((ends[0] - ends[1]).abs().max())


def lost(rank, world):
    """The last rank is killed between two products."""
    f = Objective(DDP(network()), nn.CrossEntropyLoss(), batches()[rank::world])
    H = Hessian(f)
    H @ torch.ones(f.size)
    if rank == world - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    H @ torch.ones(f.size)
