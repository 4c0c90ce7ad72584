"""The claims of `runs.gauss_newton_conditioning` on the depth and width of linear networks."""

from __future__ import annotations

from runs.engine.claims import Results, Verdict, claim, every
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
from runs.gauss_newton_conditioning.jobs import REFERENCE
from runs.shared.tables import falling, listed, rising

CLOSE = 2.0
DATA = {"digits-*": "digits", "random-*": "random"}


def by_data(results: Results, *keys: str) -> dict[str, Groups]:
    """kappa by these keys, on digits and on random data."""
    return {name: grouped(rows(results, pattern), *keys) for pattern, name in DATA.items()}


@claim(
    "deeper is worse",
    source="figure",
    literature=f"at a fixed width kappa grows with depth, linear networks on white data ({PAPER})",
    criterion="at every width, on digits (d = 61) and on random data (d = 49), mean kappa rises with each step of "
    "L = 2, 3, 4, 5, 6, 8, 10 layers",
    needs=list(DATA),
)
def deeper(results: Results) -> Verdict:
    found = by_data(results, "width", "depth")
    return every(
        found,
        lambda groups: all(map(rising, lines(groups).values())),
        lambda data, groups: f"{data}, shallow → deep by width: {ends(lines(groups))}",
        numbers={data: kept(groups) for data, groups in found.items()},
        after=f"; {deficiency(rows(results, 'digits-*'))}",
    )


@claim(
    "about quadratically",
    source="text",
    literature=f"at a fixed width kappa grows about as the square of the depth (a summary of {PAPER})",
    criterion="on both data and at every width the least-squares exponent p of mean kappa ~ L^p is in [1.5, 2.5]",
    needs=list(DATA),
)
def quadratic(results: Results) -> Verdict:
    found = {
        data: {f"{width:g}": exponent(sorted({L for _, L in groups}), line) for width, line in lines(groups).items()}
        for data, groups in by_data(results, "width", "depth").items()
    }
    return every(
        found,
        lambda powers: all(1.5 <= p <= 2.5 for p in powers.values()),
        lambda data, powers: f"{data}: {listed({width: f'{p:.2f}' for width, p in powers.items()})}",
        before="p by width, ",
    )


@claim(
    "wider is better",
    source="figure",
    literature=f"at a fixed depth kappa falls with the width ({PAPER})",
    criterion="on both data and at every depth mean kappa falls with each larger width",
    needs=list(DATA),
)
def wider(results: Results) -> Verdict:
    found = by_data(results, "depth", "width")
    return every(
        found,
        lambda groups: all(map(falling, lines(groups).values())),
        lambda data, groups: f"{data}: {ends(lines(groups))}",
        numbers={data: kept(groups) for data, groups in found.items()},
        before="narrowest → widest by L, ",
    )


@claim(
    "the bound holds and is close",
    source="abstract",
    literature=f"the convex combination of squared condition numbers bounds kappa from above, closely ({PAPER})",
    criterion=f"no network exceeds it, and at every width and depth its mean ratio to kappa is at most {CLOSE:g}",
    needs=list(DATA),
)
def close(results: Results) -> Verdict:
    tables = {name: rows(results, pattern) for pattern, name in DATA.items()}

    def ratios(table: Rows) -> Groups:
        return grouped(table, "width", "depth", values=table["bound"] / table["kappa"])

    def largest(table: Rows) -> tuple[tuple[float, ...], float]:
        return max(means(ratios(table)).items(), key=lambda item: item[1])

    def tell(name: str, table: Rows) -> str:
        (width, depth), ratio = largest(table)
        above = f"exceeded by {exceeding(table)} of {len(table['kappa'])}"
        return f"{name}: {above}, mean ratio up to {ratio:.2f} (m = {width:g}, L = {depth:g})"

    return every(
        tables,
        lambda table: exceeding(table) == 0 and largest(table)[1] <= CLOSE,
        tell,
        numbers={name: {"exceeded": exceeding(t), "ratio": kept(ratios(t))} for name, t in tables.items()},
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
    criterion="for every c, mean kappa at the largest depth over that at L = 2 is smaller with m = c L than m = 2c",
    needs="proportional-*",
)
def slower(results: Results) -> Verdict:
    table = rows(results, "proportional-*")

    def growth(factor: float, fixed: float) -> float:
        found = means(grouped(chosen(table, factor=factor, fixed=fixed), "depth"))
        return found[max(found)] / found[min(found)]

    factors = distinct(table, "factor")
    return every(
        {f"{f:g}": {"proportional": growth(f, 0.0), "fixed": growth(f, 1.0)} for f in factors},
        lambda by: by["proportional"] < by["fixed"],
        lambda factor, by: f"{factor}: × {number(by['proportional'])}, fixed × {number(by['fixed'])}",
        before="kappa from shallow to deep, by c: ",
        after=f"; {deficiency(table)}",
    )


@claim(
    "width ∝ depth: better",
    source="figure",
    literature=f"with a large enough factor c in m = c L kappa even improves with depth ({PAPER})",
    criterion="with the largest c mean kappa is smaller at the largest depth than at L = 2",
    needs="proportional-*",
)
def improves(results: Results) -> Verdict:
    groups = grouped(chosen(rows(results, "proportional-*"), fixed=0.0), "factor", "depth")
    found = lines(groups)
    last = found[max(found)]
    return Verdict(last[-1] < last[0], f"shallow → deep, by c: {ends(found)}", kept(groups))


CLAIMS = (deeper, quadratic, wider, close, agrees, slower, improves)
