"""The claims of `runs.sde` on how an SDE stands beside its solver, each with the rule that decides it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from probes.numbers import finite
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.sde.criteria import (
    BAND,
    POWER,
    SAM,
    SIGN,
    band_tracks,
    extremes,
    mean_power,
    mean_tracks,
    smallest,
    worst_mean,
)
from runs.sde.jobs import FINER, LATER, QUADRATICS, RULES_ON

EXACT = (*QUADRATICS, "cauchy")


def tracks(results: Results, problems: Sequence[str]) -> dict[str, Any]:
    """The data of every rule on these problems, by `problem-rule`."""
    return {f"{p}-{rule}": data for p in problems for rule, data in results.family(f"track-{p}-").items()}


def needs(problems: Sequence[str]) -> list[str]:
    return [f"track-{p}-{rule}" for p in problems for rule in RULES_ON[p]]


def _tracking(
    data: dict[str, Any], holds: Callable[[Any], bool], say: Callable[[Any], str], before: str, numbers: Any
) -> Verdict:
    """The verdict of a claim that the SDE of every rule must pass; which ones missed it is told."""
    missed = [name for name, found in data.items() if not holds(found)]
    after = f". Missed by {', '.join(missed)}" if missed else ""
    return every(data, holds, lambda name, found: f"{name}: {say(found)}", before=before, after=after, numbers=numbers)


def _refused(what: str, kinds: Sequence[str], passes: Callable[[Any, str], bool], problems: Sequence[str]) -> Control:
    """The control that none of these wrong SDEs passes the test."""

    def verdict(_: Any, results: Results) -> Verdict:
        data = tracks(results, problems)
        passed = [f"{name} ({kind})" for kind in kinds for name, found in data.items() if passes(found, kind)]
        told = f"{len(passed)} of {len(kinds) * len(data)} pass" + (f": {', '.join(passed)}" if passed else "")
        return Verdict(bool(passed), told)

    return Control(what, verdict)


_MEANS = (
    f"the distance of the means over all times has a power of η of at least {POWER} less 2 standard errors, or is "
    "within 2 standard errors of 0 throughout"
)
_WRONG = ("none", "double")
_RULES = "SGD, SignSGD, RMSprop, Adam, SAM, USAM, DNSAM"


@claim(
    "path means within O(η), quadratics",
    source="theorem",
    literature=f"weak approximation of order 1 ({SIGN}; {SAM})",
    criterion=f"for {_RULES} on H commuting with Σ or not, RMSpropW and AdamW on the first, SignSGD also with Cauchy "
    f"noise, η = 0.2 … 0.025, SDE at dt = η/{FINER}, Adam's and AdamW's from the solver's paths at t = {LATER}: "
    f"{_MEANS}",
    needs=needs(EXACT),
    control=_refused("time of the SDE runs 10 % fast", ["fast"], mean_tracks, EXACT),
)
def means(results: Results) -> Verdict:
    def say(found: Any) -> str:
        p, stderr = mean_power(found)
        return (f"{p:.2f} ± {stderr:.2f}" if stderr < 1 else "within errors") + f", {worst_mean(found):.2f}"

    def numbers_of(found: Any) -> dict[str, float]:
        p, stderr = mean_power(found)
        return {"power": p, "stderr": stderr, "worst": worst_mean(found)}

    data, before = tracks(results, EXACT), "power of η, largest distance in η of the way: "
    numbers = finite({name: numbers_of(found) for name, found in data.items()})
    return _tracking(data, mean_tracks, say, before, numbers)


@claim(
    "centred covariance tends to the SDE's, quadratics",
    source="theorem",
    literature=f"weak approximation of order 1 ({SIGN}; {SAM})",
    criterion=f"for the same solvers at η = 0.025 the covariance at the end, solver over SDE, is within {BAND} of 1 in "
    "every direction, widened by 2 standard errors",
    needs=needs(EXACT),
    control=_refused("no diffusion, or twice its covariance", _WRONG, band_tracks, EXACT),
)
def covariances(results: Results) -> Verdict:
    data = tracks(results, EXACT)
    numbers, before = {name: list(extremes(found)) for name, found in data.items()}, "least and largest ratio: "
    return _tracking(data, band_tracks, lambda found: "{:.2f}, {:.2f}".format(*extremes(found)), before, numbers)


@claim(
    "RMSprop's and Adam's band needs noise in the second moment",
    source="text",
    literature=f"the SDEs of {SIGN} have none; noise drives parameters and second moments alike (arXiv 2509.21614)",
    criterion="on both quadratics at η = 0.025 the ratio of covariances (trace, solver over SDE) is nearer to 1 with "
    "that noise than without, by more than 2 standard errors",
    needs=[f"track-{p}-{rule}" for p in QUADRATICS for rule in ("rmsprop", "adam")],
    control=Control("the two exchanged", lambda judge, results: judge(results, own="quiet", other="sde")),
)
def moment_noise(results: Results, own: str = "sde", other: str = "quiet") -> Verdict:
    jobs = {name: data for name, data in tracks(results, QUADRATICS).items() if name.endswith(("rmsprop", "adam"))}

    def nearer(data: Any) -> bool:
        with_, without = (smallest(data, kind) for kind in (own, other))
        error = math.hypot(with_["ratio_stderr"], without["ratio_stderr"])
        return abs(without["ratio"] - 1) - abs(with_["ratio"] - 1) > 2 * error

    def tell(name: str, data: Any) -> str:
        with_, quiet = (
            f"{f['ratio']:.2f} ± {f['ratio_stderr']:.2f}" for f in (smallest(data, k) for k in (own, other))
        )
        published = f", as published {smallest(data, 'published')['ratio']:.2f}" if name.endswith("adam") else ""
        return f"{name}: {with_}, without {quiet}{published}"

    return every(
        jobs,
        nearer,
        tell,
        after="; below 1 the SDE's band is too wide",
        numbers={name: [smallest(data, kind)["ratio"] for kind in (own, other)] for name, data in jobs.items()},
    )


def _both(data: Any, kind: str) -> bool:
    return mean_tracks(data, kind) and band_tracks(data, kind)


def _real(problem: str, words: str, said: str) -> Claim:
    @claim(
        f"tracks on {words}",
        source="abstract",
        literature=f"the SDEs follow the optimizers on data and networks ({SIGN}; {SAM})",
        criterion=f"{said}, η = 0.2, 0.1, 0.05, for {_RULES}: {_MEANS}; the trace of the covariance, solver over SDE, "
        f"at η = 0.05 is within {BAND} of 1, widened by 2 standard errors",
        needs=needs((problem,)),
        control=_refused("no diffusion, or twice its covariance", _WRONG, _both, (problem,)),
    )
    def judge(results: Results) -> Verdict:
        data = results.family(f"track-{problem}-")

        def end(d: Any) -> Any:
            return min(d["rows"], key=lambda row: row["eta"])["statistics"]["loss"]

        def say(d: Any) -> str:
            found, loss = smallest(d), end(d)
            band = "" if found["low"] is None else f" ({found['low']:.2f} … {found['high']:.2f})"
            ratio = f"{found['ratio']:.2f} ± {found['ratio_stderr']:.2f}{band}"
            return f"{worst_mean(d):.2f}, {ratio}, {100 * (loss['solver'] / loss['sde'] - 1):+.1f} %"

        before = "distance of means in η of the way, ratio" + (" (by direction)" if problem == "cancer" else "")
        before += ", mean loss at the end solver to SDE: "
        numbers = {n: {"worst": worst_mean(d), "ratio": smallest(d)["ratio"], "loss": end(d)} for n, d in data.items()}
        return _tracking(data, lambda d: mean_tracks(d) and band_tracks(d), say, before, numbers)

    return judge


finite_sum = _real("cancer", "a finite sum", "logistic regression, batches of 2 of 12 without replacement")
network = _real("network", "a small network", "4-4-3 on iris, full gradient with Gaussian noise of deviation 0.1")


CLAIMS = (means, covariances, moment_noise, finite_sum, network)
