"""Traces with records of every kind, made up: what a report is tried on without measuring anything."""

from __future__ import annotations

from functools import partial
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from probes import Field, Trace
from probes.instruments.neural_collapse import _FLOATS, _INTEGERS
from probes.instruments.solver_steps import _FIELDS

N, K, PROBES, LANCZOS, TENSORS = 1210, 10, 4, 32, 8
LABELS = tuple(f"layer{i}.{part}" for i in range(TENSORS // 2) for part in ("weight", "bias"))
TOLD = {"noise": Field(), "checked": Field((), "S120"), "note": Field((), "S200")}
SAID = {"noise": 0.0, "checked": "agrees with differences to 2e-06 (float32)", "note": ""}


class Elements(HTMLParser):
    """Every element with its attributes and the text right inside; tags must close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "br", "link", "img", "mspace"):
            self._open.append((tag, self.found[-1][2]))

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        if self._open:
            self._open[-1][1].append(data)

    def all(self, tag, **wanted):
        return [
            ("".join(text), attrs)
            for name, attrs, text in self.found
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]


def every_kind(
    path: Path, steps: int = 12, *, seed: int = 0, labels: tuple[str, ...] = LABELS, most: int = 99, **config: Any
) -> Path:
    """A trace with a group of every kind of probe, the loss, and one that nobody knows; of the first `most`."""
    rng = np.random.default_rng(seed)
    with Trace.create(path, config=config or {"lr": 0.05, "network": "mlp"}, seed=seed, overwrite=True) as trace:
        tables = {name: made for name, *made in islice(_tables(labels), most)}
        for name, (fields, settings, _) in tables.items():
            trace.declare(name, fields, settings=settings)
        for i in range(steps):
            for name, (_, _, row) in tables.items():
                trace.record(name, 10 * i, epoch=0.1 * i, cost=0.01, **row(i / max(steps - 1, 1), rng))
        trace.event(10, "trace", "RuntimeError: the data has changed between two passes")
    return path


def _tables(labels: tuple[str, ...]):
    f = Field()
    flag = Field((), "bool")
    count = Field((), "int64")
    yield (
        "loss",
        {"value": f, "gradient_norm": f},
        None,
        lambda t, rng: {"value": 2.3 * np.exp(-3 * t), "gradient_norm": 0.5 * np.exp(-2 * t)},
    )
    yield (
        "spectrum",
        {"values": Field((K,)), "residuals": Field((K,)), "converged": flag, "matvecs": count, **TOLD},
        {"probe": "Spectrum", "operator": "hessian", "k": K, "which": "LA"},
        lambda t, rng: {
            "values": np.r_[[9.0, 8.0, 7.0], np.linspace(1.0, 0.5, K - 3)] * (1 + t),
            "residuals": np.full(K, 1e-3),
            "converged": t < 0.9,
            "matvecs": 60,
            **SAID,
        },
    )
    yield (
        "trace",
        {"value": f, "stderr": f, "converged": flag, "matvecs": count, **TOLD},
        {"probe": "CurvatureTrace", "operator": "hessian"},
        lambda t, rng: {"value": 30 + 10 * t, "stderr": 1.5, "converged": True, "matvecs": 60, **SAID},
    )
    yield (
        "density",
        {"nodes": Field((PROBES, LANCZOS)), "weights": Field((PROBES, LANCZOS)), "n": count},
        {"probe": "SpectralDensity", "operator": "hessian"},
        lambda t, rng: {
            "nodes": np.sort(rng.normal(size=(PROBES, LANCZOS)) * (1 + t), axis=1),
            "weights": np.full((PROBES, LANCZOS), 1 / LANCZOS),
            "n": N,
        },
    )
    thresholds = 10.0 ** -np.arange(1, 9)
    yield (
        "condition",
        {
            "kappa": f,
            "largest": f,
            "smallest": f,
            "rank": count,
            "threshold": f,
            "limited_by": Field((), "S24"),
            "thresholds": Field((8,)),
            "ranks": Field((8,), "int64"),
            "kappas": Field((8,)),
            "converged": flag,
            "matvecs": count,
            **TOLD,
        },
        {"probe": "ConditionNumber", "operator": "gauss-newton"},
        lambda t, rng: {
            "kappa": 9e3,
            "largest": 9.0,
            "smallest": 1e-3,
            "rank": 200,
            "threshold": 1e-3,
            "limited_by": "float32",
            "thresholds": thresholds,
            "ranks": np.arange(1, 9) * 20,
            "kappas": 0.9 / thresholds,
            "converged": True,
            "matvecs": 2420,
            **SAID,
        },
    )
    ragged = Field((None, 2))
    yield (
        "gauss-newton",
        {
            **dict.fromkeys(("kappa", "largest", "smallest", "threshold", "bound", "loose_bound"), f),
            "rank": count,
            "size": count,
            "matvecs": count,
            "limited_by": Field((), "S24"),
            "neighbours": Field((3,)),
            "eigenvalues": Field((None,)),
            "converged": flag,
            "linear": flag,
            "left": ragged,
            "right": ragged,
            **TOLD,
        },
        {"probe": "GaussNewtonConditioning"},
        lambda t, rng: {
            "kappa": 100 * (1 + t),
            "largest": 10.0,
            "smallest": 0.1,
            "threshold": 1e-12,
            "bound": 300.0,
            "loose_bound": 900.0,
            "rank": 50,
            "size": 60,
            "matvecs": 60,
            "limited_by": "",
            "neighbours": [90.0, 95.0, np.nan],
            "eigenvalues": np.geomspace(0.1, 10, 50),
            "converged": True,
            "linear": True,
            "left": [[0.5, 2.0], [0.1, 3.0]],
            "right": [[0.4, 2.0], [0.2, 1.0]],
            **SAID,
        },
    )
    sharp = ("value", "residual", "threshold", "preconditioned", "preconditioned_residual", "preconditioned_threshold")
    yield (
        "sharpness",
        {**dict.fromkeys(sharp, f), "matvecs": count, **TOLD},
        {"probe": "Sharpness"},
        lambda t, rng: (
            dict(zip(sharp, (9 + 30 * t, 0.01, 40.0, 5.0 + t, 0.01, 38.0), strict=True)) | {"matvecs": 30, **SAID}
        ),
    )
    yield (
        "threshold-spectrum",
        {
            **{
                "count": count,
                "values": Field((None,)),
                "residuals": Field((None,)),
                "marginal": Field((None,), "bool"),
            },
            **{"threshold": f, "more": flag, "converged": flag, "matvecs": count, **TOLD},
        },
        {"probe": "ThresholdSpectrum", "operator": "hessian", "c": 2.0, "k": 100},
        lambda t, rng: {
            "count": 2 * (t > 0.9),
            "values": 60.0 - np.arange(3 * (t > 0.9)),
            "residuals": np.full(3 * (t > 0.9), 1e-2),
            "marginal": np.arange(3 * (t > 0.9)) == 2,
            "threshold": 56.0,
            "more": False,
            "converged": True,
            "matvecs": 30,
            **SAID,
        },
    )
    yield (
        "batch-sharpness",
        {"value": f, "stderr": f, "ratio_of_means": f, "threshold": f, "batches": count, **TOLD},
        {"probe": "BatchSharpness"},
        lambda t, rng: {
            "value": 30 + 9 * t,
            "stderr": 2.0,
            "ratio_of_means": 28.0,
            "threshold": 40.0,
            "batches": 12,
            **SAID,
        },
    )
    yield (
        "critical-sharpness",
        {"value": f, "lower": f, "upper": f, "evaluations": count, "converged": flag, "threshold": f},
        {"probe": "CriticalSharpness", "along": "gradient"},
        lambda t, rng: {
            "value": 20 + t,
            "lower": 19.0 + t,
            "upper": 22.0 + t,
            "evaluations": 8,
            "converged": True,
            "threshold": 40.0,
        },
    )
    reach = ("critical", "critical_lower", "critical_upper", "edge", "edge_lower", "edge_upper", "ratio", "lr")
    yield (
        "critical-step-curve",
        {**dict.fromkeys(reach, f), "evaluations": count, "matvecs": count, "converged": flag, **TOLD},
        {"probe": "CriticalStepCurve"},
        lambda t, rng: {
            **dict(zip(reach, (0.4, 0.39, 0.41, 0.1, 0.099, 0.101, 4.0, round(t / 9, 3)), strict=True)),
            **{"evaluations": 8, "matvecs": 14, "converged": True, **SAID},
        },
    )
    yield (
        "relative-critical-sharpness",
        {
            **dict.fromkeys(("value", "lower", "upper", "slope", "slope_error", "threshold"), f),
            **{"ascent": flag, "evaluations": count, "converged": flag},
        },
        {"probe": "RelativeCriticalSharpness", "moves": "batch", "watched": "objective"},
        lambda t, rng: {
            **{"value": np.inf if t == 1 else 20.5, "lower": 20.0, "upper": 21.0, "threshold": 40.0},
            **{"slope": 0.1 - 0.2 * (t < 1), "slope_error": 1e-7, "ascent": t == 1, "evaluations": 8},
            "converged": True,
        },
    )
    yield (
        "sam-sharpness",
        {"value": f, "error": f, "rho": f, "norm": f},
        {"probe": "SAMSharpness"},
        lambda t, rng: {"value": 0.1 / (1 + t), "error": 1e-5, "rho": 0.05, "norm": 1.0},
    )
    gradient = ("loss", "norm", "noise_trace", "noise_trace_stderr", "noise_scale", "noise_scale_stderr", "terms")
    yield (
        "gradient",
        dict.fromkeys(gradient, f),
        {"probe": "Gradient"},
        lambda t, rng: dict(zip(gradient, (2 - t, 0.5 - 0.4 * t, 3.0, 0.1, 40 + 300 * t, 500 * t, 1437), strict=True)),
    )
    five = Field((5,))
    yield (
        "alignment",
        {"cosines": five, "bounds": five, "total": f, "total_bound": f, "eigenvalues": five, "residuals": five, **TOLD},
        {"probe": "Alignment", "of": "gradient"},
        lambda t, rng: {
            "cosines": np.array([0.4, 0.2, 0.1, 0.05, 0.01]) * (1 - t / 2),
            "bounds": np.full(5, 0.01),
            "total": 0.76 * (1 - t / 2),
            "total_bound": 0.02,
            "eigenvalues": np.arange(5, 0, -1.0),
            "residuals": np.full(5, 1e-3),
            **SAID,
        },
    )
    sets = ("cosine", "cosine_within", "distance", "distance_within", "excess")
    yield (
        "hgp",
        {
            **dict.fromkeys((*sets, *(f"{name}_stderr" for name in sets)), f),
            **{"parts": count, "samples": count, "matvecs": count, **TOLD},
        },
        {"probe": "GradientProducts", "first": "objective", "second": "batch", "parts": 8},
        lambda t, rng: {
            **dict(zip(sets, (0.4, 0.7, 0.6, 0.3, 0.3), strict=True)),
            **{f"{name}_stderr": 0.05 for name in sets},
            **{"parts": 8, "samples": 50, "matvecs": 16, **SAID},
        },
    )
    each = Field((len(labels),), labels=labels)
    yield (
        "updates",
        {"ratio": each, "update": each, "weight": each, "steps": count},
        {"probe": "Updates"},
        lambda t, rng: {
            "ratio": 1e-3 * np.arange(1, len(labels) + 1) * (1 - 0.9 * t),
            "update": np.full(len(labels), 1e-3),
            "weight": np.ones(len(labels)),
            "steps": 1,
        },
    )
    way = ("inner", "loss", "final_loss", "infimum", "grad_norm", "distance")
    yield (
        "function-class",
        {**dict.fromkeys(way, f), "rounding": f},
        {"probe": "FunctionClass", "per": "batch"},
        lambda t, rng: (
            dict(
                zip(
                    way,
                    (2 * (1 - t) ** 2 - 0.05 * (t > 0.5), (1 - t) ** 2 + 0.1, 0.1, 0.0, 2 - 2 * t, 1 - t),
                    strict=True,
                )
            )
            | {"rounding": 1e-7}
        ),
    )
    yield (
        "neural-collapse",
        dict.fromkeys(_FLOATS, f) | dict.fromkeys(_INTEGERS, count),
        {"probe": "NeuralCollapse"},
        lambda t, rng: dict.fromkeys(_FLOATS, 0.5 * 10 ** (-2 * t)) | dict.fromkeys(_INTEGERS, 10),
    )
    yield (
        "dual-gradient",
        {"dual": each, "total": f, "gap": f, "mu": f},
        {"probe": "DualGradient", "norm": "auto", "infimum": 0.0},
        lambda t, rng: {"dual": np.arange(1.0, len(labels) + 1), "total": 36.0 * (1 - t / 2), "gap": 2 - t, "mu": 18.0},
    )
    yield _batch_rule()
    yield _ranks(tuple(dict.fromkeys(label.rpartition(".")[0] for label in labels)))
    yield _attention(tuple(dict.fromkeys(label.rpartition(".")[0] for label in labels)))
    yield from _layers(tuple(dict.fromkeys(label.rpartition(".")[0] for label in labels)))
    yield from _surfaces()
    weights = Field((N,), "float32", parts=((("layer.weight", "tied.weight"), (N // 10, 10)),))
    yield (
        "snapshots",
        {"n": count, "bytes": count, "norm": f, "parameters_float32": weights},
        {"probe": "Snapshots"},
        lambda t, rng: {"n": N, "bytes": 4 * N, "norm": 1.0 + t, "parameters_float32": (1.0 + t) * np.ones(N)},
    )
    yield _connection()
    yield (
        "solver",
        dict.fromkeys(_FIELDS, f),
        {"probe": "SolverSteps"},
        lambda t, rng: (
            dict.fromkeys(_FIELDS, 1.0) | {"loss": 2.0, "new_loss": 1.9, "decrease": 0.12, "accepted": float(t != 1)}
        ),
    )
    yield "mine", {"height": Field(units="m"), "word": Field((), "S8")}, None, lambda t, rng: {"height": t, "word": "x"}


def _batch_rule():
    """Constants that settle, those between two points unknown at the first step."""
    names = ("L", "batch_L", "batch_L_stderr", "mu", "rho", "rho_stderr", "sigma", "sigma_stderr")
    names += ("loss", "dual", "distance", "batch", "lr")

    def row(t, rng):
        known = dict.fromkeys(names, 0.1) | {"mu": 3.0 - t, "rho": 50.0 + t, "sigma": 2.0, "loss": 2.0 - t, "dual": 6.0}
        apart = {"L": 7.0, "batch_L": 9.0, "batch": 60.0, "lr": 0.002}
        return known | (apart if t else dict.fromkeys(apart, np.nan)) | {"note": ""}

    settings = {"probe": "BatchRule", "norm": "auto", "infimum": 0.0, "budget": None, "batches": 16}
    return "batch-rule", dict.fromkeys(names, Field()) | {"note": TOLD["note"]}, settings, row


def _ranks(labels: tuple[str, ...]):
    """Activations that lose directions from the last layer on, and units that fall asleep."""
    b = np.arange(1.0, len(labels) + 1)
    ranks = ("effective_rank", "stable_rank", "weight_effective_rank", "weight_stable_rank")
    shares = ("nuclear", "dormant", "nearly_dormant")
    others = ("rows", "units", "weight_nuclear_norm", "weight_norm", "weight_rank")
    return (
        "effective-rank",
        dict.fromkeys((*ranks, *shares, *others), Field((len(labels),), labels=labels)) | {"note": TOLD["note"]},
        {"probe": "EffectiveRank", "at": "input", "squared": False, "tau": 0.025},
        lambda t, rng: {
            **{name: (40.0 - 8 * i) / (1 + t * b) for i, name in enumerate(ranks)},
            **{name: np.linspace(0.1 * i, 0.3 * i, len(b)) * t for i, name in enumerate(shares)},
            "nuclear": np.full(len(b), 0.9 - 0.3 * t),
            **dict.fromkeys(others, np.full(len(labels), 64.0)),
            "note": "",
        },
    )


def _attention(labels: tuple[str, ...]):
    """Heads that collapse one after the other, the last layers have fewer."""
    heads = np.arange(1.0, 5.0) + np.where(np.add.outer(np.arange(len(labels)), np.arange(4)) > len(labels), np.nan, 0)
    table, each = Field((len(labels), 4), labels=labels), partial(Field, (len(labels),), labels=labels)
    return (
        "attention-entropy",
        {
            **dict.fromkeys(("entropy", "least", "bound", "loose_bound", "uniform"), table),
            **{"rows": each("int64"), "of_weights": each("bool"), "note": TOLD["note"]},
        },
        {"probe": "AttentionEntropy"},
        lambda t, rng: {
            **{"entropy": 4.0 / (1 + 0.3 * t * heads), "least": 1.0 / (1 + t * heads), "bound": 0.5 / (1 + t * heads)},
            **{"loose_bound": 0.1 / (1 + t * heads), "uniform": 4.2 + 0 * heads},
            **{"rows": np.full(len(labels), 640), "of_weights": np.ones(len(labels), bool), "note": ""},
        },
    )


def _layers(labels: tuple[str, ...]):
    """Layers that sharpen from the last on, with densities of their own, and how unlike these are."""
    b, f, count = len(labels), Field(), Field((), "int64")
    each, pairs = Field((b,), labels=labels), Field((b, b), labels=labels)
    stems = ("trace", "frobenius", "stable_rank", "effective_rank")
    names = ("smallest", "smallest_residual", *stems, *(f"{stem}_stderr" for stem in stems))
    flag, shape = Field((), "bool"), (b, PROBES, LANCZOS)
    yield (
        "by-layer",
        {
            **dict.fromkeys(("values", "residuals"), Field((b, 2), labels=labels)),
            **dict.fromkeys(names, each),
            **dict.fromkeys(("size", "products"), Field((b,), "int64", labels=labels)),
            **dict.fromkeys(("nodes", "weights"), Field(shape, labels=labels)),
            **{"converged": flag, "matvecs": count},
            **TOLD,
        },
        {"probe": "ByLayer", "operator": "hessian", "by": "layer"},
        lambda t, rng: {
            **dict.fromkeys(names, np.full(b, 0.05)),
            **{stem: np.arange(1.0, b + 1) * (1 + t) for stem in stems},
            "values": np.outer(np.arange(1.0, b + 1), [2.0, 1.0]) * (1 + 9 * t),
            "residuals": np.full((b, 2), 1e-3),
            **{"size": np.full(b, 200), "products": np.full(b, 150)},
            "nodes": np.sort(rng.normal(size=shape), axis=2),
            "weights": np.full(shape, 1 / LANCZOS),
            **{"converged": True, "matvecs": 180},
            **SAID,
        },
    )
    yield (
        "heterogeneity",
        {
            **{"distances": pairs, "stderr": pairs, "floor": each, "converged": flag, "matvecs": count},
            **dict.fromkeys(("mean", "mean_stderr", "mean_floor", "sigma", "low", "high"), f),
            **TOLD,
        },
        {"probe": "BlockHeterogeneity", "operator": "hessian", "by": "layer", "normalise": "none"},
        lambda t, rng: {
            "distances": np.abs(np.subtract.outer(np.arange(b), np.arange(b))) / b * (1 - t / 2),
            "stderr": np.full((b, b), 0.02),
            "floor": np.full(b, 0.05),
            **{
                "mean": 0.4 * (1 - t / 2),
                "mean_stderr": 0.02,
                "mean_floor": 0.05,
                "sigma": 0.1,
                "low": -4.0,
                "high": 4.0,
            },
            **{"converged": True, "matvecs": 180},
            **SAID,
        },
    )


def _surfaces():
    """A plane as traces of the past have it, one through a training with a network far off it, and a line."""
    f, count, x = Field(), Field((), "int64"), np.linspace(-1.0, 1.0, 5)
    bowl = x[:, None] ** 2 + 3 * x[None, :] ** 2
    way = np.array([[-0.8, 0.5], [-0.5, 0.0], [-0.2, -0.1], [0.0, 0.0]])
    for name, directions, k, path, distances in (
        ("surface", "random", 2, None, ()),
        ("way", "trajectory", 2, way, (0.0, 0.5, 0.1, 0.0)),
        ("line", "between", 1, np.array([[-0.8], [0.8]]), (0.0, 0.0)),
    ):
        values = bowl if k == 2 else x**2
        along, square = Field((k,)), Field((k, k))
        fields = {
            **dict.fromkeys("xy"[:k], Field((5,))),
            **dict.fromkeys(("values", "quadratic"), Field(values.shape)),
            **{"gradient": along, "curvature": square, "curvature_error": square, "length": along},
            **{"lowest": f, "highest": f, "evaluations": count, "matvecs": count, "note": Field((), "S200")},
        }
        if path is not None:
            fields |= {"path": Field((None, k)), "path_step": Field((None,), "int64"), "path_distance": Field((None,))}
            fields["explained"] = along
        yield (
            name,
            fields,
            {"probe": "LossSurface", "directions": directions},
            partial(_surface, x, values, path, distances),
        )


def _surface(x, values, path, distances, t, rng):
    k = values.ndim
    found = {
        **dict.fromkeys("xy"[:k], x),
        **{"values": 0.1 + values + values**2 * (1 - t), "quadratic": 0.1 + values},
        **{"gradient": np.zeros(k), "curvature": np.diag([2.0, 6.0][:k]), "curvature_error": np.full((k, k), 1e-6)},
        **{"length": np.ones(k), "lowest": 0.1, "highest": 20.0, "evaluations": values.size, "matvecs": k, "note": ""},
    }
    if path is None:
        return found
    shares = np.array([0.93, 0.05])[:k] if k == 2 else np.ones(1)
    steps = 300 * np.arange(len(path))
    return found | {"path": path, "path_step": steps, "path_distance": np.array(distances), "explained": shares}


def _connection():
    """A barrier, a path below it, and no alignment."""
    points, ends, flag, count = Field((5,)), Field((2,)), Field((), "bool"), Field((), "int64")
    rise = 0.1 + 4 * np.linspace(0, 1, 5) * (1 - np.linspace(0, 1, 5))
    return (
        "connection",
        {
            **dict.fromkeys(("t", "straight", "aligned", "trained", "eigenvalue", "eigenvalue_error"), points),
            **dict.fromkeys(("height", "height_error"), Field((3,), labels=("straight", "aligned", "trained"))),
            **dict.fromkeys(("ends", "recomputed", "dropout", "dropout_error", "distance"), ends),
            **{"converged": flag, **dict.fromkeys(("evaluations", "gradients", "matvecs"), count)},
            "note": Field((), "S200"),
        },
        {"probe": "Connection", "kind": "bezier", "share": 0.25},
        lambda t, rng: {
            **{"t": np.linspace(0, 1, 5), "straight": rise, "aligned": np.full(5, np.nan), "trained": 0.1 + rise / 20},
            **{"eigenvalue": 5 * rise, "eigenvalue_error": np.full(5, 1e-3)},
            **{"height": [1.0, np.nan, 0.05], "height_error": [1e-6, np.nan, 1e-6], "ends": [0.1, 0.1]},
            **{
                "recomputed": [0.1, 0.1],
                "dropout": [0.3, 0.4],
                "dropout_error": [0.02, 0.03],
                "distance": [3.0, np.nan],
            },
            **{"converged": True, "evaluations": 107, "gradients": 200, "matvecs": 500, "note": "not aligned: no rule"},
        },
    )
