"""A model under `fully_shard` as it is measured: this rank's shares of its parameters, in the places of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from landscape.objective.graph import nodes
from landscape.objective.sharded.gather import Chain, Gatherer, Reading
from landscape.objective.sharded.layout import Layout
from landscape.objective.sharded.step import host_group
from landscape.objective.sharded.transfer import Transfer
from landscape.ranks import Ranks


class Sharded:
    """The shares of a model that `fully_shard` has cut; admitted by `refuse_absent` before. See `Whole`.

    Args:
        module: the model, all of whose parameters are cut over one mesh.

    Attributes:
        cut: True.
        gatherer: gathers parameters as they are read.
        ranks: all that hold a part of the model; every rank measures on its own data.
        holders: those that hold the rows of one vector together: fewer in a hybrid mesh.
    """

    cut: ClassVar[bool] = True

    def __init__(self, module: nn.Module) -> None:
        reshard(module)
        self._module = module
        self._originals = {name: cast(DTensor, p) for name, p in module.named_parameters()}
        parameters = list(self._originals.values())
        mesh = parameters[0].device_mesh
        cut = mesh.ndim - 1  # the last dimension of a hybrid mesh
        self.holders = Ranks(mesh.get_group(cut))
        replicas = Ranks(mesh.get_group(0)) if cut else Ranks()
        every = mesh._flatten().get_group() if cut else mesh.get_group()
        self.ranks = Ranks(every)
        dims = [p.placements[cut].dim for p in parameters]  # type: ignore[attr-defined]
        self._layout = Layout([p.shape for p in parameters], dims, self.holders.rank, self.holders.size)
        self._leaves = [nn.Parameter(p._local_tensor.detach(), p.requires_grad) for p in parameters]
        self._numbers = {id(p): number for number, p in enumerate(parameters)}
        transfers = [Transfer(share, self.holders, replicas) for share in self._layout.shares]
        self.gatherer = Gatherer(transfers, self._leaves, Ranks(host_group(every)))
        self.forward, self.failing_together = self.gatherer.forward, self.gatherer.failing_together
        self.leave, self.repeated = self.gatherer.leave, self.gatherer.repeated
        self._confirmed = False
        self._tables: dict[int, tuple[dict[str, Any], Reading]] = {}

    def __call__(self, original: Tensor) -> Tensor:
        """What this rank holds of a parameter: what is differentiated in. A buffer stands for itself."""
        number = self._numbers.get(id(original))
        if number is None and isinstance(original, DTensor):
            raise ValueError("a parameter of the sharded model is another object than before: make a new Objective")
        return original if number is None else self._leaves[number]

    def follow(self) -> None:
        """Take the shares as they are now: training may have put other tensors into the parameters."""
        reshard(self._module)
        for p, leaf in zip(self._originals.values(), self._leaves, strict=True):
            if leaf.data_ptr() != p._local_tensor.data_ptr():
                leaf.data = p._local_tensor.detach()

    def layout(self, names: list[str]) -> Layout:
        """Which rows of the vector of these parameters this rank holds."""
        shares = dict(zip(self._originals, self._layout.shares, strict=True))
        chosen = [shares[name] for name in names]
        shapes, dims = [share.shape for share in chosen], [share.dim for share in chosen]
        return Layout(shapes, dims, self._layout.rank, self._layout.ranks)

    @property
    def chain(self) -> Chain | None:
        """Through all reads of the last pass."""
        return self.gatherer.chain

    @property
    def peak(self) -> int:
        """The most bytes of gathered parameters that were alive at once on this rank."""
        return self.gatherer.peak

    @property
    def saved_bytes(self) -> int:
        """Of what autograd has kept of the last pass, gathered parameters not counted."""
        return self.gatherer.saved_bytes

    def tied(self, result: Tensor, chain: Chain | None) -> Tensor:
        """A result of a pass, connected with all that ranks have read of the parameters in it."""
        return result if chain is None else self.gatherer.tie(result, chain)

    def confirm(self, loss: Tensor) -> None:
        """Raises `TypeError` for a loss that is a function of this rank's shares: its derivative would lack them."""
        shares = isinstance(loss, DTensor)
        if not (shares or self._confirmed or loss.grad_fn is None):
            self._confirmed = True  # the graph is walked over once
            shares = any(id(getattr(node, "variable", None)) in self._numbers for node in nodes([loss]))
        if shares:
            self._confirmed = False
            raise TypeError(
                "the loss (or the model) walks over the parameters of the sharded model (a penalty on "
                "model.parameters()), which are a rank's shares there: leave the penalty out and add its derivatives, "
                "which are known, yourself"
            )

    def anywhere(self, flag: bool) -> bool:
        """Whether it holds on some rank."""
        self.leave()
        return self.ranks.any(flag)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, whoever reads a parameter of the model meets the whole one, and FSDP does nothing by itself."""
        reshard(self._module)
        modules = list(self._module.modules())
        tables = [(m, m._parameters) for m in modules if m._parameters]
        try:
            for m, table in tables:
                vars(m)["_parameters"] = self._reading(table)
            with ExitStack() as stack:
                for m in modules:
                    stack.enter_context(_own_hooks_lifted(m))
                stack.enter_context(self.gatherer.scope())
                yield
        finally:
            for m, table in tables:
                vars(m)["_parameters"] = table

    def _reading(self, table: dict[str, Any]) -> Reading:
        """The same object as before where the table is: what is compared between two measurements stays itself."""
        known = self._tables.get(id(table))
        if known is None or known[0] is not table or not _alike(known[0], known[1]):
            known = self._tables[id(table)] = table, Reading(table, self._read)
        return known[1]

    def _read(self, original: Any) -> Any:
        number = self._numbers.get(id(original))
        return original if number is None else self.gatherer.read(number)


def reshard(module: nn.Module) -> None:
    """The root stays whole after a forward pass without a backward pass: shares again."""
    for m in module.modules():
        if isinstance(m, FSDPModule):
            m.reshard()


def _alike(table: dict[str, Any], reading: Reading) -> bool:
    return list(table) == list(reading) and all(map(lambda a, b: a is b, table.values(), reading.values()))


@contextmanager
def _own_hooks_lifted(m: nn.Module) -> Iterator[None]:
    """Without the hooks that `fully_shard` has registered; a user's own stay."""
    tables = [m._forward_pre_hooks, m._forward_hooks]
    lifted = [(table, list(table.items()), _own(m)) for table in tables] if isinstance(m, FSDPModule) else []
    try:
        for table, _, own in lifted:
            for number in own & table.keys():
                del table[number]
        yield
    finally:
        for table, before, own in lifted:
            added = [(number, hook) for number, hook in table.items() if number not in dict(before)]
            kept = [(number, hook) for number, hook in before if number in table or number in own]
            table.clear()
            table.update(kept + added)


def _own(m: nn.Module) -> set[int]:
    """Numbers of the hooks of FSDP's state of a module."""
    state = cast(FSDPModule, m)._get_fsdp_state()
    handles = (state._pre_forward_hook_handle, state._post_forward_hook_handle)
    return {one.id for handle in handles for one in getattr(handle, "handles", (handle,))}
