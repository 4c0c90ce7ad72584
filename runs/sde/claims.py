"""The claims of `runs.sde` on how an SDE stands beside its solver, each with the rule that decides it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from runs.engine.claims import Results, Verdict, claim
from runs.sde.criteria import (
    BAND,
    MEAN,
    MOMENT,
    POWER,
    band_tracks,
    extremes,
    mean_power,
    mean_tracks,
    smallest,
    worst_mean,
)
from runs.sde.jobs import FINER, QUADRATICS, RULES_ON

SIGN = "Compagnoni et al., arXiv 2411.15958"
SAM = "Compagnoni et al., arXiv 2301.08203"
EXACT = (*QUADRATICS, "cauchy")
WAYS = {"solver": "solver", "sde": "SDE"}


def tracks(results: Results, problems: Sequence[str]) -> dict[str, Any]:
    """The data of every rule on these problems, by `problem-rule`."""
    return {name.removeprefix("track-"): data for p in problems for name, data in results.data(f"track-{p}-*").items()}


def needs(problems: Sequence[str]) -> list[str]:
    """The jobs of these problems."""
    return [f"track-{p}-{rule}" for p in problems for rule in RULES_ON[p]]


def listed(values: dict[str, str]) -> str:
    """`a: 1; b: 2`."""
    return "; ".join(f"{name}: {value}" for name, value in values.items())


_MEANS = (
    f"every distance of the means over all times, less 2 standard errors, is at most {MEAN} η times the way made, and "
    f"its power of η is at least {POWER} less 2 standard errors"
)
_RULES = "SGD, SignSGD, RMSprop, Adam, SAM, USAM, DNSAM"


@claim(
    "path means within O(η), quadratics",
    literature=f"weak approximation of order 1 ({SIGN}; {SAM})",
    criterion=f"for {_RULES} on H commuting with Σ or not, RMSpropW and AdamW on the first, SignSGD also with Cauchy "
    f"noise, η = 0.2 … 0.025, SDE at dt = η/{FINER}: {_MEANS}",
    needs=needs(EXACT),
)
def means(results: Results) -> Verdict:
    """Powers of eta and constants."""
    return _means(tracks(results, EXACT))


def _means(data: dict[str, Any]) -> Verdict:
    powers = {name: mean_power(found) for name, found in data.items()}
    worst = {name: worst_mean(found) for name, found in data.items()}
    holds = {name: mean_tracks(found) for name, found in data.items()}
    text = "power of η, largest distance in η of the way: " + listed(
        {
            name: (f"{p:.2f} ± {e:.2f}" if e < 1 else "within errors") + f", {worst[name]:.2f}"
            for name, (p, e) in powers.items()
        }
    )
    text += _missed(holds)
    numbers = {name: {"power": p, "stderr": e, "worst": worst[name]} for name, (p, e) in powers.items()}
    return Verdict(all(holds.values()), text, _finite(numbers))


@claim(
    "centred covariance tends to the SDE's, quadratics",
    literature=f"weak approximation of order 1 ({SIGN}; {SAM})",
    criterion=f"for the same solvers at η = 0.025 the covariance at the end, solver over SDE, is within {BAND} of 1 in "
    "every direction, widened by 2 standard errors",
    needs=needs(EXACT),
)
def covariances(results: Results) -> Verdict:
    """Extremes over directions."""
    data = tracks(results, EXACT)
    holds = {name: band_tracks(found) for name, found in data.items()}
    found = {name: extremes(d) for name, d in data.items()}
    text = "least and largest ratio: " + listed({n: f"{a:.2f}, {b:.2f}" for n, (a, b) in found.items()})
    return Verdict(all(holds.values()), text + _missed(holds), {n: list(v) for n, v in found.items()})


@claim(
    "the test of covariances refuses wrong SDEs",
    literature="control of the test above",
    criterion="without diffusion, and with twice its covariance, no solver passes the test of covariances, on any "
    "problem",
    needs=needs(tuple(RULES_ON)),
)
def controls(results: Results) -> Verdict:
    """How many wrong SDEs pass, and how many of them have the right means."""
    data = tracks(results, tuple(RULES_ON))
    passed = [
        f"{name} {kind}" for kind in ("none", "double") for name, found in data.items() if band_tracks(found, kind)
    ]
    right = {kind: sum(mean_tracks(found, kind) for found in data.values()) for kind in ("none", "double")}
    doubled = [smallest(found, "double")["ratio"] for found in data.values()]
    text = f"{2 * len(data)} wrong SDEs, {len(passed)} pass{': ' + ', '.join(passed) if passed else ''}; ratios with "
    text += f"twice the covariance {min(doubled):.2f} … {max(doubled):.2f}. The test of means alone lets pass "
    text += f"{right['none']} of {len(data)} without diffusion, {right['double']} with twice"
    return Verdict(not passed, text, {"passed": passed, "means": right})


@claim(
    "RMSprop's and Adam's band needs noise in the second moment",
    literature=f"the SDEs of {SIGN} have none; noise drives parameters and second moments alike (arXiv 2509.21614)",
    criterion=f"on both quadratics at η = 0.025 the ratio of covariances (trace, solver over SDE) is within {MOMENT} "
    "of 1 with that noise, widened by 2 standard errors, and farther from it without",
    needs=[f"track-{p}-{rule}" for p in QUADRATICS for rule in ("rmsprop", "adam")],
)
def moment_noise(results: Results) -> Verdict:
    """Ratios with and without."""
    told, holds, numbers = {}, [], {}
    for p in QUADRATICS:
        for rule in ("rmsprop", "adam"):
            data = results.data(f"track-{p}-{rule}")[f"track-{p}-{rule}"]
            own, quiet = smallest(data), smallest(data, "quiet")
            near = abs(own["ratio"] - 1) <= MOMENT + 2 * own["ratio_stderr"]
            holds.append(near and abs(quiet["ratio"] - 1) > MOMENT + 2 * quiet["ratio_stderr"])
            told[f"{p}-{rule}"] = f"{own['ratio']:.2f} ± {own['ratio_stderr']:.2f}, without " + (
                f"{quiet['ratio']:.2f} ± {quiet['ratio_stderr']:.2f}"
            )
            if rule == "adam":
                told[f"{p}-{rule}"] += f", as published {smallest(data, 'published')['ratio']:.2f}"
            numbers[f"{p}-{rule}"] = [own["ratio"], quiet["ratio"]]
    text = listed(told) + "; below 1 the SDE's band is too wide"
    return Verdict(all(holds), text, numbers)


def _real(problem: str, words: str, said: str) -> Any:
    @claim(
        f"tracks on {words}",
        literature=f"the SDEs follow the optimizers on data and networks ({SIGN}; {SAM})",
        criterion=f"{said}, η = 0.2, 0.1, 0.05, for {_RULES}: {_MEANS}; the trace of the covariance, solver over SDE, "
        f"at η = 0.05 is within {BAND} of 1, widened by 2 standard errors",
        needs=needs((problem,)),
    )
    def judge(results: Results) -> Verdict:
        data = {name.removeprefix(f"{problem}-"): d for name, d in tracks(results, (problem,)).items()}
        holds = {name: mean_tracks(d) and band_tracks(d) for name, d in data.items()}
        told, numbers = {}, {}
        for name, d in data.items():
            found, last = smallest(d), min(d["rows"], key=lambda row: row["eta"])["statistics"]["loss"]
            told[name] = f"{worst_mean(d):.2f}, {found['ratio']:.2f} ± {found['ratio_stderr']:.2f}"
            told[name] += ", " if found["low"] is None else f" ({found['low']:.2f} … {found['high']:.2f}), "
            told[name] += f"{100 * (last['solver'] / last['sde'] - 1):+.1f} %"
            numbers[name] = {"worst": worst_mean(d), "ratio": found["ratio"], "loss": last}
        text = "distance of means in η of the way, ratio" + (" (by direction)" if problem == "cancer" else "")
        text += ", mean loss at the end solver to SDE: " + listed(told)
        return Verdict(all(holds.values()), text + _missed(holds), numbers)

    return judge


finite_sum = _real("cancer", "a finite sum", "logistic regression, batches of 2 of 12 without replacement")
network = _real("network", "a small network", "4-4-3 on iris, full gradient with Gaussian noise of deviation 0.1")


def _missed(holds: dict[str, bool]) -> str:
    missed = [name for name, held in holds.items() if not held]
    return f". Missed by {', '.join(missed)}" if missed else ""


def _finite(numbers: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    return {n: {k: v if math.isfinite(v) else None for k, v in row.items()} for n, row in numbers.items()}


CLAIMS: tuple[Any, ...] = (means, covariances, controls, moment_noise, finite_sum, network)
