"""The claims of `runs.sscn`, each with the rule that decides it."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from probes.numbers import short
from runs.engine.claims import Results, Verdict, claim
from runs.sscn.jobs import LINEAR, PROBLEMS, SIZES

PAPER = "Zhao, Doikov, Lucchi 2024"
TARGET = {"mlp": "0.01"}  # gradient norm by problem
SHAPED = 5000  # published steps on duke
PSD = 1e-6


def target(problem: str) -> str:
    """The gradient norm to reach there."""
    return TARGET.get(problem, "1e-06")


def cost(results: Results, job: str, what: str = "steps", level: str = "") -> float:
    """Median over the starts of what a job took to its target; inf where a start did not reach it."""
    data = results.data(job)[job]
    reached = [run["to"].get(level or target(data["problem"])) for run in data["runs"]]
    return statistics.median(found[what] for found in reached) if all(reached) else math.inf


def names(problem: str, rule: str = "doubling", *, full: bool = False) -> list[str]:
    """The jobs of constant sizes, ascending; the whole space last."""
    jobs = [f"{problem}-{rule}-{tau}" for tau in SIZES[problem]]
    return [*jobs, f"{problem}-cubic"] if full else jobs


def told(values: dict[str, float], digits: int = 3) -> str:
    """`a: 1; b: not reached`."""
    return "; ".join(f"{k}: {short(v, digits) if math.isfinite(v) else 'not reached'}" for k, v in values.items())


def plain(values: dict[str, float]) -> dict[str, float | None]:
    """For JSON."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def lists(results: Results, problems: Sequence[str], what: str, rule: str, full: bool) -> dict[str, list[float]]:
    """Costs by problem, in the order of the sizes."""
    return {p: [cost(results, job, what) for job in names(p, rule, full=full)] for p in problems}


def written(found: dict[str, list[float]], digits: int = 5) -> str:
    """`problem: 10, 5, 3; ...`."""
    return "; ".join(
        f"{p}: " + ", ".join(short(v, digits) if math.isfinite(v) else "not reached" for v in values)
        for p, values in found.items()
    )


def _kept(found: dict[str, list[float]]) -> dict[str, list[float | None]]:
    return {p: [v if math.isfinite(v) else None for v in values] for p, values in found.items()}


def _converges(rule: str, problems: Sequence[str], name: str, said: str) -> Any:
    @claim(
        name,
        literature=said,
        needs=[job for p in problems for job in names(p, rule)],
        criterion="from every start and with every constant size below n the gradient norm comes to 1e-6 "
        + ("(the network: 1e-2) " if "mlp" in problems else "")
        + "within the steps and seconds given",
    )
    def judge(results: Results) -> Verdict:
        found = lists(results, problems, "steps", rule, False)
        missed = []
        for p in problems:
            for job, value in zip(names(p, rule), found[p], strict=True):
                if not math.isfinite(value):
                    runs = results.data(job)[job]["runs"]
                    worst = max(runs, key=lambda run: run["gradient_norm"])
                    moved = f"{worst['accepted']} of {worst['steps']} steps taken, M {float(worst['M']):.2g}"
                    missed.append(f"{job} ‖∇f‖ {worst['gradient_norm']:.2g}, f {worst['loss']:.3g} ({moved})")
        text = "steps by size: " + written(found)
        text += f". Not reached: {'; '.join(missed)}" if missed else ""
        return Verdict(not missed, text, _kept(found))

    return judge


any_size = _converges(
    "doubling",
    PROBLEMS,
    "any subspace size converges",
    f"converges to a stationary point for any subspace size, from any start ({PAPER}); rule: doubling",
)
published = _converges(
    "ratio",
    LINEAR,
    "the same with the rule of the paper's experiments",
    f"one subset a step, M by the ratio of decreases (code of {PAPER})",
)


@claim(
    "larger subspaces need fewer steps",
    literature=f"rates interpolate towards those of cubic Newton ({PAPER})",
    criterion="on every problem the steps to the target fall with every size, the whole space included (duke: without)",
    needs=[job for p in PROBLEMS for job in names(p, full=p != "duke")],
)
def fewer(results: Results) -> Verdict:
    """Steps by size."""
    found = {p: lists(results, [p], "steps", "doubling", p != "duke")[p] for p in PROBLEMS}
    holds = all(b < a and math.isfinite(b) for v in found.values() for a, b in itertools.pairwise(v))
    return Verdict(holds, "doubling, steps by size: " + written(found), _kept(found))


def _intermediate(what: str, words: str) -> Any:
    few = ("cancer", "digits", "lse", "gisette")

    @claim(
        f"an intermediate size wins or ties in {words}",
        literature=f"plots over {words} (figures of {PAPER}; its notebooks on log-sum-exp)",
        criterion=f"on {', '.join(few)} some size between the smallest and n takes at most 1.1 times the {words} of "
        "the smallest and of n, to a gradient norm of 1e-6",
        needs=[job for p in few for job in names(p, full=True)],
    )
    def judge(results: Results) -> Verdict:
        found = lists(results, few, what, "doubling", True)
        holds = {p: min(v[1:-1]) <= 1.1 * min(v[0], v[-1]) for p, v in found.items()}
        return Verdict(all(holds.values()), f"{words} by size, n last: " + written(found, 3), _kept(found))

    return judge


in_coordinates = _intermediate("coordinates", "sum of τ² + τ")
in_seconds = _intermediate("seconds", "seconds")


@claim(
    "growing sizes save coordinates against the whole space",
    literature=f"schedules reach the rate of cubic Newton without all coordinates at all steps ({PAPER})",
    criterion="the exponential (50 + 0.1 exp(0.02 k); log-sum-exp 20 + ...), the linear and the adaptive size (c = 10) "
    "take a smaller sum of τ² + τ to a gradient norm of 1e-6 than τ = n",
    needs=[
        "gisette-exponential",
        "gisette-linear",
        "gisette-adaptive*",
        "gisette-cubic",
        "lse-exponential",
        "lse-linear",
        "lse-cubic",
    ],
)
def growing(results: Results) -> Verdict:
    """Sums of tau^2 + tau."""
    jobs = [
        j
        for p in ("gisette", "lse")
        for k in ("exponential", "linear", "adaptive", "adaptive-tight", "cubic")
        if results.data(j := f"{p}-{k}")
    ]
    found = {job: cost(results, job, "coordinates") for job in jobs}
    judged = [job for job in jobs if not job.endswith(("cubic", "tight"))]
    holds = all(found[job] < found[job.split("-")[0] + "-cubic"] for job in judged)
    return Verdict(holds, "sum of τ² + τ: " + told(found) + " (tight: c = 1e-6, own)", plain(found))


@claim(
    "a schedule beats every constant size",
    literature="own question",
    criterion="on gisette and log-sum-exp the best schedule takes a smaller sum of τ² + τ to 1e-6 than every constant "
    "size",
    needs=["gisette-*", "lse-*"],
)
def scheduled(results: Results) -> Verdict:
    """The best of both kinds."""
    found: dict[str, float] = {}
    holds: list[bool] = []
    for p in ("gisette", "lse"):
        grown = {k: cost(results, f"{p}-{k}", "coordinates") for k in ("exponential", "linear")}
        fixed = {job: cost(results, job, "coordinates") for job in names(p, full=True)}
        best, least = min(grown, key=lambda k: grown[k]), min(fixed, key=lambda k: fixed[k])
        found |= {f"{p}-{best}": grown[best], least: fixed[least]}
        holds.append(grown[best] < fixed[least])
    return Verdict(all(holds), "best of each: " + told(found), plain(found))


def _middle(p: str) -> int:
    return SIZES[p][-1] if p == "mlp" else SIZES[p][len(SIZES[p]) // 2]


@claim(
    "curvature beats coordinate descent in steps",
    literature=f"speed-up over first-order subspaces ({PAPER})",
    criterion="on every problem SSCN takes fewer steps to the target than coordinate descent with the same size, for "
    "the smallest size and the middle one",
    needs=[f"{p}-{k}-{t}" for p in PROBLEMS for k in ("cd", "doubling") for t in {SIZES[p][0], _middle(p)}],
)
def coordinate_descent(results: Results) -> Verdict:
    """Steps of both."""
    pairs = [(f"{p}-doubling-{t}", f"{p}-cd-{t}") for p in PROBLEMS for t in (SIZES[p][0], _middle(p))]
    found = {job: cost(results, job) for pair in pairs for job in pair}
    return Verdict(all(found[a] < found[b] for a, b in pairs), "steps: " + told(found, 5), plain(found))


@claim(
    "beats RS-RNM in seconds",
    literature=f"speed-up over another second-order subspace method ({PAPER})",
    criterion="on every linear model SSCN (doubling, middle size) comes to 1e-6 in fewer CPU seconds than RS-RNM in as "
    "many dimensions, with P's entries of deviation 1 / s as published and with 1 / sqrt(s) (unit)",
    needs=[f"{p}-{k}-{_middle(p)}" for p in LINEAR for k in ("rsrnm", "rsrnm-unit", "doubling")],
)
def random_subspaces(results: Results) -> Verdict:
    """Seconds of all three."""
    found: dict[str, float] = {}
    holds: list[bool] = []
    for p in LINEAR:
        jobs = [f"{p}-{k}-{_middle(p)}" for k in ("doubling", "rsrnm", "rsrnm-unit")]
        found |= {job: cost(results, job, "seconds") for job in jobs}
        holds.append(found[jobs[0]] < min(found[job] for job in jobs[1:]))
    text = "seconds: " + told(found, 2) + "; RS-RNM's products go through the graph, SSCN's blocks use the margins"
    return Verdict(all(holds), text, plain(found))


def _first_order(other: str, words: str, said: str) -> Any:
    @claim(
        f"beats {words} in seconds",
        literature=said,
        criterion=f"on every linear model the fastest constant size (doubling, below n) comes to 1e-6 in fewer CPU "
        f"seconds than {words}",
        needs=[job for p in LINEAR for job in (*names(p), f"{p}-{other}")],
    )
    def judge(results: Results) -> Verdict:
        found: dict[str, float] = {}
        holds: list[bool] = []
        for p in LINEAR:
            times = {job: cost(results, job, "seconds") for job in names(p)}
            best = min(times, key=lambda job: times[job])
            found |= {best: times[best], f"{p}-{other}": cost(results, f"{p}-{other}", "seconds")}
            holds.append(times[best] < found[f"{p}-{other}"])
        return Verdict(all(holds), "seconds: " + told(found, 2), plain(found))

    return judge


gradient_descent = _first_order(
    "gd", "gradient descent", f"substantial speed-ups over conventional first-order methods ({PAPER})"
)
lbfgs = _first_order("lbfgs", "L-BFGS", "own question: torch's L-BFGS with a strong Wolfe search")


@claim(
    "ends at second-order stationary points",
    literature=f"second-order stationary points, adaptive sampling ({PAPER})",
    criterion=f"every run with doubling that came to its gradient norm ends where the smallest eigenvalue of the whole "
    f"Hessian, less its error, is at least -{PSD:g}",
    needs=["*-doubling-*"],
)
def second_order(results: Results) -> Verdict:
    """The smallest eigenvalues of the whole Hessian, by problem."""
    found: dict[str, list[float]] = {}
    ended: dict[str, list[float]] = {}
    for data in results.data("*-doubling-*").values():
        for run in data["runs"]:
            if target(data["problem"]) in run["to"]:
                found.setdefault(data["problem"], []).append(float(run["lambda_min"]) - float(run["lambda_error"]))
                ended.setdefault(data["problem"], []).append(run["gradient_norm"])
    least = {p: min(values) for p, values in found.items()}
    text = f"{sum(map(len, found.values()))} runs, least by problem: " + told(least)
    text += "; largest gradient norms there: " + told({p: max(values) for p, values in ended.items()}, 2)
    return Verdict(bool(least) and min(least.values()) >= -PSD, text, plain(least))


def _duke(rule: str, said: str, within: int) -> Any:
    @claim(
        f"1e-9 on the shape of duke, {rule}",
        literature=said,
        criterion=f"every size of 50 … 500 brings the gradient norm to 1e-9 within {within} steps",
        needs="duke-*",
    )
    def judge(results: Results) -> Verdict:
        found = {job: cost(results, job, level="1e-09") for job in names("duke", rule)}
        runs = {job: results.data(job)[job]["runs"][0] for job in found}
        text = "steps: " + told(found, 5) + "; least norm, steps made: "
        text += "; ".join(f"{job} {run['least_norm']:.2g}, {run['steps']}" for job, run in runs.items())
        return Verdict(max(found.values()) <= within, text, plain(found))

    return judge


tight = _duke("doubling", "a gradient norm of 1e-9 is within reach with a rule that tries the same subset again", 5000)
tight_published = _duke("ratio", f"tolerance 1e-9, 5000 iterations (settings of {PAPER})", SHAPED)

CLAIMS: tuple[Any, ...] = (
    any_size,
    published,
    fewer,
    in_coordinates,
    in_seconds,
    growing,
    scheduled,
    coordinate_descent,
    random_subspaces,
    gradient_descent,
    lbfgs,
    second_order,
    tight,
    tight_published,
)
