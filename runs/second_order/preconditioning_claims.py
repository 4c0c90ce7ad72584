"""The claims of `runs.second_order` on preconditioned condition numbers, each with the rule that decides it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

from probes.numbers import short
from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.second_order.preconditioning import DAMPINGS, MODEL, ROOTS, SOLVERS, THRESHOLDS

JOBS = "precondition-*"
AT = THRESHOLDS.index(MODEL)
EVERYWHERE = "in both networks, at all three moments and at every threshold"
APART = 2.0  # a factor below which two condition numbers are taken for alike

Medians = dict[str, list[float]]  # by name, one for each threshold


def kappas(results: Results) -> dict[str, Medians]:
    """Medians over seeds of the condition numbers by network and moment: "mlp start"."""
    found: dict[str, dict[str, list[list[float]]]] = {}
    for data in results.data(JOBS).values():
        for moment, seen in data["moments"].items():
            for name, values in seen["kappa"].items():
                found.setdefault(f"{data['network']} {moment}", {}).setdefault(name, []).append(values)
    return {
        where: {name: [statistics.median(one) for one in zip(*rows, strict=True)] for name, rows in names.items()}
        for where, names in found.items()
    }


def runs(results: Results) -> Iterator[tuple[str, dict[str, Any]]]:
    """(network and moment, what was seen) of every seed."""
    for data in results.data(JOBS).values():
        for moment, seen in data["moments"].items():
            yield f"{data['network']} {moment}", seen


def compared(results: Results, pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> Verdict:
    """Whether the first of each pair has the lower median everywhere, told with the medians of some at `MODEL`."""
    found = kappas(results)
    total = len(pairs) * len(THRESHOLDS)

    def held(medians: Medians) -> int:
        return sum(a < b for low, high in pairs for a, b in zip(medians[low], medians[high], strict=True))

    def tell(where: str, medians: Medians) -> str:
        told = ", ".join(f"{name} {short(medians[name][AT], 2)}" for name in names)
        return f"{where} {held(medians)} of {total} ({told})"

    shown = {one for pair in pairs for one in pair}
    kept = {w: {name: row for name, row in medians.items() if name in shown} for w, medians in found.items()}
    before = f"κ (at {MODEL:g}), "
    return every(found, lambda medians: held(medians) == total, tell, numbers=kept, before=before)


def below(names: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of one with another."""
    return [(name, other) for name in names for other in others if name != other]


@claim(
    "every preconditioner lowers κ",
    source="own",
    literature="own question",
    criterion=f"{EVERYWHERE} the medians over seeds of κ with Adam, Shampoo, SOAP and K-FAC are below that without a "
    "preconditioner",
    needs=JOBS,
)
def lowers(results: Results) -> Verdict:
    return compared(results, below(SOLVERS, ["none"]), ["none", *SOLVERS])


@claim(
    "in turned coordinates Adam does harm",
    source="abstract",
    literature="Adam can be worse than gradient descent where the Hessian is far enough from diagonal (arXiv "
    "2402.07114: can, on quadratics; asked here of networks in random coordinates)",
    criterion=f"{EVERYWHERE} the median over seeds of κ with an Adam that sees the two sides of each parameter turned "
    "by random orthogonal matrices is above that without a preconditioner",
    needs=JOBS,
    control=Control("Adam in the network's own coordinates", lambda rule, results: rule(results, "adam")),
)
def turned(results: Results, name: str = "rotated") -> Verdict:
    return compared(results, [("none", name)], ["none", name])


@claim(
    "Adam lives on its coordinates",
    source="own",
    literature="own question",
    criterion=f"{EVERYWHERE} the median over seeds of κ with Adam is below that of the Adam in turned coordinates",
    needs=JOBS,
)
def coordinates(results: Results) -> Verdict:
    return compared(results, [("adam", "rotated")], ["adam", "rotated"])


@claim(
    "SOAP conditions better than Adam and Shampoo",
    source="own",
    literature="own question (arXiv 2409.11321 reports fewer steps, for Adam in the basis that Shampoo finds)",
    criterion=f"{EVERYWHERE} the median over seeds of κ with SOAP is below those with Adam and with Shampoo",
    needs=JOBS,
)
def soap(results: Results) -> Verdict:
    return compared(results, below(["soap"], ["adam", "shampoo"]), ["adam", "shampoo", "soap"])


@claim(
    "K-FAC conditions best",
    source="own",
    literature="own question",
    criterion=f"{EVERYWHERE} the median over seeds of κ with K-FAC is below those with Adam, Shampoo and SOAP",
    needs=JOBS,
)
def kfac(results: Results) -> Verdict:
    return compared(results, below(["kfac"], ROOTS), SOLVERS)


@claim(
    "the root costs conditioning",
    source="derived",
    literature="P of Adam, Shampoo and SOAP is about the root of a second moment: where this is G, κ with P is the "
    "root of G's, and 1 with P²",
    criterion=f"{EVERYWHERE} the medians over seeds of κ with P² are below those with P for Adam, Shampoo and SOAP",
    needs=JOBS,
)
def roots(results: Results) -> Verdict:
    pairs = [(f"{name} squared", name) for name in ROOTS]
    return compared(results, pairs, [one for pair in pairs for one in pair[::-1]])


@claim(
    "less damping, better conditioning",
    source="own",
    literature="own question",
    criterion=f"{EVERYWHERE} the median over seeds of κ with K-FAC falls with every damping from {max(DAMPINGS):g} to "
    f"{min(DAMPINGS):g}",
    needs=JOBS,
)
def damping(results: Results) -> Verdict:
    names = [f"kfac {d:g}" for d in DAMPINGS]
    return compared(results, [(low, high) for high, low in pairwise(names)], names)


@claim(
    "training makes preconditioners worse",
    source="own",
    literature="own question",
    criterion=f"in both networks the medians over seeds of κ at threshold {MODEL:g} are higher at the end than at the "
    "start with Adam, Shampoo, SOAP and K-FAC",
    needs=JOBS,
)
def trained(results: Results) -> Verdict:
    found = kappas(results)
    ways = {
        f"{network} {name}": [found[f"{network} {moment}"][name][AT] for moment in ("start", "end")]
        for network in dict.fromkeys(where.split()[0] for where in found)
        for name in SOLVERS
    }
    return every(ways, lambda way: way[1] > way[0], lambda name, way: f"{name} {' → '.join(short(k, 2) for k in way)}")


# -- what kappa is good for ----------------------------------------------------------------------------------

MODEL_TEXT = (
    "descent with that preconditioner on the local quadratic g·d + d·G d / 2, G cut to its eigenvectors above "
    f"{MODEL:g} of the largest"
)


@claim(
    "κ bounds the steps on the local quadratic",
    source="theorem",
    literature="with the best constant step the gap to the minimum shrinks by ((κ − 1) / (κ + 1))² a step at least "
    "(textbook)",
    criterion=f"{MODEL_TEXT}, never takes more steps to a thousandth of the gap than that promises",
    needs=JOBS,
    quick=True,
    control=Control("√κ in place of κ", lambda rule, results: rule(results, 0.5)),
)
def bounds(results: Results, power: float = 1.0) -> Verdict:
    shares: dict[str, list[float]] = {}
    for _, seen in runs(results):
        for name, found in seen["model"].items():
            promised = found["predicted"] * found["kappa"] ** (power - 1.0)
            shares.setdefault(name, []).append(found["taken"] / math.ceil(promised))
    return every(
        shares,
        lambda ratios: max(ratios) <= 1.0,
        lambda name, ratios: f"{name} {short(statistics.median(ratios), 2)} (at most {short(max(ratios), 2)})",
        before="steps over those promised, medians: ",
    )


@claim(
    "κ orders preconditioners by their steps",
    source="derived",
    literature="the bound above, taken for a prediction",
    criterion=f"{MODEL_TEXT}: of each two preconditioners whose κ differ by a factor of {APART:g} or more, at one "
    "moment of one run, the one with the lower κ takes fewer steps",
    needs=JOBS,
    control=Control("the largest eigenvalue in place of κ", lambda rule, results: rule(results, "largest")),
)
def orders(results: Results, key: str = "kappa") -> Verdict:
    right, total = 0, 0
    for _, seen in runs(results):
        for one, other in combinations(seen["model"].values(), 2):
            low, high = sorted((one, other), key=lambda found: found[key])
            if high[key] >= APART * low[key]:
                total += 1
                right += low["taken"] < high["taken"]
    return Verdict(right == total > 0, f"{right} of {total} pairs", {"right": right, "pairs": total})


@claim(
    "and by the loss that they reach",
    source="own",
    literature="own question: the reason why conditioning should matter",
    criterion="in both networks, in the middle and at the end, of each two preconditioners whose medians over seeds of "
    f"κ at {MODEL:g} differ by a factor of {APART:g} or more, the one with the lower κ has the lower median loss after "
    "100 steps of size 1 / λmax(P⁻¹G) on all images of the matrix, with P as it is",
    needs=JOBS,
)
def reaches(results: Results) -> Verdict:
    found = {where: medians for where, medians in kappas(results).items() if not where.endswith("start")}
    ends: dict[str, dict[str, list[float]]] = {where: {} for where in found}
    for where, seen in runs(results):
        for name, loss in seen["descended"].items() if where in ends else ():
            ends[where].setdefault(name, []).append(math.inf if loss is None else loss)
    middle = {w: {name: statistics.median(losses) for name, losses in names.items()} for w, names in ends.items()}

    def right(where: str) -> tuple[int, int]:
        pairs = []
        for one in combinations(middle[where], 2):
            low, high = sorted(one, key=lambda name: found[where][name][AT])
            if found[where][high][AT] >= APART * found[where][low][AT]:
                pairs.append(middle[where][low] < middle[where][high])
        return sum(pairs), len(pairs)

    def told(where: str) -> str:
        return ", ".join(f"{name} {short(loss, 2)}" for name, loss in middle[where].items())

    finite = {w: {n: loss if math.isfinite(loss) else None for n, loss in names.items()} for w, names in middle.items()}
    return every(
        {where: right(where) for where in found},
        lambda pairs: pairs[0] == pairs[1],
        lambda where, pairs: f"{where} {pairs[0]} of {pairs[1]} pairs ({told(where)})",
        numbers=finite,
    )


CLAIMS = (lowers, turned, coordinates, soap, kfac, roots, damping, trained, bounds, orders, reaches)
