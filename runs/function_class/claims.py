"""The claims of `runs.function_class` on networks; those on toy examples and theorems are in `exact_claims`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from landscape.regularity import aiming, angles, polyak_lojasiewicz
from probes.numbers import short
from runs.engine.claims import Claim, Results, Source, Verdict, claim
from runs.function_class import criteria
from runs.function_class.criteria import GAP, PAPER
from runs.shared.tables import falling, listed, rising, span

DELTAS = (1.0, 1.25, 1.5, 1.75)
TINY = 1e-6
BETA = f"β at gap {GAP} of all 4 seeds (each alone)"
NETWORKS = ["mlp-*", "cnn-*", "depth-*", "batch-*", "optimizer-*", "lstm", "transformer"]


def _sizes(
    name: str,
    pattern: str,
    *,
    source: Source = "text",
    said: str,
    rule: str,
    by: str,
    decide: Callable[[Sequence[float]], bool] = falling,
) -> Claim:
    """A claim on beta, or on its product with f(x_K), of each configuration in the order of the jobs."""

    product = rule.startswith("times")
    what = "β · f(x_K)" if product else BETA

    @claim(
        name,
        source=source,
        literature=f"{said} ({PAPER})",
        criterion=f"β at gap {GAP} {rule} (undecided where β is 0 in all)",
        needs=pattern,
    )
    def judge(results: Results) -> Verdict:
        found = criteria.family(results, pattern)
        values = [s.beta * s.sigma2 if product else s.beta for s in found.values()]
        told = {n: short(v, 3) if product else s for (n, s), v in zip(found.items(), values, strict=True)}
        holds = bool(np.isfinite(values).all()) and decide(values) if any(values) else None
        return Verdict(holds, f"{what}{by}: {listed(told)}; {criteria.vacuous_text(found)}", criteria.as_json(found))

    return judge


wide = _sizes(
    "MLP: up, then down with width",
    "mlp-*",
    said="the smallest α and β rise up to a width (512 of 32 to 4096, Fashion-MNIST) and fall from there",
    rule="rises with every width up to one inside 16 … 512 and falls with every one after it",
    by=" by width",
    decide=criteria.rises_then_falls,
)
channels = _sizes(
    "CNN: up, then down with channels",
    "cnn-*",
    said="the smallest α and β rise up to 64 or 128 channels (of 32 to 2048, CIFAR10) and fall from there",
    rule="rises with every number of channels up to one inside 4 … 64 and falls with every one after it",
    by=" by channels",
    decide=criteria.rises_then_falls,
)
deep = _sizes(
    "deeper, smaller",
    "depth-*",
    said="the smallest α and β fall with depth (ResNets on CIFAR100)",
    rule="falls with every doubling of the residual blocks, 1 … 8",
    by=" by blocks",
)
batch = _sizes(
    "larger batches, smaller",
    "batch-*",
    said="the smallest α and β fall with the batch size (ResNet9, CIFAR100)",
    rule="falls with every doubling of the batch, 32 … 256",
    by=" by batch",
)
optimizer = _sizes(
    "Adam < momentum < SGD",
    "optimizer-*",
    said="α and β are smallest for Adam and largest for SGD (ResNet9, CIFAR100)",
    rule="of Adam is below that of SGD with momentum, and that below SGD's",
    by="",
    decide=rising,
)


def _noise_floor(what: str, pattern: str, of: str, rule: str, by: str) -> Claim:
    said = f"β σ_int², the noise floor of the theorems, falls with {of}"
    rule = f"times the mean of f(x_K) {rule}"
    return _sizes(f"noise floor falls with {what}", pattern, said=said, rule=rule, by=by)


noise_width = _noise_floor("width", "mlp-*", "width", "(f_k^* = 0) falls with every width of the MLP", " by width")
noise_depth = _noise_floor("depth", "depth-*", "depth", "falls with every doubling of the blocks", " by blocks")
noise_batch = _noise_floor(
    "the batch", "batch-*", "the batch size", "falls with every doubling of the batch", " by batch"
)


@claim(
    "networks are α-β",
    source="text",
    literature=f"a pair that works in all runs of every architecture is found along the trajectories ({PAPER})",
    criterion=f"a finite β exists at gap {GAP} for all seeds of every configuration at once; where every f_k(x_K) > 0 "
    "it has to (vacuous)",
    needs=NETWORKS,
    quick=True,
)
def works(results: Results) -> Verdict:
    found = criteria.smallest_of(results, *NETWORKS)
    finite = [s.beta for s in found.values() if np.isfinite(s.beta)]
    told = f"{len(finite)} of {len(found)} configurations; {criteria.vacuous_text(found)}, so only the size of β says "
    told += f"something: {span(finite)}; 99 % of the steps: {span([s.most for s in found.values()])}"
    return Verdict(len(finite) == len(found), told, criteria.as_json(found))


@claim(
    "language models need more",
    source="text",
    literature=f"α and β of LSTMs and Transformers are larger than those of small image models ({PAPER})",
    criterion=f"β at gap {GAP} of the LSTM and of the Transformer exceeds that of every MLP and CNN",
    needs=["mlp-*", "cnn-*", "lstm", "transformer"],
)
def language(results: Results) -> Verdict:
    text, images = (criteria.smallest_of(results, *jobs) for jobs in (("lstm", "transformer"), ("mlp-*", "cnn-*")))
    betas = [s.beta for s in images.values()]
    told = f"{BETA}: {listed(text)}; MLPs and CNNs: {span(betas)}; {criteria.vacuous_text(text | images)}"
    return Verdict(min(s.beta for s in text.values()) > max(betas), told, criteria.as_json(text | images))


# -- the competitors -----------------------------------------------------------------------------------------


@claim(
    "PL constants are tiny",
    source="text",
    literature=f"‖∇f‖^δ ≥ (2μ)^(δ/2) (f − f(x_K)) on the LSTM's path has μ of 1e-9 to 1e-7, δ in 1 … 1.75 ({PAPER})",
    criterion=f"μ of the whole loss, every 8 steps, is below {TINY:g} for each δ in {', '.join(map(str, DELTAS))} and "
    "in every LSTM run",
    needs="lstm",
)
def pl(results: Results) -> Verdict:
    runs = criteria.runs_of(results, "lstm", full=True)
    mu = {d: [polyak_lojasiewicz(t, d).value for t in runs] for d in DELTAS}
    told = "μ over the seeds, by δ: " + listed({f"{d:g}": span(values) for d, values in mu.items()})
    images = [t for name in results.data("mlp-*", "cnn-*") for t in criteria.runs_of(results, name, full=True)]
    others = [polyak_lojasiewicz(t).value for t in images]
    told += f"; MLPs and CNNs at δ = 2: {span(others)}"
    told += "; a finite path without a stationary point always has some μ > 0 (vacuous)"
    return Verdict(max(max(values) for values in mu.values()) < TINY, told, {str(d): v for d, v in mu.items()})


@claim(
    "aiming fails on the LSTM's plateau",
    source="figure",
    literature=f"−∇f points away from x_K in the initial plateau of LSTM training and towards it later ({PAPER})",
    criterion="in every LSTM run the cosine of ∇f and x − x_K (whole loss, every 8 steps) is negative at some step of "
    "the first fifth, and at no step of the second half",
    needs="lstm",
)
def plateau(results: Results) -> Verdict:
    runs = criteria.runs_of(results, "lstm", full=True)
    early = [float(np.nanmin(angles(t)[criteria.first_part(t, 0.2)])) for t in runs]
    late = [float(np.nanmin(angles(t)[~criteria.first_part(t, 0.5)])) for t in runs]
    theta = [aiming(t).value for t in runs]
    told = f"least cosine, first fifth: {span(early)}; second half: {span(late)}; aiming θ: "
    told += f"{span(theta)}; towards its own end point a path tends to point (partly circular)"
    return Verdict(max(early) < 0 <= min(late), told, {"early": early, "late": late, "theta": theta})


@claim(
    "gradients point to the end",
    source="text",
    literature="the cosine of sampled gradients and x − x_K is almost always positive (Guille-Escuret et al. 2023)",
    criterion="in every run of every network at least 95 % of the steps have a positive cosine, each with its "
    "own batch",
    needs=NETWORKS,
)
def pointing(results: Results) -> Verdict:
    runs = {name: criteria.runs_of(results, name) for name in results.data(*NETWORKS)}
    shares = {name: [float((t.inner > 0).mean()) for t in of_job] for name, of_job in runs.items()}
    below = {name: span(s, 4) for name, s in shares.items() if min(s) < 0.95}
    every = [s for values in shares.values() for s in values]
    few = f"; below 0.95: {listed(below)}" if below else ""
    told = f"shares of {span(every, 4)} over {len(every)} runs{few}; x_K is the end of the same path (partly circular)"
    return Verdict(not below, told, {name: [round(s, 4) for s in values] for name, values in shares.items()})


@claim(
    "one outlier sets β",
    source="own",
    literature="the smallest pair must hold at every step of every run, so that few steps may set it (own question)",
    criterion=f"in most configurations β at gap {GAP} for 99 % of the rows is at most half of that for all",
    needs=NETWORKS,
)
def outliers(results: Results) -> Verdict:
    found = criteria.smallest_of(results, *NETWORKS)
    half = [name for name, s in found.items() if 0 < s.beta >= 2 * s.most]
    told = listed({name: f"{short(s.beta, 3)} → {short(s.most, 3)}" for name, s in found.items()})
    told = f"{len(half)} of {len(found)} configurations; all → 99 %: {told}"
    return Verdict(len(half) > len(found) / 2, told, criteria.as_json(found))


SIZES = wide, channels, deep, batch, optimizer, noise_width, noise_depth, noise_batch
CLAIMS = works, *SIZES, language, outliers, pl, plateau, pointing
