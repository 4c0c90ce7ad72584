"""What a product costs on two ranks beside one process: seconds on the clock and of the processor, in alternation.

    python -m runs.benchmarks.ranks [--quick] [--rounds 7] [--out FILE.json]

One process with two threads has all batches; two gloo processes with one thread each have half of them, and sum their
products by one all-reduce. All are alive together and take turns, so that they see the same machine. The ratio is that
of the ranks' processor seconds together to the one process's, of the same round; its median is to be at most 1.15.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import distributed, multiprocessing

from landscape import GaussNewton, Hessian, Objective
from runs.benchmarks import command, models
from runs.benchmarks.command import Row, console
from runs.benchmarks.timing import in_units_of, quartiles

WORKLOADS: dict[str, Callable[[], models.Workload]] = {"mlp": models.mlp, "gpt": models.gpt}
TINY: dict[str, Callable[[], models.Workload]] = {"mlp": lambda: models.mlp(8), "gpt": lambda: models.gpt(2, 16, 16, 1)}
OPERATORS = {"Hessian": Hessian, "Gauss-Newton": GaussNewton}
BATCHES = 4
Seconds = tuple[float, float]  # on the clock, and of the processor


def work(pipe: Connection, rank: int, world: int, store: str, threads: int, quick: bool) -> None:
    """A process's whole life: makes products when it is told to, and tells what they took."""
    torch.set_num_threads(threads)
    group = None
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
        group = distributed.group.WORLD
    while (asked := pipe.recv()) is not None:
        model, operator, count = asked
        torch.manual_seed(0)
        workload = (TINY if quick else WORKLOADS)[model]()
        data = workload.batches(BATCHES, torch.device("cpu"))[rank::world]
        A = OPERATORS[operator](Objective(workload.model, workload.loss, data, process_group=group))
        v = A.random(1, generator=torch.Generator().manual_seed(0))
        _ = A @ v  # the graphs, and the choice among ways
        pipe.send(A.shape[0])
        while pipe.recv():
            clock, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                _ = A @ v
            pipe.send((time.perf_counter() - clock, time.process_time() - cpu))
    if world > 1:
        distributed.destroy_process_group()


class Team:
    """Processes that work together."""

    def __init__(self, world: int, folder: str, quick: bool) -> None:
        start = multiprocessing.get_context("spawn")
        self.pipes: list[Any] = []
        self.processes = []
        for rank in range(world):
            ours, theirs = start.Pipe()
            settings = (theirs, rank, world, f"{folder}/store-{world}", 2 // world, quick)
            self.processes.append(start.Process(target=work, args=settings, daemon=True))
            self.processes[-1].start()
            self.pipes.append(ours)

    def ask(self, message: Any) -> list[Any]:
        """What each of them answers."""
        for pipe in self.pipes:
            pipe.send(message)
        return [pipe.recv() for pipe in self.pipes]

    def products(self) -> Seconds:
        """Of a round: the longest on the clock, and all of the processor."""
        clocks, processors = zip(*self.ask(True), strict=True)
        return max(clocks), sum(processors)

    def tell(self, message: Any) -> None:
        """Without an answer."""
        for pipe in self.pipes:
            pipe.send(message)


def measure(teams: list[Team], model: str, operator: str, rounds: int, count: int) -> Row:
    """One row."""
    (size,), _ = (team.ask((model, operator, count)) for team in teams)
    one, two = zip(*((teams[0].products(), teams[1].products()) for _ in range(rounds)), strict=True)
    for team in teams:
        team.tell(False)
    row: Row = {"model": model, "operator": operator, "parameters": size}
    for i, name in enumerate(("clock", "processor")):
        median, *spread = in_units_of([s[i] for s in one], [s[i] for s in two])
        row |= {name: median, f"{name}_quartiles": spread, f"{name}_one": quartiles([s[i] / count for s in one])[0]}
    return row


def table(rows: list[Row]) -> Table:
    """The rows as a table."""
    cells = []
    for row in rows:
        ratios = [
            f"{row[n]:.2f} ({'-'.join(f'{q:.2f}' for q in row[f'{n}_quartiles'])})" for n in ("processor", "clock")
        ]
        cells.append((row["model"], row["operator"], f"{row['clock_one']:.3f}", *ratios))
    headings = "model", "operator", "one process, s", "processor, two ranks / one", "clock, two ranks / one"
    return command.table("a product on two ranks", headings, cells, words=("operator",))


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(words, __doc__, quick="tiny models", rounds=7)
    with tempfile.TemporaryDirectory() as folder:
        teams = [Team(world, folder, chosen.quick) for world in (1, 2)]
        rows = [measure(teams, m, o, chosen.rounds, 2 if chosen.quick else 10) for m in WORKLOADS for o in OPERATORS]
        for team in teams:
            team.tell(None)
            for process in team.processes:
                process.join(30)
    console.print(table(rows))
    command.write(chosen, Path(__file__).stem, rows=rows)


if __name__ == "__main__":
    main()
