"""The claims of `runs.gauss_newton_conditioning` on bounds, data and skips of linear networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runs.engine.claims import Results, Verdict, claim, every
from runs.gauss_newton_conditioning.criteria import PAPER, chosen, deficiency, grouped, kept, lines, means, number, rows
from runs.gauss_newton_conditioning.jobs import SKIPS

FAR = 10.0
_NUMBER = {name: float(number) for number, name in enumerate(SKIPS)}  # as the traces have them


# -- bounds --------------------------------------------------------------------------------------------------


@claim(
    "one hidden layer: the bound is kappa",
    source="derived",
    literature="with two layers and white data the eigenvalues are sums, so the bound is an equality (derived)",
    criterion="|bound / kappa − 1| ≤ 1e-8 in every network with two layers",
    needs=["hidden", "digits-*", "random-*"],
    quick=True,
)
def equality(results: Results) -> Verdict:
    deep = (chosen(rows(results, pattern), depth=2.0) for pattern in ("digits-*", "random-*"))
    off = np.concatenate([abs(table["bound"] / table["kappa"] - 1) for table in (rows(results, "hidden"), *deep)])
    worst = float(off.max())
    told = f"at most {worst:.0e} in {len(off)} networks"
    return Verdict(worst <= 1e-8, told, {"worst": worst, "networks": len(off)})


@claim(
    "one hidden layer: the maximum bound is far off",
    source="figure",
    literature=f"the maximum in place of the convex combination is far above kappa ({PAPER})",
    criterion=f"at each of the widths 15 to 200 its mean ratio to kappa is at least {FAR:g}",
    needs="hidden",
)
def far(results: Results) -> Verdict:
    table = rows(results, "hidden")
    groups = grouped(table, "width", values=table["loose"] / table["kappa"])
    return every(
        {f"{width:g}": ratio for (width,), ratio in means(groups).items()},
        lambda ratio: ratio >= FAR,
        lambda width, ratio: f"{width}: {number(ratio)}",
        numbers=kept(groups),
        before="ratio to kappa by width: ",
        after=" (∞ below d = 61)",
    )


@claim(
    "deeper: the maximum bound is far off",
    source="figure",
    literature=f"as above, with more layers ({PAPER})",
    criterion=f"on digits, at every width and every L ≥ 3, its mean ratio to the convex combination is ≥ {FAR:g}",
    needs="digits-*",
)
def far_deeper(results: Results) -> Verdict:
    table = rows(results, "digits-*")
    table = {column: values[table["depth"] > 2] for column, values in table.items()}
    groups = grouped(table, "width", "depth", values=table["loose"] / table["bound"])
    return every(
        {f"{width:g}": line for width, line in lines(groups).items()},
        lambda line: min(line) >= FAR,
        lambda width, line: f"{width}: {number(min(line))} to {number(max(line))}",
        numbers=kept(groups),
        before="ratio of the bounds by width: ",
    )


# -- data and skips ------------------------------------------------------------------------------------------


@claim(
    "data as they are: worse",
    source="figure",
    literature=f"without whitening kappa is far larger ({PAPER})",
    criterion=f"at every depth it is at least {FAR:g} times that on white data, in the mean",
    needs="whitening",
)
def unwhitened(results: Results) -> Verdict:
    table = rows(results, "whitening")
    groups = grouped(table, "white", "depth")
    raw, white = (lines(groups)[kind] for kind in (0.0, 1.0))
    told = f"shallow → deep, white {number(white[0])} → {number(white[-1])}, as they are "
    told += f"{number(raw[0])} → {number(raw[-1])}; {deficiency(table)}"
    return Verdict(all(a >= FAR * b for a, b in zip(raw, white, strict=True)), told, kept(groups))


@claim(
    "data as they are: the gap grows",
    source="figure",
    literature=f"the gap, on a logarithmic axis, grows with the depth ({PAPER})",
    criterion="the mean ratio of kappa without and with whitening is larger at the largest depth than at L = 2",
    needs="whitening",
)
def gap(results: Results) -> Verdict:
    found = lines(grouped(rows(results, "whitening"), "white", "depth"))
    ratios = [raw / white for raw, white in zip(found[0.0], found[1.0], strict=True)]
    return Verdict(ratios[-1] > ratios[0], f"ratio by L: {', '.join(map(number, ratios))}", {"ratios": ratios})


def _skips(results: Results, pattern: str, names: Sequence[str]) -> Verdict:
    tables = {job: rows(results, job) for job in results.data(pattern)}
    groups = {job: grouped(table, "skip", "depth") for job, table in tables.items()}
    deep = {job: lines({key: v for key, v in own.items() if key[1] >= 3}) for job, own in groups.items()}

    def lower(by_skip: dict[float, list[float]], name: str) -> list[bool]:
        return [a < b for a, b in zip(by_skip[_NUMBER[name]], by_skip[0.0], strict=True)]

    def tell(job: str, by_skip: dict[float, list[float]]) -> str:
        each = [f"β = 0: {number(by_skip[0.0][-1])}"]
        for name in names:
            fewer = lower(by_skip, name)
            each.append(f"{name}: {number(by_skip[_NUMBER[name]][-1])}, lower at {sum(fewer)} of {len(fewer)} depths")
        shape = f"m = {results.one(job)['widths'][1]}, L = {tables[job]['depth'].max():g}"
        return f"{shape}, {'; '.join(each)} ({deficiency(tables[job])})"

    return every(
        deep,
        lambda by_skip: all(all(lower(by_skip, name)) for name in names),
        tell,
        numbers={job: kept(own) for job, own in groups.items()},
    )


@claim(
    "skips lower kappa",
    source="figure",
    literature=f"with β times the identity added to every layer kappa is lower ({PAPER})",
    criterion="on white digits, m = 64 and 200, mean kappa is below that of β = 0 for β = 1/L, 1/√L, 0.5 and 1 at "
    "every L ≥ 3",
    needs="skip-[0-9]*",
)
def skips(results: Results) -> Verdict:
    return _skips(results, "skip-[0-9]*", ["1/L", "1/√L", "0.5", "1"])


@claim(
    "skips on square networks",
    source="code",
    literature=f"as above ({PAPER})",
    criterion="with d = m = k = 20, white data, mean kappa is below that of β = 0 for β = 0.5, 1 and 2 at every L ≥ 3",
    needs="skip-square",
)
def square_skips(results: Results) -> Verdict:
    return _skips(results, "skip-square", ["0.5", "1", "2"])


CLAIMS = (equality, far, far_deeper, unwhitened, gap, skips, square_skips)
