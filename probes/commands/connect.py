"""The command `landscape connect`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from probes.checkpoints.arguments import (
    BatchSize,
    Data,
    Length,
    Output,
    Overwrite,
    Problem,
    Resume,
    Samples,
    Seed,
    Timeout,
)
from probes.commands.measure import measure, probe_of
from probes.ranks import decided, world


def connect(
    a: Annotated[Path, typer.Argument(metavar="A", help="A checkpoint.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same model.")],
    problem: Problem,
    data: Data = None,
    samples: Samples = None,
    length: Length = None,
    batch_size: BatchSize = None,
    path: Annotated[str, typer.Option(metavar="bezier|polygon|none", help="The curve that is trained.")] = "bezier",
    bends: Annotated[int, typer.Option(min=1, help="Inner nodes of the curve.")] = 1,
    training: Annotated[int, typer.Option(min=1, help="Steps that it is trained for, each with all data.")] = 200,
    lr: Annotated[float, typer.Option(help="Of the first step, in units of the distance of A and B.")] = 0.1,
    points: Annotated[int, typer.Option(min=3, help="On each way.")] = 25,
    drop: Annotated[float, typer.Option(help="Share of hidden units that is dropped at both ends; 0: none.")] = 0.25,
    curvature: Annotated[
        bool, typer.Option("--curvature/--no-curvature", help="Seek the largest eigenvalue along the path.")
    ] = True,
    output: Output = Path("connect.h5"),
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    timeout: Timeout = 10.0,
) -> None:
    """Measure what lies between two checkpoints, and draw it.

    That is the loss on the straight line, with B's hidden units in the order of A's, and on a path trained to be low,
    the barrier on each, the curvature along the path, and the loss of both with units dropped. A is step 0 of the
    trace, B is step 1.
    """
    from probes.checkpoints.arguments import parse_texts
    from probes.checkpoints.steps import checkpoint_steps

    texts = parse_texts(problem, data, samples=samples, length=length, batch_size=batch_size)
    files = decided(world(), lambda: checkpoint_steps([a, b], [0, 1]))

    from probes.checkpoints.run import Request
    from probes.instruments.connection.connection import Connection

    between = probe_of(
        Connection, kind=path, bends=bends, steps=training, lr=lr, points=points, share=drop, curvature=curvature
    )
    request = Request(
        files, problem, [between], output, seed=seed, resume=resume, overwrite=overwrite, texts=texts, command="connect"
    )
    measure(request, drawn=True)
