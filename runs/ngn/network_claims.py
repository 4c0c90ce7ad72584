"""The claims of `runs.ngn` on sensitivity to the step size, and what all its claims on networks share.

The MLP on Fashion-MNIST is the paper's workload in size, length and batch; other networks and data have their own rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from probes.numbers import plus_minus, short
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.ngn.criteria import NAMES, Scores, mean_and_error, scores
from runs.ngn.jobs import ADAPTIVE, MOMENTUM, NETWORKS, SEEDS

PAPER = "Islamov et al. 2025, arXiv 2508.15071"
FASHION = ("fashion",)
DATA = {"fashion": "Fashion-MNIST", "mnist": "4,000 images of MNIST"}


def jobs(networks: Iterable[str], solvers: Sequence[str]) -> list[str]:
    return [f"{network}-{solver}-*" for network in networks for solver in solvers]


def mlps(solvers: Sequence[str]) -> list[str]:
    """The data on which the MLP is trained with all of these solvers."""
    return [n for n in DATA if set(solvers) <= set(NETWORKS[n].solvers)]


def said(networks: Iterable[str]) -> str:
    return " and with ".join(DATA[n] for n in networks)


def found_on(results: Results, networks: Iterable[str], solvers: Sequence[str]) -> dict[str, dict[str, Scores]]:
    return {n: {s: scores(results, n, s) for s in solvers} for n in networks}


def by_solver(values: Mapping[str, str]) -> str:
    """`SOLVER value, SOLVER value`."""
    return ", ".join(f"{NAMES[solver]} {value}" for solver, value in values.items())


def in_place(networks: Iterable[str], own: str, others: str, *, both: bool = False) -> Control:
    """The control with another solver in the place of the family's own, and for `both` its own in the other's."""

    def verdict(judge: Any, results: Results) -> Verdict:
        pairs = [(own, others), (others, own)] if both else [(own, others)]
        names = {
            f"{network}-{place}-{seed}": f"{network}-{solver}-{seed}"
            for network in networks
            for place, solver in pairs
            for seed in range(SEEDS)
            if f"{network}-{solver}-{seed}" in results.jobs
        }
        return judge(results.instead(names))

    what = f"{NAMES[own]} and {NAMES[others]} exchanged" if both else f"{NAMES[others]} in the place of {NAMES[own]}"
    return Control(what, verdict, tuple(jobs(networks, [others])))


# -- sensitivity -----------------------------------------------------------------------------------------------------


def told_sensitivity(found: Mapping[str, Scores]) -> str:
    told = {s: mean_and_error(one.sensitivity) for s, one in found.items()}
    return by_solver({s: plus_minus(mean, error) if error > 0 else short(mean, 3) for s, (mean, error) in told.items()})


def below(found: Mapping[str, Scores], own: str) -> bool:
    """Whether the mean sensitivity of the family's own is smaller than that of each other solver."""
    return all(found[own].sensitivity.mean() < one.sensitivity.mean() for s, one in found.items() if s != own)


def sensitivities(results: Results, networks: Sequence[str], own: str, others: Sequence[str]) -> Verdict:
    found = found_on(results, networks, (own, *others))
    numbers = {n: {s: mean_and_error(one.sensitivity) for s, one in at.items()} for n, at in found.items()}
    return every(found, lambda at: below(at, own), lambda n, at: f"{n}: {told_sensitivity(at)}", numbers=numbers)


def _less_sensitive(own: str, other: str, table: str, control: Control) -> Claim:
    @claim(
        f"{NAMES[own]} is less sensitive to the step size than {NAMES[other]}",
        source="table",
        literature=f"sensitivity of the test accuracy in points, {table} (Table 3 of {PAPER})",
        criterion="on the MLP with Fashion-MNIST the mean over the grid of min{l₀, l} - l*, l = -test accuracy, mean "
        f"over {NETWORKS['fashion'].repeats}, is smaller for {NAMES[own]}",
        needs=jobs(FASHION, [own, other]),
        control=control,
    )
    def judge(results: Results) -> Verdict:
        return sensitivities(results, FASHION, own, [other])

    return judge


less_than_sgd = _less_sensitive(
    "ngn-m", "sgd-m", "ResNet18: SGDM 6, NGN-M 5", in_place(FASHION, "ngn-m", "sgd-m", both=True)
)
less_than_momo = _less_sensitive("ngn-m", "momo", "ResNet18: MoMo 6, NGN-M 5", in_place(FASHION, "ngn-m", "sgd-m"))
less_than_adam = _less_sensitive(
    "ngn-md1", "adam", "Adam 16, MDv1 12; on a ViT 29, 18", in_place(FASHION, "ngn-md1", "adam", both=True)
)
less_than_momo_adam = _less_sensitive(
    "ngn-md1", "momo-adam", "MoMo-Adam 16, MDv1 12; on a ViT 26, 18", in_place(FASHION, "ngn-md1", "adam")
)


@claim(
    "one step for all coordinates is less sensitive than one for each",
    source="text",
    literature=f"the resilience of MDv1 is higher than that of MDv2 ({PAPER}, App. F.1)",
    criterion="on the MLP with Fashion-MNIST the sensitivity of NGN-MDv1 is smaller than that of NGN-MDv2",
    needs=jobs(FASHION, ["ngn-md1", "ngn-md2"]),
    control=in_place(FASHION, "ngn-md1", "ngn-md2", both=True),
)
def versions(results: Results) -> Verdict:
    return sensitivities(results, FASHION, "ngn-md1", ["ngn-md2"])


def _elsewhere(network: str, words: str, what: str, solvers: Sequence[str]) -> Claim:
    own, others = solvers[-1], solvers[:-1]

    @claim(
        f"on {words} too {NAMES[own]} is the least sensitive",
        source="figure",
        literature=f"scores over step sizes of an MLP, CNNs, ViTs, language models ({PAPER}, section 5, App. I)",
        criterion=f"the sensitivity of {what} is smaller than that of {' and of '.join(NAMES[s] for s in others)}, "
        f"means over {NETWORKS[network].repeats}",
        needs=jobs([network], solvers),
        control=in_place([network], own, others[0]),
    )
    def judge(results: Results) -> Verdict:
        return sensitivities(results, [network], own, others)

    return judge


mnist = _elsewhere("mnist", "4,000 images of MNIST", "the test accuracy", MOMENTUM)
text, text_adaptive = (_elsewhere("text", "text", "the test loss, log perplexity,", s) for s in (MOMENTUM, ADAPTIVE))

CLAIMS = (
    *(less_than_sgd, less_than_momo, less_than_adam, less_than_momo_adam, versions),
    *(mnist, text, text_adaptive),
)
