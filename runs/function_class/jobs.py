"""The training runs of `runs.function_class`: digits and text, each run twice, from several seeds.

The first pass finds the end point x_K, the second repeats it bit by bit and measures each step's own batch (group
`seed-0` and so on) and, every few steps, the whole loss (`seed-0-full`). f_k^* is 0, as the paper takes it; no network
has dropout or batch norm.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from landscape import Objective
from probes import FunctionClass, Monitor, Recording, Trace
from probes.digits import CLASSES, build_network, digits
from probes.sweep.jobs import Job, JobContext
from probes.sweep.problems import batches
from runs.function_class import theory
from runs.shared.networks import mlp, pooled_cnn
from runs.shared.training import update

SEEDS = 4
WIDTHS, CHANNELS = (16, 32, 64, 128, 256, 512), (4, 8, 16, 32, 64)
BATCHES, DEPTHS = (32, 64, 128, 256), (1, 2, 4, 8)
# Effective steps of SGD and momentum are alike: 0.1 = 0.01 / (1 - 0.9).
OPTIMIZERS = {"adam": 1e-3, "momentum": 0.01, "sgd": 0.1}
WINDOW, VOCABULARY = 32, 256


def plan(quick: bool) -> list[Job]:
    """The jobs; those that are compared share a stream, so their seeds draw the batches in the same order."""
    common: dict[str, Any] = {"epochs": 1 if quick else 20, "seeds": 2 if quick else SEEDS, "every": 21}

    def one(name: str, stream: str = "", **settings: Any) -> Job:
        return Job(name, train, common | settings, stream)

    def family(name: str, sizes: Any, **settings: Any) -> list[Job]:
        return [one(f"{name}-{size}", name, size=size, batch=64, **settings) for size in sizes[:few]]

    few = 2 if quick else None
    jobs = theory.plan(quick)
    jobs += family("mlp", WIDTHS, network="mlp", optimizer="sgd", lr=0.09, schedule="fixed")
    jobs += family("cnn", CHANNELS, network="cnn", optimizer="sgd", lr=0.1, schedule="cosine")
    jobs += family("depth", DEPTHS, network="residual", optimizer="momentum", lr=0.01, schedule="one-cycle")
    images: dict[str, Any] = {"network": "cnn", "size": 16, "schedule": "one-cycle"}
    jobs += [one(f"batch-{b}", "batch", batch=b, optimizer="sgd", lr=0.1, **images) for b in BATCHES[:few]]
    optimizers = OPTIMIZERS.items()
    jobs += [one(f"optimizer-{o}", "optimizer", batch=64, optimizer=o, lr=lr, **images) for o, lr in optimizers]
    text: dict[str, Any] = {"batch": 16, "size": 32, "every": 8}
    lstm: dict[str, Any] = {"network": "lstm", "optimizer": "normalized", "lr": 1.0, "schedule": "power"}
    transformer: dict[str, Any] = {"network": "transformer", "optimizer": "adamw", "lr": 0.006}
    return [*jobs, one("lstm", **text, **lstm), one("transformer", **text, **transformer, schedule="warm-cosine")]


def train(
    job: JobContext,
    network: str,
    size: int,
    batch: int,
    epochs: int,
    optimizer: str,
    lr: float,
    schedule: str,
    seeds: int,
    every: int,
) -> dict[str, Any]:
    """Runs of one network from several seeds, each with its own end point."""
    data = text() if network in ("lstm", "transformer") else digits().train
    steps = epochs * (len(data[0]) // batch)
    runs = []
    settings = {"network": network, "size": size, "batch": batch, "optimizer": optimizer, "lr": lr, "steps": steps}
    with job.trace(**settings, schedule=schedule) as trace:
        for seed in range(seeds):
            model = build_network(lambda: NETWORKS[network](size), (job.seed + seed) % 2**63)
            objective = Objective(model, nn.CrossEntropyLoss(), data)

            def run(call: Callable[[int, Any], None], objective: Objective = objective, seed: int = seed) -> None:
                def loss(pair: tuple[Tensor, Tensor]) -> Tensor:
                    return nn.functional.cross_entropy(objective.model(pair[0]), pair[1])

                made = make_optimizer(optimizer, objective.model.parameters(), lr)
                for step, pair in enumerate(batches(*data, batch, steps, job.seed + seed)):
                    call(step, pair)
                    made.param_groups[0]["lr"] = lr * factor(schedule, step, steps)
                    update(made, partial(loss, pair))
                    job.progress(2 * seed * steps + step, 2 * seeds * steps)

            runs.append({"seed": seed} | both_passes(objective, run, trace, f"seed-{seed}", every))
    crc = zlib.crc32(data[0].contiguous().numpy().tobytes())
    return {"size": size, "parameters": objective.size, "steps": steps, "data_crc32": crc, "runs": runs}


def both_passes(
    objective: Objective, run: Callable[[Callable[[int, Any], None]], None], trace: Trace, name: str, every: int
) -> dict[str, Any]:
    """Both passes of `run(call)` from the parameters as they stand; the whole loss at both ends."""
    start = {key: tensor.clone() for key, tensor in objective.model.state_dict().items()}
    first = objective.value()
    recording = Recording(objective)
    run(recording)
    recording.finish()
    assert recording.end is not None
    if not bool(torch.isfinite(recording.end).all()):
        raise ArithmeticError(f"{name} diverged")
    objective.model.load_state_dict(start)
    each = Monitor(objective, [FunctionClass(recording, name=name)], trace, on_error="raise")
    whole = Monitor(objective, [FunctionClass(recording.end, name=f"{name}-full")], trace, on_error="raise")

    def measure(step: int, pair: Any) -> None:
        each(step, batch=pair)
        if step % every == 0:
            whole(step)

    run(measure)
    recording.check_end(objective)
    return {"first_loss": first, "loss": objective.value()}


# -- networks and data ---------------------------------------------------------------------------------------


class Residual(nn.Module):
    """x + relu(W x + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.linear(x))


def residual(blocks: int) -> nn.Module:
    """A residual network of width 32."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), *(Residual(32) for _ in range(blocks)), nn.Linear(32, CLASSES)
    )


class LSTM(nn.Module):
    """Three layers on bytes; logits (batch, bytes, positions)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.lstm = nn.LSTM(width, width, 3, batch_first=True)
        self.out = nn.Linear(width, VOCABULARY)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.embed(x))[0]).transpose(1, 2)


class Transformer(nn.Module):
    """Two causal blocks with four heads on bytes; logits (batch, bytes, positions)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(VOCABULARY, width), nn.Embedding(WINDOW, width)
        made: dict[str, Any] = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 4, 4 * width, **made) for _ in range(2))
        self.out = nn.Linear(width, VOCABULARY)

    @override
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x) + self.place(torch.arange(x.shape[1], device=x.device))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return self.out(hidden).transpose(1, 2)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mlp": mlp,
    "cnn": lambda channels: pooled_cnn(8, channels),
    "residual": residual,
    "lstm": LSTM,
    "transformer": Transformer,
}


def text(windows: int = 256) -> tuple[Tensor, Tensor]:
    """Bytes of an English text (this project's README as it once was), in windows, and the byte after each."""
    raw = Path(__file__).with_name("text.txt").read_bytes()[: windows * WINDOW + 1]
    codes = torch.tensor(list(raw))
    return codes[:-1].reshape(-1, WINDOW), codes[1:].reshape(-1, WINDOW)


# -- steps ---------------------------------------------------------------------------------------------------


def make_optimizer(name: str, parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """The optimizer of that name."""
    known: dict[str, tuple[Any, dict[str, Any]]] = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {"betas": (0.9, 0.95), "weight_decay": 0.1}),
        "normalized": (Normalized, {}),
    }
    kind, settings = known[name]
    return cast(torch.optim.Optimizer, kind(parameters, lr=lr, **settings))


def factor(schedule: str, step: int, steps: int) -> float:
    """What the step size is multiplied by: in (0, 1]."""

    def cosine(high: float, low: float, part: float) -> float:
        return low + (high - low) * (1 + math.cos(math.pi * min(part, 1.0))) / 2

    if schedule == "cosine":
        return cosine(1.0, 0.0, step / steps)
    if schedule in ("one-cycle", "warm-cosine"):
        warm, low, end = (0.3, 0.04, 4e-6) if schedule == "one-cycle" else (0.1, 0.01, 0.1)
        part = step / steps
        return cosine(low, 1.0, part / warm) if part < warm else cosine(1.0, end, (part - warm) / (1 - warm))
    return float((step + 1) ** -0.75) if schedule == "power" else 1.0


class Normalized(torch.optim.Optimizer):
    """SGD along the direction of the averaged gradient: x -= lr m / |m| with momentum 1 - t^(-1/2)."""

    def __init__(self, parameters: Iterator[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.time = 0

    @torch.no_grad()
    @override
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.time += 1
        keep = 1 - self.time**-0.5
        for group in self.param_groups:
            moments = []
            for p in group["params"]:
                state = self.state[p]
                state["m"] = keep * state.get("m", torch.zeros_like(p)) + (1 - keep) * p.grad
                moments.append(state["m"])
            norm = sum(float(m.double().square().sum()) for m in moments) ** 0.5
            for p, m in zip(group["params"], moments, strict=True):
                p.sub_(m, alpha=group["lr"] / (norm + 1e-6))
