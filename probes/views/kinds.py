"""Kinds of measurements: how each is recognised, worded and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A group is recognised by its fields, not by its name: a user may call a probe anything.
_FIELDS = {
    "loss": {"value", "gradient_norm"},
    "spectrum": {"values", "residuals"},
    "trace": {"value", "stderr"},
    "density": {"nodes", "weights", "n"},
    "condition": {"kappa", "rank"},
    "conditioning": {"kappa", "rank", "neighbours", "bound"},
    "sharpness": {"value", "residual", "threshold", "preconditioned", "preconditioned_residual"},
    "batch-sharpness": {"value", "stderr", "ratio_of_means", "threshold", "batches"},
    "critical-sharpness": {"value", "lower", "upper", "threshold"},
    "sam-sharpness": {"value", "error", "rho"},
    "gradient": {"loss", "norm", "noise_scale", "noise_scale_stderr"},
    "alignment": {"cosines", "bounds", "total", "total_bound"},
    "updates": {"ratio", "update", "weight", "steps"},
    "function-class": {"inner", "final_loss", "infimum", "distance"},
    "function-class-sketch": {"infimum", "gradient_sketch", "position_sketch"},
    "neural-collapse": {"nc0", "nc1", "nc2", "nc3", "nc4", "accuracy"},
    "dual-gradient": {"dual", "total", "gap", "mu"},
}
KINDS = tuple(_FIELDS)
FUNCTION_CLASS = ("function-class", "function-class-sketch")
# Fields that many a probe could have: if the settings name the probe, it must be this one.
_PROBES = {"trace": "CurvatureTrace"}


def kind_of(fields: Iterable[str], settings: Mapping[str, Any] | None = None) -> str | None:
    """The kind of a group by its field names, the one that asks for most of them: one of `KINDS`, else `None`.

    Where the settings name the probe, value and stderr alone are a trace only if it is `CurvatureTrace`.
    """
    have = set(fields)
    fitting = [kind for kind, needed in _FIELDS.items() if needed <= have]
    kind = max(fitting, key=lambda kind: len(_FIELDS[kind]), default=None)
    declared = (settings or {}).get("probe")
    return None if kind in _PROBES and declared not in (None, _PROBES[kind]) else kind


def settings_text(settings: Mapping[str, Any] | None) -> str:
    """A probe's settings in a few words: `operator=hessian k=10`, defaults that are unset left out."""
    if not settings:
        return ""
    hidden = {"probe", "name", "every"}
    return " ".join(f"{key}={value}" for key, value in settings.items() if key not in hidden and value is not None)
