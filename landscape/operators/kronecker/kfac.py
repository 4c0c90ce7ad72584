"""K-FAC: each layer's block of a Gauss-Newton or Fisher matrix as one Kronecker product (arXiv 1503.05671)."""

from __future__ import annotations

from typing_extensions import override

from landscape.operators.kronecker.blocks import Block, Product
from landscape.operators.kronecker.collected import Collected
from landscape.operators.kronecker.measured import MeasuredOperator
from landscape.operators.kronecker.passes import Passes
from landscape.operators.kronecker.sides import Side


class KFAC(MeasuredOperator):
    """The blocks B (x) A of each layer, zero between layers: `(n, n)`, positive semi-definite.

    A is the mean of a a^T over what goes into the layer, with a 1 for its bias, B the mean of the curvature in what it
    gives (1503.05671; convolutions by patches, 1602.01407). Scales, shifts and tables of positions have their exact
    block. Exact on the diagonal blocks for one sample, and for linear networks with squared error.

    The factors are measured at the first product, and anew when the model has changed; `release` keeps them.

    Args:
        objective: whose `GaussNewton`, `MonteCarloFisher` or `EmpiricalFisher` is approximated.
        curvature: "gauss-newton" takes a reverse pass for each column of a root of the loss's second derivative (one
            per class for cross-entropy); "fisher" one for each label drawn; "empirical-fisher" one.
        share: "expand" takes each position of a sample (pixel, token) for a sample of its own, "reduce" the mean of
            its inputs and the sum of its derivatives (2311.00636).
        separate: weight and bias are two blocks.
        limit: a side with more entries (a vocabulary) is kept as its diagonal; so is an exact block above a quarter of
            it. The repr says so, after the first product.
        terms: several loss terms of one sample (tokens) go in reverse passes "apart", exact, or together under random
            "signs", which is right in the mean; "auto": apart up to 1,024 passes a batch.
        samples: labels drawn for "fisher".
        generator: for those and for signs; drawn once (`seed`), so that it is one matrix.

    Raises:
        TypeError: at the first product, for parameters without a rule, which it names (`KFAC.covered` has the others);
            a sharded model; a loss whose labels cannot be drawn, or that is not convex.
        ValueError: for other settings than these.

    Example:
        >>> import torch
        >>> from landscape import KFAC, Objective
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> f = Objective(model, torch.nn.MSELoss(), (torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.zeros(2, 1)))
        >>> K = KFAC(f)
        >>> (K @ torch.tensor([4.0, 5.0])).round().tolist()
        [4.0, 45.0]
        >>> (K.inverse(damping=1.0) @ torch.tensor([4.0, 5.0])).round(decimals=4).tolist()
        [2.0, 0.5]
        >>> round(K.trace(), 4), round(K.logdet(damping=1.0), 4)
        (10.0, 2.9957)
    """

    @override
    def _blocks(self, passes: Passes, found: Collected) -> list[Block]:
        return [Product(layer, Side(B), Side(A)) for layer, (B, A) in found.factors.items()]
