"""Processes that evaluate points of a surface for this one, each with a model and data of its own.

Each makes the objective anew from the problem; points, and all that the model holds beside them, come from here. One
point is evaluated by all of them first: f must be what it is here, and so must the data, batch by batch. A problem that
draws them without a seed is found out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from probes.checkpoints.problem import build_objective
from probes.checkpoints.resume import SAME_LOSS
from probes.checkpoints.texts import Texts
from probes.errors import UserError, one_line
from probes.instruments.stations import held_fixed
from probes.processes import end, ending, fresh_context, live_with_parent

if TYPE_CHECKING:
    import torch

    from landscape.surface.values import Chunks, Worker

_ONE = "point by point"

Task = tuple[str, Sequence[int]]  # the way, and the points


class Answer(NamedTuple):
    """f at these points, and checksums of the batches that it is of."""

    values: list[float]
    data: list[int]


@dataclass(frozen=True)
class Workers:
    """Evaluates chunks of points in `jobs` processes at once, see `landscape.surface.values.Spread`.

    The processes share this one's threads among them. Raises `UserError` when one of them fails or ends, or when its
    objective is another one.
    """

    jobs: int
    problem: str
    checkpoint: Path
    texts: Texts | None = None
    seed: int = 0

    def __call__(self, worker: Worker, chunks: Chunks) -> Iterator[tuple[int, torch.Tensor]]:
        """Numbers of chunks with their values, as they come."""
        import torch

        point = next(iter(chunks.values()))[:1]
        expected = _answer(worker, (_ONE, point))
        with ExitStack() as stack:
            folder = TemporaryDirectory()
            stack.callback(folder.cleanup)
            file = Path(folder.name) / "points.pt"
            _save(worker, file)
            crew = [stack.enter_context(self._hired(file)) for _ in range(min(self.jobs, len(chunks)))]
            for one in crew:
                one.ask(None, (_ONE, point))
            waiting, loading = list(chunks.items())[::-1], len(crew)
            while busy := {one.pipe: one for one in crew if one.busy}:
                for pipe in connection.wait(list(busy)):
                    one = busy[pipe]  # type: ignore[index]
                    number, found = one.answer()
                    if number is None:
                        _check(self.problem, found, expected)
                        loading -= 1
                        if not loading:  # all of them hold it open: whatever ends this process leaves no file behind
                            folder.cleanup()
                    else:
                        yield number, torch.tensor(found.values, dtype=torch.float64)
                    if waiting:
                        number, chunk = waiting.pop()
                        one.ask(number, (worker.way, chunk))

    @contextmanager
    def _hired(self, file: Path) -> Iterator[_Hand]:
        import torch

        context = fresh_context()
        ours, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() // self.jobs)
        # not as a daemon, which may have no children: a DataLoader with workers has
        process = context.Process(target=_serve, args=(self, file, threads, torch.initial_seed(), theirs))
        process.start()
        theirs.close()  # so that the end of the process is the end of the file
        try:
            yield _Hand(process, ours)
        finally:
            ours.close()
            end(process)


class _Hand:
    """One of the processes, seen from here."""

    def __init__(self, process: BaseProcess, pipe: connection.Connection) -> None:
        self.process = process
        self.pipe = pipe
        self.busy = False
        self._number: int | None = None

    def ask(self, number: int | None, task: Task) -> None:
        """Have a chunk evaluated."""
        self._number, self.busy = number, True
        self.pipe.send(task)

    def answer(self) -> tuple[int | None, Answer]:
        """What has come."""
        self.busy = False
        try:
            found = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            raise UserError(f"a process that evaluates points is lost: {ending(self.process.exitcode)}") from None
        if isinstance(found, str):
            raise UserError(f"a process that evaluates points failed: {found}")
        return self._number, Answer(*found)


def _answer(worker: Worker, task: Task) -> Answer:
    from landscape.objective.words import data_prints

    return Answer(worker.run(*task).tolist(), data_prints(worker.objective))


def _save(worker: Worker, file: Path) -> None:
    import torch

    from landscape.objective.running import own_buffers

    points, basis = worker.points, [vector.cpu() for vector in worker.points.basis]
    buffers = [t.cpu() for t in own_buffers(worker.objective)]
    fixed = {name: t.cpu() for name, t in held_fixed(worker.objective).items()}
    torch.save((points.coefficients, basis, buffers, fixed, worker.statistics), file)


def _check(problem: str, found: Answer, expected: Answer) -> None:
    (there,), (here,) = found.values, expected.values
    same = math.isclose(there, here, rel_tol=SAME_LOSS) or (math.isnan(there) and math.isnan(here))
    if found.data != expected.data or not same:
        raise UserError(
            f"{problem} makes another objective each time: f is {here:.6g} here and {there:.6g} in another process at "
            "the same point, or is so of other data; give its data a seed, or use --jobs 1"
        )


def _serve(workers: Workers, file: Path, threads: int, seed: int, pipe: connection.Connection) -> None:
    """The life of such a process: chunks come, values go."""
    live_with_parent()
    try:
        with _objective(workers, file, threads, seed) as worker:
            while True:
                pipe.send(tuple(_answer(worker, pipe.recv())))
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        pipe.send(one_line(error))


@contextmanager
def _objective(workers: Workers, file: Path, threads: int, seed: int) -> Iterator[Any]:
    import torch

    from landscape.objective.running import running_on
    from landscape.surface.points import Points
    from landscape.surface.values import Worker

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    objective = build_objective(workers.problem, workers.checkpoint, workers.texts, workers.seed)
    coefficients, basis, buffers, fixed, statistics = torch.load(file, mmap=True)
    for name, value in held_fixed(objective).items():
        value.copy_(fixed[name])
    points = Points(coefficients, [vector.to(objective.device) for vector in basis])
    with running_on(objective, [t.to(objective.device) for t in buffers]):
        yield Worker(objective, points, statistics)
