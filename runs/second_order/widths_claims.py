"""The claims of `runs.second_order` on steps of K-FAC and Shampoo by width, each with the rule that decides it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from landscape.statistics import mean_stderr
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.second_order.widths import LAYERS, STEPS, WIDTHS

BAND = 0.15
NAMES = {"kfac": "K-FAC", "shampoo": "Shampoo"}
STANDARD = {"kfac": (-0.5, -0.5, 0.0), "shampoo": (-0.5, 0.0, 0.5)}  # derived in `widths`

Slope = tuple[float, float]  # least and largest of its 95 % interval


def slopes(results: Results, solver: str, parametrisation: str, step: int) -> dict[str, Slope]:
    """Of ln mean |h - h0| over ln n, by layer: the interval of the mean over seeds."""
    jobs = [data for _, data in sorted(results.family(f"widths-{solver}-").items(), key=lambda job: int(job[0]))]
    x = torch.tensor([math.log(data["width"]) for data in jobs], dtype=torch.float64)
    runs = [[run["moves"][step - 1] for run in data["runs"][parametrisation]] for data in jobs]
    y = torch.tensor(runs, dtype=torch.float64).log()  # (widths, seeds, layers)
    weights = (x - x.mean()) / (x - x.mean()).square().sum()
    mean, stderr = mean_stderr(torch.einsum("w,wsl->sl", weights, y))
    ends = zip((mean - 1.96 * stderr).tolist(), (mean + 1.96 * stderr).tolist(), strict=True)
    return dict(zip(LAYERS, ends, strict=True))


def within(slope: Slope, expected: float) -> bool:
    """Whether the whole interval is as near to it as `BAND`."""
    return expected - BAND <= slope[0] and slope[1] <= expected + BAND


def told(found: Mapping[str, Slope]) -> str:
    """`first −0.02 … 0.01, second ...`."""
    return ", ".join(f"{layer} {low:.2f} … {high:.2f}" for layer, (low, high) in found.items()).replace("-", "−")


def of_steps(
    results: Results,
    solver: str,
    parametrisation: str,
    steps: tuple[int, ...],
    holds: Callable[[dict[str, Slope]], bool],
) -> Verdict:
    """The verdict where a rule on the slopes must hold after each of these steps."""
    found = {f"after {step}": slopes(results, solver, parametrisation, step) for step in steps}
    return every(found, holds, lambda name, one: f"{name}: {told(one)}", before="slopes by steps, ")


def stable_claim(name: str, solver: str) -> Claim:
    """The claim that moves depend little on the width."""

    @claim(
        name,
        source="abstract",
        literature="there is a parametrisation of initial scales, step sizes and damping in which features are learned "
        f"stably as the width grows, for K-FAC and Shampoo (arXiv 2312.12226, abstract; for {NAMES[solver]} derived in "
        "`runs.second_order.widths`)",
        criterion=f"after 1 and after {STEPS} steps the slope of ln mean |h − h₀| over ln n, n = {WIDTHS[0]} … "
        f"{WIDTHS[-1]}, is within {BAND} of 0 in every layer, with its whole 95 % interval over seeds",
        needs=f"widths-{solver}-*",
        control=Control("the standard parametrisation", lambda rule, results: rule(results, "standard")),
    )
    def judge(results: Results, parametrisation: str = "mu") -> Verdict:
        steps = (1, STEPS)
        return of_steps(results, solver, parametrisation, steps, lambda one: all(within(s, 0.0) for s in one.values()))

    return judge


kfac = stable_claim("K-FAC's steps keep their size at all widths", "kfac")
shampoo = stable_claim("and Shampoo's", "shampoo")


def standard_claim(name: str, solver: str, made: str, damping: str) -> Claim:
    """The claim that they grow or vanish as derived in the standard parametrisation."""
    first, second, last = (f"{power:g}".replace("-", "−") for power in STANDARD[solver])

    @claim(
        name,
        source="derived",
        literature=f"with one step size and weights of variance 1 / inputs, {damping}, the first step of "
        f"{NAMES[solver]} moves the three layers by n to the powers {first}, {second} and {last} as long as damping is "
        "small (derived in `runs.second_order.widths`)",
        criterion=f"after 1 step the slope of ln mean |h − h₀| over ln n is within {BAND} of that power in every "
        "layer, with its whole 95 % interval over seeds",
        needs=f"widths-{solver}-*",
        control=Control("the width-stable parametrisation", lambda rule, results: rule(results, "mu")),
    )
    def judge(results: Results, parametrisation: str = made) -> Verdict:
        powers = dict(zip(LAYERS, STANDARD[solver], strict=True))

        def holds(one: dict[str, Slope]) -> bool:
            return all(within(slope, powers[layer]) for layer, slope in one.items())

        return of_steps(results, solver, parametrisation, (1,), holds)

    return judge


standard_kfac = standard_claim(
    "standard: K-FAC's steps vanish in hidden layers", "kfac", "standard", "one damping for all layers and widths"
)
standard_damping = standard_claim(
    "the same with damping in proportion to the blocks",
    "kfac",
    "standard-damping",
    "a damping that goes with each layer's curvature (1, n and n; added when the row above had failed)",
)
standard_shampoo = standard_claim(
    "standard: Shampoo's steps grow in the last layer", "shampoo", "standard", "one damping for all layers and widths"
)


def damping_claim(name: str, solver: str) -> Claim:
    """The claim that damping has to be scaled too."""

    @claim(
        name,
        source="abstract",
        literature="the damping has a scale that is right too (arXiv 2312.12226, abstract): one that stays while the "
        "first layer's curvature falls as 1 / n holds that layer back (derived)",
        criterion=f"with the damping of all layers as at n = {WIDTHS[0]}, all else scaled, the slope of the first "
        f"layer is below −{BAND} with its whole 95 % interval, after 1 and after {STEPS} steps",
        needs=f"widths-{solver}-*",
        control=Control("with the damping scaled", lambda rule, results: rule(results, "mu")),
    )
    def judge(results: Results, parametrisation: str = "constant-damping") -> Verdict:
        return of_steps(results, solver, parametrisation, (1, STEPS), lambda one: one[LAYERS[0]][1] < -BAND)

    return judge


damping_kfac = damping_claim("K-FAC: damping that is not scaled holds the first layer back", "kfac")
damping_shampoo = damping_claim("and Shampoo's too", "shampoo")

CLAIMS = (kfac, shampoo, standard_kfac, standard_damping, standard_shampoo, damping_kfac, damping_shampoo)
"""In the order of the page."""
