"""The claims of `runs.second_order` on the errors of K-FAC and EKFAC, each with the rule that decides it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Source, Verdict, claim, every
from runs.second_order.factors import DAMPINGS, DEPTH, STEPS, WIDTH
from runs.shared.tables import falling, rising, span

ROUNDING = 1e-10  # relative error below which a block is called exact
STATES = ("before", "after")


def exact_claim(name: str, source: Source, literature: str, case: str, other: str, what: str) -> Claim:
    """A claim that blocks are exact, with the control in which they are not."""

    def judge(results: Results, case: str = case) -> Verdict:
        errors = [run[case] for run in results.one("factors-exact")["runs"]]
        return Verdict(max(errors) <= ROUNDING, f"{case}: {span(errors, 2)}", {"errors": errors})

    return claim(
        name,
        source=source,
        literature=literature,
        criterion=f"in every seed no layer's block errs by more than {ROUNDING:g} of its Frobenius norm ({what})",
        needs="factors-exact",
        quick=True,
        control=Control(other, lambda rule, results: rule(results, other)),
    )(judge)


one = exact_claim(
    "K-FAC is exact for one image",
    "derived",
    "for one datum a layer's block is one Kronecker product (a test of arXiv 2507.05127 too)",
    "one image",
    "two images",
    "a ReLU network of three layers, cross-entropy",
)
single = exact_claim(
    "and for one linear layer with the square loss",
    "theorem",
    "K-FAC is exact for linear networks with the square loss (arXiv 2311.00636)",
    "one layer, square loss",
    "one layer, cross-entropy",
    "50 images",
)
linear = exact_claim(
    "and for deep linear networks with it",
    "theorem",
    "K-FAC is exact on the diagonal blocks of deep linear networks with the square loss (arXiv 2311.00636)",
    "deep linear, square loss",
    "deep ReLU, square loss",
    "three layers without activations between them, 50 images",
)


# -- EKFAC ---------------------------------------------------------------------------------------------------


def matrices(results: Results, pattern: str = "factors-*-*") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(network, before or after, what was measured) of every seed."""
    for job, data in results.data(pattern).items():
        for run in data["runs"]:
            for state in STATES:
                yield job.removeprefix("factors-"), state, run[state]


@claim(
    "EKFAC is never farther off than K-FAC",
    source="theorem",
    literature="no diagonal in the eigenbasis of K-FAC is nearer in the Frobenius norm than EKFAC's, and its trace is "
    "that of the exact block (arXiv 1806.03884)",
    criterion="in every network, before and after training, EKFAC's error is at most K-FAC's times 1 + 1e-10 and its "
    "trace is right to 1e-10",
    needs="factors-*-*",
    quick=True,
    control=Control("the exact diagonal in random Kronecker bases", lambda rule, results: rule(results, "random")),
)
def corrected(results: Results, key: str = "ekfac") -> Verdict:
    found = [one for _, _, one in matrices(results)]
    ratios = [one[key] / one["kfac"] for one in found]
    held = all(ratio <= 1 + ROUNDING for ratio in ratios) and all(abs(one["trace"]) <= ROUNDING for one in found)
    told = f"its error over K-FAC's: {span(ratios, 2)}, median {short(statistics.median(ratios), 2)}"
    larger = sum(ratio > 1 for ratio in ratios)
    return Verdict(bool(found) and held, f"{told}; larger in {larger} of {len(found)}", {"ratios": ratios})


# -- how good, by depth and width ----------------------------------------------------------------------------

Medians = dict[int, float]


def medians(results: Results, kind: str, state: str, name: str = "kfac") -> Medians:
    """Median over seeds of an error, by depth or width."""
    return {
        int(size): statistics.median(run[state][name] for run in data["runs"])
        for size, data in results.family(f"factors-{kind}-").items()
    }


def ranges(results: Results, kind: str, state: str, name: str = "kfac") -> str:
    """`size: median (least … largest)` in words."""
    told = []
    for size, data in results.family(f"factors-{kind}-").items():
        values = [run[state][name] for run in data["runs"]]
        told.append(f"{size}: {short(statistics.median(values), 2)} ({span(values, 2)})")
    return ", ".join(told)


def size_claim(
    name: str, literature: str, kind: str, fixed: str, word: str, holds: Callable[[list[float]], bool]
) -> Claim:
    """A claim on the order of K-FAC's errors."""

    @claim(
        name,
        source="own",
        literature=literature,
        criterion=f"at {fixed} the median over seeds of K-FAC's relative Frobenius error on the blocks {word} with "
        f"each {kind}, before and after training",
        needs=f"factors-{kind}-*",
    )
    def judge(results: Results) -> Verdict:
        found = {state: medians(results, kind, state) for state in STATES}
        return every(
            found,
            lambda errors: holds([*errors.values()]),
            lambda state, _: f"{state} training, by {kind} {ranges(results, kind, state)}",
            numbers={s: {str(size): e for size, e in errors.items()} for s, errors in found.items()},
        )

    return judge


deeper = size_claim(
    "K-FAC's error grows with depth", "own question", "depth", f"{WIDTH} units a layer", "rises", rising
)
wider = size_claim(
    "and falls with width",
    "own question (arXiv 2010.00879, abstract: in the limit of infinite width steps with K-FAC converge as fast as "
    "exact ones, which does not say that the matrices are near)",
    "width",
    f"{DEPTH} hidden layers",
    "falls",
    falling,
)


def networks(results: Results, name: str) -> dict[str, dict[str, float]]:
    """Medians over seeds by network, before and after."""
    return {
        job.removeprefix("factors-"): {s: statistics.median(run[s][name] for run in data["runs"]) for s in STATES}
        for job, data in results.data("factors-*-*").items()
    }


@claim(
    "training makes K-FAC worse",
    source="own",
    literature="own question",
    criterion="in every network the median over seeds of K-FAC's relative error on the blocks, in the Frobenius and in "
    f"the spectral norm, is larger after {STEPS} steps of Adam than before",
    needs="factors-*-*",
)
def trained(results: Results) -> Verdict:
    found = {norm: networks(results, key) for norm, key in (("Frobenius", "kfac"), ("spectral", "spectral"))}
    return every(
        {f"{name}, {norm}": medians for norm, names in found.items() for name, medians in names.items()},
        lambda medians: medians["after"] > medians["before"],
        lambda name, medians: f"{name}: {short(medians['before'], 2)} → {short(medians['after'], 2)}",
    )


# -- what the error is made of -------------------------------------------------------------------------------


def parts(one: dict[str, Any]) -> tuple[float, float]:
    """Norms relative to the whole matrix: what lies between layers, and the error of the factors."""
    return one["left out"], one["kfac"] * (1.0 - one["left out"] ** 2) ** 0.5


@claim(
    "what is left out between layers is the larger error",
    source="own",
    literature="own question: arXiv 1503.05671 makes both approximations",
    criterion="in every network, before and after training, the part of the matrix between layers has a larger "
    "Frobenius norm than the error of the factors within layers (medians over seeds)",
    needs="factors-*-*",
)
def left_out(results: Results) -> Verdict:
    found: dict[str, list[tuple[float, float]]] = {}
    for name, state, one in matrices(results):
        found.setdefault(f"{name} {state}", []).append(parts(one))
    middle = {name: [statistics.median(part) for part in zip(*pairs, strict=True)] for name, pairs in found.items()}
    return every(
        middle,
        lambda pair: pair[0] > pair[1],
        lambda name, pair: f"{name}: {short(pair[0], 2)} against {short(pair[1], 2)}",
        before="relative to the matrix, ",
    )


@claim(
    "the inverse is nearer to block diagonal than the matrix",
    source="figure",
    literature="figure of arXiv 1503.05671 (section 4), as recalled: a pattern of entries, no number",
    criterion=f"in every network of up to 1500 parameters, before and after training, and at every damping "
    f"({', '.join(f'{d:g}' for d in DAMPINGS)} mean eigenvalues), a smaller share of the squared correlations lies "
    "between layers in the inverse than in the damped matrix",
    needs="factors-*-*",
)
def inverses(results: Results) -> Verdict:
    pairs = [p for _, _, one in matrices(results) for p in zip(one["plain"], one["inverse"], strict=True)]
    less = sum(inverse < plain for plain, inverse in pairs)
    plain, inverse = ([*side] for side in zip(*pairs, strict=True))
    told = f"in {less} of {len(pairs)}; share between layers {span(plain, 2)} in the matrix, {span(inverse, 2)} in the"
    numbers = {"plain": plain, "inverse": inverse}
    return Verdict(bool(pairs) and less == len(pairs), f"{told} inverse", numbers)


def nearly_best(name: str, key: str, source: Source, literature: str, who: str) -> Claim:
    """A claim that a product's error is near that of the best one."""

    @claim(
        name,
        source=source,
        literature=literature,
        criterion=f"in every network, before and after training, the median over seeds of {who} Frobenius error on the "
        "blocks over that of the Kronecker products of least error is at most 1.1",
        needs="factors-*-*",
    )
    def judge(results: Results) -> Verdict:
        found: dict[str, list[float]] = {}
        for network, state, one in matrices(results):
            found.setdefault(f"{network} {state}", []).append(one[key] / one["best"])
        middle = {network: statistics.median(ratios) for network, ratios in found.items()}
        return every(middle, lambda ratio: ratio <= 1.1, lambda network, ratio: f"{network}: {short(ratio, 3)}")

    return judge


shampoo = nearly_best(
    "one power step is close to the best Kronecker product",
    "shampoo",
    "abstract",
    "Shampoo's matrix squared, of the exact Gauss-Newton block, is close to the optimal Kronecker product (arXiv "
    "2406.17748, abstract; measured there by cosines)",
    "its",
)
kfac = nearly_best("and so is K-FAC", "kfac", "own", "own question", "K-FAC's")


@claim(
    "K-FAC has the largest eigenvalues right",
    source="own",
    literature="own question",
    criterion="in every network, before and after training, the median over seeds of the largest factor between the "
    "i-th eigenvalues of K-FAC and of the exact blocks, i = 1 … 10, is at most 2",
    needs="factors-*-*",
)
def eigenvalues(results: Results) -> Verdict:
    first = [one["first"] for _, _, one in matrices(results)]
    return every(
        networks(results, "top"),
        lambda medians: max(medians.values()) <= 2.0,
        lambda name, medians: f"{name}: {short(medians['before'], 3)} → {short(medians['after'], 3)}",
        after=f" (K-FAC's largest over the exact one: {span(first, 3)})",
    )


CLAIMS = (
    *(one, single, linear, corrected),
    *(deeper, wider, trained),
    *(left_out, inverses, shampoo, kfac, eigenvalues),
)
