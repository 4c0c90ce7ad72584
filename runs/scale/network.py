"""What a network asks of a machine: arithmetic, traffic and kernels of a gradient and of products, by counting.

Matrix products are counted in closed form. All else that an eager pass reads, writes and launches is linear in a few
sizes of the network; the factors were found by counting each operation of the engine's own passes on ten transformers
and two MLPs of different shapes (the tests count again). Numbers are those of a pass over one batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["gradient", "hessian", "gauss-newton"]
KINDS: tuple[Kind, ...] = ("gradient", "hessian", "gauss-newton")


@dataclass(frozen=True)
class Work:
    """What one pass does on a device.

    Attributes:
        flops: of matrix products.
        moved: numbers that all other operations read or write.
        launches: operations.
    """

    flops: float = 0.0
    moved: float = 0.0
    launches: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved + other.moved, self.launches + other.launches)

    def __mul__(self, times: float) -> Work:
        return Work(times * self.flops, times * self.moved, times * self.launches)


@dataclass(frozen=True)
class Network:
    """A network as the cost model sees it. A row is what the data is cut into: a token, or a sample of an MLP.

    Attributes:
        parameters: n.
        largest: parameters of the largest tensor, which is gathered as a whole where they are sharded.
        tensors: how many tensors they are.
        rows: that cannot be separated: the length of a sequence.
        per_row, per_pass: of each kind of pass; products are those on a kept graph.
        kept: numbers that the graph of a product keeps for a row, beside the parameters.
    """

    name: str
    parameters: int
    largest: int
    tensors: int
    rows: int
    per_row: Mapping[Kind, Work]
    per_pass: Mapping[Kind, Work]
    kept: float

    def work(self, kind: Kind, rows: float, *, rebuilt: bool = False) -> Work:
        """Of one pass over a batch; where its graph is not kept that is made anew.

        By counting, a Hessian product's costs a gradient, and a Gauss-Newton product's, with a dual pass, a third.
        """
        found = self.per_row[kind] * rows + self.per_pass[kind]
        if rebuilt and kind != "gradient":
            found += self.work("gradient", rows) * (1.0 if kind == "hessian" else 1 / 3)
        return found


# Numbers moved and kept, and launches. Of a transformer: by row and block for each unit of width and for each attention
# score of the row, once by row for each unit of width and each word; by pass for each parameter; launches in a block
# and beside them. Of an MLP: by row and hidden unit, by parameter; launches by layer and beside them.
_TRANSFORMER: dict[Kind, tuple[float, float, float, float, float, float, float]] = {
    "gradient": (88.7, 15.8, 0.0, 14.2, 8.1, 57.0, 31.0),
    "hessian": (517.2, 44.4, 115.1, 28.5, 6.9, 279.0, 112.0),
    "gauss-newton": (377.3, 17.4, 114.9, 20.0, 4.0, 233.0, 100.0),
}
_KEPT_WIDTH, _KEPT_SCORE, _KEPT_WORD = 33.2, 3.0, 2.2
_MLP: dict[Kind, tuple[float, float, float, float]] = {
    "gradient": (6.7, 7.9, 8.0, 12.0),
    "hessian": (20.5, 5.1, 15.0, 9.0),
    "gauss-newton": (12.4, 3.9, 9.0, 9.0),
}
_KEPT_UNIT = 1.5
_COUNTED = {"gradient": 1.0, "hessian": 2.0, "gauss-newton": 4 / 3}  # gradients, in matrix products


def transformer(blocks: int, width: int, heads: int, sequence: int, vocabulary: int) -> Network:
    """A decoder with learned positions, biases and a head of its own; attention is written out.

    Fused attention has no second derivative: the scores, `heads * sequence` for a token, are made and kept.
    """
    matrices = 12 * blocks * width**2 + vocabulary * width
    parameters = matrices + (vocabulary + sequence + 2) * width + 13 * blocks * width
    scores = heads * sequence
    gradient = 6 * matrices + 12 * blocks * sequence * width
    per_row, per_pass = {}, {}
    for kind, (unit, score, once, word, every, inside, outside) in _TRANSFORMER.items():
        moved = blocks * (unit * width + score * scores) + once * width + word * vocabulary
        per_row[kind] = Work(_COUNTED[kind] * gradient, moved)
        per_pass[kind] = Work(0.0, every * parameters, inside * blocks + outside)
    return Network(
        name=f"transformer, {blocks} blocks of {width}",
        parameters=parameters,
        largest=max(4 * width**2, vocabulary * width),
        tensors=12 * blocks + (4 if not vocabulary else 5),
        rows=sequence,
        per_row=per_row,
        per_pass=per_pass,
        kept=blocks * (_KEPT_WIDTH * width + _KEPT_SCORE * scores) + _KEPT_WORD * vocabulary,
    )


def of_size(parameters: float, sequence: int = 1024) -> Network:
    """A transformer of about that size: blocks 128 times as wide as they are many, heads of 64, embeddings left out."""
    blocks = max(2, round((parameters / (12 * 128**2)) ** (1 / 3)))
    width = max(8, 8 * round(math.sqrt(parameters / (12 * blocks)) / 8))
    return transformer(blocks, width, max(1, round(width / 64)), sequence, 0)


def mlp(widths: Sequence[int]) -> Network:
    """Linear layers of these widths, the inputs' first, with biases and ReLU between them."""
    layers = [inner * outer for inner, outer in pairwise(widths)]
    parameters = sum(layers) + sum(widths[1:])
    hidden, depth = sum(widths[1:]), len(layers)
    first, rest = layers[0], sum(layers[1:])
    # the first layer's inputs need no derivative: two matrix products there instead of three, and two in a product
    flops = {"gradient": 2 * first + 3 * rest, "hessian": 2 * first + 6 * rest, "gauss-newton": 2 * first + 4 * rest}
    return Network(
        name="-".join(map(str, widths)),
        parameters=parameters,
        largest=max(layers),
        tensors=2 * depth,
        rows=1,
        per_row={kind: Work(2.0 * flops[kind], _MLP[kind][0] * hidden) for kind in KINDS},
        per_pass={kind: Work(0.0, m[1] * parameters, m[2] * depth + m[3]) for kind, m in _MLP.items()},
        kept=widths[0] + _KEPT_UNIT * sum(widths[1:-1]) + widths[-1],
    )
