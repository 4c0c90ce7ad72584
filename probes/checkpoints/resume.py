"""What a trace holds that is to be gone on with, and whether it is the same measurement that is asked for now.

Compared are the problem, the seed, the settings of each probe, the weights of each checkpoint (by their hash, in the
field `weights` of the loss) and the loss itself at one of them: rows under one name belong together, or are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes.errors import UserError
from probes.instruments.base import Instrument
from probes.trace.trace import Trace

_INSTEAD = "measure it anew with --overwrite, or choose another -o"
SAME_LOSS = 1e-3  # relative; another machine or number of threads moves a float32 loss by less


@dataclass(frozen=True)
class Kept:
    """What an output holds before this run; nothing where it begins.

    Attributes:
        output: the trace.
        steps: by probe, those that are measured.
        settings: by probe, how.
        weights: step -> hash of the checkpoint; None where the trace is of a time that knew no hashes.
        fresh: there is no trace to go on with.
        losses: step -> the loss there and the norm of its gradient; nan in a trace that has none.
    """

    output: Path
    steps: Mapping[str, set[int]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: Mapping[int, str] | None = field(default_factory=dict)
    losses: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    fresh: bool = True

    @classmethod
    def read(cls, output: Path, config: Mapping[str, Any], seed: int) -> Kept:
        """What is in the output. Raises `UserError` when it was measured on something else, or with another seed."""
        with Trace.open(output) as trace:
            there = trace.config if isinstance(trace.config, dict) else {}
            _check_config(output, there, config)
            if trace.seed != seed:
                raise UserError(f"{output} has seed {trace.seed}: resume it with --seed {trace.seed}")
            rows = trace["loss"].read() if "loss" in trace else {}
            steps = [int(step) for step in rows.get("step", ())]
            norms = rows.get("gradient_norm", [math.nan] * len(steps))
            hashes = [str(code) for code in rows["weights"]] if "weights" in rows else None
            return cls(
                output,
                {name: set(trace[name]["step"].tolist()) for name in trace},
                {name: trace[name].settings or _bare(there) for name in trace if name != "loss"},
                None if steps and hashes is None else dict(zip(steps, hashes or (), strict=True)),
                dict(zip(steps, zip(rows.get("value", ()), norms, strict=True), strict=False)),
                fresh=False,
            )

    def check_settings(self, probes: Iterable[Instrument], *, but: Iterable[str] = (), named: bool = True) -> None:
        """Raise `UserError` for a probe that is there with another operator or option.

        `named`: the command can give a probe a name of its own.
        """
        for probe in probes:
            now = json.loads(json.dumps(probe.settings(), default=str))
            for key, old in self.settings.get(probe.name, {}).items():
                if key in now and now[key] != old and key not in but:
                    other = f", or give the probe a name of its own, --probe {probe.name}:name=..." if named else ""
                    raise UserError(
                        f"{self.output} has {probe.name} with {key}={old}, not {key}={now[key]}: {_INSTEAD}{other}"
                    )

    def check_weights(self, checkpoints: Iterable[tuple[int, Path]], hashes: Mapping[int, str]) -> None:
        """Raise `UserError` for a checkpoint whose weights are not those that were measured at its step."""
        for step, path in checkpoints:
            old = (self.weights or {}).get(step)
            if old is not None and old != hashes[step]:
                raise UserError(
                    f"{self.output} was measured at step {step} on weights with hash {old[:12]}, those of {path} have "
                    f"{hashes[step][:12]}: {_INSTEAD}"
                )

    def check_loss(self, step: int, now: Callable[[], tuple[float, float]], problem: str) -> None:
        """Raise `UserError` when the same weights have another loss or gradient: the model or the data has changed.

        Losses that differ may agree at one point, as they do with other label smoothing before training.
        """
        if step not in self.losses:
            return
        for what, old, new in zip(("loss", "norm of the gradient"), self.losses[step], now(), strict=True):
            if abs(new - old) > SAME_LOSS * abs(old) + 1e-9:
                raise UserError(
                    f"the {what} at step {step} is {old:g} in {self.output} and {new:g} now: the model, the loss or "
                    f"the data of {problem} has changed: {_INSTEAD}"
                )


def _check_config(output: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old = there.get("problem")
    if old is not None and old != now["problem"]:
        raise UserError(f"{output} was measured on {old}, not on {now['problem']}: choose another -o")
    texts, these = there.get("texts") or {}, now.get("texts") or {}
    for key in texts:
        if texts[key] != these.get(key):
            raise UserError(f"{output} was measured with {key} {texts[key]}, not {these.get(key)}: {_INSTEAD}")


def _bare(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a probe of one's own that has none in the trace: the operator of the command."""
    return {"operator": config["operator"]} if "operator" in config else {}
