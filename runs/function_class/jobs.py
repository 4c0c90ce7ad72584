"""The jobs of `runs.function_class`: those of `examples` and `theorems`, and one for each run of a network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from probes.sweep.jobs import Job
from runs.function_class import examples, theorems
from runs.function_class.training import train

SEEDS = 3
WIDTHS, CHANNELS = (16, 32, 64, 128, 256, 512), (4, 8, 16, 32, 64)
BATCHES, DEPTHS = (64, 128, 256, 512), (1, 2, 4, 8)
# Effective steps of SGD and momentum are alike: 0.1 = 0.01 / (1 - 0.9).
OPTIMIZERS = {"adam": 1e-3, "momentum": 0.01, "sgd": 0.1}
EPOCH = 21  # steps, batches of 64 of the digits


def plan(quick: bool) -> list[Job]:
    """The jobs; those that are compared share a stream, so that a seed draws the batches in the same order.

    The reduced experiment has the digits in place of Fashion-MNIST, and scikit-learn's descriptions for English.
    """
    few = 2 if quick else None
    fashion, english = ("digits", "descriptions") if quick else ("fashion", "english")

    def runs(name: str, stream: str, **settings: Any) -> list[Job]:
        fixed = settings | ({"steps": 21, "every": 4} if quick else {})
        return [Job(f"{name}-seed-{s}", train, {"seed": s, **fixed}, stream) for s in range(few or SEEDS)]

    def family(name: str, sizes: Iterable[Any], vary: str = "size", **settings: Any) -> list[Job]:
        chosen = list(sizes)[:few]
        return [job for v in chosen for job in runs(f"{name}-{v}", name, **{vary: v}, **settings)]

    sgd: dict[str, Any] = {"optimizer": "sgd"}
    mlp: dict[str, Any] = {"network": "mlp", **sgd}
    small: dict[str, Any] = {"data": "digits", "steps": 20 * EPOCH, "every": EPOCH}
    cnn: dict[str, Any] = {"network": "cnn", "batch": 64, **small}
    jobs = [*examples.plan(quick), *theorems.plan(quick)]
    fixed: dict[str, Any] = {"batch": 64, "lr": 0.09, "schedule": "fixed"}
    jobs += family("mlp", WIDTHS, **mlp, **small, **fixed)
    cycle: dict[str, Any] = {"size": 128, "lr": 0.1, "schedule": "one-cycle"}
    jobs += family("batch", BATCHES, "batch", **mlp, **cycle, data=fashion, steps=3000, every=100)
    text: dict[str, Any] = {"batch": 16, "size": 32, "data": english, "steps": 1500}
    lstm: dict[str, Any] = {"network": "lstm", "optimizer": "normalized", "lr": 20.0, "schedule": "power", "every": 12}
    jobs += runs("lstm", "lstm", **text, **lstm)
    jobs += family("cnn", CHANNELS, **cnn, **sgd, lr=0.1, schedule="cosine")
    deep: dict[str, Any] = {"network": "residual", "optimizer": "momentum", "lr": 0.01, "schedule": "one-cycle"}
    jobs += family("depth", DEPTHS, **deep, **small, batch=64)
    for name, lr in OPTIMIZERS.items():
        chosen: dict[str, Any] = {"optimizer": name, "lr": lr, "size": 16, "schedule": "one-cycle"}
        jobs += runs(f"optimizer-{name}", "optimizer", **cnn, **chosen)
    words: dict[str, Any] = {"network": "transformer", "optimizer": "adamw", "lr": 0.006, "schedule": "warm-cosine"}
    words |= {"steps": 500, "every": 100}
    return jobs + runs("transformer", "transformer", **text | words)
