"""Two expressions that are computed as bounds of kappa for a hidden layer of leaky ReLU."""

from __future__ import annotations

import torch

from landscape.conditioning import Conditioning, leaky_relu_network
from probes.digits import CLASSES
from runs.findings.finding import Finding, Seen, number
from runs.gauss_newton_conditioning.data import kaiming, pixels, white
from runs.gauss_newton_conditioning.jobs import made_to_break, small_networks

NETWORKS, SAMPLES, WIDTHS = 2000, 40, (50, 200)
_ROUNDING = 1e-9


def measure() -> Seen:
    """One network made to break b2, ordinary ones on white digits, and how many small random ones break each."""
    made = made_to_break()
    wide = [_on_digits(width) for width in WIDTHS]
    above = {"b1": 0, "b1.5": 0, "b2": 0}
    for found, _ in small_networks(torch.Generator().manual_seed(0), NETWORKS):
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


FINDING = Finding(
    "leaky-relu",
    "arXiv 2411.02139 (Zhao, Singh, Lucchi 2024), code",
    "three expressions bound κ of a network with one hidden layer of leaky ReLU",
    "the first one does; the two simpler ones are exceeded",
    measure,
)
