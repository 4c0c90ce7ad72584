"""The claims of `runs.sde` on what the SDEs foretell: the noise's size, decay, heavy tails, phases."""

from __future__ import annotations

import math

import numpy as np

from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.sde.criteria import SIGN, WAYS, line, slope
from runs.sde.problems import DECAY, R1
from runs.sde.stationary import CURVATURES, ETA, PHASE_START, SMALL, SPREADS
from runs.shared.tables import listed

LINE = 0.05  # how far a slope may be from its number
FORM = 0.05  # how far a variance may be from its closed form


def _noise_slope(results: Results, name: str, last: int = 0) -> tuple[float, float]:
    """The power of the noise's deviation in the stationary loss; `last`: of that many largest deviations alone."""
    rows = results.one(f"noise-{name}")[-last:]
    return slope(*([row[key] for row in rows] for key in ("sigma", "loss", "stderr")))


@claim(
    "noise enters SignSGD's stationary loss linearly, SGD's quadratically",
    source="text",
    literature=SIGN,
    criterion=f"the power of the gradient noise's standard deviation 0.25 … 8 in the stationary loss is within {LINE} "
    "of 1 for SignSGD and of 2 for SGD, widened by 2 standard errors",
    needs=["noise-sgd", "noise-sign"],
    control=Control("SGD in the place of SignSGD", lambda judge, all: judge(all.instead({"noise-sign": "noise-sgd"}))),
)
def noise(results: Results) -> Verdict:
    found = {name: _noise_slope(results, name) for name in ("sign", "sgd")}
    holds = all(abs(found[n][0] - p) <= LINE + 2 * found[n][1] for n, p in (("sign", 1), ("sgd", 2)))
    text = "power: " + listed({n: f"{p:.3f} ± {e:.3f}" for n, (p, e) in found.items()})
    return Verdict(holds, text, {n: list(v) for n, v in found.items()})


@claim(
    "decoupled decay bounds the loss of AdamW and RMSpropW, not SGD's",
    source="text",
    literature=f"the stationary loss of AdamW and RMSpropW stays bounded as the noise grows ({SIGN})",
    criterion=f"with decay {DECAY} and deviations 0.25 … 8 the loss is at most its limit η tr(H) / (4 decay), for "
    "AdamW times r_1 / (r_1 + decay), widened by 2 standard errors, and its power of the deviation over the two "
    "largest is below 0.4; that of Adam, of Adam with coupled decay (1) and of SGD with decay (2) stays within 0.1",
    needs=["noise-*"],
    control=Control(
        "coupled decay in the place of AdamW's",
        lambda judge, results: judge(results.instead({"noise-adamw": "noise-adam-coupled"})),
    ),
)
def bounded(results: Results) -> Verdict:
    limit = ETA * sum(CURVATURES) / (4 * DECAY)
    limits = {"rmspropw": limit, "adamw": limit * R1 / (R1 + DECAY)}
    powers = {n: _noise_slope(results, n, 2)[0] for n in limits}
    powers |= {n: _noise_slope(results, n)[0] for n in ("adam", "adam-coupled", "sgd-decay")}
    last = {n: results.one(f"noise-{n}")[-1] for n in limits}
    holds = [last[n]["loss"] <= limits[n] + 2 * last[n]["stderr"] and powers[n] < 0.4 for n in limits]
    holds += [abs(powers[n] - p) <= 0.1 for n, p in (("adam", 1), ("adam-coupled", 1), ("sgd-decay", 2))]
    text = "loss at 8 over its limit: " + listed({n: f"{last[n]['loss'] / limits[n]:.2f}" for n in limits})
    text += "; powers: " + listed({n: f"{p:.2f}" for n, p in powers.items()})
    return Verdict(all(holds), text, {"limits": limits, "powers": powers})


def closed_form(rule: str, decay: float, r1: float, h: float, sigma: float, eta: float = SMALL) -> float:
    """The stationary variance to leading order in eta; see `solvers.diffusion.stationary`."""
    if rule == "rmspropw":
        return eta / 2 / (h / sigma + decay)
    if rule == "adamw":
        return eta / 2 / (h / sigma + decay) * r1 / (r1 + decay)
    return eta / 2 * sigma / (h + decay) * (math.sqrt(math.pi / 2) if rule == "coupled-sign" else 1)


@claim(
    "stationary variances follow the closed forms",
    source="text",
    literature=f"{SIGN}; the factor r_1 / (r_1 + decay) of AdamW: own",
    criterion=f"at η = {SMALL} every variance, H = {CURVATURES}, deviations {SPREADS}, is within {FORM:.0%} of its "
    "form, widened by 2 standard errors: RMSpropW (η/2)/(h/σ + decay), AdamW that times r_1/(r_1 + decay), coupled "
    "decay (η/2) σ/(h + decay), in SignSGD times sqrt(π/2); without its factor AdamW's fails",
    needs="form-*",
    control=Control("forms without the decay", lambda judge, results: judge(results, decayed=False)),
)
def forms(results: Results, decayed: bool = True) -> Verdict:
    found: dict[str, list[float]] = {}
    holds, plain = [], []
    for name, rows in results.family("form-").items():
        rule, decay, r1 = name.rsplit("-", 2)
        for row in rows:
            form = closed_form(rule, float(decay) * decayed, float(r1), row["h"], row["sigma"])
            ratio, slack = row["variance"] / form, FORM + 2 * row["stderr"] / form
            found.setdefault(name, []).append(ratio)
            holds.append(abs(ratio - 1) <= slack)
            if rule == "adamw":
                plain.append(abs(ratio * float(r1) / (float(r1) + float(decay)) - 1) <= slack)
    text = "solver over form, by coordinate (rule, decay, r_1): "
    text += listed({name: ", ".join(f"{v:.3f}" for v in values) for name, values in found.items()})
    text += f". AdamW without the factor: {sum(plain)} of {len(plain)} within the tolerance"
    numbers = {f"form-{name}": values for name, values in found.items()}
    return Verdict(all(holds) and not any(plain), text, numbers)


@claim(
    "SignSGD settles under noise of infinite variance",
    source="text",
    literature=f"robust to heavy tails ({SIGN})",
    criterion="with Student noise of 1 (Cauchy) and 1.5 degrees of freedom and η = 0.1, 0.03, 0.01 the mean square is "
    "within 15 % of the SDE's (η/2) / (2 p(0) h), widened by 2 standard errors, and no path is ever beyond 20 of its "
    "deviations and the start's 1.5",
    needs="heavy-sign-*",
    control=Control("twice the mean square of the SDE", lambda judge, results: judge(results, times=2.0)),
)
def heavy_sign(results: Results, times: float = 1.0) -> Verdict:
    def holds(row: dict[str, float]) -> bool:
        foretold = times * row["variance"]
        slack, deviation = 2 * row["mean_square_stderr"] / foretold, math.sqrt(foretold)
        near = abs(row["mean_square"] / foretold - 1) <= 0.15 + slack
        return near and row["largest"] <= 1.5 + 20 * deviation

    found = results.family("heavy-sign-")
    ratios = {dof: [row["mean_square"] / row["variance"] / times for row in rows] for dof, rows in found.items()}
    largest = {dof: max(row["largest"] for row in rows) for dof, rows in found.items()}
    return every(
        found,
        lambda rows: all(map(holds, rows)),
        lambda dof, _: f"{dof}: {', '.join(f'{r:.3f}' for r in ratios[dof])}, largest |x| {largest[dof]:.2f}",
        before="mean square over the SDE's by η: ",
        numbers={f"heavy-sign-{dof}": {"ratios": ratios[dof], "largest": largest[dof]} for dof in found},
    )


@claim(
    "SGD does not",
    source="text",
    literature=f"noise of infinite variance keeps SGD from converging ({SIGN})",
    criterion="with Cauchy noise the median |x| is the same at all η, the noise's scale over h, within 10 %, and with "
    "1.5 degrees of freedom its power of η is within 0.1 of 1/3, not 1/2; in both some path comes 20 medians away",
    needs="heavy-sgd-*",
    control=Control("the power of a finite variance", lambda judge, results: judge(results, power=1 / 2)),
)
def heavy_sgd(results: Results, power: float = 1 / 3) -> Verdict:
    data = results.family("heavy-sgd-")
    medians = {dof: [row["median"] for row in rows] for dof, rows in data.items()}
    p, e = slope(*([row[key] for row in data["1.5"]] for key in ("eta", "median", "median_stderr")))
    far = {dof: [row["largest"] / row["median"] for row in rows] for dof, rows in data.items()}
    holds = all(abs(m - 1) <= 0.1 for m in medians["1"]) and abs(p - power) <= 0.1
    holds = holds and min(map(min, far.values())) >= 20
    text = "median |x| by η, Cauchy: " + ", ".join(f"{m:.2f}" for m in medians["1"])
    text += "; 1.5: " + ", ".join(f"{m:.2f}" for m in medians["1.5"]) + f", power {p:.2f} ± {e:.2f}"
    text += "; largest |x| in medians: " + listed({d: f"{min(v):.3g} … {max(v):.3g}" for d, v in far.items()})
    return Verdict(holds, text, {"medians": medians, "power": [p, e], "far": far})


@claim(
    "SignSGD's drift has three phases",
    source="theorem",
    literature=f"with Y = ∇f / (sqrt(2) σ): sign(∇f) for |Y| > 3/2, linear 2Y / sqrt(π) for |Y| < 1, Erf(Y) "
    f"whole ({SIGN})",
    criterion="in bins of |Y| of width 1/8 the solver's mean step over η is within 0.05 of 1 for all |Y| ≥ 3/2, of "
    "2Y / sqrt(π), the tangent at 0, for all |Y| ≤ 1/2, and of Erf(Y) everywhere",
    needs="phases",
    control=Control("σ a quarter larger", lambda judge, results: judge(results, sigma=1.25)),
)
def phases(results: Results, sigma: float = 1.0) -> Verdict:
    bins = [b | {end: b[end] / sigma for end in ("low", "high")} for b in results.one("phases")["bins"]]
    first = max(abs(b["drift"] - 1) for b in bins if b["low"] >= 1.5)
    law = [(b["high"], abs(b["drift"] - (b["low"] + b["high"]) / math.sqrt(math.pi))) for b in bins if b["high"] <= 1]
    exact = max(abs(b["drift"] - _mean_erf(b["low"], b["high"])) for b in bins)
    near = 0.0
    for high, distance in law:
        if distance > 0.05:
            break
        near = high
    text = f"|Y| ≥ 3/2: at most {first:.3f} from the sign; "
    text += f"|Y| ≤ 1: at most {max(d for _, d in law):.3f} from the line, within 0.05 up to |Y| = {near:g}; "
    text += f"Erf(Y) is met to {exact:.3f} everywhere"
    return Verdict(
        first <= 0.05 and near >= 0.5 and exact <= 0.05,
        text,
        {"sign": first, "line": [list(v) for v in law], "erf": exact},
    )


def _mean_erf(low: float, high: float) -> float:
    """Of Erf over an interval: its integral is y Erf(y) + exp(-y^2) / sqrt(pi)."""
    whole = [y * math.erf(y) + math.exp(-(y**2)) / math.sqrt(math.pi) for y in (low, high)]
    return (whole[1] - whole[0]) / (high - low)


@claim(
    "SignSGD: a loss falling in finite time first, exponentially at last",
    source="text",
    literature=f"phase 1: sqrt(f) falls linearly; phase 3: exponentially, at a rate that noise slows down ({SIGN})",
    criterion=f"on f = x²/2, σ = 1, from x = {PHASE_START:g}: while Y ≥ 3/2 the root of the mean loss is a line in "
    "time (R² ≥ 0.999) of slope -sqrt(1/2) within 5 %, in solver and SDE; once the mean Y ≤ 1/4 the mean x falls at "
    "the rate sqrt(2/π) / σ within 10 % until it is 0.02",
    needs="phases",
    control=Control("σ a quarter larger", lambda judge, results: judge(results, sigma=1.25)),
)
def decay(results: Results, sigma: float = 1.0) -> Verdict:
    found: dict[str, list[float]] = {}
    with results.trace("phases") as trace:
        for name in WAYS:
            rows = trace[name]
            t, loss, x = rows["t"], rows["loss"], rows["x"]
            first = x / math.sqrt(2) >= 1.5
            root, fit = line(t[first], loss[first] ** 0.5)
            begin = int((x / math.sqrt(2) <= 0.25).argmax())
            end = begin + int((x[begin:] < 0.02).argmax())
            rate, straight = line(t[begin:end], np.log(x[begin:end]))
            found[name] = [root, fit, -rate, straight]
    foretold = -math.sqrt(0.5), math.sqrt(2 / math.pi) / sigma
    holds = all(
        fit >= 0.999 and abs(root / foretold[0] - 1) <= 0.05 and abs(rate / foretold[1] - 1) <= 0.1
        for root, fit, rate, _ in found.values()
    )
    words = "slope {:.3f}, R² {:.5f}, rate {:.3f}, R² {:.4f}"
    text = "foretold: slope {:.3f}, rate {:.3f}. ".format(*foretold)
    return Verdict(holds, text + listed({WAYS[n]: words.format(*v) for n, v in found.items()}), found)


CLAIMS = (noise, bounded, forms, heavy_sign, heavy_sgd, phases, decay)
