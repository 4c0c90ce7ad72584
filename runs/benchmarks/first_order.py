"""Milliseconds of a step of the first-order solvers, beside torch's fused optimizer of the same memory traffic.

    python -m runs.benchmarks.first_order [--quick] [--rounds N] [--device cuda] [--out FILE.json]

The parameters are those of a transformer (width 384, 5 blocks, 10 million in 62 tensors), in float32, with gradients
that stay. All contenders step in turn in each round, on the same parameters with states of their own; a ratio is the
median of the ratios to the unit of the same round, so that a slow round is slow for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import nn

import solvers
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.timing import alternate, in_units_of
from solvers.first_order.ngn import NGN

LR = 1e-3
UNITS = ("torch SGD", "torch SGD, momentum", "torch AdamW")


def transformer(width: int, depth: int, words: int, device: torch.device) -> list[nn.Parameter]:
    """The parameters of a transformer, with gradients."""
    generator = torch.Generator().manual_seed(0)
    block = [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)]
    block += [(width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    parameters = []
    for shape in [(words, width), *(block * depth), (width,)]:
        p = nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(device))
        p.grad = (3e-4 * torch.randn(shape, generator=generator)).to(device)  # a norm of about 1
        parameters.append(p)
    return parameters


def contenders(parameters: list[nn.Parameter]) -> dict[str, tuple[str, Callable[[], object]]]:
    """(the unit's name, the step) of each contender."""
    sgd, momentum, adamw = UNITS
    made: dict[str, tuple[str, Callable[[], object]]] = {
        sgd: (sgd, torch.optim.SGD(parameters, LR, fused=True).step),
        momentum: (momentum, torch.optim.SGD(parameters, LR, momentum=0.9, fused=True).step),
        adamw: (adamw, torch.optim.AdamW(parameters, LR, fused=True).step),
        "torch AdamW, foreach": (adamw, torch.optim.AdamW(parameters, LR, foreach=True).step),
    }
    ngn: list[tuple[str, str, dict[str, Any]]] = [
        ("NGN", sgd, {}),
        ("NGN-M", momentum, {"momentum": 0.9}),
        ("NGN-D", sgd, {"variant": "d"}),
        ("NGN-MDv1", adamw, {"variant": "md1", "momentum": 0.9}),
        ("NGN-MDv1W", adamw, {"variant": "md1", "momentum": 0.9, "weight_decay": 0.1, "decay": "w"}),
        ("NGN-MDv2", adamw, {"variant": "md2", "momentum": 0.9}),
    ]
    for name, unit, settings in ngn:
        made[name] = (unit, partial(NGN(parameters, LR, **settings).step, loss=1.0))
    for unit, names in ((sgd, "SignSGD SPSMax"), (momentum, "Signum MoMo"), (adamw, "AdamCoupled MoMoAdam")):
        for name in names.split():
            made[name] = (unit, partial(getattr(solvers, name)(parameters, lr=LR).step, loss=1.0))
    return made


def measure(parameters: list[nn.Parameter], rounds: int, device: torch.device) -> list[Row]:
    """A row for each contender: milliseconds (median), and the ratio to its unit (median and quartiles)."""
    made = contenders(parameters)
    times = alternate({name: step for name, (_, step) in made.items()}, rounds, device)
    rows = []
    for name, (unit, _) in made.items():
        middle, low, high = in_units_of(times[unit], times[name])
        row = {"name": name, "unit": unit, "milliseconds": 1e3 * statistics.median(times[name])}
        rows.append(row | {"ratio": middle, "ratio_low": low, "ratio_high": high})
    return rows


def table(rows: list[Row], entries: int) -> Table:
    """The rows as a table."""
    cells = []
    for row in rows:
        ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
        cells.append((row["name"], f"{row['milliseconds']:.2f}", ratio, row["unit"]))
    title = f"a step on {entries / 1e6:.3g} million parameters"
    return command.table(title, ("solver", "ms (median)", "ratio (quartiles)", "to"), cells, words=("to",))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="a small network, two rounds", rounds=31, device="cpu")
    sizes = (16, 1, 50) if chosen.quick else (384, 5, 3000)
    parameters = transformer(*sizes, chosen.device)
    rows, entries = measure(parameters, chosen.rounds, chosen.device), sum(p.numel() for p in parameters)
    console.print(table(rows, entries))
    command.write(chosen, "first-order", parameters=entries, rounds=chosen.rounds, rows=rows)


if __name__ == "__main__":
    main()
