"""The claims of `runs.ngn`, each with the rule that decides it. Those on networks are in `network_claims`."""

from __future__ import annotations

from probes.numbers import short
from runs.engine.claims import Results, Verdict, claim, every
from runs.ngn import network_claims
from runs.ngn.network_claims import PAPER
from runs.ngn.toys import MOVERS, NOISY, QUARTIC_STEPS, READINGS, ROSENBROCK_STEPS, STARTS, VERSIONS
from runs.shared.tables import listed

CONDITION = "arXiv 2410.12455"
PUBLISHED = {"gdm": ("0.01", 691), "ngn-m": ("10", 269)}
BOUNDED = 1e3  # times f(0) - f^*
Steps = dict[str, int | None]  # by step size: of a run to the minimum, None where it took too long, -1 if it diverged
REGRESSION = [f"diabetes-{reading}" for reading in READINGS]


def _counts(steps: Steps) -> str:
    words = {None: "not reached", -1: "diverged"}
    return ", ".join(f"{lr}: {words.get(k, k)}" for lr, k in steps.items())


def _arrivals(steps: Steps) -> dict[str, int]:
    """The step sizes at which the run ended at the minimum."""
    return {lr: k for lr, k in steps.items() if k is not None and k >= 0}


@claim(
    "NGN-M converges on Rosenbrock's function at every step size",
    source="text",
    literature=f"converges for all c in 1e-3 … 1e2 from (-1.2, 1), SGDM diverges from 1e-2 ({PAPER}, section 5)",
    criterion=f"with β = 0.9 f < 1e-15 within {ROSENBROCK_STEPS} steps at each of c = 1e-3, 1e-2, …, 1e2",
    needs="rosenbrock-ngn-m",
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
)
def quartic_counts(results: Results) -> Verdict:
    def fewest(solvers: dict[str, Steps]) -> dict[str, tuple[str, int]]:
        reached = {solver: _arrivals(steps) for solver, steps in solvers.items()}
        return {s: min(steps.items(), key=lambda item: item[1]) for s, steps in reached.items() if steps}

    def same(found: dict[str, tuple[str, int]]) -> bool:
        pairs = [(found.get(s, ("", 0)), published) for s, published in PUBLISHED.items()]
        return all(lr == published and abs(k - steps) <= 1 for (lr, k), (published, steps) in pairs)

    best = {start: fewest(solvers) for start, solvers in results.one("quartic")["counts"].items()}

    fitting = [start for start, found in best.items() if same(found)]
    text = "; ".join(f"x₀ = {x}: " + ", ".join(f"{s} {k} at {lr}" for s, (lr, k) in b.items()) for x, b in best.items())
    return Verdict(bool(fitting), f"fewest steps. {text}", {"best": best, "fitting": fitting})


@claim(
    "NGN-M converges on x² + x⁴ at any large step size",
    source="theorem",
    literature=f"for every c >= 1/2 and β >= 9/25 ({PAPER}, Theorem E.5)",
    criterion=f"f < 1e-15 within {QUARTIC_STEPS} steps for c in 0.5, 1, 10, 1e3, 1e4, β in 9/25, 0.5, 0.9 and x₀ in "
    "0.1, 1, 10, 100",
    needs="quartic",
)
def quartic_theorem(results: Results) -> Verdict:
    runs = results.one("quartic")["theorem"]
    reached = [k for k in (run["steps"] for run in runs) if k is not None and k >= 0]
    text = f"{len(reached)} of {len(runs)} runs, in {min(reached)} to {max(reached)} steps" if reached else "no run"
    return Verdict(len(reached) == len(runs), text, {"runs": runs})


@claim(
    "larger steps help on diabetes",
    source="figure",
    literature=f"NGN-M accelerates at c in {{10, 100}} and does not diverge at 1e3, data normalised ({PAPER})",
    criterion="in some reading of “normalised” (rows or columns of length 1, sum or mean of squares) NGN-M at c = 10 "
    "and at 100 takes fewer steps than at 1 to 1e-2 of f(0) - f*, and at 1e3 f - f* stays in every reading below "
    f"{BOUNDED:g} times its start",
    needs=REGRESSION,
)
def diabetes_accelerates(results: Results) -> Verdict:
    found = {d: results.one(d)["runs"]["ngn-m"] for d in REGRESSION}
    steps = {d: {lr: run["to_1e-2"] for lr, run in runs.items()} for d, runs in found.items()}
    largest = {d: runs["1000"]["largest"] for d, runs in found.items()}

    def faster(k: Steps) -> bool:
        first = k["1"]
        return first is not None and all((there := k[lr]) is not None and there < first for lr in ("10", "100"))

    def tell(job: str) -> str:
        most = "diverged" if largest[job] is None else f"{short(largest[job], 3)} times its start"
        return f"{job.removeprefix('diabetes-')}: {_counts(steps[job])}, at 1000 at most {most}"

    fitting = [d for d in steps if faster(steps[d])]
    bounded = all(value is not None and value <= BOUNDED for value in largest.values())
    numbers = {"steps": steps, "largest": largest, "fitting": fitting}
    return Verdict(bool(fitting) and bounded, f"steps by c. {'; '.join(map(tell, steps))}", numbers)


@claim(
    "the step must not come from a mean of gradients",
    source="text",
    literature=f"version 2, with the norm of the running mean in the step, diverges on diabetes at 1e3 ({PAPER})",
    criterion="in some reading f of version 2 passes 1e30 at c = 1e3, and that of NGN-M in none",
    needs=REGRESSION,
)
def diabetes_version(results: Results) -> Verdict:
    def lost_at(reading: str, version: str) -> list[str]:
        runs = results.one(f"diabetes-{reading}")["runs"][version]
        return [lr for lr, run in runs.items() if run["largest"] is None]

    lost = {version: {reading: lost_at(reading, version) for reading in READINGS} for version in VERSIONS}

    def diverges(version: str) -> bool:
        return any("1000" in lrs for lrs in lost[version].values())

    def told(by: dict[str, list[str]]) -> str:
        return ", ".join(f"{reading} at {' '.join(lrs)}" for reading, lrs in by.items() if lrs) or "nowhere"

    text = "diverges. " + listed({version: told(by) for version, by in lost.items()})
    return Verdict(diverges("version-2") and not diverges("ngn-m"), text, lost)


@claim(
    "the theorems' bounds hold on two noisy functions",
    source="theorem",
    literature=f"Theorems 2, 3 and 6 of {CONDITION}, with the constants of the two functions (L = 3)",
    criterion="the smallest mean (over the runs) of f - f* is at most the bound, for SPS_max (cap 0.03, 0.3), NGN "
    "(0.01, 0.1, 1) and NGN with c/√(k+1) (0.1, 1)",
    needs="noisy-*",
    quick=True,
)
def bounds_hold(results: Results) -> Verdict:
    def tell(name: str, run: dict[str, float]) -> str:
        bound, least = run["bound"], run["least"]
        return f"{name}: {short(bound, 3)} / {short(least, 2)} = {short(bound / least, 2)}"

    jobs = {name: results.one(f"noisy-{name}")["runs"] for name in NOISY}
    found = {f"{name} {lr}": run for name, runs in jobs.items() for lr, run in runs.items()}
    return every(found, lambda run: run["least"] <= run["bound"], tell, before="bound / measured: ")


@claim(
    "decreasing steps get past the noise",
    source="theorem",
    literature=f"Õ(1/√K) with c/√(k+1), a neighbourhood with constant c (NGN: arXiv 2407.04358; {CONDITION})",
    criterion="on the two noisy functions f - f*, mean over the last tenth of the steps, is with c/√(k+1) at most half "
    "of that with constant c, for c = 0.1 and 1",
    needs=["noisy-ngn", "noisy-ngn-sqrt"],
)
def decreasing(results: Results) -> Verdict:
    constant, falling = (results.one(job)["runs"] for job in ("noisy-ngn", "noisy-ngn-sqrt"))
    return every(
        {lr: {"constant": constant[lr]["late"], "falling": falling[lr]["late"]} for lr in falling},
        lambda late: 2 * late["falling"] <= late["constant"],
        lambda lr, late: f"c = {lr}: {short(late['constant'], 3)} → {short(late['falling'], 3)}",
        before="f - f* with constant → decreasing steps. ",
    )


ROSENBROCK = rosenbrock_ngn, rosenbrock_sgd
QUARTIC = quartic_counts, quartic_theorem
DIABETES = diabetes_accelerates, diabetes_version
CLAIMS = *ROSENBROCK, *QUARTIC, *DIABETES, bounds_hold, decreasing, *network_claims.CLAIMS
