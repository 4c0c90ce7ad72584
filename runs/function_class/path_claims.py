"""The claims of `runs.function_class` on all networks' paths, on the LSTM, and on the competitors of the condition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from landscape.regularity import aiming, angles, polyak_lojasiewicz
from landscape.regularity.trajectory import Reference
from probes.numbers import short
from runs.engine.claims import Control, Results, Verdict, claim
from runs.function_class import criteria
from runs.function_class.criteria import GAP, PAPER
from runs.shared.tables import listed, span

DELTAS = (1.0, 1.25, 1.5, 1.75)
NETWORKS = [f"{name}-*" for name in ("mlp", "batch", "lstm", "cnn", "depth", "optimizer", "transformer")]
LSTM = (
    "LSTM of three layers on 32,768 bytes of English, normalised SGD with momentum, 1,500 steps, whole loss every 12, "
    "3 seeds"
)
BYTES = 2.99
OTHER = "batch-64"  # an MLP on Fashion-MNIST: no plateau


@claim(
    "networks are α-β",
    source="text",
    literature=f"Sec. 5: along the trajectories of every architecture pairs are found that work in all runs ({PAPER})",
    criterion=f"for each configuration a β at gap {GAP} works for all seeds, and it is at most a tenth of the one that "
    "the gradients turned around would need: where every f_k(x_K) > 0 some β works whatever the gradients are",
    needs=NETWORKS,
    control=Control("the gradients turned around", lambda judge, results: judge(results, turned=True)),
)
def works(results: Results, turned: bool = False) -> Verdict:
    found = criteria.smallest_of(results, *NETWORKS)
    betas = {name: (s.beta, max(s.turned)) for name, s in found.items()}
    if turned:
        betas = {name: (other, own) for name, (own, other) in betas.items()}
    passed = [name for name, (own, other) in betas.items() if np.isfinite(own) and own <= 0.1 * other]
    own, other = ([pair[i] for pair in betas.values()] for i in range(2))
    told = f"{len(passed)} of {len(found)} configurations; β {span(own)}, turned around {span(other)}"
    failed = [name for name in found if name not in passed]
    told += f"; not: {', '.join(failed)}" if failed and not turned else ""
    told += f"; for 99 % of the steps {span([max(s.most) for s in found.values()])}; {criteria.vacuous_text(found)}, "
    told += f"f_k(x_K) = 0 at some step of {sum(len(s.seeds) - s.vacuous for s in found.values())}"
    return Verdict(not failed, told, criteria.as_json(found))


@claim(
    "language models need more",
    source="text",
    literature="Sec. 5.4, App. D.2: the values of AlgoPerf's workloads are higher than those of the smaller models, "
    f"and the LSTM's pairs are large, believed to be because its loss ends far from 0 ({PAPER})",
    criterion=f"the median over seeds of β at gap {GAP} of the LSTM, which ends below the entropy of single bytes, "
    "exceeds that of every MLP: of widths 16 … 512 on the digits, with batches of 64 … 512 on Fashion-MNIST",
    needs=["mlp-*", "batch-*", "lstm-*", "transformer-*"],
    control=Control("the MLP of width 32 in place of the LSTM", lambda judge, results: judge(results, chosen="mlp-32")),
)
def language(results: Results, chosen: str = "lstm") -> Verdict:
    found = criteria.smallest_of(results, "mlp-*", "batch-*", "lstm-*", "transformer-*")
    images = [s.median for name, s in found.items() if name not in (chosen, "lstm", "transformer")]
    told = f"{listed(found)}; f(x_K) of the LSTM {span(found['lstm'].losses)}; {criteria.vacuous_text(found)}"
    return Verdict(found[chosen].median > max(images), told, criteria.as_json(found))


def _plateau(results: Results, name: str) -> tuple[list[float], list[float]]:
    """The least cosine of each run, over its first fifth and over its second half."""
    early, late = [], []
    for job in criteria.jobs_of(results, f"{name}-*")[name]:
        t = criteria.rows_of(results, job, "whole")
        early.append(float(np.nanmin(angles(t)[criteria.first_part(t, 0.2)])))
        late.append(float(np.nanmin(angles(t)[~criteria.first_part(t, 0.5)])))
    return early, late


def _elsewhere(judge: Callable[..., Verdict], results: Results) -> Verdict:
    return judge(results, name=OTHER)


@claim(
    "aiming fails on the LSTM's plateau",
    source="figure",
    literature="Fig. 1a-b: in the first part of training the angle between ∇f and x − x_K can be negative, on a "
    f"plateau, by about 1e-3, and is positive later; mean of 7 seeds ({PAPER})",
    criterion=f"{LSTM}: the mean over the seeds of the least cosine over the first fifth is negative, that over the "
    "second half positive",
    needs=["lstm-*", f"{OTHER}-*"],
    control=Control("an MLP on Fashion-MNIST, which has no plateau", _elsewhere),
    other_setup="this LSTM leaves its plateau within 50 steps of 1,500",
)
def plateau(results: Results, name: str = "lstm") -> Verdict:
    early, late = _plateau(results, name)
    below = sum(value < 0 for value in early)
    told = f"least cosine, first fifth: {np.mean(early):.4f} ({span(early)}; negative in {below} of {len(early)}); "
    told += f"second half: {np.mean(late):.3f} ({span(late)})"
    if name == "lstm":
        runs = [criteria.rows_of(results, job, "whole") for job in results.data("lstm-*")]
        left = [int(t.steps[t.loss < BYTES].min(initial=t.steps[-1])) for t in runs]
        told += f"; a short plateau: below the entropy of single bytes, {BYTES}, from step {span(left)}; aiming's θ "
        told += f"{span(aiming(t).value for t in runs)}; a path tends to point towards its own end (partly circular)"
    return Verdict(bool(np.mean(early) < 0 < np.mean(late)), told, {"early": early, "late": late})


@claim(
    "PL constants: small on the plateau, larger at the end",
    source="text",
    literature="Sec. 2.2, App. A: ‖∇f‖^δ ≥ (2μ)^(δ/2) (f − f(x_K)) on the LSTM's path has μ of 1e-9 … 1e-7, so that it "
    f"does not hold globally; it might hold around the end, where the values are large enough ({PAPER})",
    criterion=f"{LSTM}: for each δ in {', '.join(map(str, DELTAS))} the μ that a step allows is least in the first "
    "fifth, and over the last fifth at least ten times as large, medians over the seeds",
    needs="lstm-*",
    control=Control(
        "0 in place of f(x_K), no longer what the path ends at (settled after the run; an MLP passes as well)",
        lambda judge, results: judge(results, reference="infimum"),
    ),
)
def pl(results: Results, reference: Reference = "final") -> Verdict:
    runs = [criteria.rows_of(results, job, "whole") for job in results.data("lstm-*")]
    least: dict[str, list[float]] = {}
    for delta in DELTAS:
        parts = []
        for t in runs:
            mu = polyak_lojasiewicz(t, delta, reference).per_step
            first, last = (criteria.first_part(t, share) for share in (0.2, 0.8))
            parts.append([float(mu[rows].min()) for rows in (first, ~first, ~last)])
        least[f"{delta:g}"] = [float(value) for value in np.median(parts, axis=0)]
    holds = all(first <= later and end >= 10 * first for first, later, end in least.values())
    told = "median μ over the first fifth, later, over the last fifth: "
    told += listed({d: ", ".join(short(value, 2) for value in values) for d, values in least.items()})
    return Verdict(holds, told, {d: [*map(criteria.number, values)] for d, values in least.items()})


@claim(
    "gradients point to the end",
    source="text",
    literature="the cosine of sampled gradients and x − x_K is almost always positive (Guille-Escuret et al. 2023)",
    criterion="in every run of every network at least 95 % of the steps have a positive cosine, each with its "
    "own batch",
    needs=NETWORKS,
    control=Control("the gradients turned around", lambda judge, results: judge(results, sign=-1)),
)
def pointing(results: Results, sign: int = 1) -> Verdict:
    runs = {name: criteria.rows_of(results, name) for name in results.data(*NETWORKS)}
    shares = {name: float((sign * t.inner > 0).mean()) for name, t in runs.items()}
    below = {name: short(share, 4) for name, share in shares.items() if share < 0.95}
    few = f"; below 0.95: {listed(below)}" if below and sign == 1 else ""
    told = f"shares of {span(shares.values(), 4)} over {len(shares)} runs{few}; x_K is the end of the same path "
    return Verdict(not below, f"{told}(partly circular)", {name: round(share, 4) for name, share in shares.items()})


@claim(
    "one outlier sets β",
    source="own",
    literature="the smallest pair must hold at every step of every run, so that few steps may set it (own question)",
    criterion=f"in most configurations β at gap {GAP} for 99 % of the steps is at most half of that for all, medians "
    "over the seeds",
    needs=NETWORKS,
)
def outliers(results: Results) -> Verdict:
    found = criteria.smallest_of(results, *NETWORKS)
    half = [name for name, s in found.items() if 0 < s.median >= 2 * float(np.median(s.most))]
    told = listed({n: f"{short(s.median, 3)} → {short(float(np.median(s.most)), 3)}" for n, s in found.items()})
    told = f"{len(half)} of {len(found)} configurations; all → 99 %: {told}"
    return Verdict(len(half) > len(found) / 2, told, criteria.as_json(found))


CLAIMS = works, language, outliers, pl, plateau, pointing
