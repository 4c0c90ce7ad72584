"""What is asked of autograd: gradients that keep their graph, products with Jacobians, and graphs that end too early.

Pure functions of (graph, leaves, vector). Vectors come and go in pieces, one in the shape of each leaf.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor
from torch.autograd import forward_ad

from landscape.objective.batch import tensors_in
from landscape.objective.graph import nodes


def gradient_graph(
    root: Tensor, leaves: Sequence[Tensor], cotangent: Tensor | None = None, *, trusted: bool = False
) -> tuple[Tensor | None, ...]:
    """The gradient of a scalar (or of <cotangent, root>) with its own graph; None for leaves that are not used.

    Raises `RuntimeError` when that graph passes through a function that has no second derivative; a graph that is
    `trusted` to have none is not looked through.
    """
    gradients = torch.autograd.grad(root, leaves, cotangent, create_graph=True, allow_unused=True)
    if any(g is not None and g.is_sparse for g in gradients):
        raise RuntimeError("use sparse=False: an embedding with sparse=True has no second derivative")
    if not trusted:
        _refuse_dead_ends(g for g in gradients if g is not None)
    return gradients


def fill_zeros(pieces: Sequence[Tensor | None], leaves: Sequence[Tensor], lead: Sequence[int] = ()) -> list[Tensor]:
    """The pieces with zeros, in the leaf's shape, where there is None."""
    return [p.new_zeros((*lead, *p.shape)) if g is None else g for p, g in zip(leaves, pieces, strict=True)]


def vjp(
    roots: Sequence[Tensor | None],
    leaves: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    batched: bool = False,
    *,
    keep: bool = True,
) -> list[Tensor]:
    """J^T w, J the derivative of the roots in the leaves: zero where nothing depends on a leaf. `keep` the graph.

    With `batched` for k vectors at once: cotangents and products have a first dimension k.
    """
    pairs = [(r, w.to(r.dtype)) for r, w in zip(roots, cotangents, strict=True) if r is not None and r.requires_grad]
    pieces: Sequence[Tensor | None] = [None] * len(leaves)
    if pairs:
        live, weights = zip(*pairs, strict=True)
        pieces = torch.autograd.grad(
            live, leaves, weights, retain_graph=keep, allow_unused=True, is_grads_batched=batched
        )
    return fill_zeros(pieces, leaves, cotangents[0].shape[:1] if batched else ())


@contextmanager
def dual_level() -> Iterator[None]:
    """Where tensors may carry tangents (see `duals`)."""
    with warnings.catch_warnings():
        # the first dual tensor of a process loads torch's forward-mode rules, which use deprecated parts of torch
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            yield


def duals(primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Tensor]:
    """What to evaluate a function on so that its result carries J t as its tangent (forward mode)."""
    return [forward_ad.make_dual(p, t.to(p.dtype)) for p, t in zip(primals, tangents, strict=True)]


def stack(rows: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, without a copy of a single row."""
    return torch.stack(list(rows)) if len(rows) > 1 else rows[0].unsqueeze(0)


def graph_bytes(roots: Iterable[Tensor]) -> int:
    """Bytes that the autograd graphs of `roots` keep alive (distinct storages, parameters not counted)."""
    storages: dict[int, int] = {}
    for node in nodes(roots):
        for name in dir(node):
            if name.startswith("_saved_"):  # a leaf's own node saves nothing: it holds the parameter
                try:
                    saved = getattr(node, name)
                except RuntimeError:
                    continue
                for t in tensors_in(saved):
                    if not (t.is_leaf and t.requires_grad):
                        with suppress(RuntimeError):  # what torch.func wrapped has no memory of its own
                            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(storages.values())


def _refuse_dead_ends(roots: Iterable[Tensor]) -> None:
    """torch marks functions without a second derivative with a node that raises when it is reached, but
    differentiating in chosen inputs prunes it: the product would silently miss everything behind it.
    """
    for node in nodes(roots):
        if type(node).__name__ == "Error":
            raise RuntimeError(
                "the model has a custom autograd function marked once_differentiable: it has no second derivative; "
                "use FiniteDifferenceHessian, or an implementation of that function in torch operations"
            )


def cause(error: RuntimeError) -> RuntimeError | None:
    """The same failure in words that help, for those that people meet; None for others."""
    text = str(error)
    if "is not implemented" in text and "derivative for" in text:
        return RuntimeError(
            f"{text.splitlines()[0]} -- this operation has no second derivative: use FiniteDifferenceHessian, or "
            "another implementation of that layer"
        )
    if "modified by an inplace operation" in text:
        return RuntimeError(
            f"{text.splitlines()[0]} -- the model overwrites a value that its own second derivative needs: make that "
            "operation out of place (inplace=False)"
        )
    return None
