"""Hessian alignment: gradients and curvature of several domains are drawn towards those of their mean.

    sum_e p_e [L_e + alpha |H_e g_e - H g|^2 + beta |g_e - g|^2]        (method "hgp")
    sum_e p_e [L_e + alpha |d_e - d|^2 + beta |g_e - g|^2]              (method "hutchinson")

g_e and H_e are gradient and Hessian of the loss L_e of domain e, g and H those of the mean loss sum_e p_e L_e, d_e the
estimate of diag(H_e) by Hutchinson's probes z * (H_e z), d the mean of these (Hemati et al., ICCV 2023). What has no e
is held constant. H_e g_e is grad |g_e|^2 / 2: one product, without a division by a norm.

The sum is differentiated once more by whoever trains with it: third derivatives of the loss. Over the parameters of the
head alone, as published, these are third derivatives of the head and first ones of the layers below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from landscape.objective.parameters import FlatView, Selection
from landscape.operators.autograd import fill_zeros, gradient_graph
from landscape.randomness import generator_and_seed
from solvers.preconditioned.base import widened
from solvers.preconditioned.hutchinson import draw
from solvers.regularizers.head import head_parameters
from solvers.regularizers.third import refuse_wrong_thirds

_ALPHA = {"hgp": 1e-4, "hutchinson": 1e-3}  # of the authors' code, as is beta


@dataclass(frozen=True)
class AlignmentTerms:
    """What the last loss was made of; tensors without a graph, on the losses' device.

    Attributes:
        loss: sum_e p_e L_e.
        gradient: sum_e p_e |g_e - g|^2, without beta.
        curvature: sum_e p_e |H_e g_e - H g|^2, or of the diagonals, without alpha.
    """

    loss: Tensor
    gradient: Tensor
    curvature: Tensor


class HessianAlignment:
    """The losses of several domains as one loss that holds their gradients and curvature together.

    It is called with the losses, and what it returns is back-propagated by any optimizer. It draws no gradient into
    `.grad` by itself. Beside the gradient of the losses it takes, over the head alone, about as many products with the
    head's Hessian as domains and one more ("hgp"), or `probes` for each domain, whose graphs are all kept until then
    ("hutchinson").

    "hutchinson" has one z for all domains: with equal Hessians its term is 0. Else it exceeds |diag(H_e - H)|^2, in the
    mean over z, by the sum of squares of the off-diagonal entries of H_e - H over the number of probes.

    Args:
        model: whose parameters they are.
        parameters: names, globs or a predicate, as in `Objective`; "*" are all that the model has. Default: weight and
            bias of the head, the Linear layer nearest to the loss. Frozen ones are left out.
        method: "hgp" or "hutchinson".
        alpha: weight of the curvature; default 1e-4 for "hgp", 1e-3 for "hutchinson".
        beta: weight of the gradients.
        probes: how many z, of signs, for "hutchinson".
        generator: draws them; None is a fresh one.

    Attributes:
        last: the `AlignmentTerms` of the last call.
        seed: of the generator.

    Raises:
        ValueError: another method, negative weights, no probe, parameters that match none.

    Example:
        >>> import torch
        >>> from solvers import HessianAlignment
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> align = HessianAlignment(model, alpha=0.5, beta=1.0)
        >>> with torch.no_grad():
        ...     _ = model.weight.fill_(1.0)
        >>> w = model(torch.ones(1, 1)).squeeze()
        >>> loss = align([w**2 / 2, 3 * w**2 / 2])  # gradients 1 and 3, Hg 1 and 9, of the mean 2 and 4
        >>> loss.item(), align.last.gradient.item(), align.last.curvature.item()
        (10.5, 1.0, 17.0)
        >>> torch.autograd.grad(loss, model.weight)[0].item()
        25.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        parameters: Selection = None,
        method: Literal["hgp", "hutchinson"] = "hgp",
        alpha: float | None = None,
        beta: float = 5e-3,
        probes: int = 300,
        generator: torch.Generator | None = None,
    ) -> None:
        if method not in _ALPHA:
            raise ValueError(f'method is "hgp" or "hutchinson", not {method!r}')
        self.model, self.method = model, method
        self.alpha, self.beta, self.probes = _ALPHA[method] if alpha is None else alpha, beta, probes
        if not (self.alpha >= 0 and beta >= 0):
            raise ValueError(f"alpha={self.alpha} and beta={beta} are weights of penalties: they are not negative")
        if probes < 1:
            raise ValueError(f"probes={probes}: at least one is drawn")
        self._view = None if parameters is None else FlatView(model, parameters)
        self.generator, self.seed = generator_and_seed(generator)
        self.last: AlignmentTerms | None = None

    def __call__(self, losses: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
        """The sum of the module's first lines, a scalar with its graph.

        Args:
            losses: of each domain, scalars with their graphs: means over the domain's batch.
            weights: p_e up to a factor. Default: all alike, as published, however many samples each has; the numbers of
                samples make the mean loss that of the batches put together.

        Raises:
            ValueError: fewer than two losses, ones that are no scalars with a graph, other weights than one positive
                number for each, no head that can be told; a layer whose third derivatives torch has wrong between the
                losses and the parameters.
            RuntimeError: a function without a second derivative between them.
        """
        shares = _shares(losses, weights)
        leaves = self._leaves(losses)
        refuse_wrong_thirds(losses, leaves, self.model)
        with torch.autocast(losses[0].device.type, enabled=False):  # gradients of products are not to be rounded again
            gradients = [_filled(gradient_graph(loss, leaves), leaves) for loss in losses]
            mean = [one.detach() for one in _mix(gradients, shares)]
            if self.method == "hgp":
                curvatures = [_derivative(_inner(g, g) / 2, leaves, keep=True) for g in gradients]
                centre = _derivative(sum(p * _inner(g, mean) for p, g in zip(shares, gradients, strict=True)), leaves)
            else:
                curvatures = self._diagonals(gradients, leaves)
                centre = [one.detach() for one in _mix(curvatures, shares)]
            loss = torch.stack([p * value for p, value in zip(shares, losses, strict=True)]).sum()
            apart = _spread(gradients, mean, shares)
            curved = _spread(curvatures, centre, shares)
            self.last = AlignmentTerms(loss.detach(), apart.detach(), curved.detach())
            return loss + self.alpha * curved + self.beta * apart

    def _leaves(self, losses: Sequence[Tensor]) -> list[nn.Parameter]:
        """Those that are differentiated in, resolved anew: a training loop may replace or freeze them."""
        if self._view is None:
            return head_parameters(self.model, losses)
        leaves = [p for p in self._view.resolve(dict(self.model.named_parameters())) if p.requires_grad]
        if not leaves:
            raise ValueError("all of the parameters to align are frozen: choose others with parameters=")
        return leaves

    def _diagonals(self, gradients: list[list[Tensor]], leaves: list[nn.Parameter]) -> list[list[Tensor]]:
        """Of each domain's Hessian, by the same probes."""
        sums: list[list[Tensor]] = [[torch.zeros_like(widened(p.detach())) for p in leaves] for _ in gradients]
        for _ in range(self.probes):
            z = draw(list(leaves), "rademacher", self.generator)
            for e, g in enumerate(gradients):
                products = _derivative(_inner(g, z), leaves, keep=True)
                sums[e] = [d + widened(one) * h for d, one, h in zip(sums[e], z, products, strict=True)]
        return [[d / self.probes for d in one] for one in sums]


def _shares(losses: Sequence[Tensor], weights: Sequence[float] | None) -> list[float]:
    """p_e, which sum to 1."""
    if len(losses) < 2:
        raise ValueError(f"{len(losses)} loss: alignment is of two domains or more, a loss for each")
    for e, loss in enumerate(losses):
        if loss.numel() != 1 or loss.ndim or not loss.requires_grad:
            kind = f"of shape {tuple(loss.shape)}" if loss.ndim else "without a graph"
            raise ValueError(f"loss {e} is {kind}: give the mean over the domain's batch, computed with gradients on")
    given = [1.0] * len(losses) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(losses) or not all(0 < weight < float("inf") for weight in given):
        raise ValueError(f"weights={given} for {len(losses)} losses: give one positive number for each")
    return [weight / sum(given) for weight in given]


def _filled(pieces: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> list[Tensor]:
    """In float32 at least, zeros where a leaf is not used."""
    return [widened(one) for one in fill_zeros(pieces, leaves)]


def _derivative(value: Any, leaves: Sequence[Tensor], *, keep: bool = False) -> list[Tensor]:
    """The gradient of a scalar, with its graph if it is to be kept; 0 for one that depends on no leaf."""
    if not value.requires_grad:
        return _filled([None] * len(leaves), leaves)
    pieces = torch.autograd.grad(value, leaves, create_graph=keep, retain_graph=True, allow_unused=True)
    return _filled(pieces, leaves)


def _inner(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


def _mix(vectors: Sequence[list[Tensor]], shares: Sequence[float]) -> list[Tensor]:
    """sum_e p_e v_e, piece by piece."""
    return [torch.stack([p * v for p, v in zip(shares, one, strict=True)]).sum(0) for one in zip(*vectors, strict=True)]


def _spread(vectors: Sequence[list[Tensor]], centre: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """sum_e p_e |v_e - centre|^2."""
    apart = [[x - c for x, c in zip(v, centre, strict=True)] for v in vectors]
    return torch.stack([p * _inner(one, one) for p, one in zip(shares, apart, strict=True)]).sum()
