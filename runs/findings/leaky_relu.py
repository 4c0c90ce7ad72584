"""Two expressions that are computed as bounds of kappa for a hidden layer of leaky ReLU."""

from __future__ import annotations

import torch
from torch import Tensor

from landscape.conditioning import Conditioning, leaky_relu_network
from probes.digits import CLASSES
from runs.findings.finding import Finding, Seen, number
from runs.gauss_newton_conditioning.data import kaiming, pixels, white

NETWORKS, SAMPLES, WIDTHS = 2000, 40, (50, 200)
_ROUNDING = 1e-9


def measure() -> Seen:
    """One network made to break b2, ordinary ones on white digits, and how many small random ones break each."""
    made = leaky_relu_network(torch.tensor([[1.0, -1.0], [-10.0, 0.1]]), 0.01 * torch.eye(2), torch.eye(2), slope=0.1)
    wide = [_on_digits(width) for width in WIDTHS]
    above = {"b1": 0, "b1.5": 0, "b2": 0}
    for found in _random_networks():
        for name, bound in _bounds(found).items():
            above[name] += found.kappa > bound * (1 + _ROUNDING)
    named = {"made": made, **{f"white digits, {width} units": one for width, one in zip(WIDTHS, wide, strict=True)}}
    rows = [(name, *(number(v) for v in (one.kappa, *_bounds(one).values()))) for name, one in named.items()]
    rows.append((f"exceeded by, of {NETWORKS} random networks", "", *map(str, above.values())))
    held = above["b1"] == 0 and all(one.kappa <= one.bound for one in named.values())
    broken = made.kappa > 10 * made.estimates["b2"] and wide[-1].kappa > 1.1 * wide[-1].estimates["b1.5"]
    return Seen(("", "κ", "b1", "b1.5", "b2"), rows, held and broken and above["b2"] > 0)


def _bounds(found: Conditioning) -> dict[str, float]:
    return {"b1": found.bound, **{name: found.estimates[name] for name in ("b1.5", "b2")}}


def _on_digits(width: int) -> Conditioning:
    x = white(pixels("digits", SAMPLES))
    V, W = kaiming([x.shape[1], width, CLASSES], torch.Generator().manual_seed(0))
    return leaky_relu_network(V, W, x.T, slope=0.1)


def _random_networks() -> list[Conditioning]:
    """Two to six units, inputs no fewer than samples, slopes between 0.01 and 0.9."""
    generator = torch.Generator().manual_seed(0)

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    made = []
    for _ in range(NETWORKS):
        d, m, k = between(2, 6), between(2, 6), between(1, 3)
        slope = 0.01 + 0.89 * float(torch.rand(1, generator=generator, dtype=torch.float64))
        made.append(leaky_relu_network(normal(m, d), normal(k, m), normal(d, between(1, d)), slope=slope))
    return made


FINDING = Finding(
    "leaky-relu",
    "arXiv 2411.02139 (Zhao, Singh, Lucchi 2024), code",
    "three expressions bound κ of a network with one hidden layer of leaky ReLU",
    "the first one does; the two simpler ones are exceeded",
    measure,
)
