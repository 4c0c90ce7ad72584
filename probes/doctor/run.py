"""`landscape doctor`: what is looked at, how it is printed, and when it is a failure."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from probes.doctor.machine import examine_machine
from probes.doctor.report import as_json as document
from probes.doctor.report import show
from probes.errors import UserError


def examine(problem: str | None, *, as_json: bool, console: Console) -> None:
    """Look at this machine, or at the problem that `problem` names, and print what was found.

    Raises `UserError` when a check fails, and for a problem that cannot be loaded.
    """
    folder = Path.cwd()
    if problem is None:
        findings = examine_machine(folder)
    else:
        from probes.checkpoints.problem import build_objective
        from probes.doctor.problem import examine_problem

        findings = examine_problem(build_objective(problem), folder)
    if as_json:
        seen = list(findings)
        typer.echo(document(seen, problem=problem))
    else:
        seen = show(findings, console)
    failed = sum(found.status == "FAIL" for found in seen)
    if failed:
        raise UserError(f"{failed} of the checks failed: see the lines marked FAIL")
