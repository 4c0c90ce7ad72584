"""Solvers by name: `module:Class` with options, imported when they are needed.

torch.optim:AdamW:betas=(0.9,0.95)      any `torch.optim.Optimizer` that takes `lr`
solvers:NGN:momentum=0.9,variant=md1
torch.optim:SGD:lr=0.1                  at this step size alone, whatever the grid is
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from landscape.objective.objective import Objective
from probes.checkpoints.problem import importable
from probes.errors import UserError, one_line
from probes.specs import parse_spec, split_commas, value_of


def split_solvers(text: str) -> list[str]:
    """The solvers of `a,b:x=1,y=2,c`: a part `y=2` without a name is an option of the solver before it."""
    found: list[str] = []
    for part in split_commas(text):
        if found and re.fullmatch(r"\w+=[^:]*", part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def parse(spec: str) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """The optimizer's class and its options.

    Raises `UserError` (status 2) for what is no module:Class, cannot be imported or is no optimizer, and for options
    that are not written `name=value`.
    """
    name, given = parse_spec(spec, (), "the solver")
    module, _, kind = name.partition(":")
    if not kind:
        raise UserError(f"there is no solver {name!r}: name it as module:Class, such as torch.optim:SGD", status=2)
    importable(Path.cwd())  # as for problems
    try:
        made = getattr(importlib.import_module(module), kind)
    except Exception as error:  # whatever the import of a module of the user raises
        raise UserError(f"the solver {name!r} cannot be imported: {one_line(error)}", status=2) from error
    if not (isinstance(made, type) and issubclass(made, torch.optim.Optimizer)):
        raise UserError(f"{name} is no torch.optim.Optimizer", status=2)
    return made, {key: value_of(value) for key, value in given.items()}


def own_lr(spec: str) -> float | None:
    """The step size that a solver brings along. Raises `UserError` (status 2) for one that is not possible."""
    _, options = parse(spec)
    lr = options.get("lr")
    if lr is not None and not (isinstance(lr, int | float) and 0 < lr < float("inf")):
        raise UserError(f"lr of the solver {spec} is positive and finite, not {lr}", status=2)
    return None if lr is None else float(lr)


def make(
    spec: str, parameters: Iterable[Tensor], lr: float, objective: Objective | None = None
) -> torch.optim.Optimizer:
    """The solver on the parameters, or on the objective where it takes one, such as `solvers.KFACDescent`.

    Raises what `parse` does, and `UserError` for settings that it does not take.
    """
    kind, options = parse(spec)
    subject: Any = objective if getattr(kind, "takes_objective", False) else list(parameters)
    try:
        return kind(subject, **options | {"lr": lr})
    except (TypeError, ValueError) as error:
        raise UserError(f"the solver {spec} with lr={lr:g}: {one_line(error)}", status=2) from error


def step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], batch: Any = None) -> float:
    """One step, whichever kind of closure the optimizer wants; the loss where it began.

    `batch` is what the loss is of, for solvers that take an objective.
    """

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    takes_loss = getattr(optimizer, "differentiates", False)  # such as `solvers.Solver`
    more = {"batch": batch} if getattr(optimizer, "takes_objective", False) else {}
    return float(cast(Tensor, optimizer.step(cast(Any, loss if takes_loss else closure), **more)).detach())
