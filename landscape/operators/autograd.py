"""What is asked of autograd: live gradients, products with Jacobians, and graphs that end too early."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from landscape.objective.batch import Batch
from landscape.objective.evaluation import output_tensor
from landscape.objective.objective import Objective


def graph_bytes(roots: Iterable[Tensor]) -> int:
    """Bytes that the autograd graphs of `roots` keep alive (distinct storages, parameters not counted)."""
    storages: dict[int, int] = {}
    for node in _nodes(roots):
        for name in dir(node):
            if name.startswith("_saved_"):
                try:
                    saved = getattr(node, name)
                except RuntimeError:
                    continue
                for t in saved if isinstance(saved, tuple | list) else (saved,):
                    if isinstance(t, Tensor) and not (t.is_leaf and t.requires_grad):
                        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(storages.values())


def refuse_dead_ends(roots: Iterable[Tensor]) -> None:
    """Raise `RuntimeError` when a first derivative passes through a function that has no second one.

    torch marks such functions with a node that raises when it is reached, but differentiating in chosen inputs
    prunes it: without this check the product would silently miss everything behind it.
    """
    for node in _nodes(roots):
        if type(node).__name__ == "Error":
            raise RuntimeError(
                "the model has a custom autograd function marked once_differentiable: it has no second derivative; "
                "use FiniteDifferenceHessian, or an implementation of that function in torch operations"
            )


def _nodes(roots: Iterable[Tensor]) -> Iterator[Any]:
    """The nodes of the graphs of `roots`, leaves left out."""
    seen: set[Any] = set()
    stack = [root.grad_fn for root in roots if root.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen or hasattr(node, "variable"):  # the leaf's own node holds the parameter
            continue
        seen.add(node)
        stack.extend(following for following, _ in node.next_functions if following is not None)
        yield node


def _explained(error: RuntimeError) -> RuntimeError:
    """The cause in words, for the failures that people meet."""
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
    return error


def live_gradients(loss: Tensor, leaves: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
    """(index of the leaf, gradient with its graph) for the gradients that depend on the leaves."""
    gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    live = [(i, g) for i, g in enumerate(gradients) if g is not None and g.requires_grad]
    refuse_dead_ends(g for _, g in live)
    return live


def second_derivative(
    live: Sequence[tuple[int, Tensor]], leaves: Sequence[Tensor], pieces: Sequence[Tensor], batched: bool
) -> list[Tensor]:
    """d <gradient, v> / d leaves, in the leaves' shapes; with `batched` for k vectors at once, `(k, *shape)`."""
    products = torch.autograd.grad(
        [g for _, g in live],
        leaves,
        grad_outputs=[pieces[i].to(g.dtype) for i, g in live],
        retain_graph=True,
        allow_unused=True,
        is_grads_batched=batched,
    )
    lead = pieces[0].shape[:1] if batched else ()
    return [p.new_zeros(*lead, *p.shape) if h is None else h for p, h in zip(leaves, products, strict=True)]


Jvp = Callable[[Tensor], Tensor]


def transposed(objective: Objective, outputs: Tensor, W: Tensor, batched: bool) -> Tensor:
    """J^T W for cotangents `(k, *outputs.shape)`: rows `(k, n)`."""
    leaves = objective.leaves()
    if batched:
        pulled = torch.autograd.grad(outputs, leaves, W, retain_graph=True, allow_unused=True, is_grads_batched=True)
        return objective.gather(_filled(pulled, leaves, W.shape[:1]))
    rows = []
    for w in W:
        pulled = torch.autograd.grad(outputs, leaves, w, retain_graph=True, allow_unused=True)
        rows.append(objective.gather(_filled(pulled, leaves, ())))
    return torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0)


def _filled(pieces: Sequence[Tensor | None], leaves: Sequence[Tensor], lead: Sequence[int]) -> list[Tensor]:
    return [p.new_zeros(*lead, *p.shape) if g is None else g for p, g in zip(leaves, pieces, strict=True)]


@contextmanager
def _dual_level() -> Iterator[None]:
    with warnings.catch_warnings():
        # the first dual tensor of a process loads torch's forward-mode rules, which use deprecated parts of torch
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            yield


def _dual_outputs(objective: Objective, batch: Batch, pieces: Sequence[Tensor], primals: Sequence[Tensor]) -> Tensor:
    """Outputs that carry J v as their tangent (inside a dual level)."""
    duals = {
        f"model.{name}": forward_ad.make_dual(p, t.to(p.dtype))
        for name, p, t in zip(objective.names, primals, pieces, strict=True)
    }
    return output_tensor(objective.outputs(batch, call=lambda f, inputs: functional_call(f, duals, (inputs,))))
