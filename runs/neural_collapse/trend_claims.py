"""The claims on trends among those of `runs.neural_collapse`: momentum, from AdamW to Adam, NC0 beside NC2 and NC3."""

from __future__ import annotations

import numpy as np

from probes.numbers import short
from runs.engine.claims import Results, Verdict, all_hold, claim, every
from runs.neural_collapse.criteria import PAPER, Row, by_network, chosen, counting, regression, runs
from runs.neural_collapse.jobs import ACCELERATION, DECAY
from runs.neural_collapse.optimizer_claims import COUNT
from runs.shared.tables import falling, listed

SMALL, SMALL_RUNS = 0.5, 10  # NC2, NC3 and normalised NC0, which is about 1 for a random W
EXPLAINED = 0.5  # R^2


def accelerated(results: Results) -> dict[str, list[Row]]:
    """SGD's counting runs at the setting's decay, by network, in the order of momentum."""
    rows = chosen(counting(runs(results)), optimizer="SGD", decay=DECAY, seed=0)
    found = {name: sorted(own, key=lambda row: row["momentum"]) for name, own in by_network(rows).items()}
    return {network: own for network, own in found.items() if len(own) > 1}


@claim(
    "momentum accelerates collapse",
    source="figure",
    literature=f"more momentum, lower NC0 and NC3 of SGD, at every step of it ({PAPER}, figure 5)",
    criterion=f"at decay {DECAY} NC0 and NC3 fall with every momentum of {', '.join(f'{m:g}' for m in ACCELERATION)} "
    f"whose run counts, on MLP and CNN; {COUNT}",
    needs="grid-*-SGD-*",
)
def accelerates(results: Results) -> Verdict:
    found = accelerated(results)
    holds = all_hold(falling([r["train"][key] for r in own]) for own in found.values() for key in ("nc0", "nc3"))

    def tell(metric: str) -> str:
        each = {n: [f"{r['momentum']:g}: {short(r['train'][metric], 2)}" for r in own] for n, own in found.items()}
        return listed({network: ", ".join(told) for network, told in each.items()})

    told = f"NC0: {tell('nc0')}. NC3: {tell('nc3')}"
    return Verdict(holds, told, {network: [row["train"] for row in own] for network, own in found.items()})


@claim(
    "momentum at equal train loss",
    source="text",
    literature="momentum 0.7 and 0.9 reach the same train loss and accuracy, but clearly different NC0 and NC3 "
    f"({PAPER})",
    criterion=f"at decay {DECAY} the losses differ by a factor of 1.5 at most, NC0 at 0.9 is at most half of that at "
    "0.7, and NC3 is lower, on MLP and CNN",
    needs="grid-*-SGD-*",
)
def equal_loss(results: Results) -> Verdict:
    found = {network: [r for r in own if r["momentum"] in (0.7, 0.9)] for network, own in accelerated(results).items()}
    pairs = {network: pair for network, pair in found.items() if len(pair) == 2}

    def holds(pair: list[Row]) -> bool:
        less, more = pair
        low, high = sorted(row["loss"] for row in pair)
        nc0, nc3 = ((less["train"][metric], more["train"][metric]) for metric in ("nc0", "nc3"))
        return bool(high <= 1.5 * low and nc0[1] <= 0.5 * nc0[0] and nc3[1] < nc3[0])

    def tell(network: str, pair: list[Row]) -> str:
        values = {"loss": [row["loss"] for row in pair]}
        values |= {metric.upper(): [row["train"][metric] for row in pair] for metric in ("nc0", "nc3")}
        return f"{network}: " + ", ".join(f"{k} {short(a, 3)} → {short(b, 3)}" for k, (a, b) in values.items())

    return every(
        pairs,
        holds,
        tell,
        numbers={
            network: {"loss": [less["loss"], more["loss"]], "0.7": less["train"], "0.9": more["train"]}
            for network, (less, more) in pairs.items()
        },
        before="0.7 → 0.9, ",
    )


def shares(results: Results) -> tuple[list[float], dict[str, list[float]]]:
    """The coupled shares of the decay, and means over seeds of what is measured there (of counting runs)."""
    rows = counting(runs(results, "between-*"))
    found = sorted({row["share"] for row in rows})
    groups = [chosen(rows, share=share) for share in found]
    table = {
        key: [float(np.mean([row["train"][key] for row in own])) for own in groups]
        for key in ("nc0", "nc1", "nc2", "nc3", "accuracy")
    }
    return found, table | {"test": [float(np.mean([row["test"]["accuracy"] for row in own])) for own in groups]}


@claim(
    "from AdamW to Adam: NC0, NC2 and NC3 fall",
    source="text",
    literature="with λ coupled + λ decoupled fixed, the three fall smoothly as the coupled part grows "
    f"({PAPER}, interpolation)",
    criterion=f"the mean over seeds of each falls with each step of the coupled share of {DECAY}, on the MLP; {COUNT}",
    needs="between-*",
)
def between_falls(results: Results) -> Verdict:
    found, table = shares(results)
    if len(found) < 2:
        return Verdict(None, "too few runs count")
    told = "; ".join(f"{key.upper()} {', '.join(short(v, 3) for v in table[key])}" for key in ("nc0", "nc2", "nc3"))
    told = f"shares {', '.join(f'{share:g}' for share in found)}: {told}"
    return Verdict(all(falling(table[key]) for key in ("nc0", "nc2", "nc3")), told, {"shares": found} | table)


@claim(
    "from AdamW to Adam: accuracy stays",
    source="text",
    literature=f"the validation accuracy does not change ({PAPER}, interpolation)",
    criterion="the means over seeds of the test accuracy lie within one percentage point of one another",
    needs="between-*",
)
def between_stays(results: Results) -> Verdict:
    found, table = shares(results)
    if not found:
        return Verdict(None, "no run counts")
    told = ", ".join(f"{share:g}: {value:.2%}" for share, value in zip(found, table["test"], strict=True))
    spread = max(table["test"]) - min(table["test"])
    return Verdict(spread <= 0.01, f"by share {told}; train {min(table['accuracy']):.2%} or more", {"spread": spread})


@claim(
    "NC0 is necessary for NC2 and NC3",
    source="theorem",
    literature=f"NC2 and NC3 imply NC0, which therefore rules out what keeps it large ({PAPER}, proposition 2.1)",
    criterion=f"no counting run has NC2 and NC3 below {SMALL} and ‖Wᵀ1‖ / ‖W‖ above {SMALL}, of at least {SMALL_RUNS} "
    "with such NC2 and NC3; and ‖Wᵀ1‖ / ‖W‖ ≤ √K NC3 in every one",
    needs=["grid-*", "between-*"],
)
def necessary(results: Results) -> Verdict:
    rows = [row["train"] for row in counting(runs(results)) + counting(runs(results, "between-*"))]
    small = [row for row in rows if row["nc2"] < SMALL and row["nc3"] < SMALL]
    largest = max((row["nc0_normalized"] for row in small), default=float("nan"))
    tightest = max(row["nc0_normalized"] / (10**0.5 * row["nc3"]) for row in rows)
    numbers = {"runs": len(rows), "small": len(small), "largest": largest if small else None, "tightest": tightest}
    told = (
        f"{len(small)} of {len(rows)} runs have both, the largest ‖Wᵀ1‖ / ‖W‖ among them is {short(largest, 2)}; "
        f"‖Wᵀ1‖ / ‖W‖ is at most {short(tightest, 2)} of √K NC3"
    )
    exceeded = largest > SMALL or tightest > 1
    return Verdict(False if exceeded else True if len(small) >= SMALL_RUNS else None, told, numbers)


@claim(
    "NC3 against log NC0",
    source="table",
    literature=f"NC3 rises with log NC0: slope 0.158, R² 0.73 over all runs (0.144 to 0.202 and 0.78 to 0.84 by "
    f"learning rate; the log's base is not told; {PAPER}, table 6)",
    criterion=f"least squares over all counting runs of a network has a positive slope and R² of at least {EXPLAINED}, "
    "in every network",
    needs="grid-*",
)
def regressed(results: Results) -> Verdict:
    found = {}
    for network, rows in by_network(counting(runs(results))).items():
        own = [row["train"] for row in rows]
        slope, start, explained = regression(np.log([row["nc0"] for row in own]), [row["nc3"] for row in own])
        found[network] = {"slope": slope, "intercept": start, "r2": explained, "runs": len(own)}
    return every(
        found,
        lambda fit: fit["slope"] > 0 and fit["r2"] >= EXPLAINED,
        lambda network, fit: (
            f"{network}: {fit['slope']:.3f} (log10: {fit['slope'] * np.log(10):.3f}), R² {fit['r2']:.2f}, "
            f"{fit['runs']} runs"
        ),
        before="slope by natural log, ",
    )


CLAIMS = (accelerates, equal_loss, between_falls, between_stays, necessary, regressed)
