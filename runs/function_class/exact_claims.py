"""The claims of `runs.function_class` on problems whose constants are known."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from landscape.regularity import aiming, angles, polyak_lojasiewicz
from probes.numbers import short
from runs.engine.claims import Results, Verdict, claim, every
from runs.function_class import criteria
from runs.function_class.criteria import GAP, PAPER
from runs.shared.tables import falling, listed, span

SQUARE = "on a grid of [−6, 8]²"
FLAT = 1e-4


def _first(results: Results, name: str) -> dict[str, Any]:
    """What an example gave on its whole plane."""
    return cast(dict[str, Any], results.one(f"example-{name}")["regions"][0])


@claim(
    "the toy examples are α-β",
    source="text",
    literature=f"Examples 1, 2, 3 and 6 satisfy the condition with stated pairs ({PAPER}; Example 3 with the second "
    "function corrected, T with +β)",
    criterion=f"min T ≥ −1e-9 β {SQUARE} at each stated pair, and β = 0 violates it at the same gap in each",
    needs="example-*",
    quick=True,
)
def toys(results: Results) -> Verdict:
    found = {name: _first(results, name) for name in ("1", "2", "3", "6")}
    vacuous = sum(f["vacuous"] for f in found.values())

    def holds(f: dict[str, Any]) -> bool:
        return f["least_margin"] >= -1e-9 * f["pair"][1] and f["without_beta"] < 0

    def tell(name: str, f: dict[str, Any]) -> str:
        alpha, beta = f["pair"]
        margin = f"{name}: min T {short(f['least_margin'], 2)} at β {short(beta)}"
        return f"{margin}, smallest β {short(f['beta'], 5)} at the gap {short(alpha - beta, 2)}"

    return every(found, holds, tell, after=f"; vacuous in {vacuous} of 4 (f_i > f_i^* at the minimisers)")


@claim(
    "the pairs are nearly tight",
    source="derived",
    literature="derived: Example 1 at gap 0.5 needs β ≈ 1.958 where 2 is stated, Example 6 at gap 1 needs 19.062 where "
    "40.37 is stated",
    criterion=f"{SQUARE} the smallest β of Example 1 at gap 0.5 is 1.958 ± 0.001, that of Example 6 at gap 1 19.062 ± "
    "0.001",
    needs=["example-1", "example-6"],
    quick=True,
)
def tight(results: Results) -> Verdict:
    first, sixth = (_first(results, name)["beta"] for name in ("1", "6"))
    holds = abs(first - 1.958) <= 1e-3 and abs(sixth - 19.062) <= 1e-3
    return Verdict(holds, f"{first:.4f} and {sixth:.4f}, {SQUARE}", {"1": first, "6": sixth})


@claim(
    "a constant belongs to its region",
    source="own",
    literature="own: Example 6's β is set by a corner of the plane",
    criterion="its smallest β at gap 1 falls from [−6, 8]² to [−5, 5]² and to [−2, 3]², by 10 % or more in all",
    needs="example-6",
    quick=True,
)
def region(results: Results) -> Verdict:
    found = results.one("example-6")["regions"]
    betas = [f["beta"] for f in found]
    told = "; ".join("[{:g}, {:g}]²: {:.2f}".format(*f["region"], f["beta"]) for f in found)
    return Verdict(falling(betas) and betas[-1] <= 0.9 * betas[0], told, {"betas": betas})


@claim(
    "half-space learning: aiming and PL fail",
    source="text",
    literature="there is a path of SGD over a plateau where ∇f is nearly 0, the loss still large, and −∇f points away "
    f"from x_K ({PAPER})",
    criterion="on at least one path, by the whole loss, aiming's θ is not positive and PL's μ (f − f^*) is below "
    f"{FLAT:g}",
    needs="half-space",
)
def saddle(results: Results) -> Verdict:
    runs = criteria.runs_of(results, "half-space", full=True)
    theta, mu = [aiming(t).value for t in runs], [polyak_lojasiewicz(t, reference="infimum").value for t in runs]
    cosine = [float(np.nanmin(angles(t))) for t in runs]
    fail = sum(a <= 0 and b < FLAT for a, b in zip(theta, mu, strict=True))
    early = [float(np.nanmin(angles(t)[criteria.first_part(t, 0.5)])) for t in runs]
    told = f"{fail} of {len(runs)} paths from random points at distance 4; θ {span(theta)}, least cosine "
    told += f"{span(cosine)}, μ {span(mu)}; −∇f points away from x_K somewhere on {sum(v < 0 for v in cosine)} paths, "
    told += f"in their first half on {sum(v < 0 for v in early)} (else near the end, where SGD wanders about x_K)"
    return Verdict(fail > 0, told, {"theta": theta, "mu": mu, "cosine": cosine})


@claim(
    "half-space learning is α-β with large constants",
    source="text",
    literature=f"admissible pairs start at about 33 282 ({PAPER}; one path, f_i^* ≈ 0.000524)",
    criterion=f"β at gap {GAP} is within 3 300 … 330 000 for all runs at once",
    needs="half-space",
)
def half_space(results: Results) -> Verdict:
    found = criteria.smallest(results, "half-space")
    told = f"β at gap {GAP} of all seeds (each alone): {found}; 99 % of the steps: {short(found.most, 3)}; "
    told += criteria.vacuous_text({"half-space": found})
    return Verdict(3300 <= found.beta <= 330_000, told, criteria.as_json({"half-space": found}))


# -- the theorems --------------------------------------------------------------------------------------------


@claim(
    "SGD: the one-step inequality",
    source="theorem",
    literature=f"E‖x⁺ − x_p‖² ≤ ‖x − x_p‖² − γ(α − β)(f − f^*) + (2γβ + 2Lγ²) σ_int² "
    f"(proof of Theorems 1 and 4, {PAPER})",
    criterion="it holds at every point visited, averaged over i, for constant steps of 1, 1/4, 1/16 of the largest "
    "allowed and for γ/√(k+1)",
    needs="theorem-*",
    quick=True,
)
def one_step(results: Results) -> Verdict:
    found = results.family("theorem-")
    slack = {name: data["tightest"] for name, data in found.items()}
    points, reach = sum(data["points"] for data in found.values()), max(d["visited"] for d in found.values())
    c = next(iter(found.values()))["constants"]
    told = f"least slack, {points:,} points in |x| ≤ {reach:.3g}: {listed({n: short(v, 3) for n, v in slack.items()})}"
    told += f" (α {c['alpha']:.4f}, β {c['beta']:.4f} on [−10, 10], L 3, σ² {c['sigma2']:.4f})"
    return Verdict(min(slack.values()) >= -1e-12, told, slack)


@claim(
    "SGD: the bounds",
    source="theorem",
    literature=f"min_k E f(x_k) − f^* is below the bounds of Theorem 1 (constant step) and Theorem 4 (γ/√(k+1)) "
    f"({PAPER})",
    criterion="measured (mean of the runs, less 3 standard errors) ≤ bound after each number of steps",
    needs="theorem-*",
    quick=True,
)
def bounds(results: Results) -> Verdict:
    found = results.family("theorem-")
    rows = next(iter(found.values()))["rows"]
    floor = f"{rows[0]['neighbourhood']:.3g} is the neighbourhood 2βσ²/(α − β), which no step size lowers"

    def holds(data: dict[str, Any]) -> bool:
        return all(row["measured"] - 3 * row["stderr"] <= row["bound"] for row in data["rows"])

    def ratios(data: dict[str, Any]) -> list[list[float]]:
        return [[row["steps"], row["bound"] / row["measured"]] for row in data["rows"]]

    def tell(name: str, data: dict[str, Any]) -> str:
        said = [row["steps"] for row in data["rows"] if row["bound"] < data["first"]]
        since, last = f"vacuous before {said[0]} steps" if said else "vacuous throughout", data["rows"][-1]
        return f"{name}: {short(last['measured'], 2)} against {short(last['bound'], 2)}, {since}"

    return every(
        found,
        holds,
        tell,
        before=f"after {rows[-1]['steps']} steps, measured against bound: ",
        after=f"; of the bound {floor}",
        numbers={f"theorem-{name}": ratios(data) for name, data in found.items()},
    )


@claim(
    "the neighbourhood is seen without local minima",
    source="own",
    literature=f"the neighbourhood of size O(β σ_int²) is needed, since local minima are allowed ({PAPER}, remark); "
    "own question: is it seen where there are none",
    criterion="on the two-function problem, which has one minimum, the smallest step ends above a tenth of "
    "2βσ²/(α − β)",
    needs="theorem-constant-*",
)
def neighbourhood(results: Results) -> Verdict:
    last = {name: data["rows"][-1] for name, data in results.family("theorem-constant-").items()}
    shares = {name: row["measured"] / row["neighbourhood"] for name, row in last.items()}
    told = "measured over 2βσ²/(α − β) by step size over the largest allowed: "
    told += listed({name: short(share, 3) for name, share in shares.items()})
    return Verdict(list(shares.values())[-1] >= 0.1, told, shares)


CLAIMS = (toys, tight, region, saddle, half_space, one_step, bounds, neighbourhood)
