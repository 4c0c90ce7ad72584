"""The claims of `runs.ngn` on small problems, each with the rule that decides it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.ngn.network_claims import PAPER
from runs.ngn.toys import DRAWS, MOVERS, QUARTIC_STEPS, READINGS, ROSENBROCK_STEPS, SCHEDULES, SHIFTS, STARTS, VERSIONS
from runs.shared.tables import listed

PUBLISHED = {"gdm": ("0.01", 691), "ngn-m": ("10", 269)}
BOUNDED = 1e3  # times f(0) - f^*
SMALL = 2.0  # times the f at the end with c_k = 1/sqrt(k)
Steps = dict[str, int | None]  # by step size: of a run to the minimum, None where it took too long, -1 if it diverged


def _counts(steps: Steps) -> str:
    words = {None: "not reached", -1: "diverged"}
    return ", ".join(f"{lr}: {words.get(k, k)}" for lr, k in steps.items())


def _arrivals(steps: Steps) -> dict[str, int]:
    """The step sizes at which the run ended at the minimum."""
    return {lr: k for lr, k in steps.items() if k is not None and k >= 0}


# -- Rosenbrock and x^2 + x^4 ----------------------------------------------------------------------------------------


@claim(
    "NGN-M converges on Rosenbrock's function at every step size",
    source="text",
    literature=f"converges for all c in 1e-3 … 1e2 from (-1.2, 1), SGDM diverges from 1e-2 ({PAPER}, section 5)",
    criterion=f"with β = 0.9 f < 1e-15 within {ROSENBROCK_STEPS} steps at each of c = 1e-3, 1e-2, …, 1e2",
    needs="rosenbrock-ngn-m",
    control=Control(
        "SGDM in the place of NGN-M",
        lambda judge, results: judge(results.instead({"rosenbrock-ngn-m": "rosenbrock-sgd-m"})),
        ("rosenbrock-sgd-m",),
    ),
)
def rosenbrock_ngn(results: Results) -> Verdict:
    steps = results.one("rosenbrock-ngn-m")["steps"]
    return Verdict(_arrivals(steps) == steps, "steps by c: " + _counts(steps), steps)


@claim(
    "SGD with momentum diverges there from 1e-2 on",
    source="text",
    literature=f"{PAPER}, section 5; SGDM has dampening 0.9 there",
    criterion="f passes 1e10 at every c >= 1e-2 and converges at 1e-3 undamped and with torch's dampening 0.9, which "
    "takes the first step whole; with 1 - β on every step it converges at 1e-3 and 1e-2 and diverges from 0.1 on",
    needs="rosenbrock-sgd-m*",
    control=Control(
        "NGN-M in the place of SGDM",
        lambda judge, results: judge(results.instead({"rosenbrock-sgd-m-torch": "rosenbrock-ngn-m"})),
        ("rosenbrock-ngn-m",),
    ),
)
def rosenbrock_sgd(results: Results) -> Verdict:
    words = {"sgd-m": "1 - β on every step", "sgd-m-torch": "dampening 0.9 of torch", "sgd-m-undamped": "undamped"}
    converges = {"sgd-m": ["0.001", "0.01"], "sgd-m-torch": ["0.001"], "sgd-m-undamped": ["0.001"]}
    found = {name: results.one(f"rosenbrock-{name}")["steps"] for name in MOVERS if name in words}
    ended = all(k is not None for steps in found.values() for k in steps.values())
    holds = ended and {name: list(_arrivals(steps)) for name, steps in found.items()} == converges
    text = "steps by c. " + listed({words[name]: _counts(steps) for name, steps in found.items()})
    return Verdict(holds, text, found)


@claim(
    "step counts on x² + x⁴",
    source="text",
    literature=f"best heavy ball 691 steps at 1e-2, NGN-M 269 at c = 10, c in 1e-4 … 1e4, start not given ({PAPER})",
    criterion="from one of the starts " + ", ".join(f"{x:g}" for x in STARTS) + " the fewest steps of either to "
    f"f < 1e-15 (at most {QUARTIC_STEPS}) are at the published step size and within 1 of the published count",
    needs="quartic",
    control=Control(
        "a published count of NGN-M that is 5 larger",
        lambda judge, results: judge(results, published=PUBLISHED | {"ngn-m": ("10", 274)}),
    ),
)
def quartic_counts(results: Results, published: Mapping[str, tuple[str, int]] = PUBLISHED) -> Verdict:
    def fewest(solvers: dict[str, Steps]) -> dict[str, tuple[str, int]]:
        reached = {solver: _arrivals(steps) for solver, steps in solvers.items()}
        return {s: min(steps.items(), key=lambda item: item[1]) for s, steps in reached.items() if steps}

    def same(found: dict[str, tuple[str, int]]) -> bool:
        pairs = [(found.get(s, ("", 0)), one) for s, one in published.items()]
        return all(lr == at and abs(k - steps) <= 1 for (lr, k), (at, steps) in pairs)

    best = {start: fewest(solvers) for start, solvers in results.one("quartic")["counts"].items()}

    fitting = [start for start, found in best.items() if same(found)]
    text = "; ".join(f"x₀ = {x}: " + ", ".join(f"{s} {k} at {lr}" for s, (lr, k) in b.items()) for x, b in best.items())
    return Verdict(bool(fitting), f"fewest steps. {text}", {"best": best, "fitting": fitting})


@claim(
    "NGN-M converges on x² + x⁴ at any large step size",
    source="theorem",
    literature=f"for every c >= 1/2 and β >= 9/25, in the limit ({PAPER}, Theorem E.5)",
    criterion=f"f < 1e-15 within {QUARTIC_STEPS} steps for c in 0.5, 1, 10, 1e3, 1e6, β in 9/25, 0.5, 0.9 and x₀ in "
    "0.1, 1, 10, 100",
    needs="quartic",
    quick=True,
    control=Control("the heavy ball in the place of NGN-M", lambda judge, results: judge(results, solver="gdm")),
)
def quartic_theorem(results: Results, solver: str = "ngn-m") -> Verdict:
    runs = results.one("quartic")["theorem"][solver]
    reached = [k for k in (run["steps"] for run in runs) if k is not None and k >= 0]
    text = f"{len(reached)} of {len(runs)} runs, in {min(reached)} to {max(reached)} steps" if reached else "no run"
    return Verdict(len(reached) == len(runs), text, {"reached": len(reached), "runs": len(runs)})


# -- diabetes --------------------------------------------------------------------------------------------------------

REGRESSION = [f"diabetes-{reading}" for reading in READINGS]
READING = (
    "judged in one reading of “normalised”, A and b scaled to [0, 1], the others (rows or columns of length 1) told; "
    "chosen after all had been looked at"
)


@claim(
    "larger steps help on diabetes",
    source="figure",
    literature=f"NGN-M is faster at c = 10, 100 and does not diverge at 1e3, data normalised ({PAPER}, Fig. 1)",
    criterion="NGN-M at c = 10 and at 100 takes fewer steps than at 1 to 1e-2 of f(0) - f*, and at 1e3 f - f* stays "
    f"below {BOUNDED:g} times its start; {READING}",
    needs=REGRESSION,
    quick=True,
    control=Control("SGDM in the place of NGN-M", lambda judge, results: judge(results, version="sgd-m")),
)
def diabetes_accelerates(results: Results, version: str = "ngn-m") -> Verdict:
    found = {d: results.one(d)["runs"][version] for d in REGRESSION}
    steps = {d: {lr: run["to_1e-2"] for lr, run in runs.items()} for d, runs in found.items()}
    largest = {d: runs["1000"]["largest"] for d, runs in found.items()}

    def faster(k: Steps) -> bool:
        first = k["1"]
        return first is not None and all((there := k[lr]) is not None and there < first for lr in ("10", "100"))

    def tell(job: str) -> str:
        most = "diverged" if largest[job] is None else f"{short(largest[job], 3)} times its start"
        return f"{job.removeprefix('diabetes-')}: {_counts(steps[job])}, at 1000 at most {most}"

    most = largest[REGRESSION[0]]
    holds = faster(steps[REGRESSION[0]]) and most is not None and most <= BOUNDED
    return Verdict(holds, f"steps by c. {'; '.join(map(tell, steps))}", {"steps": steps, "largest": largest})


@claim(
    "the step must not come from a mean of gradients",
    source="text",
    literature=f"version 2, with the norm of the running mean in the step, diverges on diabetes at 1e3 ({PAPER})",
    criterion=f"f of version 2 passes 1e30 at c = 1e3, that of NGN-M at no c; {READING}",
    needs=REGRESSION,
    quick=True,
    control=Control("NGN-M in the place of version 2", lambda judge, results: judge(results, second="ngn-m")),
)
def diabetes_version(results: Results, second: str = "version-2") -> Verdict:
    def lost_at(reading: str, version: str) -> list[str]:
        runs = results.one(f"diabetes-{reading}")["runs"][version]
        return [lr for lr, run in runs.items() if run["largest"] is None]

    lost = {version: {reading: lost_at(reading, version) for reading in READINGS} for version in VERSIONS}

    def told(by: dict[str, list[str]]) -> str:
        return ", ".join(f"{reading} at {' '.join(lrs)}" for reading, lrs in by.items() if lrs) or "nowhere"

    judged = READINGS[0]
    text = "diverges. " + listed({version: told(by) for version, by in lost.items()})
    return Verdict("1000" in lost[second][judged] and not lost["ngn-m"][judged], text, lost)


# -- a square system -------------------------------------------------------------------------------------------------


def _left(results: Results, own: Mapping[str, str], scaled: str = "scaled") -> dict[str, dict[str, dict[str, float]]]:
    """By r and K: f over f(0) a tenth of the way and at the end for each c_k, medians over the draws of A and y."""
    draws = [data["runs"] for data in results.family(f"{scaled}-").values()]
    found = {}
    for same in zip(*draws, strict=True):
        condition = float(np.median([run["condition"] for run in same]))
        name = f"r = {same[0]['shift']:g} (κ {short(condition, 2)}), K = {same[0]['steps']}"
        found[name] = {
            c: {at: float(np.median([run["left"][own.get(c, c)][at] for run in same])) for at in ("tenth", "end")}
            for c in SCHEDULES
        }
    return found


SQUARE = (
    f"on ‖s(A + rI)x - y‖²/2, A 400 x 400 and y normal, r = {', '.join(f'{r:g}' for r in SHIFTS)}, K = 1000, 4000, β = "
    f"0.9 from 0, f at the end, median over {DRAWS} draws"
)
SCALED = "; all of the figure is judged with s = 1/√400, chosen after s = 1, of which it does not hold"


def _instead(own: str, other: str) -> Control:
    """The control with another c_k in the place of one."""
    return Control(f"c_k = {other} in its place", lambda judge, results: judge(results, own={own: other}))


def _square(
    name: str,
    literature: str,
    rule: str,
    control: Control,
    holds: Callable[[Any], bool],
    shown: tuple[str, Callable[[Any], Iterable[float]]],
) -> Claim:
    @claim(
        name,
        source="figure",
        literature=f"{literature} ({PAPER}, Fig. H.4; r, K, β and the start are not given)",
        criterion=f"{SQUARE}, {rule} for each r and K{SCALED}",
        needs=["scaled-*", "unscaled-*"],
        control=control,
    )
    def judge(results: Results, own: Mapping[str, str] | None = None) -> Verdict:
        found, others = _left(results, own or {}), _left(results, own or {}, "unscaled")

        def tell(name: str, at: Any) -> str:
            return f"{name}: " + ", ".join(short(value, 2) for value in shown[1](at))

        missed = [name for name, at in others.items() if not holds(at)]
        after = f". With s = 1 not for {len(missed)} of {len(others)}" if missed else ""
        return every(found, holds, tell, before=f"{shown[0]}. ", after=after)

    return judge


def _ends(at: Any, *chosen: str) -> list[float]:
    return [run["end"] for c, run in at.items() if not chosen or c in chosen]


fastest = _square(
    "c_k = 1/√k is the fastest",
    "in all cases, of 1/√k, 1/√K, 1e-3, 1e-4",
    "is smallest with 1/√k",
    _instead("1/sqrt(k)", "1e-4"),
    lambda at: at["1/sqrt(k)"]["end"] <= min(_ends(at)),
    (f"f over f(0) at the end with {', '.join(SCHEDULES)}", lambda at: _ends(at)),
)
competitive = _square(
    "c = 1/√K is competitive but slow at the start",
    "with 1/√k",
    "is second with 1/√K, and after a tenth of the steps above that with 1/√k",
    _instead("1/sqrt(K)", "1e-4"),
    lambda at: (
        at["1/sqrt(K)"]["end"] < min(_ends(at, "1e-3", "1e-4")) and at["1/sqrt(K)"]["tenth"] > at["1/sqrt(k)"]["tenth"]
    ),
    (
        "f over that with 1/√k after a tenth of the steps and at the end",
        lambda at: [at["1/sqrt(K)"][when] / at["1/sqrt(k)"][when] for when in ("tenth", "end")],
    ),
)
too_small = _square(
    "c = 1e-3 and 1e-4 are too small",
    "too small",
    f"is with either at least {SMALL:g} times that with 1/√k",
    _instead("1e-3", "1/sqrt(K)"),
    lambda at: min(_ends(at, "1e-3", "1e-4")) >= SMALL * at["1/sqrt(k)"]["end"],
    (
        "f at the end over that with 1/√k, 1e-3 and 1e-4",
        lambda at: [end / at["1/sqrt(k)"]["end"] for end in _ends(at, "1e-3", "1e-4")],
    ),
)


ROSENBROCK = rosenbrock_ngn, rosenbrock_sgd
QUARTIC = quartic_counts, quartic_theorem
CLAIMS = (*ROSENBROCK, *QUARTIC, diabetes_accelerates, diabetes_version, fastest, competitive, too_small)
