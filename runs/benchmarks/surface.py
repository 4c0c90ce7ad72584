"""How fast a plane is evaluated, beside `at()` and `value()` for each point and beside a loop that takes no care.

    python -m runs.benchmarks.surface [--quick] [--rounds N] [--device cuda] [--out FILE.json]

All 1,797 digits as one batch. `plane` is timed whole, as a user calls it: the quadratic model, the choice of the way
and all points. The others are timed on some points in alternation with it, and their seconds are for as many points as
it has. The bare loop is `functional_call` and the loss under `no_grad`, without anything that a measurement has to put
back. A ratio is the median over rounds of those of one round, with its quartiles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from landscape import Objective
from landscape.surface import plane, random_directions
from probes.digits import digits, mlp_network
from runs.benchmarks import command
from runs.benchmarks.command import Row, console
from runs.benchmarks.timing import alternate, in_units_of, quartiles
from runs.shared.networks import mlp, pooled_cnn

SOME = 64  # points that the other ways are timed on


def networks() -> dict[str, nn.Module]:
    """The demo's MLP, a wider one, a small CNN."""
    torch.manual_seed(0)
    return {"mlp 64-16-10": mlp_network(), "mlp 64-64-64-10": mlp(64), "cnn 8, 16": pooled_cnn(8, 16)}


def measure(name: str, model: nn.Module, points: int, rounds: int, device: torch.device) -> Row:
    """One network."""
    train, test = digits().train, digits().test
    X, y = (torch.cat(pair).to(device) for pair in zip(train, test, strict=True))
    f = Objective(model.to(device), nn.CrossEntropyLoss(), (X, y))
    D = random_directions(f, 2, generator=torch.Generator().manual_seed(0))
    place = torch.rand(SOME, 2, generator=torch.Generator().manual_seed(1)).to(device) * 2 - 1
    thetas = f.theta() + place @ D.T
    found = plane(f, D, points=points)
    ways: dict[str, Callable[[], object]] = {"plane": partial(plane, f, D, points=points)}
    ways |= {"at and value": partial(by_value, f, thetas), "bare loop": partial(bare, f, thetas, X, y)}
    times = alternate(ways, rounds, device)
    seconds = {way: quartiles(times[way]) for way in ways}
    row: Row = {"model": name, "parameters": f.size, "points": points**2, "way": found.way, "seconds": seconds["plane"]}
    for way in ("at and value", "bare loop"):
        whole = [t * points**2 / SOME for t in times[way]]
        row[f"{way}, seconds"] = quartiles(whole)
        row[f"{way}, ratio"] = in_units_of(times["plane"], whole)
    return row


def by_value(f: Objective, thetas: Tensor) -> None:
    """What a user would write."""
    for theta in thetas:
        with f.at(theta):
            f.value()


def bare(f: Objective, thetas: Tensor, X: Tensor, y: Tensor) -> None:
    """The least that a point takes."""
    with torch.no_grad():
        for theta in thetas:
            float(F.cross_entropy(functional_call(f.module, f.unflatten(theta), (X,)), y))


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = []
    for row in rows:
        ratios = ["{:.1f} ({:.1f}-{:.1f})".format(*row[f"{way}, ratio"]) for way in ("at and value", "bare loop")]
        milliseconds = f"{1e3 * row['seconds'][0] / row['points']:.2f}"
        cells.append((row["model"], row["way"], f"{row['seconds'][0]:.1f}", milliseconds, *ratios))
    headings = "model", "way", "seconds", "ms a point", "faster than at, value", "than a bare loop"
    return command.table("planes", headings, cells, words=("way",))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="planes of 15 x 15", rounds=5, device="cpu")
    rows = [
        measure(name, model, 15 if chosen.quick else 51, chosen.rounds, chosen.device)
        for name, model in networks().items()
    ]
    console.print(table(rows))
    command.write(chosen, "surface", rows=rows)


if __name__ == "__main__":
    main()
