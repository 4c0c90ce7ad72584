"""The theorems on NC0 = ||W^T 1|| among the claims of `runs.neural_collapse`."""

from __future__ import annotations

from typing import Any

from probes.numbers import short
from runs.engine.claims import Claim, Results, Verdict, claim, every
from runs.neural_collapse.criteria import PAPER

EXACT, SCHEDULED, LIMIT = 1e-10, 1e-6, 1e-12
FLOOR = 4.0  # times (K eta)^2


def exact(rule: str, name: str, literature: str) -> Claim:
    """The claim that NC0 obeys one rule's recursion on both models."""
    models = {"theory-model": "unconstrained features", "theory-network": "MLP on digits"}

    @claim(
        name,
        source="theorem",
        literature=literature,
        criterion=f"the largest relative error of NC0 over all steps is at most {EXACT:g} at momentum 0, 0.5 and 0.9, "
        "in the unconstrained-features model and for an MLP on mini-batches of digits, in float64",
        needs=list(models),
        quick=True,
    )
    def judge(results: Results) -> Verdict:
        def tell(job: str, runs: dict[str, Any]) -> str:
            each = ", ".join(f"{momentum}: {run['error']:.0e}" for momentum, run in runs.items())
            return f"{models[job]}, {results.one(job)['steps']} steps, by momentum: {each}"

        found = {job: {run["name"]: run for run in results.one(job)["runs"]} for job in models}
        found = {
            job: {name.removeprefix(f"{rule}-"): run for name, run in runs.items() if name.startswith(f"{rule}-")}
            for job, runs in found.items()
        }
        before = "largest relative error: "
        return every(found, lambda runs: all(run["error"] <= EXACT for run in runs.values()), tell, before=before)

    return judge


geometric = exact(
    "SGDW",
    "SGDW: NC0 falls geometrically",
    f"NC0² = (1 − η λ)^(2t) NC0₀², whatever the momentum, for any network with a linear head ({PAPER}, theorem 3.1)",
)
heavy_ball = exact(
    "SGD", "SGD: NC0 obeys the heavy ball", f"m = Wᵀ1 obeys m₊ = (1 + β − η λ) m − β m₋ ({PAPER}, theorem 3.2)"
)


@claim(
    "the bounds of stability",
    source="theorem",
    literature=f"NC0 → 0 if and only if 0 < η λ < 2 (1 + β) coupled, < 2 decoupled ({PAPER}, theorems 3.1 and 3.2)",
    criterion="at 0.99 of the bound NC0 falls to 1e-6 of its start, at 1.01 of it it rises to 1e6 times the start, at "
    "momentum 0, 0.5 and 0.9, both decays (unconstrained-features model with fixed features)",
    needs="theory-stability",
    quick=True,
)
def bounds(results: Results) -> Verdict:
    found = results.one("theory-stability")["runs"]
    below = [run for run in found if run["factor"] < 1]
    above = [run for run in found if run["factor"] > 1]
    vanished, diverged = sum(run["vanished"] for run in below), sum(run["diverged"] for run in above)
    told = f"below the bound {vanished} of {len(below)} vanish, above it {diverged} of {len(above)} diverge"
    return Verdict(vanished == len(below) and diverged == len(above), told, {"runs": found})


@claim(
    "predicted under a step schedule",
    source="derived",
    literature=f"the same recursions with the learning rate of each step (after {PAPER}, theorems 3.1 and 3.2)",
    criterion=f"`predict_nc0` is within {SCHEDULED:g} of the MLP's NC0 at every step of a schedule that falls twice to "
    "a tenth, both decays, momentum 0, 0.5 and 0.9, float64",
    needs="theory-schedule",
    quick=True,
)
def scheduled(results: Results) -> Verdict:
    found = results.one("theory-schedule")["runs"]
    told = ", ".join(f"{run['name']}: {run['error']:.0e}" for run in found)
    return Verdict(max(run["error"] for run in found) <= SCHEDULED, f"largest relative error: {told}", {"runs": found})


@claim(
    "the paper's heat map",
    source="figure",
    literature=f"NC0 of ResNet9 on FashionMNIST after 200 epochs of SGD, decay 0.005: 1.48 at momentum 0, 0.31 at 0.9 "
    f"({PAPER}, figure 5)",
    criterion="`predict_nc0`, from 1.75 and the schedule alone, is within 0.01 of both",
    needs="theory-heat-map",
    quick=True,
)
def heat_map(results: Results) -> Verdict:
    found = results.one("theory-heat-map")
    cells = zip(found["momenta"], found["values"], found["paper"], strict=True)
    return every(
        {f"momentum {momentum:g}": (value, paper) for momentum, value, paper in cells},
        lambda cell: abs(cell[0] - cell[1]) <= 0.01,
        lambda name, cell: f"{name}: {cell[0]:.3f} (paper {cell[1]})",
        numbers=found,
    )


@claim(
    "signs, decoupled: up to a limit",
    source="theorem",
    literature=f"in the unconstrained-features model from W = 0, ‖Wᵀ1‖ grows to √K (K − 2) / λ ({PAPER}, theorem 3.3)",
    criterion=f"simulated with K = 3, 4 and 10 it never falls by more than {LIMIT:g} of the limit, and ends within "
    f"{LIMIT:g} of it",
    needs="theory-sign-decoupled",
    quick=True,
)
def limit(results: Results) -> Verdict:
    found = results.one("theory-sign-decoupled")["runs"]
    return every(
        {f"K = {run['classes']}": run for run in found},
        lambda run: run["limit_error"] <= LIMIT and run["falls"] <= LIMIT,
        lambda name, run: (
            f"{name}: {short(run['last'], 6)}, off by {run['limit_error']:.0e} (from the closed form at every step "
            f"{run['error']:.0e})"
        ),
        numbers={"runs": found},
    )


def by_step_size(results: Results) -> dict[str, Any]:
    """The runs of signs with coupled decay."""
    return {f"η = {run['eta']:g}": run for run in results.one("theory-sign-coupled")["runs"]}


@claim(
    "signs, coupled: three phases",
    source="theorem",
    literature="W = (a + b) I − b J: first a and b grow, then a grows while b oscillates, then both do; so NC0 rises "
    f"before it falls ({PAPER}, theorem 3.4)",
    criterion="at every step size b falls for the first time before a does, both do before the end, b turns at least "
    "10 times between, and NC0 ends below a hundredth of its peak, which is neither the first nor the last step",
    needs="theory-sign-coupled",
    quick=True,
)
def three_phases(results: Results) -> Verdict:
    found = by_step_size(results)
    return every(
        found,
        lambda run: (
            0 < run["first_b"] < run["first_a"] < run["steps"]
            and run["turns"] >= 10
            and run["last"] < run["peak"] / 100
            and 0 < run["peak_step"] < run["steps"]
        ),
        lambda name, run: (
            f"{name}: phases end at {run['first_b']} and {run['first_a']} of {run['steps']}, b turns {run['turns']} "
            f"times, NC0 0 → {short(run['peak'], 3)} → {short(run['last'], 2)}"
        ),
        numbers={"runs": list(found.values())},
    )


@claim(
    "signs, coupled: a floor of the step size",
    source="theorem",
    literature=f"at a fixed step size NC0² / K ends at O((K η)²), not at 0 ({PAPER}, theorem 3.4)",
    criterion=f"its largest value over the last tenth of the steps is above 0 and at most {FLOOR:g} (K η)² at every "
    "step size",
    needs="theory-sign-coupled",
    quick=True,
)
def floor(results: Results) -> Verdict:
    found = by_step_size(results)
    return every(
        found,
        lambda run: 0 < run["alpha_over_bound"] <= FLOOR,
        lambda name, run: f"{name}: {short(run['alpha_over_bound'], 2)}",
        numbers={"runs": list(found.values())},
        before="NC0² / K / (K η)²: ",
    )


@claim(
    "signs, coupled: a decaying step arrives",
    source="theorem",
    literature=f"there is a decay η → 0 with NC0 → 0, at a = (K − 1) ψ / λ, b = ψ / λ ({PAPER}, theorem 3.4)",
    criterion="when the step size halves 30 times NC0 ends at most at 1e-6 of its peak, and a and b within 1e-6 of the "
    "fixed point, found by bisection",
    needs="theory-sign-decaying",
    quick=True,
)
def arrives(results: Results) -> Verdict:
    found = results.one("theory-sign-decaying")
    told = (
        f"NC0 0 → {short(found['peak'], 3)} → {found['last']:.0e}; a = {found['a']:.6f}, b = {found['b']:.6f}, off by "
        f"{found['error']:.0e} at most"
    )
    return Verdict(found["last"] <= 1e-6 * found["peak"] and found["error"] <= 1e-6, told, found)


CLAIMS = (geometric, heavy_ball, bounds, scheduled, heat_map, limit, three_phases, floor, arrives)
