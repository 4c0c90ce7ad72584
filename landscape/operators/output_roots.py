"""Roots of what stands between J^T and J: columns r_c in the space of a batch's outputs with B = sum_c r_c r_c^T.

One reverse pass takes a column of all samples at once. Terms of the loss that belong to one sample (the positions of a
sequence, the elements of a squared error) would mix in it: they go one after the other, or together under random signs,
whose outer products have the right mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.objective.evaluation import Evaluation
from landscape.objective.losses import class_dim
from landscape.operators.output_curvature import Curvature, nothing


@dataclass(frozen=True)
class Root:
    """Columns whose outer products, taken within each term of the loss, sum up to B.

    Attributes:
        count: how many columns.
        column: the i-th, in the shape of the outputs.
        unit_dims: dimensions of the outputs that belong to one term.
        centred: columns are random with mean zero, independently in each term, so that terms may go together.
    """

    count: int
    column: Callable[[int], Tensor]
    unit_dims: tuple[int, ...]
    centred: bool = False

    @classmethod
    def of_outer_products(
        cls, slopes: list[Tensor], weights: Tensor, unit_dims: tuple[int, ...], centred: bool = False
    ) -> Root:
        """The root of `outer_products(slopes, weights, unit_dims)`."""
        return cls(len(slopes), lambda i: weights.sqrt() * slopes[i], unit_dims, centred)

    def terms(self, shape: torch.Size, samples: int) -> int:
        """How many terms a sample has, by the outputs' shape; samples lie along their first dimension."""
        return _of_term(shape, self.unit_dims).numel() // samples

    def cotangents(self, outputs: Tensor, samples: int, apart: bool, generator: torch.Generator) -> Iterator[Tensor]:
        """What reverse passes begin with, in the shape of the outputs.

        apart: the terms of a sample one after the other, so that outer products are exact; else under random signs.
        """
        shape, terms = _of_term(outputs.shape, self.unit_dims), self.terms(outputs.shape, samples)
        place = torch.arange(terms, device=outputs.device).repeat(samples).reshape(shape)  # of a term in its sample
        for i in range(self.count):
            column = self.column(i)
            if self.centred or terms <= 1:
                yield column
            elif apart:
                for t in range(terms):
                    yield column * (place == t)
            else:
                signs = 2 * torch.randint(0, 2, shape, generator=generator, dtype=torch.int8) - 1
                yield column * signs.to(column)


def _of_term(shape: torch.Size, unit_dims: tuple[int, ...]) -> torch.Size:
    """The outputs' shape with a single entry for each term."""
    return torch.Size(1 if d in unit_dims else size for d, size in enumerate(shape))


def loss_root(e: Evaluation, curvature: Curvature) -> Root:
    """Of d2 (batch mean) / d outputs2 at outputs without a graph; `curvature` is that matrix.

    Cross-entropy: the column of class c is sqrt(a p_c) (e_c - p), a the term's weight. Raises `TypeError` for a loss
    that is not convex in the outputs, or not a sum over samples.
    """
    known, outputs = e.criterion.known, e.outputs
    if curvature is nothing or not outputs.numel():
        return Root(0, lambda i: outputs, ())
    if known is not None and known.kind == "cross_entropy":
        dim = class_dim(outputs)
        p = outputs.softmax(dim)
        scale = 1.0 / known.count(outputs, e.batch.targets) if known.reduction == "mean" else 1.0
        a = known.softmax_weights(outputs, e.batch.targets).unsqueeze(dim) * scale

        def column(c: int) -> Tensor:
            share = p.narrow(dim, c, 1)
            slope = -p
            slope.narrow(dim, c, 1).add_(1.0)
            return (a * share).sqrt() * slope

        return Root(outputs.shape[dim], column, (dim,))
    if known is not None and known.denominator == "elements":
        d = curvature(torch.ones_like(outputs).unsqueeze(0))[0]  # diagonal
        _refuse_negative(d)
        return Root(1, lambda i: d.sqrt(), ())
    return _root_of_samples(outputs, curvature)


def _root_of_samples(outputs: Tensor, curvature: Curvature) -> Root:
    """Of any loss that is a sum over samples: the dense matrix of each sample's outputs, and its eigenvectors."""
    samples = len(outputs) if outputs.ndim else 1
    flat = outputs.reshape(samples, -1)
    width = flat.shape[1]
    B = torch.empty(samples, width, width, dtype=outputs.dtype, device=outputs.device)
    for i in range(width):
        unit = torch.zeros_like(flat)
        unit[:, i] = 1.0
        B[:, i] = curvature(unit.reshape(1, *outputs.shape))[0].reshape(samples, width)
    signs = 2.0 * (torch.arange(samples, device=outputs.device) % 2) - 1
    u = signs.to(flat).unsqueeze(1).expand_as(flat)
    together = curvature(u.reshape(1, *outputs.shape))[0].reshape(samples, width)
    apart = (B @ u.unsqueeze(2))[..., 0]
    if float((together - apart).norm()) > torch.finfo(B.dtype).eps ** 0.5 * float(B.norm()):
        raise TypeError(
            "the loss of a batch is not a sum over its samples (a contrastive loss, a ratio of means), so that there "
            "is no matrix for each sample's outputs: use GaussNewton"
        )
    values, vectors = torch.linalg.eigh((B + B.mT) / 2)
    _refuse_negative(values)
    R = vectors * values.clamp_min(0.0).sqrt().unsqueeze(1)
    return Root(width, lambda i: R[..., i].reshape(outputs.shape), tuple(range(1, outputs.ndim)))


def _refuse_negative(values: Tensor) -> None:
    if float(values.min()) < -(torch.finfo(values.dtype).eps ** 0.5) * float(values.abs().max()):
        raise TypeError(
            "the loss is not convex in the outputs here, so that its second derivative has no root: use "
            'GaussNewton, or curvature="empirical-fisher"'
        )
