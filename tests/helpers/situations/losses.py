"""Every loss of torch, on ragged batches: against the loss of all data together."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from situations.kinds import network
from situations.layers import data
from situations.situation import Case, Situation

GROUP = "Losses of torch, on two batches of 4 and 3 samples"


def case(loss: nn.Module, target: Tensor, to: Any) -> Case:
    model, (x, _) = network(4, 3), data(7, 4)
    parts = [(x[:4], target[:4]), (x[4:], target[4:])]
    return Case(
        Objective(model, loss, parts, forward=lambda model, x: to(model(x))), lambda: loss(to(model(x)), target)
    )


def same(out: Tensor) -> Tensor:
    return out


CLASSES = torch.arange(7) % 3
REAL = torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3)
SIGNS = torch.where(REAL > 0.2, 1.0, -1.0).double()
SHARES = REAL.softmax(1)
WEIGHT = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
IGNORED = torch.where(torch.arange(7) == 2, -100, CLASSES)
LISTED = torch.tensor([[0, 2, -1], [1, -1, 0], [2, 1, -1], [0, -1, 1], [1, 2, -1], [2, -1, 0], [0, 1, -1]])

LOSSES: list[tuple[str, nn.Module, Tensor, Any]] = [
    ("CrossEntropyLoss", nn.CrossEntropyLoss(), CLASSES, same),
    ("CrossEntropyLoss, weights and ignored targets", nn.CrossEntropyLoss(weight=WEIGHT), IGNORED, same),
    ("CrossEntropyLoss, label smoothing", nn.CrossEntropyLoss(label_smoothing=0.1), CLASSES, same),
    ("CrossEntropyLoss, probabilities", nn.CrossEntropyLoss(), SHARES, same),
    ("NLLLoss", nn.NLLLoss(weight=WEIGHT), CLASSES, lambda out: out.log_softmax(1)),
    ("MSELoss", nn.MSELoss(), REAL, same),
    ("MSELoss, sum", nn.MSELoss(reduction="sum"), REAL, same),
    ("L1Loss", nn.L1Loss(), REAL, torch.square),
    ("SmoothL1Loss", nn.SmoothL1Loss(beta=0.3), REAL, same),
    ("HuberLoss", nn.HuberLoss(delta=0.3), REAL, same),
    ("BCELoss", nn.BCELoss(), SHARES, torch.sigmoid),
    ("BCEWithLogitsLoss, pos_weight", nn.BCEWithLogitsLoss(pos_weight=WEIGHT), SHARES, same),
    ("PoissonNLLLoss", nn.PoissonNLLLoss(), SHARES, same),
    ("KLDivLoss, batchmean", nn.KLDivLoss(reduction="batchmean"), SHARES, lambda out: out.log_softmax(1)),
    ("KLDivLoss", nn.KLDivLoss(), SHARES, lambda out: out.log_softmax(1)),
    ("SoftMarginLoss", nn.SoftMarginLoss(), SIGNS, same),
    ("HingeEmbeddingLoss", nn.HingeEmbeddingLoss(), SIGNS, same),
    ("MultiLabelSoftMarginLoss", nn.MultiLabelSoftMarginLoss(), (SIGNS > 0).double(), same),
]
SITUATIONS = [Situation(GROUP, name, partial(case, loss, target, to)) for name, loss, target, to in LOSSES]
