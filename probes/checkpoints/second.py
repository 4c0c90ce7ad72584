"""The second loss of a probe of two, which the command names: `--probe hgp:second=problem.py:mirrored`.

Its function returns an `Objective` on a model of its own of the same parameters by name, whose place those of the
problem's model take: checkpoints are loaded once, and both losses are functions of one vector. For `--problem hf:...`
the name is a file of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.checkpoints.problem import build_objective
from probes.checkpoints.texts import Texts
from probes.errors import UserError, first_few, one_line
from probes.instruments.base import Instrument
from probes.instruments.losses import TwoLosses
from probes.probe import check_needs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from landscape import Objective
    from probes.checkpoints.saved import Say

_TRAINING = ("optimizer", "batch", "previous")


def check_served(probes: Sequence[Instrument]) -> None:
    """Raise `UserError` (status 2) for a probe that only a training loop can serve."""
    for probe in probes:
        try:
            check_needs([probe], _TRAINING)
        except ValueError as error:
            instead = ""
            if isinstance(probe, TwoLosses):
                (field, *_) = (name for name in probe.losses if getattr(probe, name) in ("batch", "update"))
                instead = f": name a loss in its place, --probe {type(probe).name}:{field}=module:function"
            raise UserError(f"{error}; a checkpoint has none{instead}", status=2) from error


def with_objectives(
    probes: Sequence[Instrument],
    objective: Objective,
    problem: str,
    *,
    checkpoint: Path,
    texts: Texts | None,
    seed: int,
    deal: Callable[[Objective], Objective],
    say: Say,
) -> list[Instrument]:
    """The probes with the objectives that they name, each made once; what prints goes to stderr.

    Raises `UserError` as `build_objective`, and for one of another model or of other parameters than `objective`.
    """
    known: dict[str, Objective] = {}

    def made(text: str) -> Objective:
        if text == problem:
            raise UserError(f'{text} is the --problem itself: write "objective" for it', status=2)
        if text not in known:
            own = _texts(text, problem, texts)
            other = build_objective(text if own is None else problem, checkpoint, own, seed, say)
            _share(objective, other, text, problem)
            known[text] = deal(other)
        return known[text]

    return [probe.with_objectives(made) for probe in probes]


def _texts(text: str, problem: str, texts: Texts | None) -> Texts | None:
    """A file of texts for a task, as long and as many as those of --data; None for a function."""
    if text.startswith("hf:"):
        raise UserError(f"{text} is a task: name the file of texts instead, second=FILE.txt", status=2)
    if ":" in text:
        return None
    if texts is None:
        raise UserError(f"{text} is no function, and {problem} takes no texts: name it as module:function", status=2)
    return replace(texts, path=Path(text))


def _share(objective: Objective, other: Objective, text: str, problem: str) -> None:
    """Put the parameters and buffers of the one's model into the other's."""
    try:
        objective.only_whole(f"a second objective, {text},")
    except TypeError as error:
        raise UserError(one_line(error)) from error
    ours, theirs = _tensors(objective.module), _tensors(other.module)
    odd = [name for name in {**ours, **theirs} if _kind(ours.get(name)) != _kind(theirs.get(name))]
    if odd:
        here, there = (_kind(tensors.get(odd[0])) for tensors in (ours, theirs))
        raise UserError(
            f"{text} is of another model than {problem}: {odd[0]} is {there} there, {here} here; both functions "
            "must make the same model"
        )
    if other.names != objective.names:
        apart = sorted(set(other.names) ^ set(objective.names))
        raise UserError(
            f"{text} is of other parameters than {problem}, which differ in {first_few(apart)}: freeze the same ones, "
            "and name the same parameters="
        )
    for name, tensor in ours.items():
        place, _, key = name.rpartition(".")
        setattr(other.module.get_submodule(place), key, tensor)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, tied ones under all of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _kind(tensor: Any) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
