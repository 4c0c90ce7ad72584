"""The claims of `runs.gauss_newton_conditioning` on bounds, data and skips of linear networks."""

from __future__ import annotations

import math

import numpy as np

from runs.engine.claims import Control, Results, Verdict, all_hold, claim, every
from runs.gauss_newton_conditioning.criteria import PAPER, chosen, deficiency, grouped, kept, lines, means, number, rows
from runs.gauss_newton_conditioning.depth_claims import BOTH, tables
from runs.gauss_newton_conditioning.jobs import SKIPS

FAR, FAR_DEEP = 2.0, 5.0
WORSE = 10.0
WIDE = 2.0  # times d: wider networks are so well conditioned that the bounds come together
DATA_SHARE = 0.1  # of the condition number of the covariance
_NUMBER = {name: float(number) for number, name in enumerate(SKIPS)}  # as the traces have them
_WIDER = Control(f"widths above {WIDE:g} d instead", lambda judge, results: judge(results, WIDE, math.inf))


# -- bounds --------------------------------------------------------------------------------------------------


@claim(
    "one hidden layer: the bound is kappa",
    source="derived",
    literature="with two layers and white data the eigenvalues are sums, so the bound is an equality (derived)",
    criterion="|bound / kappa − 1| ≤ 1e-8 in every network with two layers",
    needs=["hidden", *BOTH],
    quick=True,
)
def equality(results: Results) -> Verdict:
    deep = (chosen(rows(results, pattern), depth=2.0) for pattern in BOTH)
    off = np.concatenate([abs(table["bound"] / table["kappa"] - 1) for table in (rows(results, "hidden"), *deep)])
    worst = float(off.max())
    told = f"at most {worst:.0e} in {len(off)} networks"
    return Verdict(worst <= 1e-8, told, {"worst": worst, "networks": len(off)})


@claim(
    "one hidden layer: the maximum bound is far off",
    source="figure",
    literature=f"the convex combination lies almost on kappa, its maximum in place of it far above ({PAPER})",
    criterion=f"where d ≤ m ≤ {WIDE:g} d the mean ratio of the maximum to the convex combination is at least {FAR:g}; "
    "white, d = 48, other widths of 15 … 200 shown",
    needs="hidden",
    control=_WIDER,
)
def far(results: Results, above: float = 1.0, upto: float = WIDE) -> Verdict:
    table, inputs = rows(results, "hidden"), results.one("hidden")["inputs"]
    groups = grouped(table, "width", values=table["loose"] / table["bound"])
    judged = {w: ratio >= FAR for (w,), ratio in means(groups).items() if above * inputs <= w <= upto * inputs}
    told = "; ".join(f"{w:g}{' (shown)' * (w not in judged)}: {number(ratio)}" for (w,), ratio in means(groups).items())
    return Verdict(all_hold(judged.values()), f"ratio by width: {told}", kept(groups))


@claim(
    "deeper: the maximum bound is far off",
    source="figure",
    literature=f"as above, with more layers ({PAPER})",
    criterion=f"on both white data, at every width m ≤ {WIDE:g} d and every L ≥ 3, its mean ratio to the convex "
    f"combination is at least {FAR_DEEP:g}; other widths shown",
    needs=BOTH,
    control=_WIDER,
)
def far_deeper(results: Results, above: float = 0.0, upto: float = WIDE) -> Verdict:
    answers: list[bool] = []
    told, numbers = [], {}
    for pattern, (name, table) in zip(BOTH, tables(results).items(), strict=True):
        inputs = next(iter(results.data(pattern).values()))["inputs"]
        deep = {column: values[table["depth"] > 2] for column, values in table.items()}
        groups = grouped(deep, "width", "depth", values=deep["loose"] / deep["bound"])
        numbers[name], parts = kept(groups), []
        for width, line in lines(groups).items():
            judged = above * inputs <= width <= upto * inputs
            answers += [min(line) >= FAR_DEEP] * judged
            parts.append(f"{width:g}{'' if judged else ' (shown)'}: {number(min(line))} to {number(max(line))}")
        told.append(f"{name}: {'; '.join(parts)}")
    return Verdict(all_hold(answers), f"ratio of the bounds by width, {'; '.join(told)}", numbers)


# -- data and skips ------------------------------------------------------------------------------------------


def _against_white(results: Results, raw: float, least: float) -> Verdict:
    """Whether kappa of the data as they are is at least so many times that on white data at every depth."""
    table, data = rows(results, "whitening"), results.one("whitening")
    groups = grouped(table, "white", "depth")
    ratios = [a / b for a, b in zip(lines(groups)[raw], lines(groups)[1.0], strict=True)]
    told = f"white {number(lines(groups)[1.0][0])} → {number(lines(groups)[1.0][-1])}, ratio by L "
    told += f"{', '.join(map(number, ratios))}, κ of the covariance {number(data['kappa_data'])} (d = {data['inputs']})"
    return Verdict(min(ratios) >= least, f"{told}; {deficiency(table)}", kept(groups))


@claim(
    "data as they are: worse",
    source="figure",
    literature=f"without whitening kappa is far larger ({PAPER})",
    criterion=f"at every depth it is at least {WORSE:g} times that on white data, in the mean; Fashion-MNIST, 14 × 14 "
    "pixels, m = 800",
    needs="whitening",
    control=Control("white data against themselves", lambda judge, results: judge(results, raw=1.0)),
)
def unwhitened(results: Results, raw: float = 0.0) -> Verdict:
    return _against_white(results, raw, WORSE)


@claim(
    "data as they are: worse by the covariance's κ",
    source="own",
    literature="the bound has the condition number of the covariance as a factor: does kappa grow by as much?",
    criterion=f"at every depth the mean ratio to kappa on white data is at least {DATA_SHARE:g} times that number",
    needs="whitening",
)
def by_covariance(results: Results) -> Verdict:
    return _against_white(results, 0.0, DATA_SHARE * results.one("whitening")["kappa_data"])


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


def _skips(results: Results, pattern: str, judged: str) -> Verdict:
    found = {job: rows(results, job) for job in results.data(pattern)}
    groups = {job: grouped(table, "skip", "depth") for job, table in found.items()}
    deep = {job: lines({key: v for key, v in own.items() if key[1] >= 3}) for job, own in groups.items()}

    def lower(by_skip: dict[float, list[float]], name: str) -> list[bool]:
        return [a < b for a, b in zip(by_skip[_NUMBER[name]], by_skip[0.0], strict=True)]

    def tell(job: str, by_skip: dict[float, list[float]]) -> str:
        each = [f"β = 0: {number(by_skip[0.0][-1])}"]
        for name in [judged, *(other for other in SKIPS if other not in ("0", judged))]:
            fewer, shown = lower(by_skip, name), "" if name == judged else " (shown)"
            last = number(by_skip[_NUMBER[name]][-1])
            each.append(f"{name}{shown}: {last}, lower at {sum(fewer)} of {len(fewer)} depths")
        shape = f"m = {results.one(job)['widths'][1]}, L = {found[job]['depth'].max():g}"
        return f"{shape}, {'; '.join(each)} ({deficiency(found[job])})"

    return every(
        deep, lambda by_skip: all(lower(by_skip, judged)), tell, numbers={job: kept(own) for job, own in groups.items()}
    )


_SMALL_SKIP = Control("β = 1/L", lambda judge, results: judge(results, "1/L"))


@claim(
    "skips lower kappa",
    source="figure",
    literature=f"with the identity added to every layer kappa is lower ({PAPER}; 1 is the default of β in its code)",
    criterion="on white data, d = 48, m = 64 and 200, mean kappa with β = 1 is below that without skips at every "
    "L ≥ 3; other β shown",
    needs="skip-[0-9]*",
    control=_SMALL_SKIP,
)
def skips(results: Results, beta: str = "1") -> Verdict:
    return _skips(results, "skip-[0-9]*", beta)


@claim(
    "skips on square networks",
    source="code",
    literature=f"as above ({PAPER})",
    criterion="with d = m = k = 20, white data, mean kappa with β = 1 is below that without skips at every L ≥ 3",
    needs="skip-square",
    control=_SMALL_SKIP,
)
def square_skips(results: Results, beta: str = "1") -> Verdict:
    return _skips(results, "skip-square", beta)


@claim(
    "skips from all earlier layers",
    source="own",
    literature=f"β times the outputs of all layers before, as coded for {PAPER}: does it lower kappa?",
    criterion="on white data, d = 48, m = 64, mean kappa with β = 1 is below that without skips at every L ≥ 3",
    needs="skip-all",
)
def all_skips(results: Results) -> Verdict:
    return _skips(results, "skip-all", "1")


CLAIMS = (equality, far, far_deeper, unwhitened, by_covariance, gap, skips, square_skips, all_skips)
