"""The claims of `runs.ngn`, each with the rule that decides it. Those on networks are in `ngn_network_claims`."""

from __future__ import annotations

from typing import Any

from probes.numbers import short
from runs.engine.claims import Results, Verdict, claim
from runs.ngn.network_claims import CLAIMS as NETWORK_CLAIMS
from runs.ngn.toys import MOVERS, NOISY, QUARTIC_STEPS, READINGS, ROSENBROCK_STEPS, STARTS

PAPER = "Islamov et al. 2025, arXiv 2508.15071"
CONDITION = "arXiv 2410.12455"
PUBLISHED = {"gdm": ("0.01", 691), "ngn-m": ("10", 269)}
BOUNDED = 1e3  # times f(0) - f^*
REGRESSION = [f"diabetes-{reading}" for reading in READINGS]


def count(steps: int | None) -> str:
    """Steps of a run in words."""
    return {None: "not reached", -1: "diverged"}.get(steps, str(steps))


def _counts(steps: dict[str, int | None]) -> str:
    return ", ".join(f"{lr}: {count(k)}" for lr, k in steps.items())


@claim(
    "NGN-M converges on Rosenbrock's function at every step size",
    literature=f"converges for all c in 1e-3 … 1e2 from (-1.2, 1), SGDM diverges from 1e-2 ({PAPER}, section 5)",
    criterion=f"with β = 0.9 f < 1e-15 within {ROSENBROCK_STEPS} steps at each of c = 1e-3, 1e-2, …, 1e2",
    needs="rosenbrock-ngn-m",
)
def rosenbrock_ngn(results: Results) -> Verdict:
    """Steps by c."""
    steps = results.data("rosenbrock-ngn-m")["rosenbrock-ngn-m"]["steps"]
    return Verdict(all(k is not None and k >= 0 for k in steps.values()), "steps by c: " + _counts(steps), steps)


@claim(
    "SGD with momentum diverges there from 1e-2 on",
    literature=f"{PAPER}, section 5; SGDM has dampening 0.9 there",
    criterion="f passes 1e10 at every c >= 1e-2 and converges at 1e-3 undamped and with torch's dampening 0.9, which "
    "takes the first step whole; with 1 - β on every step it converges at 1e-3 and 1e-2 and diverges from 0.1 on",
    needs="rosenbrock-sgd-m*",
)
def rosenbrock_sgd(results: Results) -> Verdict:
    """Steps by c, for three ways of damping."""
    found = {n: results.data(f"rosenbrock-{n}")[f"rosenbrock-{n}"]["steps"] for n in MOVERS if n.startswith("sgd")}
    converged = {name: [lr for lr, k in steps.items() if k is not None and k >= 0] for name, steps in found.items()}
    lost = all(k is None or k >= 0 or k == -1 for steps in found.values() for k in steps.values())
    lost = lost and not any(k is None for steps in found.values() for k in steps.values())
    wanted = {"sgd-m": ["0.001", "0.01"], "sgd-m-torch": ["0.001"], "sgd-m-undamped": ["0.001"]}
    words = {"sgd-m": "1 - β on every step", "sgd-m-torch": "dampening 0.9 of torch", "sgd-m-undamped": "undamped"}
    text = "; ".join(f"{words[name]}: {_counts(steps)}" for name, steps in found.items())
    return Verdict(lost and converged == wanted, "steps by c. " + text, found)


@claim(
    "step counts on x² + x⁴",
    literature=f"best heavy ball 691 steps at 1e-2, NGN-M 269 at c = 10, c in 1e-4 … 1e4, start not given ({PAPER})",
    criterion="from one of the starts " + ", ".join(f"{x:g}" for x in STARTS) + " the fewest steps of either to "
    f"f < 1e-15 (at most {QUARTIC_STEPS}) are at the published step size and within 1 of the published count",
    needs="quartic",
)
def quartic_counts(results: Results) -> Verdict:
    """The best of both solvers from each start."""
    counts = results.data("quartic")["quartic"]["counts"]
    best: dict[str, dict[str, tuple[str, int]]] = {}
    for start, solvers in counts.items():
        reached = {s: {lr: k for lr, k in steps.items() if k is not None and k >= 0} for s, steps in solvers.items()}
        best[start] = {s: min(steps.items(), key=lambda item: item[1]) for s, steps in reached.items() if steps}

    def same(start: str) -> bool:
        return all(
            s in best[start] and best[start][s][0] == lr and abs(best[start][s][1] - k) <= 1
            for s, (lr, k) in PUBLISHED.items()
        )

    fitting = [start for start in best if same(start)]
    text = "; ".join(f"x₀ = {x}: " + ", ".join(f"{s} {k} at {lr}" for s, (lr, k) in b.items()) for x, b in best.items())
    return Verdict(bool(fitting), f"fewest steps. {text}", {"best": best, "fitting": fitting})


@claim(
    "NGN-M converges on x² + x⁴ at any large step size",
    literature=f"for every c >= 1/2 and β >= 9/25 ({PAPER}, Theorem E.5)",
    criterion=f"f < 1e-15 within {QUARTIC_STEPS} steps for c in 0.5, 1, 10, 1e3, 1e4, β in 9/25, 0.5, 0.9 and x₀ in "
    "0.1, 1, 10, 100",
    needs="quartic",
)
def quartic_theorem(results: Results) -> Verdict:
    """All settings."""
    runs = results.data("quartic")["quartic"]["theorem"]
    steps = [run["steps"] for run in runs]
    reached = [k for k in steps if k is not None and k >= 0]
    text = f"{len(reached)} of {len(steps)} runs, in {min(reached)} to {max(reached)} steps" if reached else "no run"
    return Verdict(len(reached) == len(steps), text, {"runs": runs})


@claim(
    "larger steps help on diabetes",
    literature=f"NGN-M accelerates at c in {{10, 100}} and does not diverge at 1e3, data normalised ({PAPER})",
    criterion="in some reading of “normalised” (rows or columns of length 1, sum or mean of squares) NGN-M at c = 10 "
    "and at 100 takes fewer steps than at 1 to 1e-2 of f(0) - f*, and at 1e3 f - f* stays in every reading below "
    f"{BOUNDED:g} times its start",
    needs=REGRESSION,
)
def diabetes_accelerates(results: Results) -> Verdict:
    """Steps by reading."""
    found = {d: results.data(d)[d]["runs"]["ngn-m"] for d in REGRESSION}
    steps = {d: {lr: run["to_1e-2"] for lr, run in runs.items()} for d, runs in found.items()}

    def faster(k: dict[str, int | None]) -> bool:
        first = k["1"]
        return first is not None and all((there := k[lr]) is not None and there < first for lr in ("10", "100"))

    fitting = [d for d in steps if faster(steps[d])]
    largest = {d: runs["1000"]["largest"] for d, runs in found.items()}
    bounded = all(value is not None and value <= BOUNDED for value in largest.values())
    text = "; ".join(
        f"{d.removeprefix('diabetes-')}: {_counts(k)}, at 1000 at most {_times(largest[d])}" for d, k in steps.items()
    )
    return Verdict(
        bool(fitting) and bounded, "steps by c. " + text, {"steps": steps, "largest": largest, "fitting": fitting}
    )


def _times(value: float | None) -> str:
    return "diverged" if value is None else f"{short(value, 3)} times its start"


@claim(
    "the step must not come from a mean of gradients",
    literature=f"version 2, with the norm of the running mean in the step, diverges on diabetes at 1e3 ({PAPER})",
    criterion="in some reading f of version 2 passes 1e30 at c = 1e3, and that of NGN-M in none",
    needs=REGRESSION,
)
def diabetes_version(results: Results) -> Verdict:
    """The readings in which each diverges."""
    lost: dict[str, dict[str, list[str]]] = {}
    for version in ("ngn-m", "version-2", "sgd-m"):
        lost[version] = {
            d.removeprefix("diabetes-"): [
                lr for lr, run in results.data(d)[d]["runs"][version].items() if run["largest"] is None
            ]
            for d in REGRESSION
        }
    holds = any("1000" in lrs for lrs in lost["version-2"].values())
    holds = holds and not any("1000" in lrs for lrs in lost["ngn-m"].values())
    text = "; ".join(
        f"{version}: " + (", ".join(f"{d} at {' '.join(lrs)}" for d, lrs in by.items() if lrs) or "nowhere")
        for version, by in lost.items()
    )
    return Verdict(holds, f"diverges. {text}", lost)


@claim(
    "the theorems' bounds hold on two noisy functions",
    literature=f"Theorems 2, 3 and 6 of {CONDITION}, with the constants of the two functions (L = 3)",
    criterion="the smallest mean (over the runs) of f - f* is at most the bound, for SPS_max (cap 0.03, 0.3), NGN "
    "(0.01, 0.1, 1) and NGN with c/√(k+1) (0.1, 1)",
    needs="noisy-*",
    quick=True,
)
def bounds_hold(results: Results) -> Verdict:
    """Bound over measured."""
    found: dict[str, dict[str, Any]] = {}
    for name in NOISY:
        for lr, run in results.data(f"noisy-{name}")[f"noisy-{name}"]["runs"].items():
            found[f"{name} {lr}"] = run
    text = "; ".join(
        f"{name}: {short(r['bound'], 3)} / {short(r['least'], 2)} = {short(r['bound'] / r['least'], 2)}"
        for name, r in found.items()
    )
    return Verdict(all(r["least"] <= r["bound"] for r in found.values()), "bound / measured: " + text, found)


@claim(
    "decreasing steps get past the noise",
    literature=f"Õ(1/√K) with c/√(k+1), a neighbourhood with constant c (NGN: arXiv 2407.04358; {CONDITION})",
    criterion="on the two noisy functions f - f*, mean over the last tenth of the steps, is with c/√(k+1) at most half "
    "of that with constant c, for c = 0.1 and 1",
    needs=["noisy-ngn", "noisy-ngn-sqrt"],
)
def decreasing(results: Results) -> Verdict:
    """Late means of both."""
    constant, falling = (results.data(job)[job]["runs"] for job in ("noisy-ngn", "noisy-ngn-sqrt"))
    late = {lr: {"constant": constant[lr]["late"], "falling": falling[lr]["late"]} for lr in falling}
    holds = all(2 * v["falling"] <= v["constant"] for v in late.values())
    text = "; ".join(f"c = {lr}: {short(v['constant'], 3)} → {short(v['falling'], 3)}" for lr, v in late.items())
    return Verdict(holds, f"f - f* with constant → decreasing steps. {text}", late)


CLAIMS: tuple[Any, ...] = (
    rosenbrock_ngn,
    rosenbrock_sgd,
    quartic_counts,
    quartic_theorem,
    diabetes_accelerates,
    diabetes_version,
    bounds_hold,
    decreasing,
    *NETWORK_CLAIMS,
)
