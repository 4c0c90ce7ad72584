"""The claims of `runs.gauss_newton_conditioning` on the depth and width of linear networks."""

from __future__ import annotations

from runs.engine.claims import Control, Results, Verdict, all_hold, claim, every
from runs.gauss_newton_conditioning.criteria import (
    PAPER,
    Groups,
    Rows,
    chosen,
    deficiency,
    distinct,
    ends,
    exceeding,
    exponent,
    grouped,
    kept,
    lines,
    means,
    number,
    rows,
    within,
)
from runs.gauss_newton_conditioning.jobs import NAMES, REFERENCE
from runs.shared.tables import falling, listed, rising

CLOSE = 2.5
LARGE = 200  # hidden units for each hidden layer: a large factor
BOTH = ("first-*", "second-*")
_DATA = "on white Fashion-MNIST (d = 48) and MNIST (d = 34)"


def tables(results: Results) -> dict[str, Rows]:
    """The rows of both data, by their names."""
    first = {pattern: next(iter(results.data(pattern).values())) for pattern in BOTH}
    return {f"{NAMES[data['data']]} (d = {data['inputs']})": rows(results, p) for p, data in first.items()}


def by_data(results: Results, *keys: str) -> dict[str, Groups]:
    """kappa by these keys, on both data."""
    return {name: grouped(table, *keys) for name, table in tables(results).items()}


def in_proportion(results: Results) -> dict[str, Groups]:
    """kappa by factor and depth with the width in proportion to the depth, of the largest factor."""
    table = chosen(rows(results, "proportional-*"), fixed=0.0)
    factor = max(distinct(table, "factor"))
    return {f"c = {factor:g}": grouped(chosen(table, factor=factor), "factor", "depth")}


@claim(
    "deeper is worse",
    source="figure",
    literature=f"at a fixed width kappa grows with depth, linear networks on white data ({PAPER})",
    criterion=f"at every width, {_DATA}, mean kappa rises with each step of L = 2, 3, 4, 5, 6, 8, 10 layers",
    needs=BOTH,
    control=Control(
        "width in proportion to depth, largest factor",
        lambda judge, results: judge(results, in_proportion(results)),
        ("proportional-*",),
    ),
)
def deeper(results: Results, found: dict[str, Groups] | None = None) -> Verdict:
    found = found or by_data(results, "width", "depth")
    return every(
        found,
        lambda groups: all(map(rising, lines(groups).values())),
        lambda data, groups: f"{data}, shallow → deep: {ends(lines(groups))}",
        numbers={data: kept(groups) for data, groups in found.items()},
        before="by width, ",
        after=f"; {deficiency(rows(results, BOTH[0]))}",
    )


@claim(
    "about quadratically",
    source="text",
    literature=f"at a fixed width kappa grows about as the square of the depth (a summary of {PAPER})",
    criterion=f"{_DATA}, the least-squares exponent p of mean kappa ~ L^p falls with each larger width, from above 2 "
    "to below: there is a width of which it is right",
    needs=BOTH,
    control=Control("the fifth power", lambda judge, results: judge(results, power=5.0)),
)
def quadratic(results: Results, power: float = 2.0) -> Verdict:
    found = {
        data: {f"{width:g}": exponent(sorted({L for _, L in groups}), line) for width, line in lines(groups).items()}
        for data, groups in by_data(results, "width", "depth").items()
    }

    def passes(powers: dict[str, float]) -> bool:
        line = list(powers.values())
        return falling(line) and line[0] > power > line[-1]

    return every(
        found,
        passes,
        lambda data, powers: f"{data}: {listed({width: f'{p:.2f}' for width, p in powers.items()})}",
        before="p by width, ",
    )


@claim(
    "wider is better",
    source="figure",
    literature=f"at a fixed depth kappa falls with the width ({PAPER})",
    criterion=f"{_DATA}, at every depth mean kappa falls with each larger width",
    needs=BOTH,
    control=Control("depth in the place of width", lambda judge, results: judge(results, ("width", "depth"))),
)
def wider(results: Results, keys: tuple[str, str] = ("depth", "width")) -> Verdict:
    found = by_data(results, *keys)
    return every(
        found,
        lambda groups: all(map(falling, lines(groups).values())),
        lambda data, groups: f"{data}: {ends(lines(groups))}",
        numbers={data: kept(groups) for data, groups in found.items()},
        before=f"first → last {keys[1]} by {keys[0]}, ",
    )


@claim(
    "the bound holds and is close",
    source="abstract",
    literature=f"the convex combination of squared condition numbers bounds kappa from above, tightly ({PAPER})",
    criterion=f"no network exceeds it, and at every width and depth its mean ratio to kappa is at most {CLOSE:g}",
    needs=BOTH,
    control=Control(
        "the maximum in the place of the convex combination", lambda judge, results: judge(results, "loose")
    ),
)
def close(results: Results, bound: str = "bound") -> Verdict:
    found = tables(results)

    def ratios(table: Rows) -> Groups:
        return grouped(table, "width", "depth", values=table[bound] / table["kappa"])

    def largest(table: Rows) -> tuple[tuple[float, ...], float]:
        return max(means(ratios(table)).items(), key=lambda item: item[1])

    def tell(name: str, table: Rows) -> str:
        (width, depth), ratio = largest(table)
        above = f"exceeded by {exceeding(table, bound)} of {len(table['kappa'])}"
        return f"{name}: {above}, mean ratio up to {number(ratio)} (m = {width:g}, L = {depth:g})"

    return every(
        found,
        lambda table: exceeding(table, bound) == 0 and largest(table)[1] <= CLOSE,
        tell,
        numbers={name: {"exceeded": exceeding(t, bound), "ratio": kept(ratios(t))} for name, t in found.items()},
    )


@claim(
    "the numbers of an independent calculation",
    source="derived",
    literature="m = 50, d = 49, k = 10, white data, mean of 3: "
    + ", ".join(f"{kappa:g} (L = {depth})" for depth, kappa in REFERENCE.items()),
    criterion="at each depth the arithmetic mean of 10 is within 3 standard errors of the difference",
    needs="reference",
)
def agrees(results: Results) -> Verdict:
    found = {
        f"{depth:g}": {
            "mean": float(values.mean()),
            "stderr": float(values.std(ddof=1) / len(values) ** 0.5),
            "off": within(values, REFERENCE[int(depth)], 3),
        }
        for (depth,), values in grouped(rows(results, "reference"), "depth").items()
    }
    return every(
        found,
        lambda at: at["off"] <= 3,
        lambda depth, at: f"L = {depth}: {number(at['mean'])} ± {number(at['stderr'])}",
    )


@claim(
    "width ∝ depth: slower",
    source="figure",
    literature=f"with the width in proportion to the depth kappa grows more slowly than at a fixed width ({PAPER})",
    criterion="for every c = 50 … 400, mean kappa at the largest depth over that of one hidden layer is smaller with "
    "m = c (L − 1), L − 1 hidden layers, than with m = c; white, d = 48",
    needs="proportional-*",
    control=Control("the two exchanged", lambda judge, results: judge(results, fixed=0.0)),
)
def slower(results: Results, fixed: float = 1.0) -> Verdict:
    table = rows(results, "proportional-*")

    def growth(factor: float, fixed: float) -> float:
        found = means(grouped(chosen(table, factor=factor, fixed=fixed), "depth"))
        return found[max(found)] / found[min(found)]

    factors = distinct(table, "factor")
    return every(
        {f"{f:g}": {"proportional": growth(f, 1 - fixed), "fixed": growth(f, fixed)} for f in factors},
        lambda by: by["proportional"] < by["fixed"],
        lambda factor, by: f"{factor}: × {number(by['proportional'])}, fixed × {number(by['fixed'])}",
        before="kappa from shallow to deep, by c: ",
        after=f"; {deficiency(table)}",
    )


@claim(
    "width ∝ depth: better",
    source="figure",
    literature=f"with a large enough factor c kappa even improves with depth ({PAPER})",
    criterion=f"with m = c (L − 1) for c = {LARGE} and 400, mean kappa at the largest depth is below that of one "
    "hidden layer; white, d = 48",
    needs="proportional-*",
    control=Control("m = c at every depth", lambda judge, results: judge(results, fixed=1.0)),
)
def improves(results: Results, fixed: float = 0.0) -> Verdict:
    groups = grouped(chosen(rows(results, "proportional-*"), fixed=fixed), "factor", "depth")
    found = lines(groups)
    large = [line for factor, line in found.items() if factor >= LARGE]
    told = f"shallow → deep, by c: {ends(found)} (below c = {LARGE} shown)"
    return Verdict(all_hold(line[-1] < line[0] for line in large), told, kept(groups))


CLAIMS = (deeper, quadratic, wider, close, agrees, slower, improves)
