"""The claims of `runs.ngn` on what solvers reach on networks, and over how wide a range of step sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Verdict, claim, every
from runs.ngn.criteria import NAMES, Array, Scores, mean_and_error
from runs.ngn.jobs import ADAPTIVE, MOMENTUM, NETWORKS
from runs.ngn.network_claims import DATA, PAPER, by_solver, found_on, in_place, jobs, mlps, said

POINT, RANGE = 0.01, 0.03  # of accuracy: as good, and within the range
NEAR = 0.02  # of test loss: as good
CLOSE = 2.0  # times the least training loss of all solvers
ENTROPY = 3.02  # of the letters of the English text, in nats

# -- the best score --------------------------------------------------------------------------------------------------


def smallest_step(own: str) -> Control:
    """The control that the family's own has the smallest step size of its grid and no other."""
    what = f"{NAMES[own]} at the smallest step size alone"
    return Control(what, lambda judge, results: judge(results, steps=1))


def best(one: Scores, steps: int | None = None) -> Array:
    """`(S,)`: the scores at the best of the (first few) step sizes."""
    at = int(one.mean[:steps].argmax())
    return one.values[at]


def _as_good(network: str, solvers: Sequence[str], values: str) -> Claim:
    own, others = solvers[-1], solvers[:-1]

    @claim(
        f"at its best step size {NAMES[own]} is as good as {' and '.join(NAMES[s] for s in others)}"
        + (" on MNIST too" if network == "mnist" else ""),
        source="table",
        literature=f"competitive (section 5 of {PAPER}); on the MLP with MNIST {values} (Tables 7 and 8)",
        criterion=f"on the MLP with {DATA[network]} its best mean test accuracy over the step sizes is at most "
        f"{100 * POINT:g} point below that of either",
        needs=jobs([network], solvers),
        control=smallest_step(own),
    )
    def judge(results: Results, steps: int | None = None) -> Verdict:
        after = ". A share of 1,000 test images is uncertain by 0.7 points" if network == "mnist" else ""
        return _best_scores(results, network, solvers, steps, after)

    return judge


def _best_scores(results: Results, network: str, solvers: Sequence[str], steps: int | None, after: str = "") -> Verdict:
    """Whether the last solver's best score on the network, of its first few step sizes, is as good as the others'."""
    own = solvers[-1]
    found = {
        n: {s: float(best(one, steps if s == own else None).mean()) for s, one in at.items()}
        for n, at in found_on(results, [network], solvers).items()
    }
    return every(
        found,
        lambda at: at[own] >= max(at.values()) - POINT,
        lambda n, at: f"{n}: " + by_solver({s: f"{value:.1%}" for s, value in at.items()}),
        after=after,
    )


good, good_mnist = (_as_good(n, MOMENTUM, "SGDM 97.6, MoMo 98.0, NGN-M 98.0") for n in ("fashion", "mnist"))
good_adaptive = _as_good("fashion", ADAPTIVE, "Adam 97.4, MoMo-Adam 98.0, MDv1 98.1")


@claim(
    "one step for all coordinates is as good as one for each",
    source="text",
    literature=f"MDv1 slightly better than MDv2 when tuned ({PAPER}, App. F.1); Table 8 is mixed, MLP: 98.1, 97.7",
    criterion=f"on the MLP with Fashion-MNIST the best mean test accuracy of NGN-MDv1 over the step sizes is at most "
    f"{100 * POINT:g} point below that of NGN-MDv2",
    needs=jobs(["fashion"], ["ngn-md1", "ngn-md2"]),
    control=smallest_step("ngn-md1"),
)
def versions_good(results: Results, steps: int | None = None) -> Verdict:
    return _best_scores(results, "fashion", ("ngn-md2", "ngn-md1"), steps)


def _language(solvers: Sequence[str], values: str) -> Claim:
    own, others = solvers[-1], solvers[:-1]

    @claim(
        f"on text {NAMES[own]} is as good as {' and '.join(NAMES[s] for s in others)}",
        source="table",
        literature=f"perplexities {values} (Tables 7 and 8 of {PAPER})",
        criterion=f"its test loss at its best step size is at most {NEAR:g}, {100 * NEAR:g} % of the perplexity, above "
        f"that of either, and below the entropy of the letters, {ENTROPY}; means over {NETWORKS['text'].repeats}",
        needs=jobs(["text"], solvers),
        control=smallest_step(own),
    )
    def judge(results: Results, steps: int | None = None) -> Verdict:
        found = found_on(results, ["text"], solvers)["text"]
        right = {s: best(one, steps if s == own else None) for s, one in found.items()}
        loss = {s: -float(values.mean()) for s, values in right.items()}
        holds = loss[own] <= min(loss.values()) + NEAR and loss[own] < ENTROPY
        told = by_solver({s: short(math.exp(value), 3) for s, value in loss.items()})
        return Verdict(holds, f"perplexity of a letter: {told}", {s: mean_and_error(-v) for s, v in right.items()})

    return judge


language = _language(MOMENTUM, "on Shakespeare SGDM 8.73, MoMo 8.80, NGN-M 7.67")
language_adaptive = _language(ADAPTIVE, "of 70M parameters Adam 34.4, MoMo-Adam 35.0, MDv1 33.8, of 1B 13.09, -, 13.11")

# -- the range of step sizes -----------------------------------------------------------------------------------------


Good = Callable[[Mapping[str, Scores], Scores], NDArray[np.bool_]]


def accurate(at: Mapping[str, Scores], one: Scores) -> NDArray[np.bool_]:
    """`(L,)`: whether the mean score is within `RANGE` of the best of all solvers."""
    return one.mean >= max(each.mean.max() for each in at.values()) - RANGE


def close(at: Mapping[str, Scores], one: Scores) -> NDArray[np.bool_]:
    """`(L,)`: whether the mean training loss is within a factor `CLOSE` of the least of all solvers."""
    return one.losses.mean(axis=1) <= CLOSE * min(each.losses.mean(axis=1).min() for each in at.values())


def _wider(network: str, solvers: Sequence[str], name: str, told: str, rule: str, good: Good) -> Claim:
    own, others = solvers[-1], solvers[:-1]

    @claim(
        f"{NAMES[own]} {name}" + (" on MNIST too" if network == "mnist" else ""),
        source="text" if good is accurate else "figure",
        literature=f"than {' and '.join(NAMES[s] for s in others)}: {told}",
        criterion=f"on the MLP with {DATA[network]} the stretch of step sizes whose {rule} of all three is longer, in "
        "decades, than that of either",
        needs=jobs([network], solvers),
        control=in_place([network], own, others[0]),
    )
    def judge(results: Results) -> Verdict:
        found = found_on(results, [network], solvers)
        decades = {n: {s: one.decades(good(at, one)) for s, one in at.items()} for n, at in found.items()}
        return every(
            decades,
            lambda at: all(at[own] > at[s] for s in others),
            lambda n, at: f"{n}: " + by_solver({s: short(value) for s, value in at.items()}),
            before="decades (-1: no step size). ",
        )

    return judge


WIDER = "is good over a wider range of step sizes", f"much wider ({PAPER}, section 5)"
LOSSES = (
    "is close to the least training loss over a wider range",
    f"close to the best possible ({PAPER}, App. I.2, I.3)",
)
TESTED = f"mean test accuracy is within {100 * RANGE:g} points of the best"
TRAINED = f"mean training loss is within a factor {CLOSE:g} of the least"
FAMILIES = MOMENTUM, ADAPTIVE
wider, wider_adaptive = (_wider("fashion", s, *WIDER, TESTED, accurate) for s in FAMILIES)
wider_mnist = _wider("mnist", MOMENTUM, *WIDER, TESTED, accurate)
lower, lower_adaptive = (_wider("fashion", s, *LOSSES, TRAINED, close) for s in FAMILIES)


def _beyond(own: str, other: str) -> Claim:
    @claim(
        f"{NAMES[own]} takes step sizes far above its best one",
        source="text",
        literature=f"1 to 2 orders of magnitude above, without a significant drop ({PAPER}, section 5)",
        criterion=f"on the MLP with {said(mlps([own]))} the mean test accuracy at 10 times the best step size is at "
        f"most {100 * POINT:g} point below the best (3 at first, which Adam loses as well)",
        needs=jobs(mlps([own]), [own]),
        control=in_place(mlps([own]), own, other),
    )
    def judge(results: Results) -> Verdict:
        found = {n: at[own] for n, at in found_on(results, mlps([own]), [own]).items()}
        drops = {n: [one.drop(1), one.drop(2)] for n, one in found.items()}
        return every(
            drops,
            lambda drop: drop[0] <= POINT,
            lambda n, drop: (
                f"{n}, best {short(float(found[n].lrs[found[n].best]))}: "
                + " and ".join(short(100 * one, 2) for one in drop)
            ),
            before="points lost at 10 and at 100 times the best step size. ",
        )

    return judge


beyond, beyond_adaptive = _beyond("ngn-m", "sgd-m"), _beyond("ngn-md1", "adam")
CLAIMS = (
    *(good, good_mnist, good_adaptive, versions_good, language, language_adaptive),
    *(wider, wider_adaptive, wider_mnist),
    *(beyond, beyond_adaptive, lower, lower_adaptive),
)
