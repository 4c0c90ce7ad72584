"""Hessians of PyTorch that are not those of the function: each against central differences of its gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import landscape
from runs.findings.finding import Finding, Seen, number

_STEP = 1e-5
Function = Callable[[Tensor], Tensor]


def measure_weight_norm() -> Seen:
    """The Hessian of a network with weight_norm, as torch has it, and unfused."""
    f, theta = _problem(lambda: [weight_norm(nn.Linear(4, 6)), nn.Tanh(), weight_norm(nn.Linear(6, 3))])
    exact = _differences(f, theta)
    found = {"torch.nn.utils.parametrizations.weight_norm": torch.autograd.functional.hessian(f, theta)}
    with landscape.unfused_weight_norm():
        found["the same, unfused"] = torch.autograd.functional.hessian(f, theta)
    wrong, right = (_rows(found, exact)[name] for name in found)
    return _seen(found, exact, again=wrong[0] > 0.05 and right[0] < 1e-7)


def measure_layer_norm() -> Seen:
    """The Hessian of a network with LayerNorm by the ways that torch.func and torch.autograd have."""
    f, theta = _problem(lambda: [nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)])
    exact = _differences(f, theta)
    found = {
        "torch.func.hessian": torch.func.hessian(f)(theta),
        "torch.func.jacrev(jacrev)": torch.func.jacrev(torch.func.jacrev(f))(theta),
        "torch.func.jacfwd(grad)": torch.func.jacfwd(torch.func.grad(f))(theta),
        "torch.autograd.functional.hessian": torch.autograd.functional.hessian(f, theta),
    }
    errors = [error for error, _ in _rows(found, exact).values()]
    return _seen(found, exact, again=min(errors[:2]) > 1e-3 and max(errors[2:]) < 1e-7)


def _problem(layers: Callable[[], list[nn.Module]]) -> tuple[Function, Tensor]:
    """The cross-entropy of a small network as a function of its parameters in one vector, and where they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(*layers()).double()
        x, y = torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))
    sizes = {name: p.shape for name, p in model.named_parameters()}
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def f(v: Tensor) -> Tensor:
        parts = v.split([shape.numel() for shape in sizes.values()])
        values = {name: part.reshape(shape) for (name, shape), part in zip(sizes.items(), parts, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    return f, theta


def _differences(f: Function, theta: Tensor) -> Tensor:
    def gradient(at: Tensor) -> Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad(f(at), at)[0]

    steps = _STEP * torch.eye(len(theta), dtype=theta.dtype)
    return torch.stack([(gradient(theta + d) - gradient(theta - d)) / (2 * _STEP) for d in steps])


def _rows(found: dict[str, Tensor], exact: Tensor) -> dict[str, tuple[float, float]]:
    return {
        name: (float((H - exact).norm() / exact.norm()), float((H - H.T).norm() / H.norm()))
        for name, H in found.items()
    }


def _seen(found: dict[str, Tensor], exact: Tensor, *, again: bool) -> Seen:
    rows = [
        (f"`{name}`" if "torch" in name else name, *map(number, both)) for name, both in _rows(found, exact).items()
    ]
    return Seen(("Hessian by", "relative error", "‖H − Hᵀ‖ / ‖H‖"), rows, again)


WEIGHT_NORM = Finding(
    "weight-norm",
    "PyTorch 2.13, torch._weight_norm",
    "gradients of gradients are those of the function, or an error",
    "the second derivative takes the saved norms for constants: it is wrong without a word, and not symmetric",
    measure_weight_norm,
)
LAYER_NORM = Finding(
    "hessian-layer-norm",
    "PyTorch 2.13, torch.func",
    "torch.func.hessian gives the Hessian",
    "through LayerNorm it does not, nor does jacrev(jacrev(f)): what is wrong is differentiating the inner jacrev, "
    "whose reverse pass is batched; jacfwd(grad(f)) and torch.autograd are right",
    measure_layer_norm,
)
