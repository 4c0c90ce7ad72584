"""The claims of `runs.ngn` on networks: sensitivity, the best step size, ranges, divergence, weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from probes.numbers import plus_minus, short
from probes.sweep.curves import Array, LossCurve, curves, standard_error
from probes.sweep.training import Trial
from runs.engine.claims import Claim, Results, Verdict, claim, every
from runs.ngn.jobs import ADAPTIVE, DECAY, IMAGES, MOMENTUM, NETWORKS
from runs.shared.tables import listed

PAPER = "Islamov et al. 2025, arXiv 2508.15071"
NAMES = {
    "sgd-m": "SGDM",
    "momo": "MoMo",
    "ngn-m": "NGN-M",
    "adam": "Adam",
    "momo-adam": "MoMo-Adam",
    "ngn-md1": "NGN-MDv1",
    "ngn-md2": "NGN-MDv2",
    "sps": "SPS_max",
    "ngn": "NGN",
    "ngn-d": "NGN-D",
    "ngn-md1-dec": "Dec-NGN-MDv1",
    "ngn-md1-w": "NGN-MDv1W",
}
NEVER = ("ngn", "ngn-m", "ngn-md1")  # one model for all coordinates
STDERRS = 2.0


def curve(results: Results, network: str, solver: str) -> LossCurve:
    (found,) = curves(Trial.of(row) for row in results.one(f"{network}-{solver}")["rows"])
    return found


def by_solver(values: Mapping[str, str]) -> str:
    """`SOLVER value, SOLVER value`."""
    return ", ".join(f"{NAMES[solver]} {value}" for solver, value in values.items())


def jobs(networks: Iterable[str], solvers: Sequence[str]) -> list[str]:
    return [f"{network}-{solver}" for network in networks for solver in solvers]


def _less_sensitive(own: str, other: str) -> Claim:
    ours, theirs = NAMES[own], NAMES[other]

    @claim(
        f"{ours} is less sensitive to the step size than {theirs}",
        source="table",
        literature=f"sensitivity figures and tables on MLP, CNNs, ViT and language models ({PAPER})",
        criterion=f"on the MLP, the CNN and the ViT the mean over the nine step sizes of min(l₀, l) - l*, mean over "
        f"the seeds, is smaller for {ours}",
        needs=jobs(NETWORKS, [own, other]),
    )
    def judge(results: Results) -> Verdict:
        found = {n: {s: curve(results, n, s).sensitivity for s in (own, other)} for n in NETWORKS}
        holds = all(found[n][own][0] < found[n][other][0] for n in IMAGES)
        text = listed({n: f"{plus_minus(*v[own])} to {plus_minus(*v[other])}" for n, v in found.items()})
        return Verdict(holds, f"{ours} to {theirs}. {text}", found)

    return judge


def difference(first: Array, second: Array) -> tuple[float, float]:
    """Mean of the first (S,) less that of the second, and the standard error, over seeds that share start and data."""
    apart = first - second
    return float(apart.mean()), float(standard_error(apart[None])[0])


def _as_good(solvers: Sequence[str]) -> Claim:
    own, others = solvers[-1], solvers[:-1]
    words = " and ".join(NAMES[s] for s in others)

    @claim(
        f"at its best step size {NAMES[own]} is as good",
        source="table",
        literature=f"as {words}: test accuracies within noise or better (Tables 7 and 8 of {PAPER})",
        criterion=f"on the MLP, the CNN and the ViT the test accuracy at the step size of least training loss is no "
        f"more than {STDERRS:g} standard errors (of the difference, over the seeds) below that of either",
        needs=jobs(IMAGES, solvers),
    )
    def judge(results: Results) -> Verdict:
        found = {n: {s: curve(results, n, s) for s in solvers} for n in IMAGES}
        right = {n: {s: c.test_accuracy[c.best] for s, c in at.items()} for n, at in found.items()}
        losses = (f"{n} " + ", ".join(short(float(c.mean[c.best]), 2) for c in at.values()) for n, at in found.items())

        def holds(accuracy: Mapping[str, Array]) -> bool:
            apart = [difference(accuracy[own], accuracy[other]) for other in others]
            return all(mean >= -STDERRS * error for mean, error in apart)

        return every(
            right,
            holds,
            lambda n, at: f"{n}: " + by_solver({s: f"{values.mean():.1%}" for s, values in at.items()}),
            after=f". Training losses in this order: {'; '.join(losses)}",
            numbers={n: {s: float(values.mean()) for s, values in at.items()} for n, at in right.items()},
        )

    return judge


def _range(solvers: Sequence[str]) -> Claim:
    own, others = solvers[-1], solvers[:-1]
    words = " and ".join(NAMES[s] for s in others)

    @claim(
        f"{NAMES[own]} is good over a wider range of step sizes",
        source="text",
        literature=f"than {words}, by the figures of {PAPER}",
        criterion="on all four networks the range of step sizes around the best within which the training loss is at "
        f"most twice its own best is at least as wide, in decades, as that of {words}",
        needs=jobs(NETWORKS, solvers),
    )
    def judge(results: Results) -> Verdict:
        return every(
            {n: {s: curve(results, n, s).decades() for s in solvers} for n in NETWORKS},
            lambda decades: decades[own] >= max(decades[s] for s in others),
            lambda n, decades: f"{n}: " + by_solver({s: short(v, 2) for s, v in decades.items()}),
            before="decades. ",
        )

    return judge


@claim(
    "NGN, NGN-M and NGN-MDv1 never diverge",
    source="text",
    literature=f"for any step size (arXiv 2407.04358; {PAPER})",
    criterion="no run of them on any network, at any step size and from any seed, ends with a loss above that at its "
    "start or not finite",
    needs=[f"{n}-{s}" for n, (_, _, _, solvers) in NETWORKS.items() for s in solvers if s in NEVER],
)
def never(results: Results) -> Verdict:
    lost: dict[str, list[int]] = {}  # diverged, not finite, all
    for n, (_, _, _, solvers) in NETWORKS.items():
        for s in solvers:
            for row in results.data(f"{n}-{s}").get(f"{n}-{s}", {"rows": []})["rows"]:
                total = lost.setdefault(s, [0, 0, 0])
                for i, counted in enumerate((row["diverged"], row["loss"] is None, True)):
                    total[i] += counted
    text = ", ".join(f"{NAMES[s]} {bad} of {runs} ({nan})" for s, (bad, nan, runs) in lost.items())
    return Verdict(not any(lost[s][0] for s in NEVER), f"diverged (not finite): {text}", lost)


@claim(
    "one step for all coordinates beats one for each",
    source="table",
    literature=f"NGN-MDv1 against v2, Table 8 of {PAPER}",
    criterion="on the MLP and the CNN NGN-MDv1 is less sensitive than NGN-MDv2 and its least loss is no larger",
    needs=jobs(("mlp", "cnn"), ("ngn-md1", "ngn-md2")),
)
def versions(results: Results) -> Verdict:
    both = {n: [curve(results, n, s) for s in ("ngn-md1", "ngn-md2")] for n in ("mlp", "cnn")}
    return every(
        {n: {c.solver: (c.sensitivity[0], float(c.mean[c.best])) for c in pair} for n, pair in both.items()},
        lambda v: v["ngn-md1"][0] < v["ngn-md2"][0] and v["ngn-md1"][1] <= v["ngn-md2"][1],
        lambda n, v: f"{n}: " + by_solver({s: f"{short(a, 3)}, {short(b, 2)}" for s, (a, b) in v.items()}),
        before="sensitivity, least loss. ",
    )


@claim(
    "on text NGN-MDv1 is at least as good as Adam and less sensitive",
    source="table",
    literature=f"perplexities 33.84 to 34.38 at 70M parameters and flat over step sizes ({PAPER}, language models)",
    criterion=f"its test loss at the step size of least training loss is at most {STDERRS:g} standard errors above "
    "that of Adam and of MoMo-Adam, and its sensitivity below both",
    needs=jobs(["text"], ADAPTIVE),
)
def text_model(results: Results) -> Verdict:
    found = {s: curve(results, "text", s) for s in ADAPTIVE}
    own, *others = (found[s] for s in reversed(ADAPTIVE))

    def beaten(other: LossCurve) -> bool:
        apart, error = difference(own.test_loss[own.best], other.test_loss[other.best])
        return apart <= STDERRS * error and own.sensitivity[0] < other.sensitivity[0]

    numbers, said = {}, {}
    for s, c in found.items():
        perplexity, lr, sensitivity = float(np.exp(c.test_loss[c.best]).mean()), float(c.lrs[c.best]), c.sensitivity[0]
        numbers[s] = {"perplexity": perplexity, "lr": lr, "sensitivity": sensitivity}
        said[NAMES[s]] = f"perplexity {short(perplexity, 3)} at {short(lr, 2)}, sensitivity {short(sensitivity, 3)}"
    return Verdict(all(map(beaten, others)), listed(said), numbers)


@claim(
    "both forms of weight decay do alike",
    source="text",
    literature=f"about equal on 70M parameters, still stable ({PAPER}, App. G)",
    criterion=f"on text with a decay of 0.1 the test losses of both at their best step sizes differ by at most "
    f"{STDERRS:g} standard errors, and neither has a run that diverges",
    needs=jobs(["text"], ["ngn-md1", *DECAY]),
)
def decay(results: Results) -> Verdict:
    found = {s: curve(results, "text", s) for s in ("ngn-md1", *DECAY)}
    lost = {s: int(c.diverged.sum()) for s, c in found.items()}
    apart, error = difference(*(found[s].test_loss[found[s].best] for s in DECAY))
    said = {}
    for s, c in found.items():
        test = short(float(c.test_loss[c.best].mean()), 4)
        said[NAMES[s]] = f"test loss {test}, sensitivity {short(c.sensitivity[0], 3)}, {lost[s]} diverged"
    shown = plus_minus(apart, error) if error > 0 else short(apart)
    holds = math.isfinite(apart) and abs(apart) <= STDERRS * error and not any(lost[s] for s in DECAY)
    return Verdict(holds, f"{listed(said)}; {shown} apart", {"difference": apart, "stderr": error})


less_than_sgd, less_than_momo = (_less_sensitive("ngn-m", other) for other in MOMENTUM[:-1])
less_than_adam, less_than_momo_adam = (_less_sensitive("ngn-md1", other) for other in ADAPTIVE[:-1])
good, good_adaptive = _as_good(MOMENTUM), _as_good(ADAPTIVE)
ranges, ranges_adaptive = _range(MOMENTUM), _range(ADAPTIVE)

LESS_SENSITIVE = less_than_sgd, less_than_momo, less_than_adam, less_than_momo_adam
CLAIMS = *LESS_SENSITIVE, good, good_adaptive, ranges, ranges_adaptive, never, versions, text_model, decay
