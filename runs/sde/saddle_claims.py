"""The claims of `runs.sde` on SAM and its kin: the drift that rho adds, and saddle points."""

from __future__ import annotations

import math
from typing import Any

from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.sde.criteria import SAM, WAYS, line
from runs.sde.saddles import FLAT, RADII, STEEP
from runs.shared.tables import listed


@claim(
    "the radius adds ρ ∇‖∇f‖ to SAM's drift, (ρ/2) ∇‖∇f‖² to USAM's",
    source="theorem",
    literature=f"implicit regularisation; of batches the means E‖g‖ and E‖g‖²/2 ({SAM})",
    criterion="at five random points what ρ adds to the mean step (over all batches of the finite sum; the full "
    "gradient of the network, DNSAM too) over ρ differs from the gradient by autograd by a relative error whose power "
    "of ρ, 0.1 … 0.003, is at least 0.9, and which is at most 0.02 at ρ = 0.003",
    needs="drift-*",
    control=Control("the gradients of SAM and USAM exchanged", lambda judge, results: judge(results, error="other")),
)
def drift(results: Results, error: str = "error") -> Verdict:
    found = {}
    for problem, data in results.family("drift-").items():
        for rule, rows in data.items():
            p = line(*([math.log(row[key]) for row in rows] for key in ("rho", error)))[0]
            found[f"{rule} {problem}"] = [p, rows[-1][error]]
    return every(
        found,
        lambda v: v[0] >= 0.9 and v[1] <= 0.02,
        lambda name, v: f"{name}: {v[0]:.2f}, {v[1]:.2g}",
        before="power, error at the smallest ρ: ",
    )


def _cases(results: Results) -> dict[tuple[str, str], Any]:
    return {(row["case"], row["kind"]): row for row in results.one("saddle")}


@claim(
    "a saddle attracts full-batch SAM from within ρ, not gradient descent",
    source="abstract",
    literature=f"saddle points can attract SAM ({SAM})",
    criterion="on (x² - y²)/2, ρ = 0.1, in solver and ODE: all starts with ‖∇f‖ < ρ end within 2ηρ of the saddle, none "
    "with |y| > 1.05 ρ does, and from all starts gradient descent leaves",
    needs="saddle",
    control=Control("gradient descent in the place of SAM", lambda judge, results: judge(results, sam="gd")),
)
def saddle(results: Results, sam: str = "sam") -> Verdict:
    found = _cases(results)
    holds = [found[sam, kind]["inner"] == 1 and found[sam, kind]["outer"] == 0 for kind in ("solver", "ode")]
    holds += [found["gd", kind]["left"] == 1 for kind in ("solver", "ode")]
    shares = found[sam, "solver"]["by_radius"]
    text = "share of SAM's starts that end at the saddle, by radius in ρ: "
    text += listed({f"{r:g}": f"{v:.2f}" for r, v in zip(RADII, shares, strict=True)})
    same = all(found[c, "solver"]["by_radius"] == found[c, "ode"]["by_radius"] for c in ("gd", sam))
    text += f"; gradient descent: none; the ODE {'says the same' if same else 'differs'}"
    return Verdict(all(holds), text, {"sam": shares})


@claim(
    "a saddle attracts full-batch USAM only if ρ > 1 / ‖λ_min‖",
    source="text",
    literature=f"the drift -H (I + ρH) X ({SAM})",
    criterion=f"with λ_min = -1 all starts end at the saddle for ρ = {STEEP}, and all leave for ρ = {FLAT}, in solver "
    "and ODE",
    needs="saddle",
    control=Control("the radii exchanged", lambda judge, results: judge(results, steep="flat", flat="steep")),
)
def saddle_usam(results: Results, steep: str = "steep", flat: str = "flat") -> Verdict:
    found = _cases(results)
    stayed = {kind: min(found[f"usam-{steep}", kind]["by_radius"]) for kind in ("solver", "ode")}
    left = {kind: found[f"usam-{flat}", kind]["left"] for kind in ("solver", "ode")}
    holds = min(stayed.values()) == 1 and min(left.values()) == 1
    text = f"ρ = {STEEP}: least share at the saddle {min(stayed.values()):.2f}; ρ = {FLAT}: share that left "
    return Verdict(holds, text + f"{min(left.values()):.2f}", {"stayed": stayed, "left": left})


def _shares_left(results: Results, rule: str, kind: str = "solver") -> dict[float, float]:
    return {row["noise"]: row[kind] for row in results.one(f"escape-{rule}")["rows"]}


@claim(
    "noise above ρ sqrt(π/8) frees SAM from the saddle",
    source="own",
    literature="own: from the SDE linear at the saddle, whose rate along y is 1 - sqrt(π/8) ρ/s",
    criterion="of paths from ‖X‖ = ρ/2 over a time of 20, at most 5 % leave with noise of deviation s ≤ ρ/2 and at "
    "least 90 % with s ≥ ρ, by solver and SDE; of SGD and USAM (ρ = 0.1) at least 90 % leave with every s",
    needs="escape-*",
)
def freed(results: Results) -> Verdict:
    solver, sde = (_shares_left(results, "sam", kind) for kind in WAYS)
    others = {kind: min(min(_shares_left(results, rule, kind).values()) for rule in ("sgd", "usam")) for kind in WAYS}
    holds = all((s > 0.5 or v <= 0.05) and (s < 1 or v >= 0.9) for shares in (solver, sde) for s, v in shares.items())
    text = "share of SAM that left: " + listed(
        {f"s = {s:g} ρ": f"{v:.2f}, SDE {sde[s]:.2f}" for s, v in solver.items()}
    )
    text += f"; of SGD and USAM at least {others['solver']:.2f}"
    return Verdict(holds and min(others.values()) >= 0.9, text, {"sam": list(solver.values())})


@claim(
    "DNSAM leaves the saddle where SAM stays",
    source="own",
    literature=f"own, after the diffusion sqrt(η) (I + ρH/‖∇f‖) Σ^(1/2) of {SAM}, which explodes at a saddle",
    criterion="for every noise s ≤ ρ/2 the share of DNSAM's paths that leave is larger than that of SAM's by more than "
    "3 standard errors",
    needs=["escape-sam", "escape-dnsam"],
)
def dnsam(results: Results) -> Verdict:
    own, other = _shares_left(results, "dnsam"), _shares_left(results, "sam")
    paths = results.one("escape-dnsam")["paths"]
    errors = {s: math.sqrt((own[s] * (1 - own[s]) + other[s] * (1 - other[s])) / paths) for s in own}
    holds = all(own[s] - other[s] > 3 * errors[s] for s in own if s <= 0.5)
    text = "share that left, DNSAM and SAM: " + listed({f"s = {s:g} ρ": f"{own[s]:.2f}, {other[s]:.2f}" for s in own})
    return Verdict(holds, text, {"dnsam": list(own.values()), "sam": list(other.values())})


@claim(
    "the published diffusion of SAM is a covariance",
    source="theorem",
    literature=f"Σ + ρ (S + Sᵀ) ({SAM})",
    criterion="at the saddle (∇f = 0, H = diag(1, -1), s = ρ = 0.1) its smallest eigenvalue is not negative",
    needs="covariance",
)
def published(results: Results) -> Verdict:
    lowest = results.one("covariance")["lowest_published"]
    return Verdict(lowest >= 0, f"smallest eigenvalue {lowest:.4f}", {"lowest": lowest})


@claim(
    "Cov(g + ρ H_g g/‖g‖) is the covariance of SAM's step there",
    source="own",
    literature="own: the same to first order in ρ",
    criterion="at that saddle both variances are those of the solver's step within 1 %, widened by 2 standard errors",
    needs="covariance",
)
def whole(results: Results) -> Verdict:
    data = results.one("covariance")
    rows = [list(row) for row in zip(data["solver"], data["stderr"], data["psd"], data["published"], strict=True)]
    return every(
        dict(zip("xy", rows, strict=True)),
        lambda row: abs(row[0] / row[2] - 1) <= 0.01 + 2 * row[1] / row[2],
        lambda axis, row: "{}: {:.5f} ± {:.5f}, {:.5f}, {:.5f}".format(axis, *row),
        before="solver, Cov, published: ",
        numbers={"rows": rows},
    )


CLAIMS = (drift, saddle, saddle_usam, freed, dnsam, published, whole)
