"""The claims of `runs.edge_of_stability` on the minima that SGD keeps and gradient descent does not leave."""

from __future__ import annotations

from typing import Any

from probes.numbers import short
from runs.edge_of_stability.criteria import WU
from runs.engine.claims import Control, Results, Verdict, claim

ABOVE = 1.5  # a start with at least so many times 2/eta breaks the bound by more than an error of the trace


def starts(results: Results, solver: str) -> list[dict[str, Any]]:
    """The runs of a solver: where tr(H) and the largest eigenvalue stood at first and tr(H) at last, times eta/2."""
    found = []
    for name, data in results.data("keep-*").items():
        for run in data["runs"]:
            half, end = run["rate"] / 2, run[solver]
            row = {"job": name, "ratio": run["ratio"], "sharpness": half * data["sharpness"], "kept": end["kept"]}
            if end["kept"]:
                row |= {"trace": half * end["trace"], "stderr": half * end["stderr"]}
            found.append(row)
    return found


def told(runs: list[dict[str, Any]]) -> str:
    """Where the runs of each ratio ended."""
    parts = []
    for ratio in sorted({run["ratio"] for run in runs}):
        own = [run for run in runs if run["ratio"] == ratio]
        ends = [short(run["trace"], 2) for run in own if run["kept"]]
        ends += [f"{len(own) - len(ends)} diverged"] if len(own) > len(ends) else []
        parts.append(f"× {ratio:g} → {', '.join(ends)}")
    return "; ".join(parts)


@claim(
    "SGD keeps tr(H) ≤ 2/η",
    source="theorem",
    literature="a global minimum that is linearly stable for SGD has tr(H) ≤ 2/η: batches of one, square loss, every "
    f"sample fitted ({WU}, abstract and section 3)",
    criterion="from minima of gradient descent that fit 500 images (one output, ±1), at step sizes with tr(H) of "
    f"{ABOVE} … 16 times 2/η: some run survives, and all that do end with tr(H) − 2 stderr ≤ 2/η",
    needs="keep-*",
    control=Control("gradient descent in the place of SGD", lambda judge, results: judge(results, "gd")),
)
def kept(results: Results, solver: str = "sgd") -> Verdict:
    runs = starts(results, solver)
    above = [run for run in runs if run["ratio"] >= ABOVE]
    left = [run for run in above if run["kept"]]
    holds = bool(left) and all(run["trace"] - 2 * run["stderr"] <= 1 for run in left)
    gone = f"{len(above) - len(left)} of {len(above)} starts above the bound diverged"
    return Verdict(holds, f"η tr(H) / 2, start → end: {told(runs)}; {gone}", {"runs": runs})


@claim(
    "gradient descent does not",
    source="theorem",
    literature=f"for gradient descent stability bounds the largest eigenvalue alone ({WU}, abstract)",
    criterion=f"from the same minima, at step sizes with tr(H) at least {ABOVE} times 2/η and λmax ≤ 2/η: every run "
    "survives and ends with tr(H) − 2 stderr > 2/η",
    needs="keep-*",
    control=Control("SGD in the place of gradient descent", lambda judge, results: judge(results, "sgd")),
)
def unbounded(results: Results, solver: str = "gd") -> Verdict:
    runs = [run for run in starts(results, solver) if run["ratio"] >= ABOVE and run["sharpness"] <= 1]
    holds = bool(runs) and all(run["kept"] and run["trace"] - 2 * run["stderr"] > 1 for run in runs)
    return Verdict(holds, f"η tr(H) / 2, start → end: {told(runs)}", {"runs": runs})


CLAIMS = (kept, unbounded)
