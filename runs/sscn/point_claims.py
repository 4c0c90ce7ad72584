"""The claims of `runs.sscn` on where a run ends: second-order points, and the published tolerance."""

from __future__ import annotations

import math
from typing import Any

from probes.numbers import finite, short
from runs.engine.claims import Control, Results, Source, Verdict, claim
from runs.sscn.criteria import PAPER, names, target
from runs.sscn.plan import WIDE

SETTING = 5000  # published iterations on duke
KNOWN = "*-doubling-*", "*-adaptive-*"


def _margin(run: dict[str, Any]) -> float:
    """lambda_min, less its error, above -sqrt(||g||)."""
    return float(run["lambda_min"]) - float(run["lambda_error"]) + math.sqrt(run["gradient_norm"])


@claim(
    "ends at second-order stationary points",
    source="abstract",
    literature=f"(ε, √ε) second-order stationary points, adaptive sizes, at the rate O(ε^-3/2, ε^-3) ({PAPER})",
    criterion="every run with doubling M, of constant or adaptive size, that came to its gradient norm (1e-6; the "
    "network 1e-2) ends where the smallest eigenvalue of the whole Hessian, less its error, is at least -√‖∇f‖; one "
    "starts at a saddle of the network, where ‖∇f‖ = 0",
    needs=[*KNOWN],
    control=Control(
        "gradient descent from that saddle",
        lambda judge, results: judge(results.instead({"mlp-saddle-doubling-100": "mlp-saddle-gd"})),
        ("mlp-saddle-gd",),
    ),
)
def second_order(results: Results) -> Verdict:
    ended: dict[str, list[dict[str, Any]]] = {}
    for data in results.data(*KNOWN).values():
        arrived = [run for run in data["runs"] if target(data["problem"]) in run["to"]]
        ended.setdefault(data["problem"], []).extend(arrived)
    worst = {p: min(runs, key=_margin) for p, runs in ended.items() if runs}
    told = "; ".join(f"{p} {float(r['lambda_min']):.3g}, {r['gradient_norm']:.2g}" for p, r in worst.items())
    text = f"{sum(map(len, ended.values()))} runs; least λmin and ‖∇f‖ there by problem: {told}"
    holds = bool(worst) and "mlp-saddle" in worst and all(_margin(run) >= 0 for run in worst.values())
    return Verdict(holds, text, finite({p: _margin(run) for p, run in worst.items()}))


def _tolerance(rule: str, words: str, source: Source, control: Control | None = None) -> Any:
    jobs = [job for p in WIDE for job in names(p, rule)]

    @claim(
        f"the published tolerance on wide data, {words}",
        source=source,
        literature=f"duke, 44 × 7129: {SETTING} iterations, until a running mean of the gradient's norm in the "
        f"subset, not rescaled to n, is 1e-9 (settings and code of {PAPER})",
        criterion="on leukemia and NCI60 that mean comes to 1e-9 at every size of 50 … 500, from every start; the "
        "steps that it took and the norm of the whole gradient there are shown",
        needs=jobs,
        control=control,
    )
    def judge(results: Results, stand: str = "") -> Verdict:
        found, parts = dict[str, float](), []
        for job in jobs:
            runs = results.one(job.replace(rule, stand) if stand else job)["runs"]
            stops = [run["estimate"].get("1e-09") for run in runs]
            if None in stops:
                found[job] = math.inf
                worst = max(runs, key=lambda run: run["least_norm"])
                parts.append(f"{job}: not in {worst['steps']} steps, least ‖∇f‖ {worst['least_norm']:.2g}")
                continue
            last = max((stop for stop in stops if stop), key=lambda stop: stop["steps"])
            found[job] = last["steps"]
            parts.append(f"{job}: {short(last['steps'], 4)}, ‖∇f‖ {last['norm']:.2g}")
        return Verdict(max(found.values()) < math.inf, f"steps, whole gradient: {'; '.join(parts)}", finite(found))

    return judge


tight = _tolerance(
    "doubling",
    "M large enough",
    "code",
    Control(
        "M by the published rule", lambda judge, results: judge(results, "ratio"), tuple(f"{p}-ratio-*" for p in WIDE)
    ),
)
tight_published = _tolerance("ratio", "M by the published rule", "code")

CLAIMS = second_order, tight, tight_published
