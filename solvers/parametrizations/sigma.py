"""sigmaReparam: weights whose spectral norm is a parameter (arXiv 2303.06296, eq. 3).

    W = gamma / sigma(W_0) W_0,    sigma(W_0) = u^T W_0 v

gamma is a scalar that is trained and begins at 1; u and v come from one step of power iteration at each forward pass in
train mode and are constants to autograd. In eval mode they stay. It keeps attention from collapsing: the entropy of
attention is bounded by the spectral norms of its weights, see `landscape.representation.attention_entropy`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

_START = 100  # steps of power iteration at most before the first forward pass
Model = TypeVar("Model", bound=nn.Module)


class SigmaReparam(nn.Module):
    """The parametrisation of one weight: `forward(W_0)` is gamma / sigma(W_0) W_0, in the shape of W_0.

    What has more than two dimensions is taken as `(out, the rest)`. With `blocks` the first dimension is cut into so
    many equal parts, each with a gamma, u and v of its own: the queries, keys and values of one matrix.

    Args:
        weight: W_0, to begin with.
        gamma: where it begins; "keep" is sigma(W_0), which leaves the weight as it is.
        blocks: see above.
        eps: u and v are divided by their norms, at least this.

    Attributes:
        gamma: `(blocks,)` parameter.
        u, v: `(blocks, out / blocks)` and `(blocks, the rest)`, buffers.

    Raises:
        ValueError: a weight with less than two dimensions, of zeros, or that cannot be cut so; gamma that is not
            positive.

    Example:
        >>> import torch
        >>> from solvers import SigmaReparam
        >>> W = torch.diag(torch.tensor([3.0, 1.0]))
        >>> reparam = SigmaReparam(W).eval()
        >>> [round(x, 4) for x in reparam(W).diagonal().tolist()]
        [1.0, 0.3333]
    """

    u: Tensor
    v: Tensor

    def __init__(
        self, weight: Tensor, *, gamma: float | Literal["keep"] = 1.0, blocks: int = 1, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if weight.ndim < 2 or not weight.is_floating_point():
            raise ValueError(f"the spectral norm is of real matrices, not of {tuple(weight.shape)}: leave it out")
        if blocks < 1 or len(weight) % blocks:
            raise ValueError(f"{len(weight)} rows cannot be cut into {blocks} equal blocks")
        if gamma != "keep" and not 0 < gamma < float("inf"):
            raise ValueError(f'gamma is "keep" or a positive number, not {gamma!r}')
        self.blocks, self.eps = blocks, eps
        W = self._matrices(weight.detach())
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(*W.shape[:2], generator=generator, dtype=torch.float64).to(W)
        self.register_buffer("u", F.normalize(start, dim=-1, eps=eps))
        self.register_buffer("v", torch.zeros_like(W[:, 0]))
        sigma = torch.zeros(blocks).to(W)
        for _ in range(_START):
            self._iterate(W)
            before, sigma = sigma, self._sigma(W)
            if bool(((sigma - before).abs() <= torch.finfo(W.dtype).eps * sigma).all()):
                break
        if not bool((sigma > 0).all()):
            raise ValueError("the weight is 0, or not finite: its spectral norm cannot be divided by")
        self.gamma = nn.Parameter(sigma.clone() if gamma == "keep" else torch.full_like(sigma, gamma))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with spectral norm gamma, as far as power iteration has come."""
        W = self._matrices(weight)
        if self.training:
            self._iterate(W)
        scale = self.gamma / self._sigma(W)
        return (scale.reshape(-1, 1, 1) * W).reshape(weight.shape)

    def _matrices(self, weight: Tensor) -> Tensor:
        """`(blocks, out / blocks, the rest)`."""
        return weight.reshape(self.blocks, len(weight) // self.blocks, -1)

    def _sigma(self, W: Tensor) -> Tensor:
        """`(blocks,)`: u^T W v; copies, since the buffers may move on before the gradient is asked for."""
        return torch.einsum("bo,boi,bi->b", self.u.clone(), W, self.v.clone())

    @torch.no_grad()
    def _iterate(self, W: Tensor) -> None:
        self.v.copy_(F.normalize(torch.einsum("boi,bo->bi", W, self.u), dim=-1, eps=self.eps))
        self.u.copy_(F.normalize(torch.einsum("boi,bi->bo", W, self.v), dim=-1, eps=self.eps))

    def extra_repr(self) -> str:
        """Its sizes, for torch's own repr."""
        return f"blocks={self.blocks}" if self.blocks > 1 else ""


def sigma_reparam(
    model: Model, layers: Iterable[str] | str | None = None, *, gamma: float | Literal["keep"] = 1.0
) -> Model:
    """Puts all linear layers, convolutions and attention of a model (or those named) under `SigmaReparam`, in place.

    Make it before the optimizer: the parameters are then gamma and W_0. Queries, keys and values of an
    nn.MultiheadAttention have a gamma each. Their states are in the model's state dict; `remove_sigma_reparam` leaves
    the weights as they then are. In eval mode it is a smooth function, whose Hessian is right; in train mode power
    iteration moves in every forward pass, and curvature operators refuse it.

    Args:
        model: what comes back too; a layer itself also.
        layers: names or globs of modules; default all that have such a weight.
        gamma: as in `SigmaReparam`.

    Raises:
        ValueError: nothing of such a name, or without a weight for it; a weight that is tied, or parametrised already;
            and as `SigmaReparam`.

    Example:
        >>> import torch
        >>> from solvers import sigma_reparam
        >>> model = sigma_reparam(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)))
        >>> [name for name, _ in model.named_parameters() if "0." in name][:2]
        ['0.bias', '0.parametrizations.weight.original']
        >>> round(torch.linalg.matrix_norm(model.eval()[0].weight, 2).item(), 3)
        1.0
    """
    found = {name: places for name, module in model.named_modules() if (places := list(_weights(module)))}
    chosen = set(found)
    if layers is not None:
        chosen = set()
        for pattern in [layers] if isinstance(layers, str) else layers:
            matching = {name for name in found if fnmatch.fnmatchcase(name, pattern)}
            if not matching:
                raise ValueError(
                    f"no linear layer, convolution or attention is called {pattern!r}: there are "
                    f"{', '.join(list(found)[:6]) or 'none'}"
                )
            chosen |= matching
    elif not found:
        raise ValueError(f"{type(model).__name__} has no linear layer, convolution or attention")
    uses = _uses(model)
    made: list[tuple[nn.Module, str, SigmaReparam]] = []
    for name in sorted(chosen):
        module = model.get_submodule(name)
        for weight, blocks in found[name]:
            label = f"{name}.{weight}".lstrip(".")
            if parametrize.is_parametrized(module, weight):
                raise ValueError(f"{label} is parametrised already")
            others = [other for other in uses[id(getattr(module, weight))] if other != label]
            if others:
                raise ValueError(f"{label} is tied to {others[0]}: name the layers without it, by layers=")
            try:
                made.append((module, weight, SigmaReparam(getattr(module, weight), gamma=gamma, blocks=blocks)))
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from None
    for module, weight, reparam in made:  # after the last refusal
        parametrize.register_parametrization(module, weight, reparam.train(module.training))
    return model


def remove_sigma_reparam(model: Model) -> Model:
    """Takes all of them out again; the weights stay as they are in eval mode. Optimizers have to be made anew.

    Example:
        >>> import torch
        >>> from solvers import remove_sigma_reparam, sigma_reparam
        >>> layer = remove_sigma_reparam(sigma_reparam(torch.nn.Linear(4, 3)))
        >>> sorted(name for name, _ in layer.named_parameters())
        ['bias', 'weight']
    """
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name, parts in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
            if any(isinstance(part, SigmaReparam) for part in parts):
                parts.eval()
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model


def _weights(module: nn.Module) -> Iterator[tuple[str, int]]:
    """The weights of a module that can be so parametrised, each with its number of blocks."""
    if isinstance(module, nn.MultiheadAttention):
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(module, name, None) is not None:
                yield name, 3 if name == "in_proj_weight" else 1
    elif isinstance(module, nn.Linear | _ConvNd) or "Conv1D" in {kind.__name__ for kind in type(module).__mro__}:
        yield "weight", 1


def _uses(model: nn.Module) -> dict[int, list[str]]:
    """All names of each parameter."""
    uses: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        uses.setdefault(id(p), []).append(name)
    return uses
