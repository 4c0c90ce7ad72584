"""The problems that `runs.sweep` knows by name: networks on handwritten digits and on text.

Each function returns an `Objective` on the data to train on, and another on data to test on.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from landscape import Objective
from probes.errors import UserError, did_you_mean
from runs.shared.networks import mlp, pooled_cnn
from runs.shared.transformers import ByteTransformer, Data, ViT, images, text


def task(model: Callable[[], nn.Module], data: Callable[[], Data]) -> tuple[Objective, Objective]:
    """The network on the data to train on, and on those to test on."""
    train, test = data()
    objective = Objective(model(), nn.CrossEntropyLoss(), train)
    return objective, objective.on(test)


def digits_mlp() -> tuple[Objective, Objective]:
    """64-100-100-10 on digits: 17,610 parameters."""
    return task(lambda: mlp(100), images)


def digits_cnn() -> tuple[Objective, Objective]:
    """A CNN of 16 and 32 channels on digits."""
    return task(lambda: pooled_cnn(16, 32), images)


def digits_vit() -> tuple[Objective, Objective]:
    """A vision transformer on digits."""
    return task(ViT, images)


def text_transformer() -> tuple[Objective, Objective]:
    """A transformer on bytes of English text."""
    return task(ByteTransformer, text)


PROBLEMS = {
    made.__name__.replace("_", "-"): f"{__name__}:{made.__name__}"
    for made in (digits_mlp, digits_cnn, digits_vit, text_transformer)
}


def spec(name: str) -> str:
    """Where the problem of that name is; a user's own, with a colon in it, as it is. Raises `UserError` for neither."""
    if ":" in name:
        return name
    if name not in PROBLEMS:
        near = did_you_mean(name, PROBLEMS)
        known = f"known are {', '.join(PROBLEMS)}, your own is FILE.py:FUNCTION"
        raise UserError(f"there is no problem {name!r}{near or ':'} {known}", status=2)
    return PROBLEMS[name]
