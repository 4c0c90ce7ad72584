"""Solvers by name for `runs.sweep`: a table of common ones, and any `module:Class` with options.

adam                              a name of the table
ngn:momentum=0.9,variant=md1      with options on top of the table's
torch.optim:AdamW:betas=(0.9,0.95)      any `torch.optim.Optimizer` that takes `lr`
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from probes.errors import UserError, did_you_mean, one_line
from probes.specs import parse_spec, split_commas, value_of
from solvers.base import Solver

Options = dict[str, Any]

SOLVERS: dict[str, tuple[str, Options]] = {
    "sgd": ("torch.optim:SGD", {}),
    "sgd-m": ("torch.optim:SGD", {"momentum": 0.9, "dampening": 0.9}),
    "adam": ("torch.optim:Adam", {}),
    "adamw": ("torch.optim:AdamW", {}),
    "ngn": ("solvers.first_order.ngn:NGN", {}),
    "ngn-m": ("solvers.first_order.ngn:NGN", {"momentum": 0.9}),
    "ngn-d": ("solvers.first_order.ngn:NGN", {"variant": "d"}),
    "ngn-md1": ("solvers.first_order.ngn:NGN", {"momentum": 0.9, "variant": "md1"}),
    "ngn-md2": ("solvers.first_order.ngn:NGN", {"momentum": 0.9, "variant": "md2"}),
    "sps": ("solvers.first_order.sps:SPSMax", {}),
    "momo": ("solvers.first_order.momo:MoMo", {}),
    "momo-adam": ("solvers.first_order.momo:MoMoAdam", {}),
    "adagrad-norm": ("solvers.first_order.adagrad_norm:AdaGradNorm", {}),
    "sam": ("solvers.first_order.sam:SAM", {"momentum": 0.9}),
    "scion": ("solvers.first_order.scion:Scion", {}),
    "signsgd": ("solvers.first_order.sign:SignSGD", {}),
    "signum": ("solvers.first_order.sign:Signum", {}),
}


def split_solvers(text: str) -> list[str]:
    """The solvers of `a,b:x=1,y=2,c`: a part `y=2` without a name is an option of the solver before it."""
    found: list[str] = []
    for part in split_commas(text):
        if found and re.fullmatch(r"\w+=[^:]*", part):
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def parse(spec: str) -> tuple[Callable[..., torch.optim.Optimizer], Options]:
    """The optimizer's class and its options but for `lr`.

    Raises `UserError` (status 2) for a name that is not known, what cannot be imported or is no optimizer, and options
    that are not written `name=value`.
    """
    name, given = parse_spec(spec, SOLVERS, "the solver")
    if "lr" in given:
        raise UserError(f"'lr' in the solver {spec} is no option: it is given as --lr", status=2)
    source, options = SOLVERS.get(name, (name, {}))
    module, _, kind = source.partition(":")
    if not kind:
        near = did_you_mean(name, SOLVERS)
        raise UserError(
            f"there is no solver {name!r}{near or ':'} known are {', '.join(SOLVERS)}, any other is module:Class",
            status=2,
        )
    try:
        made = getattr(importlib.import_module(module), kind)
    except Exception as error:  # whatever the import of a module of the user raises
        raise UserError(f"the solver {name!r} cannot be imported: {one_line(error)}", status=2) from error
    if not (isinstance(made, type) and issubclass(made, torch.optim.Optimizer)):
        raise UserError(f"{source} is no torch.optim.Optimizer", status=2)
    return made, options | {key: value_of(value) for key, value in given.items()}


def make(spec: str, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """The solver on the parameters. Raises what `parse` does, and `UserError` for settings that it does not take."""
    kind, options = parse(spec)
    try:
        return kind(list(parameters), lr=lr, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"the solver {spec} with lr={lr:g}: {one_line(error)}", status=2) from error


def step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    """One step, whichever kind of closure the optimizer wants; the loss where it began."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    value = optimizer.step(cast(Any, loss if isinstance(optimizer, Solver) else closure))
    return float(cast(Tensor, value).detach())
