"""The claims of `runs.ngn` on what theorems promise: bound over measured, each held against a bound that is wrong."""

from __future__ import annotations

import math
from typing import Any

from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.ngn.bounds import BETA, NOISY
from runs.ngn.network_claims import PAPER

CONDITION = "arXiv 2410.12455"


def _hold(found: dict[str, Any], bound: Any) -> Verdict:
    """Whether each bound is at least what was measured."""
    rows = {name: {"measured": run["measured"], "bound": bound(run)} for name, run in found.items()}

    def tell(name: str, run: dict[str, float]) -> str:
        limit, measured = run["bound"], run["measured"]
        return f"{name}: {short(limit, 3)} / {short(measured, 2)} = {short(limit / measured, 2)}"

    return every(rows, lambda run: run["measured"] <= run["bound"], tell, before="bound / measured. ")


def whole(run: dict[str, float]) -> float:
    return run["bound"]


def without_noise(run: dict[str, float]) -> float:
    return run["transient"]


def quadratic(run: dict[str, float]) -> float:
    """The rate 1/K^2 in place of 1/K."""
    return run["bound"] / run["steps"]


def linear(run: dict[str, float]) -> float:
    """The rate 1/K in place of 1/sqrt(K)."""
    return run["bound"] / math.sqrt(run["steps"])


def _theorem(number: str, name: str, said: str, rule: str, wrong: str, other: Any) -> Claim:
    @claim(
        name,
        source="theorem",
        literature=f"{said} ({PAPER}, Theorem {number}; the constants derived again from its proof)",
        criterion=f"{rule}; the mean over 10 runs and all steps of f - f* is at most the bound",
        needs=f"theorem-{number}",
        quick=True,
        control=Control(wrong, lambda judge, results: judge(results, bound=other)),
    )
    def judge(results: Results, bound: Any = whole) -> Verdict:
        return _hold(results.one(f"theorem-{number}"), bound)

    return judge


any_c = _theorem(
    "4.3",
    "NGN-M's bound for convex sums at any c holds",
    "E f - f* = O(1/(cK)) + O(c) noise for every c > 0 and small momentum",
    "least squares of 50 equations in 5 unknowns, L = 16.4, c = 1e-3 … 1, the largest momentum allowed (at most 0.14)",
    "the bound without its noise",
    without_noise,
)
interpolated = _theorem(
    "D.2",
    "with interpolation its bound holds with momentum 0.9",
    "O(1/(cK)) for c <= 1/(36 L) with momentum up to 0.9",
    "the same equations with a solution, c = 1/(36 L), after 100, 1000, … steps",
    "the rate 1/K²",
    quadratic,
)
falling = _theorem(
    "D.5",
    "its bound for c_k = c/√(k+1) holds",
    "Õ(1/√K) without knowing K",
    "least squares as above, c L = 0.1, 0.7",
    "the rate 1/K",
    linear,
)


@claim(
    "the bounds under the α-β condition hold on two noisy functions",
    source="theorem",
    literature=f"Theorems 2, 3 and 6 of {CONDITION}, with the constants of the two functions (L = 3)",
    criterion="the smallest mean (over 100 runs) of f - f* is at most the bound, for SPS_max (cap 0.03, 0.3), NGN "
    "(0.01, 0.1, 1) and NGN with c/√(k+1) (0.1, 1)",
    needs="noisy-*",
    quick=True,
    control=Control("the bounds without noise", lambda judge, results: judge(results, bound=without_noise)),
)
def noisy(results: Results, bound: Any = whole) -> Verdict:
    jobs = {name: results.one(f"noisy-{name}")["runs"] for name in NOISY}
    return _hold({f"{name} {lr}": run for name, runs in jobs.items() for lr, run in runs.items()}, bound)


@claim(
    "decreasing steps get past the noise",
    source="theorem",
    literature=f"Õ(1/√K) with c/√(k+1), a neighbourhood with constant c (NGN: arXiv 2407.04358; {CONDITION})",
    criterion="on the two noisy functions f - f*, mean over the last tenth of the steps, is with c/√(k+1) at most half "
    "of that with constant c, for c = 0.1 and 1",
    needs=["noisy-ngn", "noisy-ngn-sqrt"],
    quick=True,
    control=Control(
        "constant steps in both places", lambda judge, results: judge(results.instead({"noisy-ngn-sqrt": "noisy-ngn"}))
    ),
)
def decreasing(results: Results) -> Verdict:
    constant, falls = (results.one(job)["runs"] for job in ("noisy-ngn", "noisy-ngn-sqrt"))
    return every(
        {lr: {"constant": constant[lr]["late"], "falling": falls[lr]["late"]} for lr in falls},
        lambda late: 2 * late["falling"] <= late["constant"],
        lambda lr, late: f"c = {lr}: {short(late['constant'], 3)} → {short(late['falling'], 3)}",
        before="f - f* with constant → decreasing steps. ",
    )


def _never(way: str, name: str, literature: str, source: Any, other: str) -> Claim:
    @claim(
        name,
        source=source,
        literature=literature,
        criterion="on least squares and logistic regression without interpolation, one of 50 samples at each step, f "
        "of five runs from 0 never exceeds (1 + c L) f(0), for c = 1e-3, 1e-2, …, 1e6",
        needs="any-step",
        quick=True,
        control=Control(f"{other} in its place", lambda judge, results: judge(results, solver=other.lower())),
    )
    def judge(results: Results, solver: str = way) -> Verdict:
        problems = results.one("any-step")

        def bounded(problem: Any) -> bool:
            runs = problem["largest"][solver].items()
            return all(most is not None and most <= 1 + float(c) * problem["smoothness"] for c, most in runs)

        def tell(name: str, problem: Any) -> str:
            runs = problem["largest"][solver]
            return f"{name}: " + ", ".join(
                f"{c} {'diverged' if most is None else short(most, 2)}" for c, most in runs.items()
            )

        numbers = {name: problem["largest"][solver] for name, problem in problems.items()}
        return every(problems, bounded, tell, before="largest f over f(0) by c. ", numbers=numbers)

    return judge


never = _never(
    "ngn",
    "NGN diverges at no step size on convex problems",
    f"never, in the convex setting (section 1 of {PAPER}, after Theorem 4.5 of arXiv 2407.04358)",
    "text",
    "SGD",
)
never_momentum = _never(
    "ngn-m", f"NGN-M with momentum {BETA:g} does not either", "own: Theorem 4.3 is for small momentum", "own", "SGD-M"
)
CLAIMS = any_c, interpolated, falling, noisy, decreasing, never, never_momentum
