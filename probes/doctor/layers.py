"""Layers that have no second derivative, by name: each is tried by itself on what it gets from a few samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from landscape import Objective
    from landscape.operators.culprit import Call


def without_second_derivative(objective: Objective) -> list[str]:
    """Names and classes of the innermost modules that cannot be differentiated twice, `"layers.3 (EmbeddingBag)"`.

    Empty where all can, also where only the model's own forward or the loss cannot.
    """
    from landscape.operators.culprit import first_calls

    found: list[str] = []
    few = objective.sample(8)
    with few.measuring():
        calls = first_calls(few)
        for name, module in reversed(list(few.module.named_modules())):
            inner = any(other.startswith(f"{name}.") for other in found)
            if name and not inner and module in calls and not _twice(module, calls[module]):
                found.append(f"{name} ({type(module).__name__})")
    return found[::-1]


def _twice(module: nn.Module, call: Call) -> bool:
    """Whether the gradient of the module's outputs can be differentiated; True where it cannot be tried."""
    import torch
    from torch.utils._pytree import tree_flatten, tree_map

    from landscape.objective.state import borrowed_buffers
    from landscape.operators.autograd import gradient_graph

    def leaf(t: Any) -> Any:
        return t.detach().clone().requires_grad_() if isinstance(t, torch.Tensor) and t.is_floating_point() else t

    try:
        with torch.enable_grad(), borrowed_buffers(module):  # running statistics are not to move
            args, kwargs = tree_map(leaf, call)
            outputs = [t for t in tree_flatten(module(*args, **kwargs))[0] if isinstance(t, torch.Tensor)]
            root = sum((t.float().square().sum() for t in outputs if t.requires_grad), torch.zeros(()))
            inputs = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor) and t.requires_grad]
            leaves = [*inputs, *(p for p in module.parameters() if p.requires_grad)]
            if not (leaves and root.requires_grad):
                return True
    except Exception:  # a module that cannot be run by itself is not the one to name
        return True
    try:
        gradients = [g for g in gradient_graph(root, leaves) if g is not None and g.requires_grad]
        total = sum((g.float().square().sum() for g in gradients), torch.zeros(()))
        if total.requires_grad:
            torch.autograd.grad(total, leaves, allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return False
    return True
