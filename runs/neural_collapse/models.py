"""Networks and optimizers of `runs.neural_collapse`. No head has a bias, as in the theorems."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from probes.digits import CLASSES
from runs.shared.networks import ResidualBlock, mlp
from solvers import SGD, AdamCoupled, Signum

# In the paper's names; W is the decoupled decay.
OPTIMIZERS = ("SGD", "SGDW", "Adam", "AdamW", "Signum", "SignumW")
COUPLED = ("SGD", "Adam", "Signum")


def resnet() -> nn.Sequential:
    """Three residual blocks with batch norm, of 8, 16 and 32 channels, and the mean over the image: 32 features."""
    stem = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    shapes = (8, 8, 1), (8, 16, 2), (16, 32, 1)
    blocks = (ResidualBlock(*shape, norm=False) for shape in shapes)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(32))


def head(width: int) -> nn.Linear:
    """The last layer."""
    return nn.Linear(width, CLASSES, bias=False)


# by the side of the images; the MLP has no batch norm
NETWORKS: dict[str, Callable[[int], nn.Sequential]] = {
    "resnet": lambda side: resnet(),
    "mlp": lambda side: mlp(64, inputs=side**2, bias=False),
}


def weight_of_head(model: nn.Module) -> Tensor:
    """The weight of the last layer."""
    layer = list(model.children())[-1]
    assert isinstance(layer, nn.Linear)
    return layer.weight


def family(optimizer: str) -> str:
    """The name without the W."""
    return optimizer.removesuffix("W")


def make_optimizer(
    optimizer: str, parameters: Iterable[Tensor], lr: float, momentum: float, decay: float
) -> torch.optim.Optimizer:
    """One of `OPTIMIZERS`; momentum is beta1 for Adam, beta2 is 0.999. All parameters decay."""
    decoupled = optimizer.endswith("W")
    if family(optimizer) == "Adam":
        return make_adam(parameters, lr, momentum, 0.0 if decoupled else decay, decay if decoupled else 0.0)
    kind = {"SGD": SGD, "Signum": Signum}[family(optimizer)]
    return kind(parameters, lr, momentum=momentum, weight_decay=decay, decoupled=decoupled)


def make_adam(
    parameters: Iterable[Tensor], lr: float, momentum: float, coupled: float, decoupled: float, second: float = 0.999
) -> torch.optim.Optimizer:
    """Adam with both decays; `second`: beta2."""
    return AdamCoupled(parameters, lr, betas=(momentum, second), coupled=coupled, decoupled=decoupled)


def step_schedule(lr: float, steps: int) -> list[float]:
    """The paper's: a tenth after a third of the run, a hundredth after two thirds."""
    return [lr * 0.1 ** ((step >= steps // 3) + (step >= 2 * steps // 3)) for step in range(steps)]


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def simplex(classes: int) -> Tensor:
    """(I - J / K) / sqrt(K - 1) in float64, of norm 1."""
    return (torch.eye(classes, dtype=torch.float64) - 1.0 / classes) / math.sqrt(classes - 1)
