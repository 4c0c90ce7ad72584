"""The Hessian of the loss: H v = d/dtheta <grad f(theta), v>.

The first-order graph (the gradient as a function of the parameters) is built once per batch and differentiated
again for every vector: reverse over reverse, with the first reverse pass kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from typing_extensions import override

from landscape.memory import Memory
from landscape.objective.evaluation import Evaluation
from landscape.objective.graph import nodes
from landscape.objective.noise import coarsest_eps
from landscape.objective.objective import Objective
from landscape.objective.parameters import join, split, vector_dtype
from landscape.objective.state import Snapshot
from landscape.operators.autograd import cause, fill_zeros, gradient_graph, stack, vjp
from landscape.operators.check import Check
from landscape.operators.curvature import ObjectiveOperator
from landscape.operators.linear import LinearOperator
from landscape.operators.outline import blocks, norm, outline
from landscape.operators.self_check import Claim, Claims, difference, seen


class GradientClaim(Claim):
    """H v of a function, against differences of its gradient."""

    def __init__(self, objective: Objective, v: Tensor) -> None:
        self._objective, self._v = objective, v
        self.blocks = blocks(objective)

    def product(self) -> Tensor:
        """`(n,)`, by double backward."""
        A = Hessian(self._objective)
        product = A @ self._v
        A.release()
        return outline(self._objective, product)

    def difference(self, ahead: float, behind: float) -> Tensor:
        """`(n,)`."""
        return difference(self._objective, self._v, ahead, behind, self._gradient)

    def _gradient(self) -> Tensor:
        return outline(self._objective, self._objective.gradient())


class SlopeClaim(Claim):
    """|g| of a function, against differences of its values along g: a gradient that is not the function's shows.

    A gradient that is scaled as a whole passes for right in all that is made of it, its own differences included.
    """

    decides = False  # near a minimum it cannot be told, and nothing else is in doubt for that

    smooth = True  # kinks that a step crosses hardly move the values

    def __init__(self, objective: Objective, v: Tensor) -> None:
        self._objective = objective
        value, g = objective.value_and_gradient()
        self._norm = torch.as_tensor(norm(objective, g), dtype=g.dtype, device=g.device)
        self._unit = g / self._norm if float(self._norm) else v
        self._rounding = torch.finfo(objective.dtype).eps * abs(value)
        # f bends most along its gradient: in float32 a step that is just long enough for the rounding of f
        enough = 1e4 * self._rounding / (float(self._norm) or 1.0)
        self._longest = enough if objective.dtype == torch.float32 else math.inf

    def product(self) -> Tensor:
        """`(1,)`."""
        return self._norm.reshape(1)

    def difference(self, ahead: float, behind: float) -> Tensor:
        """`(1,)`; nan where the values differ by no more than rounding."""
        shorter = min(1.0, self._longest / max(abs(ahead), abs(behind)))
        ahead, behind = shorter * ahead, shorter * behind
        slope = difference(self._objective, self._unit, ahead, behind, self._value)
        return seen(slope, self._norm, ahead - behind, self._rounding).to(self._norm.dtype)

    def _value(self) -> Tensor:
        return torch.tensor([self._objective.value()], dtype=torch.float64, device=self._objective.device)


class Hessian(ObjectiveOperator):
    """H = d2 f / d theta2 of an `Objective`, `(n, n)`, symmetric, in general indefinite.

    Example:
        >>> import torch
        >>> from landscape import Hessian, Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1)))
        >>> Hessian(f) @ torch.ones(2)
        tensor([1., 9.])
    """

    claims: Claims = (GradientClaim, SlopeClaim)
    zero = ", as it is where the loss is linear in the parameters (piecewise, with ReLU and an L1 or hinge loss)"

    def _graph(self, e: Evaluation) -> GradientGraph:
        return GradientGraph(self.objective, e.carried_loss())

    @staticmethod
    def from_loss(
        loss: Tensor, parameters: Iterable[Tensor] | Mapping[str, Tensor], *, memory: Memory = "auto"
    ) -> LossHessian:
        """The Hessian of one loss tensor in the parameters its graph was built on, `(n, n)`.

        For a training loop or a solver's closure, which has the loss in hand. The graph is kept and nothing is
        rebuilt, so a product after a change of the parameters raises `RuntimeError`.
        """
        return LossHessian(loss, parameters, memory=memory)


class GradientGraph:
    """The gradient of one batch's loss with its graph, ready to be differentiated for any number of vectors."""

    def __init__(self, objective: Objective, loss: Tensor) -> None:
        self._objective = objective
        self._leaves = objective.leaves()
        self._gradient = gradient_graph(loss, self._leaves)

    def roots(self) -> list[Tensor]:
        """The gradient in the parameters that the loss uses."""
        return [g for g in self._gradient if g is not None]

    def part(self, objective: Objective, places: Sequence[int]) -> GradientGraph:
        """The diagonal block of some of the leaves, those of a restricted objective, on the same graph."""
        other = copy.copy(self)
        other._objective = objective
        other._leaves = [self._leaves[i] for i in places]
        other._gradient = tuple(self._gradient[i] for i in places)
        return other

    def products(self, V: Tensor) -> Tensor:
        """H_batch V for rows `(k, n)`. A block goes vector by vector or vectorised, whichever was faster at first."""
        if len(V) == 1:
            return self._loop(V)
        return self._objective.tuning.fastest(
            "hessian", {"loop": lambda: self._loop(V), "batched": lambda: self._product(V, batched=True)}
        )

    def _loop(self, V: Tensor) -> Tensor:
        return stack([self._product(v) for v in V])

    def _product(self, v: Tensor, batched: bool = False) -> Tensor:
        return self._objective.join(vjp(self._gradient, self._leaves, self._objective.split(v), batched))


class LossHessian(LinearOperator):
    """The Hessian of one loss tensor; see `Hessian.from_loss`."""

    def __init__(
        self, loss: Tensor, parameters: Iterable[Tensor] | Mapping[str, Tensor], *, memory: Memory = "auto"
    ) -> None:
        named = dict(parameters) if isinstance(parameters, Mapping) else dict(enumerate(parameters))
        leaves = list(named.values())
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise ValueError("from_loss needs a scalar loss tensor")
        if not loss.requires_grad:
            raise ValueError(
                "the loss has no graph: compute it with gradients enabled, from parameters that require grad"
            )
        if not leaves or not all(isinstance(p, Tensor) and p.requires_grad for p in leaves):
            raise ValueError("from_loss needs the parameters of the loss: tensors that require grad")
        if any(hasattr(p, "placements") for p in leaves):
            raise TypeError(
                "the parameters are DTensors (fully_shard), of which a loss's graph holds gathered copies: "
                "Hessian(Objective(model, loss, data)) measures such a model"
            )
        size = sum(p.numel() for p in leaves)
        super().__init__(size, vector_dtype(leaves), leaves[0].device, memory=memory)
        self._loss: Tensor | None = loss
        self._noise_found: float | None = None
        self._leaves = leaves
        self._shapes = [p.shape for p in leaves]
        self._gradient: tuple[Tensor | None, ...] | None = None
        self._snapshot = Snapshot(lambda: (leaves, []))
        self.names = [str(name) for name in named]
        self._custom = _custom_functions(loss)

    @property
    @override
    def checked(self) -> Check | None:
        """Nothing can be held against differences: the graph of one loss is a number, not a function."""
        held = f"; it holds custom functions: {', '.join(self._custom)}" if self._custom else ""
        return Check("untold", note=f"the graph of one loss cannot be evaluated at other parameters{held}")

    def gradient(self) -> Tensor:
        """`(n,)`, from the graph that the products use."""
        with torch.inference_mode(False), torch.enable_grad():
            self._gradient = gradient_graph(self._current(), self._leaves)
        return self._join(fill_zeros(self._gradient, self._leaves))

    def _matmat(self, V: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            loss = self._current()
            try:
                gradient = self._gradient = self._gradient or gradient_graph(loss, self._leaves)
                columns = [self._join(vjp(gradient, self._leaves, split(v, self._shapes))) for v in V.T]
            except RuntimeError as error:
                known = cause(error)
                if known is None:
                    raise
                raise known from error
        return torch.stack(columns, dim=-1)

    @override
    def _measured_noise(self) -> float:
        """How far from symmetric the product is where its graph has a coarser precision, at least that one's unit.

        For an error E, u.Ev - v.Eu of two random unit vectors is about sqrt(2 / n) of ||Ev||.
        """
        if self._noise_found is not None:
            return self._noise_found
        self._noise_found = coarsest = coarsest_eps([self._current()], self.dtype)
        if coarsest == 0.0:
            return 0.0
        U = self.random(2, "normal", torch.Generator().manual_seed(0))
        with torch.inference_mode(False):
            products = self._matmat(U)
        crossed = self.inner(U, products)
        skew = abs(float(crossed[0, 1] - crossed[1, 0]))
        scale = float((self.inner(U, U).diagonal() * self.inner(products, products).diagonal().flip(0)).sqrt().mean())
        asymmetry = math.sqrt(self.shape[0] / 2) * skew / scale if scale > 0 else 0.0
        self._noise_found = max(asymmetry, coarsest)
        return self._noise_found

    def _current(self) -> Tensor:
        if self._loss is None:
            raise RuntimeError("this operator was released together with the loss's graph: make a new one")
        if not self._snapshot.holds():
            raise RuntimeError("the parameters changed since this loss was computed: compute the loss again")
        return self._loss

    def _join(self, pieces: list[Tensor]) -> Tensor:
        return join(pieces, self._shapes, self.dtype, self.device)

    def release(self) -> None:
        """Drop the gradient's graph; the loss's own stays with the caller and the next product rebuilds ours."""
        self._gradient = None


def _custom_functions(loss: Tensor) -> list[str]:
    """Names of the functions of somebody's own in the graph of a loss.

    Raises `RuntimeError` where it holds torch's fused weight_norm, whose second derivative is wrong.
    """
    found = set()
    for node in nodes([loss]):
        name = type(node).__name__
        if name.startswith("WeightNormInterface"):
            raise RuntimeError(
                "the loss was computed with torch's fused weight_norm, whose second derivative is wrong: compute it "
                "inside `with landscape.unfused_weight_norm():`, or take Hessian(Objective(...)), which does so"
            )
        if isinstance(node, BackwardCFunction):
            found.add(name.removesuffix("Backward"))
    return sorted(found)
