"""What is typed after `--probe` and `--steps`, turned into probes and numbers.

A probe is a name with options, `spectrum:k=10,tol=1e-4`; the options are the keyword arguments of its class.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from probes.checkpoints.problem import check_problem
from probes.checkpoints.texts import Texts
from probes.errors import UserError, did_you_mean, one_line
from probes.instruments.losses import NamedObjective
from probes.instruments.registry import PROBES
from probes.ranks import together
from probes.session import OPERATORS
from probes.specs import parse_spec, value_of

Data = Annotated[
    Path | None,
    typer.Option(help="Texts of an hf: problem: .txt, a text a line; .jsonl or .csv with text, label, source, target."),
]
Samples = Annotated[
    int | None, typer.Option(min=1, help="With --data: so many texts, from the beginning.", show_default="256")
]
Length = Annotated[int | None, typer.Option(min=2, help="With --data: tokens of a text at most.", show_default="128")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="With --data: texts of a batch.", show_default="8")]
Checkpoints = Annotated[
    list[Path],
    typer.Argument(
        help="Weights: torch, safetensors or Lightning files, folders of from_pretrained or DCP, traces with "
        "snapshots: run.h5, or one of them, run.h5@300 or run.h5@last."
    ),
]
Problem = Annotated[
    str,
    typer.Option(
        help="module:function or file.py:function that returns a landscape.Objective; with --data also "
        "hf:causal-lm, hf:masked-lm, hf:sequence-classification or hf:seq2seq, for folders of from_pretrained."
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="The trace to write.")]
Steps = Annotated[
    str | None, typer.Option(help="Step of each checkpoint: 0,100,200.", show_default="the numbers in their names")
]
Seed = Annotated[int, typer.Option(help="Seed of the probes' random vectors.")]
Resume = Annotated[bool, typer.Option("--resume", help="Measure what is missing in the output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output.")]
Timeout = Annotated[float, typer.Option(min=0.01, help="Of several ranks (torchrun): minutes to wait for another one.")]


class RanksCommand(TyperCommand):
    """A command that all ranks of a launcher run together."""

    def invoke(self, ctx: Any) -> Any:
        """Run it, in a process group where there are several ranks."""
        with together(ctx.params["timeout"]):
            return super().invoke(ctx)


class ProbeCommand(RanksCommand):
    """One whose help goes on with the options of all probes."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List the options of each probe, `k=5 tol=0.001`."""
        with formatter.section("Probes and their options, besides the name= of the records"):
            for name, entry in PROBES.items():
                formatter.write_text(name)
                with formatter.indentation():
                    options = (f"{key}={value}" for key, value in entry.options().items() if key != "name")
                    formatter.write_text(" ".join(options) or "-")


def parse_texts(problem: str, data: Path | None, **sizes: int | None) -> Texts | None:
    """What --data and its sizes say; None for a problem that has its own data.

    Raises `UserError` (status 2) for a task that there is not, one without data, and data or sizes without a task.
    """
    check_problem(problem, data)
    given = {name: size for name, size in sizes.items() if size is not None}
    if data is None and given:
        raise UserError(f"--{next(iter(given)).replace('_', '-')} goes with --data and --problem hf:...", status=2)
    return None if data is None else Texts(data, **given)


def parse_steps(text: str | None) -> list[int] | None:
    """`"0,100,200"` as numbers; `None` stays `None`. Raises `UserError` (status 2) for anything else."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--steps takes whole numbers such as 0,100,200, not {text!r}", status=2) from None


def parse_probes(texts: Sequence[str], operator: str) -> list[Any]:
    """The probes that the texts name, with `operator` where they take one and name none themselves.

    Raises `UserError` (status 2) for an unknown probe, operator or option, and for two probes of one name.
    """
    _check_known("operator", operator, OPERATORS)
    probes = [_parse_probe(text, operator) for text in texts]
    names = [probe.name for probe in probes]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two probes are named {name!r}: tell them apart, --probe {name}:name=...", status=2)
        if name == "loss":
            raise UserError("the name 'loss' is taken by the loss itself: give the probe another name=", status=2)
    return probes


def _parse_probe(text: str, operator: str) -> Any:
    name, given = parse_spec(text, PROBES, "--probe")
    _check_known("probe", name, PROBES)
    known = PROBES[name].options()
    options: dict[str, Any] = {"operator": operator} if "operator" in known else {}
    for key, value in given.items():
        if key not in known:
            near = did_you_mean(key, known) or ":"
            raise UserError(f"the probe {name} has no option {key!r}{near} it takes {', '.join(known)}", status=2)
        named = PROBES[name].names_objective(key, value)
        options[key] = NamedObjective(value) if named else value if key == "name" else value_of(value)
    if "operator" in options:
        _check_known("operator", options["operator"], OPERATORS)
    try:
        return PROBES[name].load()(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"--probe {text}: {one_line(error)}", status=2) from error


def _check_known(what: str, name: Any, known: Collection[str]) -> None:
    if name not in known:
        near = did_you_mean(str(name), known)
        raise UserError(f"there is no {what} {name!r}{near or ':'} known are {', '.join(known)}", status=2)
