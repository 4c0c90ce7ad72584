"""What has no right number, and is refused in one line."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from wrong_layers import OpaqueTanh, ScaledGradient, StraightThrough

from landscape import Objective
from situations.kinds import network
from situations.language import GPT2, build, ids, own
from situations.layers import data, mlp
from situations.losses import LISTED
from situations.situation import Case, Situation

GROUP = "Refused"


def refuse(make: Any, loss: Any = None, batch: Any = None, **options: Any) -> Case:
    torch.manual_seed(0)
    model, (x, y) = make(), data(6, 4)
    objective = Objective(model, loss or nn.CrossEntropyLoss(), (x, y) if batch is None else batch, **options)
    return Case(objective, lambda: torch.zeros(()))


def inner(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), layer, nn.Linear(5, 3)).double()


class Clock(nn.Module):
    """Another function at every pass: it counts them outside of the module."""

    passes: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.net = network(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        Clock.passes.append(1)
        return self.net(x) * len(Clock.passes)


def meta() -> nn.Module:
    with torch.device("meta"):
        return mlp(nn.Tanh())


def still() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Identity()).requires_grad_(False)


def unlabelled() -> Case:
    model = build("GPT2LMHeadModel", "GPT2Config", **GPT2)
    return Case(Objective(model, own, {"input_ids": ids()}), lambda: torch.zeros(()))


def complex_model() -> nn.Module:
    return nn.Linear(4, 3).to(torch.complex128)


def every_term(out: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(out, y, reduction="none")


def detached(out: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(out.detach(), y)


_case = partial(Situation, GROUP)
SITUATIONS = [
    _case(
        "a custom function whose backward autograd cannot see",
        partial(refuse, partial(inner, OpaqueTanh())),
        refused="second derivatives of '1' (OpaqueTanh)",
    ),
    _case(
        "a straight-through estimator",
        partial(refuse, partial(inner, StraightThrough())),
        refused="'1' (StraightThrough)",
    ),
    _case("scaled gradients", partial(refuse, partial(inner, ScaledGradient())), refused="'1' (ScaledGradient)"),
    _case(
        "spectral_norm, training",
        partial(
            refuse,
            lambda: (
                parametrizations.spectral_norm(nn.Linear(5, 5))
                and inner(parametrizations.spectral_norm(nn.Linear(5, 5)))
            ),
        ),
        refused="second derivatives of",
    ),
    _case(
        "another function at every pass",
        partial(refuse, Clock),
        refused="gives other outputs each time for the same inputs",
    ),
    _case("weights on the meta device", partial(refuse, meta), refused="is on the meta device"),
    _case("no parameter that requires grad", partial(refuse, still), refused="no parameter of the model requires grad"),
    _case(
        "complex parameters", partial(refuse, complex_model), refused="only real floating point can be differentiated"
    ),
    _case(
        "a loss of every term", partial(refuse, partial(network, 4, 3), every_term), refused="the loss must be a scalar"
    ),
    _case(
        'reduction="none"',
        partial(refuse, partial(network, 4, 3), nn.CrossEntropyLoss(reduction="none")),
        refused='reduction="none"',
    ),
    _case(
        "a loss without a graph",
        partial(refuse, partial(network, 4, 3), detached),
        refused="no graph back to the model's parameters",
    ),
    _case(
        "a model that returns no loss because its batch has no labels",
        unlabelled,
        refused="the loss must be a scalar tensor, not NoneType",
        needs=("transformers",),
    ),
    _case(
        "single samples in a Dataset",
        partial(refuse, partial(network, 4, 3), batch=torch.utils.data.TensorDataset(*data(6, 4))),
        refused="wrap it in a torch.utils.data.DataLoader",
    ),
    *(
        _case(
            f"{name}, which torch cannot differentiate twice",
            partial(refuse, partial(network, 4, 3), loss(), batch=(data(6, 4)[0], targets)),
            refused="is not implemented",
        )
        for name, loss, targets in (
            ("MultiMarginLoss", nn.MultiMarginLoss, data(6, 4)[1]),
            ("MultiLabelMarginLoss", nn.MultiLabelMarginLoss, LISTED[:6]),
        )
    ),
]
