"""The claims of `runs.gauss_newton_conditioning` on linear networks; the others follow in `conditioning_more`."""

from __future__ import annotations

from runs.engine.claims import Results, Verdict, claim
from runs.gauss_newton_conditioning import criteria
from runs.gauss_newton_conditioning.criteria import number
from runs.gauss_newton_conditioning.jobs import REFERENCE, SKIPS
from runs.gauss_newton_conditioning.network_claims import MORE

PAPER = "Zhao, Singh, Lucchi 2024"
CLOSE, FAR = 2.0, 10.0
DATA = {"digits-*": "digits", "random-*": "random"}


# -- depth and width -----------------------------------------------------------------------------------------


@claim(
    "deeper is worse",
    literature=f"at a fixed width kappa grows with depth, linear networks on white data ({PAPER})",
    criterion="at every width, on digits (d = 61) and on random data (d = 49), mean kappa rises with each step of "
    "L = 2, 3, 4, 5, 6, 8, 10 layers",
    needs=list(DATA),
)
def deeper(results: Results) -> Verdict:
    """Mean kappa at both ends, by width."""
    told, numbers, holds = [], {}, []
    for pattern, name in DATA.items():
        groups = criteria.grouped(criteria.rows(results, pattern), "width", "depth")
        found = criteria.lines(criteria.means(groups))
        holds += [criteria.rising(line) for line in found.values()]
        told.append(f"{name}, shallow → deep by width: {criteria.ends(found)}")
        numbers[name] = criteria.kept(groups)
    told.append(criteria.deficiency(criteria.rows(results, "digits-*")))
    return Verdict(all(holds), "; ".join(told), numbers)


@claim(
    "about quadratically",
    literature=f"at a fixed width kappa grows about as the square of the depth (a summary of {PAPER})",
    criterion="on both data and at every width the least-squares exponent p of mean kappa ~ L^p is in [1.5, 2.5]",
    needs=list(DATA),
)
def quadratic(results: Results) -> Verdict:
    """The exponents."""
    told, numbers = [], {}
    for pattern, name in DATA.items():
        table = criteria.rows(results, pattern)
        depths = sorted(set(table["depth"].tolist()))
        found = criteria.lines(criteria.means(criteria.grouped(table, "width", "depth")))
        numbers[name] = {f"{width:g}": criteria.exponent(depths, line) for width, line in found.items()}
        told.append(f"{name}: " + "; ".join(f"{width}: {p:.2f}" for width, p in numbers[name].items()))
    holds = all(1.5 <= p <= 2.5 for found in numbers.values() for p in found.values())
    return Verdict(holds, "p by width, " + "; ".join(told), numbers)


@claim(
    "wider is better",
    literature=f"at a fixed depth kappa falls with the width ({PAPER})",
    criterion="on both data and at every depth mean kappa falls with each larger width",
    needs=list(DATA),
)
def wider(results: Results) -> Verdict:
    """Mean kappa at the smallest and largest width, by depth."""
    told, numbers, holds = [], {}, []
    for pattern, name in DATA.items():
        groups = criteria.grouped(criteria.rows(results, pattern), "depth", "width")
        found = criteria.lines(criteria.means(groups))
        holds += [criteria.falling(line) for line in found.values()]
        told.append(f"{name}: {criteria.ends(found)}")
        numbers[name] = criteria.kept(groups)
    return Verdict(all(holds), "narrowest → widest by L, " + "; ".join(told), numbers)


@claim(
    "the bound holds and is close",
    literature=f"the convex combination of squared condition numbers bounds kappa from above, closely ({PAPER})",
    criterion=f"no network exceeds it, and at every width and depth its mean ratio to kappa is at most {CLOSE:g}",
    needs=list(DATA),
)
def close(results: Results) -> Verdict:
    """Violations, and the largest mean ratio."""
    numbers, holds, told = {}, [], []
    for pattern, name in DATA.items():
        table = criteria.rows(results, pattern)
        groups = criteria.grouped(table, "width", "depth", values=table["bound"] / table["kappa"])
        above = criteria.exceeding(table)
        worst = max(criteria.means(groups).items(), key=lambda item: item[1])
        holds.append(above == 0 and worst[1] <= CLOSE)
        told.append(
            f"{name}: exceeded by {above} of {len(table['kappa'])}, mean ratio up to {worst[1]:.2f} "
            f"(m = {worst[0][0]:g}, L = {worst[0][1]:g})"
        )
        numbers[name] = {"exceeded": above, "ratio": criteria.kept(groups)}
    return Verdict(all(holds), "; ".join(told), numbers)


@claim(
    "the numbers of an independent calculation",
    literature="m = 50, d = 49, k = 10, white data, mean of 3: "
    + ", ".join(f"{kappa:g} (L = {depth})" for depth, kappa in REFERENCE.items()),
    criterion="at each depth the arithmetic mean of 10 is within 3 standard errors of the difference",
    needs="reference",
)
def agrees(results: Results) -> Verdict:
    """Means with standard errors."""
    groups = criteria.grouped(criteria.rows(results, "reference"), "depth")
    told, numbers, holds = [], {}, []
    for (depth,), values in groups.items():
        off = criteria.within(values, REFERENCE[int(depth)], 3)
        error = values.std(ddof=1) / len(values) ** 0.5
        told.append(f"L = {depth:g}: {number(values.mean())} ± {number(error)}")
        numbers[f"{depth:g}"] = {"mean": float(values.mean()), "stderr": float(error), "off": off}
        holds.append(off <= 3)
    return Verdict(all(holds), "; ".join(told), numbers)


@claim(
    "width ∝ depth: slower",
    literature=f"with the width in proportion to the depth kappa grows more slowly than at a fixed width ({PAPER})",
    criterion="for every c, mean kappa at the largest depth over that at L = 2 is smaller with m = c L than m = 2c",
    needs="proportional-*",
)
def slower(results: Results) -> Verdict:
    """The growth from two layers to ten, both ways."""
    table = criteria.rows(results, "proportional-*")
    numbers, told, holds = {}, [], []
    for factor in sorted(set(table["factor"].tolist())):
        growth = []
        for fixed in (0.0, 1.0):
            found = criteria.means(criteria.grouped(criteria.chosen(table, factor=factor, fixed=fixed), "depth"))
            growth.append(found[max(found)] / found[min(found)])
        holds.append(growth[0] < growth[1])
        told.append(f"{factor:g}: × {number(growth[0])}, fixed × {number(growth[1])}")
        numbers[f"{factor:g}"] = {"proportional": growth[0], "fixed": growth[1]}
    deficiency = criteria.deficiency(table)
    return Verdict(all(holds), f"kappa from shallow to deep, by c: {'; '.join(told)}; {deficiency}", numbers)


@claim(
    "width ∝ depth: better",
    literature=f"with a large enough factor c in m = c L kappa even improves with depth ({PAPER})",
    criterion="with the largest c mean kappa is smaller at the largest depth than at L = 2",
    needs="proportional-*",
)
def improves(results: Results) -> Verdict:
    """Mean kappa over the depths at the largest factor."""
    table = criteria.chosen(criteria.rows(results, "proportional-*"), fixed=0.0)
    groups = criteria.grouped(table, "factor", "depth")
    found = criteria.lines(criteria.means(groups))
    last = found[max(found)]
    return Verdict(last[-1] < last[0], f"shallow → deep, by c: {criteria.ends(found)}", criteria.kept(groups))


# -- bounds --------------------------------------------------------------------------------------------------


@claim(
    "one hidden layer: the bound is kappa",
    literature="with two layers and white data the eigenvalues are sums, so the bound is an equality (derived)",
    criterion="|bound / kappa − 1| ≤ 1e-8 in every network with two layers",
    needs=["hidden", *DATA],
    quick=True,
)
def equality(results: Results) -> Verdict:
    """The largest deviation."""
    worst, count = 0.0, 0
    for pattern in ("hidden", *DATA):
        table = criteria.rows(results, pattern)
        table = table if pattern == "hidden" else criteria.chosen(table, depth=2.0)
        worst = max(worst, float(abs(table["bound"] / table["kappa"] - 1).max()))
        count += len(table["kappa"])
    return Verdict(worst <= 1e-8, f"at most {worst:.0e} in {count} networks", {"worst": worst, "networks": count})


@claim(
    "one hidden layer: the maximum bound is far off",
    literature=f"the maximum in place of the convex combination is far above kappa ({PAPER})",
    criterion=f"at each of the widths 15 to 200 its mean ratio to kappa is at least {FAR:g}",
    needs="hidden",
)
def far(results: Results) -> Verdict:
    """The ratios."""
    table = criteria.rows(results, "hidden")
    groups = criteria.grouped(table, "width", values=table["loose"] / table["kappa"])
    told = "; ".join(f"{width:g}: {number(ratio)}" for (width,), ratio in criteria.means(groups).items())
    holds = all(ratio >= FAR for ratio in criteria.means(groups).values())
    return Verdict(holds, f"ratio to kappa by width: {told} (∞ below d = 61)", criteria.kept(groups))


@claim(
    "deeper: the maximum bound is far off",
    literature=f"as above, with more layers ({PAPER})",
    criterion=f"on digits, at every width and every L ≥ 3, its mean ratio to the convex combination is ≥ {FAR:g}",
    needs="digits-*",
)
def far_deeper(results: Results) -> Verdict:
    """The smallest and largest ratio by width."""
    table = criteria.rows(results, "digits-*")
    table = {column: values[table["depth"] > 2] for column, values in table.items()}
    groups = criteria.grouped(table, "width", "depth", values=table["loose"] / table["bound"])
    found = criteria.lines(criteria.means(groups))
    told = "; ".join(f"{w:g}: {number(min(line))} to {number(max(line))}" for w, line in found.items())
    holds = all(ratio >= FAR for line in found.values() for ratio in line)
    return Verdict(holds, f"ratio of the bounds by width: {told}", criteria.kept(groups))


# -- data and skips ------------------------------------------------------------------------------------------


@claim(
    "data as they are: worse",
    literature=f"without whitening kappa is far larger ({PAPER})",
    criterion=f"at every depth it is at least {FAR:g} times that on white data, in the mean",
    needs="whitening",
)
def unwhitened(results: Results) -> Verdict:
    """Mean kappa both ways."""
    table = criteria.rows(results, "whitening")
    groups = criteria.grouped(table, "white", "depth")
    found = criteria.lines(criteria.means(groups))
    holds = all(raw >= FAR * white for raw, white in zip(found[0.0], found[1.0], strict=True))
    told = f"shallow → deep, white {number(found[1.0][0])} → {number(found[1.0][-1])}, as they are "
    told += f"{number(found[0.0][0])} → {number(found[0.0][-1])}; {criteria.deficiency(table)}"
    return Verdict(holds, told, criteria.kept(groups))


@claim(
    "data as they are: the gap grows",
    literature=f"the gap, on a logarithmic axis, grows with the depth ({PAPER})",
    criterion="the mean ratio of kappa without and with whitening is larger at the largest depth than at L = 2",
    needs="whitening",
)
def gap(results: Results) -> Verdict:
    """The ratios by depth."""
    groups = criteria.grouped(criteria.rows(results, "whitening"), "white", "depth")
    raw, white = (line for _, line in sorted(criteria.lines(criteria.means(groups)).items()))
    ratios = [a / b for a, b in zip(raw, white, strict=True)]
    return Verdict(ratios[-1] > ratios[0], f"ratio by L: {', '.join(map(number, ratios))}", {"ratios": ratios})


def _skips(results: Results, pattern: str, names: list[str]) -> Verdict:
    told, numbers, holds = [], {}, []
    for job, data in results.data(pattern).items():
        table = criteria.rows(results, job)
        found = criteria.means(criteria.grouped(table, "skip", "depth"))
        depths = [depth for depth in sorted({key[1] for key in found}) if depth >= 3]
        line = [f"β = 0: {number(found[0.0, depths[-1]])}"]
        for name in names:
            at = float(list(SKIPS).index(name))
            lower = sum(found[at, depth] < found[0.0, depth] for depth in depths)
            holds.append(lower == len(depths))
            line.append(f"{name}: {number(found[at, depths[-1]])}, lower at {lower} of {len(depths)} depths")
        told.append(f"m = {data['widths'][1]}, L = {depths[-1]:g}, {'; '.join(line)} ({criteria.deficiency(table)})")
        numbers[job] = criteria.kept(criteria.grouped(table, "skip", "depth"))
    return Verdict(all(holds), "; ".join(told), numbers)


@claim(
    "skips lower kappa",
    literature=f"with β times the identity added to every layer kappa is lower ({PAPER})",
    criterion="on white digits, m = 64 and 200, mean kappa is below that of β = 0 for β = 1/L, 1/√L, 0.5 and 1 at "
    "every L ≥ 3",
    needs="skip-[0-9]*",
)
def skips(results: Results) -> Verdict:
    """Mean kappa at the largest depth by beta."""
    return _skips(results, "skip-[0-9]*", ["1/L", "1/√L", "0.5", "1"])


@claim(
    "skips on square networks",
    literature=f"as above ({PAPER})",
    criterion="with d = m = k = 20, white data, mean kappa is below that of β = 0 for β = 0.5, 1 and 2 at every L ≥ 3",
    needs="skip-square",
)
def square_skips(results: Results) -> Verdict:
    """Mean kappa at the largest depth by beta."""
    return _skips(results, "skip-square", ["0.5", "1", "2"])


CLAIMS = (
    deeper,
    quadratic,
    wider,
    close,
    agrees,
    slower,
    improves,
    equality,
    far,
    far_deeper,
    unwhitened,
    gap,
    skips,
    square_skips,
    *MORE,
)
