"""The claims of `runs.sscn` on sizes that change: exponential, linear and adaptive ones, each with its rule."""

from __future__ import annotations

import math

from probes.numbers import finite
from runs.engine.claims import Control, Results, Verdict, claim
from runs.sscn.criteria import PAPER, Race, best, cost, cost_or_used, costs, costs_text, names, race_verdict
from runs.sscn.movers import GROWTH, SLOPE
from runs.sscn.plan import ADAPTIVE, CONSTANTS, GROWING, PUBLISHED, SETUPS

KINDS = "exponential", "linear"
_STARTS = ", ".join(f"{SETUPS[p].sizes[0]} ({p})" for p in GROWING)


@claim(
    "growing sizes save coordinates against the whole space",
    source="code",
    literature=f"exponential and linear schedules of τ, plotted over Σ τ² + τ (code of {PAPER}); as τ grows, the "
    "complexity becomes that of cubic Newton (abstract)",
    criterion=f"τ₀ + {GROWTH[0]} exp({GROWTH[1]} k) and τ₀ + {SLOPE} k, τ₀ = {_STARTS}, each take a smaller Σ τ² + τ "
    "to a gradient norm of 1e-6 than τ = n",
    needs=[f"{p}-{kind}" for p in GROWING for kind in (*KINDS, "cubic")],
    control=Control(
        "τ = 30 that does not grow, on log-sum-exp with μ = 0.01, where it does not arrive",
        lambda judge, results: judge(
            results.instead({"lse-exponential": "lse-hard-doubling-30", "lse-cubic": "lse-hard-cubic"})
        ),
        ("lse-hard-*",),
    ),
)
def growing(results: Results) -> Verdict:
    found = costs(results, [f"{p}-{kind}" for p in GROWING for kind in KINDS], "coordinates")
    whole = {f"{p}-cubic": cost_or_used(results, f"{p}-cubic", "coordinates") for p in GROWING}
    holds = all(found[f"{p}-{kind}"] < whole[f"{p}-cubic"] for p in GROWING for kind in KINDS)
    late = [job for job in whole if math.isinf(cost(results, job))]
    after = f" ({', '.join(late)}: used without getting there)" if late else ""
    return Verdict(holds, f"Σ τ² + τ: {costs_text(found | whole)}{after}", finite(found | whole))


@claim(
    "adaptive sizes save coordinates against the whole space",
    source="abstract",
    literature=f"an adaptive size has the rate of cubic Newton without all coordinates ({PAPER}); c is tuned to the "
    "data set (code: 10 and 13 for gisette, 100 to 1300 for madelon)",
    criterion="with the best c of 1e-6 ... 1e-2 the rule of the authors' script, M by doubling, takes a smaller Σ τ² "
    "+ τ to a gradient norm of 1e-6 than τ = n, on MNIST's fours and nines and on non-linear least squares, and not "
    "all coordinates at every step",
    needs=[f"{p}-{kind}" for p in ADAPTIVE for kind in ("adaptive-*", "cubic")],
    control=Control(
        f"c = {PUBLISHED:g} as for gisette, n = 5000, without scaling",
        lambda judge, results: judge(results, (PUBLISHED,)),
    ),
)
def adaptive(results: Results, constants: tuple[float, ...] = CONSTANTS) -> Verdict:
    found = {p: costs(results, [f"{p}-adaptive-{c:g}" for c in constants], "coordinates") for p in ADAPTIVE}
    whole = costs(results, [f"{p}-cubic" for p in ADAPTIVE], "coordinates")
    holds = True
    for p, values in found.items():
        (name, least), *_ = best(values).items()
        runs = results.one(name)["runs"]
        holds &= least < whole[f"{p}-cubic"] and all(run["whole_steps"] < run["steps"] for run in runs)
    told = {job: value for values in found.values() for job, value in values.items()} | whole
    step = costs(results, [f"{p}-adaptive-step" for p in ADAPTIVE], "coordinates")
    text = f"Σ τ² + τ: {costs_text(told)}; with ||h|| of the last step taken, c = 1e-4: {costs_text(step)}"
    return Verdict(holds, text, finite(told | step))


@claim(
    "a schedule beats every constant size",
    source="own",
    literature="own question",
    criterion="on each of these problems the better of the exponential and the linear size takes a smaller Σ τ² + τ "
    "to 1e-6 than every constant size",
    needs=[job for p in GROWING for job in (*names(p, full=True), *(f"{p}-{kind}" for kind in KINDS))],
)
def scheduled(results: Results) -> Verdict:
    def race(p: str) -> Race:
        grown = costs(results, (f"{p}-{kind}" for kind in KINDS), "coordinates")
        return best(grown), best(costs(results, names(p, full=True), "coordinates"))

    return race_verdict(results, map(race, GROWING), "coordinates")


CLAIMS = growing, adaptive, scheduled
