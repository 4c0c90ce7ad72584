"""The claims of `runs.edge_of_stability`, each with the rule that decides it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.numbers import plus_minus, short
from runs.edge_of_stability import criteria, jobs
from runs.engine.claims import Results, Verdict, claim

# "At 2/eta" is this band around it: the sharpness hovers just above (Cohen et al., 2021, section 3.2).
LOW, HIGH = 0.95, 1.15
GAP = 1.5  # a gap narrower than this separates nothing: neighbours differ by 1.1 to 1.3 everywhere
SMALL, SGD_RATE = jobs.RATES[0], jobs.SGD_RATE
SAMPLES = 1347


# -- gradient descent ----------------------------------------------------------------------------------------


@claim(
    "gradient descent sharpens",
    literature="the sharpness rises from its first value until it reaches 2/η (progressive sharpening: Cohen et al. "
    "2021)",
    criterion="every run starts below 2/η and reaches it, or ends with twice its first sharpness",
    needs="gd-*",
)
def sharpens(results: Results) -> Verdict:
    """Each run's first, and largest or last, sharpness."""
    ratios = criteria.ratios_of(results, "gd-*", "sharpness")
    rose = {name: r[0] < 1 and (criteria.reached(r) is not None or r[-1] > 2 * r[0]) for name, r in ratios.items()}
    told = [
        f"{criteria.rate_of(name)}: {r[0]:.2f} → {r.max() if criteria.reached(r) else r[-1]:.2f}"
        for name, r in ratios.items()
    ]
    return Verdict(
        all(rose.values()), "η λmax / 2, first → largest, by η: " + "; ".join(told), criteria.rounded_lists(ratios)
    )


@claim(
    "sharpness stays at 2/η",
    literature="once there, it stops rising and hovers just above 2/η (Cohen et al. 2021)",
    criterion=f"in every run that reaches 2/η the median of η λmax / 2 over the last third is in [{LOW}, {HIGH}]",
    needs="gd-*",
)
def stays(results: Results) -> Verdict:
    """The plateaus of the runs that get there."""
    ratios = {
        name: r
        for name, r in criteria.ratios_of(results, "gd-*", "sharpness").items()
        if criteria.reached(r) is not None
    }
    if not ratios:
        return Verdict(None, "no run reached 2/η")
    plateaus = {name: criteria.plateau(r) for name, r in ratios.items()}
    told = "; ".join(f"{criteria.rate_of(name)}: {value:.3f}" for name, value in plateaus.items())
    return Verdict(all(LOW <= v <= HIGH for v in plateaus.values()), f"by η: {told}", plateaus)


@claim(
    "the loss falls in the long run only",
    literature="at the edge the loss goes up and down from step to step and falls over long spans (Cohen et al. 2021)",
    criterion="from where 2/η is reached, at least 5 % of the steps raise the loss, and its mean over the last fifth "
    "is below half of that over the first fifth",
    needs="gd-*",
)
def falls(results: Results) -> Verdict:
    """Steps that raise the loss, and the loss at both ends of the stretch."""
    told, numbers, holds = [], {}, []
    for name, r in criteria.ratios_of(results, "gd-*", "sharpness").items():
        first = criteria.reached(r)
        if first is None:
            continue
        with results.trace(name) as trace:
            losses = trace["loss"]["value"][int(trace["sharpness"]["step"][first]) :]
        raised, drop = criteria.share_raised(losses), criteria.long_run(losses)
        holds.append(raised >= 0.05 and drop < 0.5)
        told.append(f"{criteria.rate_of(name)}: {raised:.0%}, loss × {drop:.2g}")
        numbers[name] = {"raised": raised, "drop": drop}
    return Verdict(all(holds) if holds else None, "steps that raise it, by η: " + "; ".join(told), numbers)


@claim(
    "a small step size stays stable",
    literature="below 2/η gradient descent lowers the loss at every step (descent lemma; Cohen et al. 2021)",
    criterion=f"at η = {SMALL} the sharpness never reaches 2/η and no step raises the loss (by more than 1e-6 of it)",
    needs=f"gd-{SMALL}",
    quick=True,
)
def stable(results: Results) -> Verdict:
    """The largest sharpness and the steps that raised the loss."""
    (ratio,) = criteria.ratios_of(results, f"gd-{SMALL}", "sharpness").values()
    with results.trace(f"gd-{SMALL}") as trace:
        raised = criteria.share_raised(trace["loss"]["value"])
    told = f"largest η λmax / 2: {ratio.max():.2f}; steps that raise the loss: {raised:.1%}"
    return Verdict(bool(ratio.max() < 1 and raised == 0), told, {"largest": float(ratio.max()), "raised": raised})


@claim(
    "cross-entropy: at 2/η until the end",
    literature="as with the square loss, but the sharpness falls when the loss nears zero (Cohen et al. 2021)",
    criterion=f"in every run at least a tenth of the measurements has η λmax / 2 >= {LOW}, and the last is below",
    needs="entropy-*",
)
def entropy(results: Results) -> Verdict:
    """How long the runs are at the edge."""
    ratios = criteria.ratios_of(results, "entropy-*", "sharpness")
    shares = {name: float((r >= LOW).mean()) for name, r in ratios.items()}
    told = [
        f"{criteria.rate_of(n)}: {shares[n]:.0%} there, largest {r.max():.2f}, last {r[-1]:.2f}"
        for n, r in ratios.items()
    ]
    holds = all(shares[name] >= 0.1 and r[-1] < LOW for name, r in ratios.items())
    return Verdict(holds, "by η: " + "; ".join(told), criteria.rounded_lists(ratios))


# -- SGD -----------------------------------------------------------------------------------------------------


@claim(
    "SGD: batch sharpness at 2/η",
    literature="the mean curvature of mini-batches along their own gradients settles at 2/η (Andreyev and Beneventano "
    "2024)",
    criterion=f"at every batch size the median of η · batch sharpness / 2 over the last third is in [{LOW}, {HIGH}]",
    needs="sgd-*",
)
def batch_sharpness(results: Results) -> Verdict:
    """The plateaus by batch size, with the typical error of one measurement."""
    plateaus = {
        name: criteria.plateau(r) for name, r in criteria.ratios_of(results, "sgd-*", "batch-sharpness").items()
    }
    told = "; ".join(f"{criteria.rate_of(name)}: {value:.2f}" for name, value in plateaus.items())
    return Verdict(all(LOW <= v <= HIGH for v in plateaus.values()), f"η = {SGD_RATE}, by batch: {told}", plateaus)


@claim(
    "SGD: λmax stays below",
    literature="λmax stays below 2/η and below the batch sharpness (Andreyev and Beneventano 2024)",
    criterion="at every batch size up to a tenth of the data the median of λmax over the last third is below 2/η and "
    "below that of the batch sharpness",
    needs="sgd-*",
)
def below(results: Results) -> Verdict:
    """Both plateaus of the small batches."""
    largest = {name: criteria.plateau(r) for name, r in criteria.ratios_of(results, "sgd-*", "sharpness").items()}
    batch = {name: criteria.plateau(r) for name, r in criteria.ratios_of(results, "sgd-*", "batch-sharpness").items()}
    small = [name for name in largest if int(criteria.rate_of(name)) <= SAMPLES / 10]
    told = "; ".join(
        f"{criteria.rate_of(name)}: {largest[name]:.2f} (batch sharpness {batch[name]:.2f})" for name in small
    )
    holds = all(largest[name] < min(1.0, batch[name]) for name in small)
    return Verdict(holds, f"η λmax / 2 by batch: {told}", {"sharpness": largest, "batch sharpness": batch})


@claim(
    "SGD: smaller batches, flatter",
    literature="the smaller the batch, the lower λmax at the same step size (Jastrzębski et al. 2020; Andreyev and "
    "Beneventano 2024)",
    criterion="the median of λmax over the last third rises with every batch size, up to the full batch",
    needs=["sgd-*", f"gd-{SGD_RATE}"],
)
def flatter(results: Results) -> Verdict:
    """The plateaus of λmax in the order of the batch sizes."""
    ratios = criteria.ratios_of(results, "sgd-*", "sharpness") | criteria.ratios_of(
        results, f"gd-{SGD_RATE}", "sharpness"
    )
    plateaus = {name: criteria.plateau(r) for name, r in ratios.items()}
    values = list(plateaus.values())
    told = "; ".join(f"{criteria.rate_of(n) if n.startswith('sgd') else 'all'}: {v:.3f}" for n, v in plateaus.items())
    return Verdict(bool((np.diff(values) > 0).all()), f"η λmax / 2 by batch: {told}", plateaus)


# -- the whole spectrum --------------------------------------------------------------------------------------


@claim(
    "a bulk at zero",
    literature="nearly all eigenvalues are small, before and after training (Sagun et al. 2017)",
    criterion="at least 90 % of the eigenvalues are within 1 % of λmax around zero, before and after, at every number "
    "of classes",
    needs="digits-*",
)
def bulk(results: Results) -> Verdict:
    """The mass of the density around zero."""
    shares = {name: criteria.masses_at_zero(results, name) for name in results.data("digits-*")}
    told = [
        f"{criteria.rate_of(n)}: {100 * a[0]:.1f} ± {100 * a[1]:.1f} → {100 * b[0]:.1f} ± {100 * b[1]:.1f} %"
        for n, (a, b) in shares.items()
    ]
    holds = all(mass >= 0.9 for pair in shares.values() for mass, _ in pair)
    return Verdict(holds, "by classes, before → after: " + "; ".join(told), shares)


def _outliers(results: Results, pattern: str) -> Verdict:
    found = results.data(pattern)
    separate = [d["outliers"][1] in (d["classes"] - 1, d["classes"]) and d["gap"][1] >= GAP for d in found.values()]
    told = "; ".join(f"{d['classes']}: {d['outliers'][1]} (gap × {short(d['gap'][1], 3)})" for d in found.values())
    squares = ", ".join(str((d["classes"] - 1) ** 2) for d in found.values())
    return Verdict(all(separate), f"by classes: {told}; (K − 1)² would be {squares}", found)


_RULE = (
    f"at every number of classes K the widest gap in log spacing lies below K or K − 1 eigenvalues and is × {GAP} or "
    "wider (rule of `probes.outliers`, 30 eigenvalues, after training)"
)


@claim(
    "as many outliers as classes",
    literature="outliers of the trained network's Hessian are as many as classes (Sagun et al. 2017) or one fewer",
    criterion=_RULE,
    needs="digits-*",
)
def classes(results: Results) -> Verdict:
    """On the digits."""
    return _outliers(results, "digits-*")


@claim(
    "the same on Gaussian clusters",
    literature="as above, on the kind of data where it was first seen: one cluster a class (Sagun et al. 2017)",
    criterion=_RULE,
    needs="blobs-*",
)
def clusters(results: Results) -> Verdict:
    """On data that are nothing but classes."""
    return _outliers(results, "blobs-*")


# -- the minima that SGD keeps -------------------------------------------------------------------------------


@claim(
    "SGD keeps tr(H) ≤ 2/η",
    literature="a minimum that is linearly stable for SGD has tr(H) ≤ 2/η (Wu and Su 2023): batch size 1, half square "
    "loss, one output, every sample fitted, second moments bounded under the linearised steps",
    criterion="every run that did not diverge ends with tr(H) − 2 stderr ≤ 2/η; runs start from random weights, and "
    "from a minimum with tr(H) a multiple of 2/η",
    needs=["keep", "scratch-*"],
)
def kept(results: Results) -> Verdict:
    """The trace at the end of each run, in units of 2/η."""
    runs = [(f"× {run['ratio']:g}", run) for run in results.data("keep")["keep"]["runs"]]
    runs += [(f"random, η {run['rate']:g}", run) for run in results.data("scratch-*").values()]
    told = "; ".join(f"{start} → {criteria.in_thresholds(run)}" for start, run in runs)
    survivors = [run for _, run in runs if run["kept"]]
    holds = all(run["trace"] - 2 * run["stderr"] <= 2 / run["rate"] for run in survivors)
    return Verdict(holds if survivors else None, f"η tr(H) / 2, start → end: {told}", {"runs": [r for _, r in runs]})


@claim(
    "gradient descent does not",
    literature="stability bounds λmax alone for gradient descent (Wu and Su 2023)",
    criterion=f"the minimum that those runs start from has λmax ≤ {HIGH} · 2/η, and tr(H) − 2 stderr > 2/η, for its "
    "own η",
    needs="keep",
)
def unbounded(results: Results) -> Verdict:
    """Sharpness and trace of gradient descent's minimum."""
    found = results.data("keep")["keep"]
    half = found["rate"] / 2
    holds = half * found["sharpness"] <= HIGH and half * (found["trace"] - 2 * found["stderr"]) > 1
    trace = plus_minus(half * found["trace"], half * found["stderr"])
    told = f"η = {found['rate']}: η λmax / 2 = {half * found['sharpness']:.2f}, η tr(H) / 2 = {trace}"
    return Verdict(bool(holds), told, {name: found[name] for name in ("rate", "sharpness", "trace", "stderr", "loss")})


CLAIMS: Sequence[Any] = (
    sharpens,
    stays,
    falls,
    stable,
    entropy,
    batch_sharpness,
    below,
    flatter,
    bulk,
    classes,
    clusters,
    kept,
    unbounded,
)
