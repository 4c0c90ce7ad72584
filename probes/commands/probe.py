"""The command `landscape probe`. Nothing heavy is imported before it runs."""

from __future__ import annotations

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
from probes.commands.measure import measure
from probes.ranks import decided, world


def probe(
    checkpoints: Checkpoints,
    problem: Problem,
    data: Data = None,
    samples: Samples = None,
    length: Length = None,
    batch_size: BatchSize = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="One of those below, such as spectrum:k=10,tol=1e-4. May be given several times.",
            show_default="spectrum and trace",
        ),
    ] = None,
    output: Output = Path("probe.h5"),
    operator: Annotated[str, typer.Option(help="hessian, gauss-newton or fisher.")] = "hessian",
    by_layer: Annotated[
        bool, typer.Option("--by-layer", help="Probes of a curvature matrix measure each layer by itself.")
    ] = False,
    steps: Steps = None,
    seed: Seed = 0,
    resume: Resume = False,
    overwrite: Overwrite = False,
    timeout: Timeout = 10.0,
) -> None:
    """Measure the loss at saved checkpoints. Each becomes one step of the trace."""
    from probes.checkpoints.arguments import parse_probes, parse_steps, parse_texts
    from probes.checkpoints.steps import checkpoint_steps

    texts = parse_texts(problem, data, samples=samples, length=length, batch_size=batch_size)
    wanted = parse_probes(probe or ["spectrum", "trace"], operator)
    said: list[str] = []
    files = decided(world(), lambda: checkpoint_steps(checkpoints, parse_steps(steps), said.append))

    from probes.checkpoints.run import Request

    request = Request(files, problem, wanted, output, operator, seed, resume, overwrite, said, texts, by_layer)
    measure(request, drawn=False)
