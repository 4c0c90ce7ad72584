"""The networks that the benchmarks measure: an MLP, a ResNet-18-shaped CNN with BatchNorm, a small GPT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Workload:
    """A model in eval mode, its loss, and a function that draws one batch from a generator."""

    name: str
    model: nn.Module
    loss: nn.Module
    draw: Callable[[torch.Generator], tuple[Tensor, Tensor]]

    def batches(self, count: int, device: torch.device) -> Batches:
        """The first batches of a generator of their own, on the device, to which the model moves."""
        self.model.to(device)
        g = torch.Generator().manual_seed(0)
        return [(X.to(device), y.to(device)) for X, y in (self.draw(g) for _ in range(count))]


def _labelled(*shape: int) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """Draws normal inputs of that shape, the batch first, and labels of ten classes."""
    return lambda g: (torch.randn(shape, generator=g), torch.randint(0, 10, shape[:1], generator=g))


def mlp(batch: int = 256) -> Workload:
    """784-512-512-10 with ReLU."""
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return Workload("mlp", model.eval(), nn.CrossEntropyLoss(), _labelled(batch, 784))


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inner != outer:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.short(x))


def resnet(batch: int = 16, width: int = 32) -> Workload:
    """ResNet-18's shape on 32x32 images; width 32 has 2.8 million parameters, width 64 is ResNet-18 itself."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inner = width
    for stage in range(4):
        outer = width << stage
        layers += [_Block(inner, outer, 1 if stage == 0 else 2), _Block(outer, outer, 1)]
        inner = outer
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10)]
    return Workload("resnet", nn.Sequential(*layers).eval(), nn.CrossEntropyLoss(), _labelled(batch, 3, 32, 32))


class _Attention(nn.Module):
    """Causal self-attention written out: a fused kernel has no second derivative, and the peers do not avoid it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, c // self.heads).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        scores = (q @ k.transpose(-2, -1)) * (c // self.heads) ** -0.5
        hidden = torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1)
        return self.out((scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(1, 2).reshape(b, t, c))


class _GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class _Gpt(nn.Module):
    def __init__(self, vocabulary: int, context: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(_GptBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x))).flatten(0, 1)


def gpt(
    batch: int = 8, context: int = 64, width: int = 128, depth: int = 4, heads: int = 4, vocabulary: int = 256
) -> Workload:
    """A decoder-only transformer; the logits come flattened over positions, as the peers' losses need them."""
    model = _Gpt(vocabulary, context, width, depth, heads)

    def draw(g: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(0, vocabulary, (batch, context + 1), generator=g)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    return Workload("gpt", model.eval(), nn.CrossEntropyLoss(), draw)
