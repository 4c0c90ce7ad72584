"""The claims of `runs.sscn` on sizes and schedules, each with its rule; those on other solvers are in `peer_claims`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probes.numbers import finite
from runs.engine.claims import Claim, Results, Source, Verdict, claim, every
from runs.shared.tables import falling, listed
from runs.sscn import peer_claims
from runs.sscn.criteria import (
    PAPER,
    Race,
    best,
    cost,
    costs,
    costs_by_size,
    costs_text,
    list_text,
    names,
    race_verdict,
    target,
)
from runs.sscn.jobs import LINEAR, PROBLEMS

SHAPED = 5000  # published steps on duke
PSD = 1e-6


def _converges(rule: str, problems: Sequence[str], name: str, source: Source, said: str) -> Claim:
    @claim(
        name,
        source=source,
        literature=said,
        needs=[job for p in problems for job in names(p, rule)],
        criterion="from every start and with every constant size below n the gradient norm comes to 1e-6 "
        + ("(the network: 1e-2) " if "mlp" in problems else "")
        + "within the steps and seconds given",
    )
    def judge(results: Results) -> Verdict:
        found = costs_by_size(results, problems, "steps", rule)
        missed = [_end(results, job) for p in problems for job in names(p, rule) if math.isinf(cost(results, job))]
        text = "steps by size: " + listed({p: list_text(values) for p, values in found.items()})
        text += f". Not reached: {'; '.join(missed)}" if missed else ""
        return Verdict(not missed, text, finite(found))

    return judge


def _end(results: Results, job: str) -> str:
    """Where the worst run of a job ended, in words."""
    run = max(results.one(job)["runs"], key=lambda run: run["gradient_norm"])
    moved = f"{run['accepted']} of {run['steps']} steps taken, M {float(run['M']):.2g}"
    return f"{job} ‖∇f‖ {run['gradient_norm']:.2g}, f {run['loss']:.3g} ({moved})"


any_size = _converges(
    "doubling",
    PROBLEMS,
    "any subspace size converges",
    "abstract",
    f"converges to a stationary point for any subspace size, from any start ({PAPER}); rule: doubling",
)
published = _converges(
    "ratio",
    LINEAR,
    "the same with the rule of the paper's experiments",
    "code",
    f"one subset a step, M by the ratio of decreases (code of {PAPER})",
)


@claim(
    "larger subspaces need fewer steps",
    source="text",
    literature=f"rates interpolate towards those of cubic Newton ({PAPER})",
    criterion="on every problem the steps to the target fall with every size, the whole space included (duke: without)",
    needs=[job for p in PROBLEMS for job in names(p, full=p != "duke")],
)
def fewer(results: Results) -> Verdict:
    def tell(problem: str, steps: list[float]) -> str:
        return f"{problem}: {list_text(steps)}"

    found = costs_by_size(results, PROBLEMS, "steps", full=True)
    found["duke"].pop()  # a Krylov step is not one of the sizes
    return every(found, falling, tell, before="doubling, steps by size: ", numbers=finite(found))


def _intermediate(what: str, words: str) -> Claim:
    few = ("cancer", "digits", "lse", "gisette")

    @claim(
        f"an intermediate size wins or ties in {words}",
        source="figure",
        literature=f"plots over {words} (figures of {PAPER}; its notebooks on log-sum-exp)",
        criterion=f"on {', '.join(few)} some size between the smallest and n takes at most 1.1 times the {words} of "
        "the smallest and of n, to a gradient norm of 1e-6",
        needs=[job for p in few for job in names(p, full=True)],
    )
    def judge(results: Results) -> Verdict:
        found = costs_by_size(results, few, what, full=True)
        return every(
            found,
            lambda spent: min(spent[1:-1]) <= 1.1 * min(spent[0], spent[-1]),
            lambda p, spent: f"{p}: {list_text(spent, 3)}",
            before=f"{words} by size, n last: ",
            numbers=finite(found),
        )

    return judge


in_coordinates = _intermediate("coordinates", "sum of τ² + τ")
in_seconds = _intermediate("seconds", "seconds")


@claim(
    "growing sizes save coordinates against the whole space",
    source="abstract",
    literature=f"schedules reach the rate of cubic Newton without all coordinates at all steps ({PAPER})",
    criterion="the exponential (50 + 0.1 exp(0.02 k); log-sum-exp 20 + ...), the linear and the adaptive size (c = 10) "
    "take a smaller sum of τ² + τ to a gradient norm of 1e-6 than τ = n",
    needs=[f"gisette-{k}" for k in ("exponential", "linear", "adaptive*", "cubic")]
    + [f"lse-{k}" for k in ("exponential", "linear", "cubic")],
)
def growing(results: Results) -> Verdict:
    kinds = "exponential", "linear", "adaptive", "adaptive-tight", "cubic"
    jobs = [f"gisette-{k}" for k in kinds] + [f"lse-{k}" for k in kinds if not k.startswith("adaptive")]
    found = costs(results, jobs, "coordinates")
    judged = [job for job in jobs if not job.endswith(("cubic", "tight"))]
    holds = all(found[job] < found[job.split("-")[0] + "-cubic"] for job in judged)
    return Verdict(holds, "sum of τ² + τ: " + costs_text(found) + " (tight: c = 1e-6, own)", finite(found))


@claim(
    "a schedule beats every constant size",
    source="own",
    literature="own question",
    criterion="on gisette and log-sum-exp the best schedule takes a smaller sum of τ² + τ to 1e-6 than every constant "
    "size",
    needs=["gisette-*", "lse-*"],
)
def scheduled(results: Results) -> Verdict:
    def race(p: str) -> Race:
        grown = costs(results, (f"{p}-{kind}" for kind in ("exponential", "linear")), "coordinates")
        return best(grown), best(costs(results, names(p, full=True), "coordinates"))

    return race_verdict(map(race, ("gisette", "lse")), "best of each", 3)


@claim(
    "ends at second-order stationary points",
    source="abstract",
    literature=f"second-order stationary points, adaptive sampling ({PAPER})",
    criterion=f"every run with doubling that came to its gradient norm ends where the smallest eigenvalue of the whole "
    f"Hessian, less its error, is at least -{PSD:g}",
    needs=["*-doubling-*"],
)
def second_order(results: Results) -> Verdict:
    found: dict[str, list[float]] = {}
    ended: dict[str, list[float]] = {}
    for data in results.data("*-doubling-*").values():
        for run in data["runs"]:
            if target(data["problem"]) in run["to"]:
                found.setdefault(data["problem"], []).append(float(run["lambda_min"]) - float(run["lambda_error"]))
                ended.setdefault(data["problem"], []).append(run["gradient_norm"])
    least = {p: min(values) for p, values in found.items()}
    text = f"{sum(map(len, found.values()))} runs, least by problem: " + costs_text(least)
    text += "; largest gradient norms there: " + costs_text({p: max(values) for p, values in ended.items()}, 2)
    return Verdict(bool(least) and min(least.values()) >= -PSD, text, finite(least))


def _duke(rule: str, said: str, within: int) -> Claim:
    @claim(
        f"1e-9 on the shape of duke, {rule}",
        source="code",
        literature=said,
        criterion=f"every size of 50 … 500 brings the gradient norm to 1e-9 within {within} steps",
        needs="duke-*",
    )
    def judge(results: Results) -> Verdict:
        found = costs(results, names("duke", rule), level="1e-09")
        runs = {job: results.one(job)["runs"][0] for job in found}
        told = "; ".join(f"{job} {run['least_norm']:.2g}, {run['steps']}" for job, run in runs.items())
        text = f"steps: {costs_text(found, 5)}; least norm, steps made: {told}"
        return Verdict(max(found.values()) <= within, text, finite(found))

    return judge


tight = _duke("doubling", "a gradient norm of 1e-9 is within reach with a rule that tries the same subset again", 5000)
tight_published = _duke("ratio", f"tolerance 1e-9, 5000 iterations (settings of {PAPER})", SHAPED)

SIZES = any_size, published, fewer, in_coordinates, in_seconds, growing, scheduled
CLAIMS = *SIZES, *peer_claims.CLAIMS, second_order, tight, tight_published
