"""The claims of `runs.sscn` on other solvers: coordinate descent, RS-RNM, gradient descent, L-BFGS."""

from __future__ import annotations

from runs.engine.claims import Claim, Results, Source, Verdict, claim
from runs.sscn.criteria import PAPER, Race, best, costs, names, race_verdict
from runs.sscn.jobs import LINEAR, PROBLEMS, SIZES, middle_size


@claim(
    "curvature beats coordinate descent in steps",
    source="abstract",
    literature=f"speed-up over first-order subspaces ({PAPER})",
    criterion="on every problem SSCN takes fewer steps to the target than coordinate descent with the same size, for "
    "the smallest size and the middle one",
    needs=[f"{p}-{k}-{t}" for p in PROBLEMS for k in ("cd", "doubling") for t in {SIZES[p][0], middle_size(p)}],
)
def coordinate_descent(results: Results) -> Verdict:
    pairs = [(f"{p}-doubling-{t}", f"{p}-cd-{t}") for p in PROBLEMS for t in (SIZES[p][0], middle_size(p))]
    return race_verdict(((costs(results, [own]), costs(results, [other])) for own, other in pairs), "steps", 5)


@claim(
    "beats RS-RNM in seconds",
    source="abstract",
    literature=f"speed-up over another second-order subspace method ({PAPER})",
    criterion="on every linear model SSCN (doubling, middle size) comes to 1e-6 in fewer CPU seconds than RS-RNM in as "
    "many dimensions, with P's entries of deviation 1 / s as published and with 1 / sqrt(s) (unit)",
    needs=[f"{p}-{k}-{middle_size(p)}" for p in LINEAR for k in ("rsrnm", "rsrnm-unit", "doubling")],
)
def random_subspaces(results: Results) -> Verdict:
    def race(p: str) -> Race:
        own, *others = (f"{p}-{k}-{middle_size(p)}" for k in ("doubling", "rsrnm", "rsrnm-unit"))
        return costs(results, [own], "seconds"), costs(results, others, "seconds")

    after = "; RS-RNM's products go through the graph, SSCN's blocks use the margins"
    return race_verdict(map(race, LINEAR), "seconds", 2, after)


def _first_order(other: str, words: str, source: Source, said: str) -> Claim:
    @claim(
        f"beats {words} in seconds",
        source=source,
        literature=said,
        criterion=f"on every linear model the fastest constant size (doubling, below n) comes to 1e-6 in fewer CPU "
        f"seconds than {words}",
        needs=[job for p in LINEAR for job in (*names(p), f"{p}-{other}")],
    )
    def judge(results: Results) -> Verdict:
        races = (
            (best(costs(results, names(p), "seconds")), costs(results, [f"{p}-{other}"], "seconds")) for p in LINEAR
        )
        return race_verdict(races, "seconds", 2)

    return judge


gradient_descent = _first_order(
    "gd", "gradient descent", "abstract", f"substantial speed-ups over conventional first-order methods ({PAPER})"
)
lbfgs = _first_order("lbfgs", "L-BFGS", "own", "own question: torch's L-BFGS with a strong Wolfe search")

CLAIMS = coordinate_descent, random_subspaces, gradient_descent, lbfgs
