"""ScaledGD: factors of a product X = B A, each scaled by the Gram matrix of the other (arXiv 2005.08898, 2302.01186).

    g_A <- (B^T B + damping I)^(-1) df/dA             g_B <- df/dB (A A^T + damping I)^(-1)
    m <- momentum m + (1 - momentum) g                                or Adam's running means of g
    theta <- (1 - lr weight_decay) theta - lr m

for B `(out, r)` and A `(r, in)`, both scaled at the point where the step begins. Without damping the way of B A does
not hang on how it is split into factors, (B R)(R^(-1) A), nor the rate on the condition number of the solution. For
LoRA's pairs this is Riemannian preconditioned LoRA, scaled GD and scaled AdamW (arXiv 2402.02347, Algorithm 1): B A
changes by about -lr (G P + P' G), the full gradient projected on the rows of A and on the columns of B.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from solvers.base import Parameters, check
from solvers.first_order.base import Update, adam_step
from solvers.first_order.oracle import running_mean
from solvers.preconditioned.base import Preconditioned, widened


class ScaledGD(Preconditioned):
    """ScaledGD for pairs of factors; see the module for the update. `lora_groups` finds those of a model with adapters.

    `step(closure)`, or `loss.backward(); step()` as usual. A factor is scaled also where the other one is frozen.

    Args:
        params: parameters, or groups with settings (and "pairs") of their own.
        lr: step size, >= 0.
        pairs: (B, A) of the parameters; their further dimensions, as of adapters of convolutions, are columns.
        variant: "gd" or "adam".
        damping: >= 0; > 0 where a factor begins at 0, as LoRA's B does.
        momentum: of "gd", in [0, 1).
        betas, eps: of "adam".
        weight_decay: >= 0, decoupled.
        rest: "plain", gradient descent or Adam for parameters of no pair, or "refuse".
        maximize: climb in place of descending, as in torch.

    Raises:
        ValueError: settings that are not possible, pairs that are none, or parameters of no pair where they are
            refused; at a step, a factor without full rank and without damping. Nothing is moved then.

    Example:
        >>> import torch
        >>> from solvers import ScaledGD
        >>> B, A = torch.tensor([[2.0], [0.0]], requires_grad=True), torch.tensor([[100.0, 0.0]], requires_grad=True)
        >>> target = torch.tensor([[100.0, 0.0], [0.0, 0.0]])
        >>> solver = ScaledGD([B, A], lr=0.5, pairs=[(B, A)])
        >>> losses = [float(solver.step(lambda: (B @ A - target).square().sum() / 2)) for _ in range(6)]
        >>> losses[0], losses[-1] < 1e-6  # as fast for any scale of target, B and A
        (5000.0, True)
    """

    takes_complex = False

    def __init__(
        self,
        params: Parameters,
        lr: float,
        *,
        pairs: Iterable[tuple[Tensor, Tensor]] = (),
        variant: Literal["gd", "adam"] = "gd",
        damping: float = 1e-6,
        momentum: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        rest: Literal["plain", "refuse"] = "plain",
        maximize: bool = False,
    ) -> None:
        settings = check(
            lr=(lr, lr >= 0),
            variant=(variant, variant in ("gd", "adam")),
            damping=(damping, damping >= 0),
            momentum=(momentum, 0 <= momentum < 1),
            betas=(betas, len(betas) == 2 and all(0 <= b < 1 for b in betas)),
            eps=(eps, eps > 0),
            weight_decay=(weight_decay, weight_decay >= 0),
            rest=(rest, rest in ("plain", "refuse")),
            maximize=(maximize, True),
        )
        super().__init__(params, {**settings, "pairs": list(pairs)})
        self.defaults["pairs"] = []  # of groups that are added later

    @override
    def _check_group(self, group: dict[str, Any]) -> None:
        """Pairs are kept as places in the group, which a saved state can hold."""
        super()._check_group(group)
        place = {id(p): i for i, p in enumerate(group["params"])}
        found = [tuple(p if isinstance(p, int) else place.get(id(p), -1) for p in pair) for pair in group["pairs"]]
        members = [i for pair in found for i in pair]
        if any(len(pair) != 2 for pair in found) or -1 in members:
            raise ValueError("pairs are (B, A) of one and the same group's parameters")
        if len(set(members)) < len(members):
            raise ValueError("a parameter is in two pairs: which factor scales it?")
        for B, A in ([group["params"][i] for i in pair] for pair in found):
            if B.ndim < 2 or A.ndim < 2 or B.shape[1:].numel() != len(A):
                shapes = f"{tuple(B.shape)} and {tuple(A.shape)}"
                raise ValueError(f"a pair is B (out, r) and A (r, in), not {shapes}: is it (A, B)?")
        alone = [tuple(p.shape) for i, p in enumerate(group["params"]) if i not in members and p.requires_grad]
        if alone and group["rest"] == "refuse":
            raise ValueError(f"{len(alone)} parameters are in no pair, the first of shape {alone[0]}: rest='plain'")
        group["pairs"] = found

    @override
    def _move_groups(self, updates: list[Update]) -> None:
        scaled = [update._replace(gradients=self._scaled_gradients(update)) for update in updates]
        super()._move_groups(scaled)  # only now, when all of them are known

    def _scaled_gradients(self, update: Update) -> list[Tensor]:
        places = {id(self.state.get(p)): i for i, p in enumerate(update.group["params"])}
        found = [places[id(state)] for state in update.states]
        return [self._scaled(update.group, i, g) for i, g in zip(found, update.gradients, strict=True)]

    def _scaled(self, group: Any, place: int, v: Tensor) -> Tensor:
        """v for the parameter in this place of the group, scaled by the other factor of its pair."""
        for i, j in group["pairs"]:
            if place in (i, j):
                other = widened(group["params"][j if place == i else i]).detach().flatten(1).to(v)
                flat = v.flatten(1)
                if place == i:
                    return _solved(other @ other.mT, flat.mT, group["damping"]).mT.reshape(v.shape)
                return _solved(other.mT @ other, flat, group["damping"]).reshape(v.shape)
        return v

    @override
    def _move(self, update: Update) -> None:
        group, parameters, gradients, _ = update
        lr, momentum = float(group["lr"]), group["momentum"]
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1.0 - lr * group["weight_decay"])
        if group["variant"] == "adam":
            adam_step(update, lr)
            return
        directions = running_mean(update, 1.0 - momentum) if momentum else gradients
        torch._foreach_add_(parameters, directions, alpha=-lr)

    @override
    @torch.no_grad()
    def precondition(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        if any(group["variant"] == "adam" for group in self.param_groups):
            return super().precondition(vectors)
        leaves = self.leaves()
        self._check_vectors(leaves, vectors)
        places = {p: (group, i) for group in self.param_groups for i, p in enumerate(group["params"])}
        return [self._scaled(*places[p], widened(v)) for p, v in zip(leaves, vectors, strict=True)]


def _solved(gram: Tensor, right: Tensor, damping: float) -> Tensor:
    """(gram + damping I)^(-1) right, by Cholesky in float64."""
    wide = gram.double()
    wide.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(wide)
    if bool(failed):
        raise ValueError("a factor has no full rank (or is not finite), and nothing was moved: give more damping")
    return torch.cholesky_solve(right.double(), factor).to(right)


def lora_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Groups for `ScaledGD`: LoRA's factors with their pairs, and what else requires grad, if there is anything.

    Pairs are parameters whose names differ by `lora_A` for `lora_B`, or `lora_embedding_A` for `lora_embedding_B`, as
    those of peft do.

    Raises:
        ValueError: the model has none.

    Example:
        >>> from torch import nn
        >>> from solvers import ScaledGD, lora_groups
        >>> class Adapted(nn.Linear):
        ...     def __init__(self):
        ...         super().__init__(6, 5)
        ...         self.weight.requires_grad_(False)
        ...         self.lora_A, self.lora_B = nn.Linear(6, 2, bias=False), nn.Linear(2, 5, bias=False)
        >>> [{**group, "params": len(group["params"])} for group in lora_groups(Adapted())][1]  # the bias
        {'params': 1}
        >>> solver = ScaledGD(lora_groups(Adapted()), lr=1e-3, variant="adam")
        >>> solver.param_groups[0]["pairs"]
        [(0, 1)]
    """
    named = dict(model.named_parameters())
    pairs = []
    for name, A in named.items():
        for kind in ("lora_A", "lora_embedding_A"):
            other = name.replace(kind, f"{kind[:-1]}B")
            if kind in name.split(".") and other in named:
                pairs.append((named[other], A))
    if not pairs:
        raise ValueError("the model has no LoRA factors: no parameters are named lora_A and lora_B")
    factors = [p for pair in pairs for p in pair]
    apart = {id(p) for p in factors}
    rest = [p for p in named.values() if p.requires_grad and id(p) not in apart]
    return [{"params": factors, "pairs": pairs}, *([{"params": rest}] if rest else [])]
