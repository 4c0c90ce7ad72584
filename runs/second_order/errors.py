"""How far Kronecker-factored blocks are from those of the exact Gauss-Newton matrix, which is formed.

A layer's block is taken in the order of its weights with the bias as one more column, `(out, inner)` by rows, in which
K-FAC's is B (x) A. Errors are in Frobenius norms relative to the exact matrix unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from landscape import EKFAC, KFAC, GaussNewton, Objective

TOP = 10  # eigenvalues that are compared


@dataclass(frozen=True)
class Layer:
    """Where the entries of a linear layer lie in the flat vector, `(out, inner)`."""

    places: Tensor

    def of(self, matrix: Tensor) -> Tensor:
        """Its block of a matrix `(n, n)`."""
        flat = self.places.reshape(-1)
        return matrix[flat][:, flat]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, inner)."""
        out, inner = self.places.shape
        return out, inner


def layers(objective: Objective) -> list[Layer]:
    """Of all linear layers, which have biases."""
    places = torch.arange(objective.size)

    def of(name: str) -> Layer:
        out = objective.model.get_parameter(f"{name}.bias").numel()
        parts = (places[objective.slices[f"{name}.{part}"]].reshape(out, -1) for part in ("weight", "bias"))
        return Layer(torch.cat([*parts], dim=1))

    return [of(name) for name, module in objective.model.named_modules() if isinstance(module, nn.Linear)]


def block_errors(objective: Objective) -> list[float]:
    """||G_l - K_l|| / ||G_l|| of each layer."""
    G, K = GaussNewton(objective).to_dense(), KFAC(objective).to_dense()
    return [float((layer.of(G) - layer.of(K)).norm() / layer.of(G).norm()) for layer in layers(objective)]


def measure(objective: Objective, generator: torch.Generator, dampings: Sequence[float]) -> dict[str, Any]:
    """Errors of the block diagonal by approximation, what it leaves out, and eigenvalues.

    "kfac", "ekfac", "best" (the Kronecker product of least error in each block), "shampoo" (the product of the block's
    own partial traces over its trace, one power step towards the best) and "random" (the exact diagonal in random
    Kronecker bases) are of all blocks together, relative to them; "layers" are K-FAC's, one for each layer, and
    "spectral" is K-FAC's of all together in the spectral norm. "left out" is what lies between layers, relative to the
    whole matrix. "trace" is tr EKFAC / tr G - 1, "top" the largest factor between the i-th eigenvalues of K-FAC and of
    the exact blocks, i = 1 ... 10, and "first" the ratio of the largest ones. "plain" and "inverse" are those of
    `between_layers`, whose dampings are in units of the mean eigenvalue.
    """
    G, K, E = (A(objective).to_dense() for A in (GaussNewton, KFAC, EKFAC))
    squares: dict[str, float] = dict.fromkeys(("kfac", "ekfac", "best", "shampoo", "random"), 0.0)
    own, each, gaps = [], [], []
    spectra: dict[str, list[Tensor]] = {"exact": [], "kfac": []}
    linear = layers(objective)
    for layer in linear:
        block, kfac = layer.of(G), layer.of(K)
        near = {"kfac": kfac, "ekfac": layer.of(E), "random": in_random_basis(block, layer.shape, generator)}
        near |= products(block, layer.shape)
        for name, found in near.items():
            squares[name] += float((block - found).square().sum())
        own.append(float(block.square().sum()))
        each.append(float((block - kfac).norm() / block.norm()))
        spectra["exact"].append(torch.linalg.eigvalsh(block))
        spectra["kfac"].append(torch.linalg.eigvalsh(kfac))
        gaps.append(float(torch.linalg.eigvalsh(block - kfac).abs().max()))
    exact, approximate = (torch.cat(spectra[name]).sort(descending=True).values[:TOP] for name in ("exact", "kfac"))
    ratios = (approximate / exact).log()
    return {
        **{name: (square / sum(own)) ** 0.5 for name, square in squares.items()},
        "layers": each,
        "spectral": max(gaps) / float(exact[0]),
        "left out": max(0.0, 1.0 - sum(own) / float(G.square().sum())) ** 0.5,
        "trace": float(E.trace() / G.trace() - 1.0),
        "top": float(ratios.abs().max().exp()),
        "first": float(ratios[0].exp()),
        **between_layers(G, linear, dampings),
    }


def products(block: Tensor, shape: tuple[int, int]) -> dict[str, Tensor]:
    """The Kronecker product of least error, by power steps on the rearranged block, and the first step from I (x) I.

    As of the rearranged block the product is a matrix of rank one (arXiv 2406.17748).
    """
    out, inner = shape
    T = block.reshape(out, inner, out, inner).permute(0, 2, 1, 3).reshape(out * out, inner * inner)
    B, A = T @ torch.eye(inner, dtype=T.dtype).reshape(-1), T.T @ torch.eye(out, dtype=T.dtype).reshape(-1)

    def product(B: Tensor, A: Tensor) -> Tensor:
        return torch.kron(B.reshape(out, out), A.reshape(inner, inner))

    first = product(B, A) / float(block.trace())
    for _ in range(200):
        A = T.T @ (B / B.norm())
        B, before = T @ (A / A.norm()), B
        if float((B - before).norm()) <= 1e-12 * float(B.norm()):
            break
    return {"best": product(B, A / A.norm()), "shampoo": first}


def in_random_basis(block: Tensor, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Q diag(Q^T block Q) Q^T with Q = Q_B (x) Q_A random: the exact diagonal in a basis that knows nothing."""

    def orthogonal(n: int) -> Tensor:
        return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=block.dtype))[0]

    Q = torch.kron(orthogonal(shape[0]), orthogonal(shape[1]))
    return (Q * (Q * (block @ Q)).sum(0)) @ Q.T


def between_layers(G: Tensor, found: Sequence[Layer], dampings: Sequence[float]) -> dict[str, Any]:
    """The share of squared correlations that lie between layers: of G + d I ("plain") and of its inverse ("inverse").

    Correlations are entries over the root of their two diagonal entries; the diagonal itself is left out.
    """
    mean = float(G.trace()) / len(G)
    whose = torch.zeros(len(G), dtype=torch.long)
    for i, layer in enumerate(found):
        whose[layer.places.reshape(-1)] = i
    between = whose[:, None] != whose[None, :]

    def share(M: Tensor) -> float:
        root = M.diagonal().sqrt()
        C = (M / root / root[:, None]).square().fill_diagonal_(0.0)
        return float(C[between].sum() / C.sum())

    damped = [G + damping * mean * torch.eye(len(G), dtype=G.dtype) for damping in dampings]
    shares = [(share(M), share(torch.cholesky_inverse(torch.linalg.cholesky(M)))) for M in damped]
    return {"plain": [plain for plain, _ in shares], "inverse": [inverse for _, inverse in shares]}
