"""The claims of `runs.neural_collapse` that need no trained network: the heat map of NC0, and the sign rules."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.neural_collapse.criteria import PAPER
from runs.neural_collapse.theory import HEAT_MAP, START

PRINTED = 0.006  # half a digit in the last place, and rounding of the start
LIMIT, FLOOR = 1e-12, 4.0  # relative; times (K eta)^2
FREE = "unconstrained features, W = 0 at the start"


@claim(
    "the paper's heat map of NC0",
    source="figure",
    literature=f"NC0 of ResNet9 on Fashion-MNIST after 200 epochs of SGD, 7 momenta by 8 decays ({PAPER}, Fig. 5)",
    criterion=f"all 56 printed cells are within {PRINTED:g} of the heavy ball's recursion of theorem 3.2 from the one "
    f"number NC0 = {START} before training, under the paper's schedule",
    needs="theory-heat-map",
    quick=True,
    control=Control("the recursion of decoupled decay, theorem 3.1", lambda judge, results: judge(results, "sgdw")),
)
def heat_map(results: Results, rule: str = "sgd") -> Verdict:
    found = np.array(results.one("theory-heat-map")[rule])
    off = np.abs(found - np.array(list(HEAT_MAP.values())))
    right = int((off <= PRINTED).sum())
    told = f"{right} of {off.size} cells, the largest difference is {off.max():.4f}"
    return Verdict(right == off.size, told, {"values": found.tolist(), "largest": float(off.max())})


def _ends_at(results: Results, root: bool = True) -> Verdict:
    found = {f"K = {run['classes']}": run for run in results.one("theory-sign-decoupled")["runs"]}

    def off(run: Any) -> float:
        limit = run["limit"] if root else run["limit"] / run["classes"] ** 0.5
        return float(abs(run["last"] / limit - 1))

    return every(
        found,
        lambda run: off(run) <= LIMIT and run["falls"] <= LIMIT,
        lambda name, run: f"{name}: {short(run['last'], 6)}, off by {off(run):.0e}",
    )


@claim(
    "signs, decoupled: NC0 rises to a limit",
    source="theorem",
    literature=f"{FREE}: NC0² / K grows to (K − 2)² / λ² ({PAPER}, theorem 3.3 as proved in E.3)",
    criterion=f"simulated with K = 3, 4, 10 NC0 never falls by more than {LIMIT:g} of the limit, and ends within "
    f"{LIMIT:g} of √K (K − 2) / λ",
    needs="theory-sign-decoupled",
    quick=True,
    control=Control("NC0² without the 1 / K, as in the main text", lambda judge, results: judge(results, root=False)),
)
def limit(results: Results, root: bool = True) -> Verdict:
    return _ends_at(results, root)


def by_step_size(results: Results, kind: str) -> dict[str, Any]:
    """The runs of signs with one kind of decay."""
    return {f"η = {run['eta']:g}": run for run in results.one("theory-sign-coupled")[kind]}


_BESIDE = Control("the same with the decay beside the sign", lambda judge, results: judge(results, "decoupled"))


@claim(
    "signs, coupled: three phases",
    source="theorem",
    literature=f"{FREE}, W = (a + b) I − b J: first a and b grow, then a grows while b oscillates, then both do, so "
    f"that NC0 rises before it falls ({PAPER}, theorem 3.4, E.4)",
    criterion="at every step size b falls for the first time before a does, both do before the end, b turns at least "
    "10 times between, and NC0 ends below a hundredth of its peak, which is neither the first nor the last step",
    needs="theory-sign-coupled",
    quick=True,
    control=_BESIDE,
)
def three_phases(results: Results, kind: str = "runs") -> Verdict:
    return every(
        by_step_size(results, kind),
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
    )


@claim(
    "signs, coupled: a floor of the step size",
    source="theorem",
    literature=f"{FREE}: at a fixed step size NC0² / K ends at O((K η)²), not at 0 ({PAPER}, theorem 3.4, E.4)",
    criterion=f"its largest value over the last tenth of the steps is above 0 and at most {FLOOR:g} (K η)² at every "
    "step size",
    needs="theory-sign-coupled",
    quick=True,
    control=_BESIDE,
)
def floor(results: Results, kind: str = "runs") -> Verdict:
    return every(
        by_step_size(results, kind),
        lambda run: 0 < run["alpha_over_bound"] <= FLOOR,
        lambda name, run: f"{name}: {short(run['alpha_over_bound'], 2)}",
        before="NC0² / K / (K η)²: ",
    )


@claim(
    "signs, coupled: a decaying step arrives",
    source="theorem",
    literature=f"{FREE}: there is a decay η → 0 with NC0 → 0, at a = (K − 1) ψ / λ, b = ψ / λ ({PAPER}, theorem 3.4; "
    "ψ at the logit gap (a + b) / √(K − 1))",
    criterion="when the step size halves 30 times NC0 ends at most at 1e-6 of its peak, and a and b within 1e-6 of the "
    "fixed point, found by bisection",
    needs="theory-sign-decaying",
    quick=True,
    control=Control("ψ at (a + b) / (K − 1), as printed in E.4", lambda judge, results: judge(results, "printed")),
)
def arrives(results: Results, gap: str = "fixed") -> Verdict:
    found = results.one("theory-sign-decaying")
    ends = [found["a"], found["b"]]
    error = max(abs(end / point - 1) for end, point in zip(ends, found[gap], strict=True))
    told = (
        f"NC0 0 → {short(found['peak'], 3)} → {found['last']:.0e}; a = {ends[0]:.6f}, b = {ends[1]:.6f}, off by "
        f"{error:.0e} at most"
    )
    return Verdict(found["last"] <= 1e-6 * found["peak"] and error <= 1e-6, told, found)


CLAIMS = (heat_map, limit, three_phases, floor, arrives)
