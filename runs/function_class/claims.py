"""The claims of `runs.function_class` on networks; those on toy examples and theorems are in `function_class_exact`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from landscape.regularity import Trajectory, aiming, angles, polyak_lojasiewicz
from probes.numbers import short
from runs.engine.claims import Claim, Results, Verdict, claim
from runs.function_class import criteria
from runs.function_class.criteria import GAP, Smallest, listed

PAPER = "Islamov et al. 2024"
DELTAS = (1.0, 1.25, 1.5, 1.75)
TINY = 1e-6
NETWORKS = ["mlp-*", "cnn-*", "depth-*", "batch-*", "optimizer-*", "lstm", "transformer"]


def _sizes(
    name: str,
    pattern: str,
    said: str,
    rule: str,
    decide: Callable[[Sequence[float]], bool],
    measure: Callable[[Smallest], float],
    what: str,
) -> Claim:
    """A claim on a number of each configuration, in the order of the jobs."""

    rule += " (undecided where β is 0 in all)"

    @claim(name, literature=f"{said} ({PAPER})", criterion=rule, needs=pattern)
    def judge(results: Results) -> Verdict:
        found = criteria.family(results, pattern)
        values = [measure(s) for s in found.values()]
        shown = {n: str(s) if measure is _beta else measure(s) for n, s in found.items()}
        told = f"{what}: {listed(shown)}; {criteria.vacuous_in(found)}"
        holds = bool(np.isfinite(values).all()) and decide(values) if any(values) else None
        return Verdict(holds, told, criteria.kept(found))

    return judge


def _beta(s: Smallest) -> float:
    return s.beta


def _product(s: Smallest) -> float:
    return s.beta * s.sigma2


BETA = f"β at gap {GAP} of all 4 seeds (each alone)"
PRODUCT = "β · f(x_K)"
wide = _sizes(
    "MLP: up, then down with width",
    "mlp-*",
    "the smallest α and β rise up to a width (512 of 32 to 4096, Fashion-MNIST) and fall from there",
    f"β at gap {GAP} rises with every width up to one inside 16 … 512 and falls with every one after it",
    criteria.rises_then_falls,
    _beta,
    BETA + " by width",
)
channels = _sizes(
    "CNN: up, then down with channels",
    "cnn-*",
    "the smallest α and β rise up to 64 or 128 channels (of 32 to 2048, CIFAR10) and fall from there",
    f"β at gap {GAP} rises with every number of channels up to one inside 4 … 64 and falls with every one after it",
    criteria.rises_then_falls,
    _beta,
    BETA + " by channels",
)
deep = _sizes(
    "deeper, smaller",
    "depth-*",
    "the smallest α and β fall with depth (ResNets on CIFAR100)",
    f"β at gap {GAP} falls with every doubling of the residual blocks, 1 … 8",
    criteria.falls,
    _beta,
    BETA + " by blocks",
)
batch = _sizes(
    "larger batches, smaller",
    "batch-*",
    "the smallest α and β fall with the batch size (ResNet9, CIFAR100)",
    f"β at gap {GAP} falls with every doubling of the batch, 32 … 256",
    criteria.falls,
    _beta,
    BETA + " by batch",
)
optimizer = _sizes(
    "Adam < momentum < SGD",
    "optimizer-*",
    "α and β are smallest for Adam and largest for SGD (ResNet9, CIFAR100)",
    f"β at gap {GAP} of Adam is below that of SGD with momentum, and that below SGD's",
    lambda values: criteria.falls(values[::-1]),
    _beta,
    BETA,
)
_SAID = "β σ_int², the noise floor of the theorems, falls with"
noise_width = _sizes(
    "noise floor falls with width",
    "mlp-*",
    f"{_SAID} width",
    f"β at gap {GAP} times the mean of f(x_K) (f_k^* = 0) falls with every width of the MLP",
    criteria.falls,
    _product,
    PRODUCT + " by width",
)
noise_depth = _sizes(
    "noise floor falls with depth",
    "depth-*",
    f"{_SAID} depth",
    f"β at gap {GAP} times the mean of f(x_K) falls with every doubling of the blocks",
    criteria.falls,
    _product,
    PRODUCT + " by blocks",
)
noise_batch = _sizes(
    "noise floor falls with the batch",
    "batch-*",
    f"{_SAID} the batch size",
    f"β at gap {GAP} times the mean of f(x_K) falls with every doubling of the batch",
    criteria.falls,
    _product,
    PRODUCT + " by batch",
)


@claim(
    "networks are α-β",
    literature=f"a pair that works in all runs of every architecture is found along the trajectories ({PAPER})",
    criterion=f"a finite β exists at gap {GAP} for all seeds of every configuration at once; where every f_k(x_K) > 0 "
    "it has to (vacuous)",
    needs=NETWORKS,
    quick=True,
)
def works(results: Results) -> Verdict:
    """Whether a pair exists, and the range of its size."""
    found = {name: criteria.smallest(results, name) for pattern in NETWORKS for name in results.data(pattern)}
    betas = {name: s.beta for name, s in found.items()}
    finite = [b for b in betas.values() if np.isfinite(b)]
    told = f"{len(finite)} of {len(found)} configurations; {criteria.vacuous_in(found)}, so only the size of β says "
    told += f"something: {criteria.span(finite)}; 99 % of the steps: {criteria.span([s.most for s in found.values()])}"
    return Verdict(len(finite) == len(found), told, criteria.kept(found))


@claim(
    "language models need more",
    literature=f"α and β of LSTMs and Transformers are larger than those of small image models ({PAPER})",
    criterion=f"β at gap {GAP} of the LSTM and of the Transformer exceeds that of every MLP and CNN",
    needs=["mlp-*", "cnn-*", "lstm", "transformer"],
)
def language(results: Results) -> Verdict:
    """beta on text beside beta on digits."""
    text = {name: criteria.smallest(results, name) for name in ("lstm", "transformer")}
    images = {n: criteria.smallest(results, n) for p in ("mlp-*", "cnn-*") for n in results.data(p)}
    betas = [s.beta for s in images.values()]
    told = f"{BETA}: {listed({n: str(s) for n, s in text.items()})}; MLPs and CNNs: {criteria.span(betas)}; "
    told += criteria.vacuous_in(text | images)
    return Verdict(min(s.beta for s in text.values()) > max(betas), told, criteria.kept(text | images))


# -- the competitors -----------------------------------------------------------------------------------------


@claim(
    "PL constants are tiny",
    literature=f"‖∇f‖^δ ≥ (2μ)^(δ/2) (f − f(x_K)) on the LSTM's path has μ of 1e-9 to 1e-7, δ in 1 … 1.75 ({PAPER})",
    criterion=f"μ of the whole loss, every 8 steps, is below {TINY:g} for each δ in {', '.join(map(str, DELTAS))} and "
    "in every LSTM run",
    needs="lstm",
)
def pl(results: Results) -> Verdict:
    """The generalised PL constants of the LSTM."""
    runs = criteria.runs_of(results, "lstm", full=True)
    mu = {d: [polyak_lojasiewicz(t, d).value for t in runs] for d in DELTAS}
    told = "μ over the seeds, by δ: " + "; ".join(f"{d:g}: {criteria.span(values)}" for d, values in mu.items())
    others = [polyak_lojasiewicz(t).value for n in ("mlp-*", "cnn-*") for t in _every(results, n)]
    told += f"; MLPs and CNNs at δ = 2: {criteria.span(others)}"
    told += "; a finite path without a stationary point always has some μ > 0 (vacuous)"
    return Verdict(max(max(values) for values in mu.values()) < TINY, told, {str(d): v for d, v in mu.items()})


@claim(
    "aiming fails on the LSTM's plateau",
    literature=f"−∇f points away from x_K in the initial plateau of LSTM training and towards it later ({PAPER})",
    criterion="in every LSTM run the cosine of ∇f and x − x_K (whole loss, every 8 steps) is negative at some step of "
    "the first fifth, and at no step of the second half",
    needs="lstm",
)
def plateau(results: Results) -> Verdict:
    """The cosine early and late, and the aiming coefficient."""
    runs = criteria.runs_of(results, "lstm", full=True)
    early = [float(np.nanmin(angles(t)[criteria.first_part(t, 0.2)])) for t in runs]
    late = [float(np.nanmin(angles(t)[~criteria.first_part(t, 0.5)])) for t in runs]
    theta = [aiming(t).value for t in runs]
    told = f"least cosine, first fifth: {criteria.span(early)}; second half: {criteria.span(late)}; aiming θ: "
    told += f"{criteria.span(theta)}; towards its own end point a path tends to point (partly circular)"
    return Verdict(max(early) < 0 <= min(late), told, {"early": early, "late": late, "theta": theta})


@claim(
    "gradients point to the end",
    literature="the cosine of sampled gradients and x − x_K is almost always positive (Guille-Escuret et al. 2023)",
    criterion="in every run of every network at least 95 % of the steps have a positive cosine, each with its "
    "own batch",
    needs=NETWORKS,
)
def pointing(results: Results) -> Verdict:
    """The share of steps with a positive cosine."""
    shares = {
        name: [float((t.inner > 0).mean()) for t in criteria.runs_of(results, name)]
        for pattern in NETWORKS
        for name in results.data(pattern)
    }
    below = {name: criteria.span(s, 4) for name, s in shares.items() if min(s) < 0.95}
    every = [s for values in shares.values() for s in values]
    told = f"shares of {criteria.span(every, 4)} over {len(every)} runs"
    told += f"; below 0.95: {listed(below)}" if below else ""
    told += "; x_K is the end of the same path (partly circular)"
    return Verdict(not below, told, {name: [round(s, 4) for s in values] for name, values in shares.items()})


@claim(
    "one outlier sets β",
    literature="the smallest pair must hold at every step of every run, so that few steps may set it (own question)",
    criterion=f"in most configurations β at gap {GAP} for 99 % of the rows is at most half of that for all",
    needs=NETWORKS,
)
def outliers(results: Results) -> Verdict:
    """beta for all rows over beta for 99 %."""
    found = {name: criteria.smallest(results, name) for pattern in NETWORKS for name in results.data(pattern)}
    half = [name for name, s in found.items() if 0 < s.beta >= 2 * s.most]
    told = f"{len(half)} of {len(found)} configurations; all → 99 %: "
    told += "; ".join(f"{name}: {short(s.beta, 3)} → {short(s.most, 3)}" for name, s in found.items())
    return Verdict(len(half) > len(found) / 2, told, criteria.kept(found))


def _every(results: Results, pattern: str) -> list[Trajectory]:
    return [t for name in results.data(pattern) for t in criteria.runs_of(results, name, full=True)]


CLAIMS: tuple[Any, ...] = (
    works,
    wide,
    channels,
    deep,
    batch,
    optimizer,
    noise_width,
    noise_depth,
    noise_batch,
    language,
    outliers,
    pl,
    plateau,
    pointing,
)
