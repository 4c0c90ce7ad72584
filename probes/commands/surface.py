"""The command `landscape surface`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from probes.checkpoints.arguments import (
    BatchSize,
    Checkpoints,
    Data,
    Length,
    Output,
    Overwrite,
    Problem,
    Resume,
    Samples,
    Seed,
    Steps,
    Timeout,
)
from probes.commands.measure import measure, probe_of
from probes.errors import UserError
from probes.ranks import decided, launched, world


def surface(
    checkpoints: Checkpoints,
    problem: Problem,
    data: Data = None,
    samples: Samples = None,
    length: Length = None,
    batch_size: BatchSize = None,
    directions: Annotated[
        str,
        typer.Option(
            metavar="random|eigenvectors|gradient|trajectory|between",
            help="A plane around each checkpoint, along random directions, the top eigenvectors or the gradient; one "
            "plane that follows the trajectory of all of them; or the line or plane between two or three.",
        ),
    ] = "random",
    normalise: Annotated[str, typer.Option(metavar="filter|layer|none", help="Of random directions.")] = "filter",
    span: Annotated[
        float,
        typer.Option(
            help="How far it reaches, in lengths of the directions: those of the weights, or up to a fifth beyond the "
            "farthest checkpoint."
        ),
    ] = 1.0,
    points: Annotated[int, typer.Option(min=3, help="Of each side; the loss is evaluated at all of the grid.")] = 51,
    statistics: Annotated[
        str,
        typer.Option(
            metavar="auto|keep|recompute",
            help="Of BatchNorm in eval mode: recompute takes a pass over the data for each point; auto does between "
            "checkpoints.",
        ),
    ] = "auto",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that evaluate points at once.")] = 1,
    output: Output = Path("surface.h5"),
    steps: Steps = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    timeout: Timeout = 10.0,
) -> None:
    """Measure the loss on a plane through saved checkpoints, every point over all of the data, and draw it.

    Points are kept as they are found: what is stopped goes on with --resume.
    """
    from probes.checkpoints.arguments import parse_steps, parse_texts

    texts = parse_texts(problem, data, samples=samples, length=length, batch_size=batch_size)
    if jobs > 1 and launched()[1] > 1:
        raise UserError("several ranks share the data of each point already: leave --jobs out", status=2)
    said: list[str] = []
    files = decided(world(), lambda: _files(directions, checkpoints, parse_steps(steps), said.append))

    from probes.checkpoints.run import Request
    from probes.checkpoints.workers import Workers
    from probes.instruments.surface import LossSurface

    spread = Workers(jobs, problem, files[0][1], texts, seed) if jobs > 1 else None
    plane = probe_of(
        LossSurface,
        directions=directions,
        normalise=normalise,
        statistics=statistics,
        span=span,
        points=points,
        spread=spread,
    )
    request = Request(
        files,
        problem,
        [plane],
        output,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
        texts=texts,
        notes=said,
        command="surface",
    )
    measure(request, drawn=True)


def _files(
    directions: str, checkpoints: Sequence[Path], steps: Sequence[int] | None, say: Callable[[str], None]
) -> list[tuple[int, Path]]:
    from probes.checkpoints.snapshots import each_of
    from probes.checkpoints.steps import checkpoint_steps

    number = sum(len(each_of(path)) for path in checkpoints)  # a trace stands for all of its snapshots
    _check_number(directions, number)
    if steps is None and directions == "between":  # of several trainings, which may have stopped at one step
        steps = range(number)
    return checkpoint_steps(checkpoints, steps, say)


def _check_number(directions: str, files: int) -> None:
    if directions == "between" and files not in (2, 3):
        raise UserError(f"--directions between takes two or three checkpoints, not {files}", status=2)
    if directions == "trajectory" and files < 3:
        raise UserError(f"--directions trajectory takes three checkpoints at least, not {files}", status=2)
