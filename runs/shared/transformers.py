"""Small transformers that several experiments train: on patches of the digits, and on bytes of text; and these data.

Data are inputs and targets to train on, and others to test on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probes.digits import CLASSES, digits

WINDOW = 32  # bytes
TRAINED, TESTED = 256, 64  # windows of text


class AttentionBlock(nn.Module):
    """A pre-norm transformer block with four heads."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.causal = causal

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T, width)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(self.first(x)).view(batch, tokens, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.mix(heads.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.second(x))


class ViT(nn.Module):
    """A vision transformer on 8 x 8 images: 16 patches of 2 x 2, two blocks of width 16."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, causal=False) for _ in range(2)), nn.LayerNorm(width))
        self.out = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 8, 8)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.out(self.blocks(tokens).mean(dim=1))


class ByteTransformer(nn.Module):
    """Two causal blocks of that width on windows of bytes."""

    def __init__(self, width: int = 32, window: int = WINDOW) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.place = nn.Parameter(0.02 * torch.randn(window, width))
        self.blocks = nn.Sequential(*(AttentionBlock(width, causal=True) for _ in range(2)), nn.LayerNorm(width))
        self.out = nn.Linear(width, 256)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 256, T) of the byte after each of (N, T)."""
        return self.out(self.blocks(self.embed(x) + self.place[: x.shape[1]])).transpose(1, 2)


# -- data ----------------------------------------------------------------------------------------------------------

Data = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


def images() -> Data:
    """The digits to train on and to test on."""
    return digits().train, digits().test


def text() -> Data:
    """Windows of English text and the byte after each: what scikit-learn says about its data sets.

    That text comes with the library that the digits come with, and does not change with this repository.
    """
    from sklearn import datasets

    names = "breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine"
    raw = "\n".join(getattr(datasets, f"load_{name}")().DESCR for name in names).encode()
    x, y = windows(raw, WINDOW)
    test = slice(TRAINED, TRAINED + TESTED)
    return (x[:TRAINED], y[:TRAINED]), (x[test], y[test])


def windows(raw: bytes, length: int) -> tuple[Tensor, Tensor]:
    """Bytes in rows `(N, length)`, and the byte after each; what does not fill a row is left out."""
    codes = torch.tensor(list(raw[: (len(raw) - 1) // length * length + 1]))
    return codes[:-1].reshape(-1, length), codes[1:].reshape(-1, length)
