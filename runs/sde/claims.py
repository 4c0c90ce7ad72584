"""The claims of `runs.sde` on how an SDE stands beside its solver, each with the rule that decides it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.numbers import finite
from runs.engine.claims import Claim, Results, Verdict, claim, every
from runs.sde.criteria import (
    BAND,
    MEAN,
    MOMENT,
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
from runs.sde.jobs import FINER, QUADRATICS, RULES_ON

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


_MEANS = (
    f"every distance of the means over all times, less 2 standard errors, is at most {MEAN} η times the way made, and "
    f"its power of η is at least {POWER} less 2 standard errors"
)
_RULES = "SGD, SignSGD, RMSprop, Adam, SAM, USAM, DNSAM"


@claim(
    "path means within O(η), quadratics",
    source="theorem",
    literature=f"weak approximation of order 1 ({SIGN}; {SAM})",
    criterion=f"for {_RULES} on H commuting with Σ or not, RMSpropW and AdamW on the first, SignSGD also with Cauchy "
    f"noise, η = 0.2 … 0.025, SDE at dt = η/{FINER}: {_MEANS}",
    needs=needs(EXACT),
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
)
def covariances(results: Results) -> Verdict:
    data = tracks(results, EXACT)
    numbers, before = {name: list(extremes(found)) for name, found in data.items()}, "least and largest ratio: "
    return _tracking(data, band_tracks, lambda found: "{:.2f}, {:.2f}".format(*extremes(found)), before, numbers)


@claim(
    "the test of covariances refuses wrong SDEs",
    source="own",
    literature="control of the test above",
    criterion="without diffusion, and with twice its covariance, no solver passes the test of covariances, on any "
    "problem",
    needs=needs(tuple(RULES_ON)),
)
def controls(results: Results) -> Verdict:
    data = tracks(results, tuple(RULES_ON))
    wrong = ("none", "double")
    passed = [f"{name} {kind}" for kind in wrong for name, found in data.items() if band_tracks(found, kind)]
    right = {kind: sum(mean_tracks(found, kind) for found in data.values()) for kind in wrong}
    doubled = [smallest(found, "double")["ratio"] for found in data.values()]
    text = f"{2 * len(data)} wrong SDEs, {len(passed)} pass{': ' + ', '.join(passed) if passed else ''}; ratios with "
    text += f"twice the covariance {min(doubled):.2f} … {max(doubled):.2f}. The test of means alone lets pass "
    text += f"{right['none']} of {len(data)} without diffusion, {right['double']} with twice"
    return Verdict(not passed, text, {"passed": passed, "means": right})


@claim(
    "RMSprop's and Adam's band needs noise in the second moment",
    source="text",
    literature=f"the SDEs of {SIGN} have none; noise drives parameters and second moments alike (arXiv 2509.21614)",
    criterion=f"on both quadratics at η = 0.025 the ratio of covariances (trace, solver over SDE) is within {MOMENT} "
    "of 1 with that noise, widened by 2 standard errors, and farther from it without",
    needs=[f"track-{p}-{rule}" for p in QUADRATICS for rule in ("rmsprop", "adam")],
)
def moment_noise(results: Results) -> Verdict:
    jobs = {name: data for name, data in tracks(results, QUADRATICS).items() if name.endswith(("rmsprop", "adam"))}

    def near(found: Any) -> bool:
        return abs(found["ratio"] - 1) <= MOMENT + 2 * found["ratio_stderr"]

    def tell(name: str, data: Any) -> str:
        own, quiet = (f"{f['ratio']:.2f} ± {f['ratio_stderr']:.2f}" for f in (smallest(data), smallest(data, "quiet")))
        published = f", as published {smallest(data, 'published')['ratio']:.2f}" if name.endswith("adam") else ""
        return f"{name}: {own}, without {quiet}{published}"

    return every(
        jobs,
        lambda data: near(smallest(data)) and not near(smallest(data, "quiet")),
        tell,
        after="; below 1 the SDE's band is too wide",
        numbers={name: [smallest(data)["ratio"], smallest(data, "quiet")["ratio"]] for name, data in jobs.items()},
    )


def _real(problem: str, words: str, said: str) -> Claim:
    @claim(
        f"tracks on {words}",
        source="abstract",
        literature=f"the SDEs follow the optimizers on data and networks ({SIGN}; {SAM})",
        criterion=f"{said}, η = 0.2, 0.1, 0.05, for {_RULES}: {_MEANS}; the trace of the covariance, solver over SDE, "
        f"at η = 0.05 is within {BAND} of 1, widened by 2 standard errors",
        needs=needs((problem,)),
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


CLAIMS = (means, covariances, controls, moment_noise, finite_sum, network)
