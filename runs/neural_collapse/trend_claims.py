"""The claims on trends among those of `runs.neural_collapse`: momentum, from AdamW to Adam, NC0 beside NC2 and NC3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Results, Verdict, claim
from runs.neural_collapse.claims import COUNT
from runs.neural_collapse.criteria import Row, chosen, counting, every, falls, networks, regression, runs
from runs.neural_collapse.jobs import ACCELERATION, DECAY
from runs.neural_collapse.theory_claims import PAPER

SMALL, SMALL_RUNS = 0.5, 10  # NC2, NC3 and normalised NC0, which is about 1 for a random W
EXPLAINED = 0.5  # R^2


def accelerated(results: Results) -> dict[str, list[Row]]:
    """SGD's counting runs at the setting's decay, by network, in the order of momentum."""
    rows = chosen(counting(runs(results)), optimizer="SGD", decay=DECAY, seed=0)
    found = {
        network: sorted(chosen(rows, network=network), key=lambda row: row["momentum"]) for network in networks(rows)
    }
    return {network: own for network, own in found.items() if len(own) > 1}


def tell_momenta(found: dict[str, list[Row]], metric: str) -> str:
    """The metric by momentum."""
    told = {n: ", ".join(f"{r['momentum']:g}: {short(r['train'][metric], 2)}" for r in own) for n, own in found.items()}
    return "; ".join(f"{network}: {values}" for network, values in told.items())


@claim(
    "momentum accelerates collapse",
    literature=f"more momentum, lower NC0 and NC3 of SGD, at every step of it ({PAPER}, figure 5)",
    criterion=f"at decay {DECAY} NC0 and NC3 fall with every momentum of {', '.join(f'{m:g}' for m in ACCELERATION)} "
    f"whose run counts, on MLP and CNN; {COUNT}",
    needs="grid-*-SGD-*",
)
def accelerates(results: Results) -> Verdict:
    """Both metrics by momentum."""
    found = accelerated(results)
    holds = every([falls([r["train"][key] for r in own]) for own in found.values() for key in ("nc0", "nc3")])
    told = f"NC0: {tell_momenta(found, 'nc0')}. NC3: {tell_momenta(found, 'nc3')}"
    return Verdict(holds, told, {network: [row["train"] for row in own] for network, own in found.items()})


@claim(
    "momentum at equal train loss",
    literature="momentum 0.7 and 0.9 reach the same train loss and accuracy, but clearly different NC0 and NC3 "
    f"({PAPER})",
    criterion=f"at decay {DECAY} the losses differ by a factor of 1.5 at most, NC0 at 0.9 is at most half of that at "
    "0.7, and NC3 is lower, on MLP and CNN",
    needs="grid-*-SGD-*",
)
def equal_loss(results: Results) -> Verdict:
    """Both runs."""
    answers, told, numbers = [], [], {}
    for network, own in accelerated(results).items():
        pair = [row for row in own if row["momentum"] in (0.7, 0.9)]
        if len(pair) < 2:
            continue
        less, more = pair
        losses = sorted((less["loss"], more["loss"]))
        answers.append(
            losses[1] <= 1.5 * losses[0]
            and more["train"]["nc0"] <= 0.5 * less["train"]["nc0"]
            and more["train"]["nc3"] < less["train"]["nc3"]
        )
        each = ", ".join(
            f"{name} {short(less[side][key] if side else less[key], 3)} → "
            f"{short(more[side][key] if side else more[key], 3)}"
            for name, side, key in (("loss", "", "loss"), ("NC0", "train", "nc0"), ("NC3", "train", "nc3"))
        )
        told.append(f"{network}: {each}")
        numbers[network] = {"loss": [less["loss"], more["loss"]], "0.7": less["train"], "0.9": more["train"]}
    return Verdict(every(answers), "0.7 → 0.9, " + "; ".join(told), numbers)


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
    literature="with λ coupled + λ decoupled fixed, the three fall smoothly as the coupled part grows "
    f"({PAPER}, interpolation)",
    criterion=f"the mean over seeds of each falls with each step of the coupled share of {DECAY}, on the MLP; {COUNT}",
    needs="between-*",
)
def between_falls(results: Results) -> Verdict:
    """The three by share."""
    found, table = shares(results)
    if len(found) < 2:
        return Verdict(None, "too few runs count")
    told = "; ".join(f"{key.upper()} {', '.join(short(v, 3) for v in table[key])}" for key in ("nc0", "nc2", "nc3"))
    told = f"shares {', '.join(f'{share:g}' for share in found)}: {told}"
    return Verdict(every([falls(table[key]) for key in ("nc0", "nc2", "nc3")]), told, {"shares": found} | table)


@claim(
    "from AdamW to Adam: accuracy stays",
    literature=f"the validation accuracy does not change ({PAPER}, interpolation)",
    criterion="the means over seeds of the test accuracy lie within one percentage point of one another",
    needs="between-*",
)
def between_stays(results: Results) -> Verdict:
    """Test accuracies by share."""
    found, table = shares(results)
    if not found:
        return Verdict(None, "no run counts")
    told = ", ".join(f"{share:g}: {value:.2%}" for share, value in zip(found, table["test"], strict=True))
    spread = max(table["test"]) - min(table["test"])
    return Verdict(spread <= 0.01, f"by share {told}; train {min(table['accuracy']):.2%} or more", {"spread": spread})


@claim(
    "NC0 is necessary for NC2 and NC3",
    literature=f"NC2 and NC3 imply NC0, which therefore rules out what keeps it large ({PAPER}, proposition 2.1)",
    criterion=f"no counting run has NC2 and NC3 below {SMALL} and ‖Wᵀ1‖ / ‖W‖ above {SMALL}, of at least {SMALL_RUNS} "
    "with such NC2 and NC3; and ‖Wᵀ1‖ / ‖W‖ ≤ √K NC3 in every one",
    needs=["grid-*", "between-*"],
)
def necessary(results: Results) -> Verdict:
    """The runs with small NC2 and NC3, and the quantitative bound."""
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
    literature=f"NC3 rises with log NC0: slope 0.158, R² 0.73 over all runs (0.144 to 0.202 and 0.78 to 0.84 by "
    f"learning rate; the log's base is not told; {PAPER}, table 6)",
    criterion=f"least squares over all counting runs of a network has a positive slope and R² of at least {EXPLAINED}, "
    "in every network",
    needs="grid-*",
)
def regressed(results: Results) -> Verdict:
    """Slopes for both bases."""
    rows = counting(runs(results))
    answers, told, numbers = [], [], {}
    for network in networks(rows):
        own = chosen(rows, network=network)
        slope, start, explained = regression(np.log([r["train"]["nc0"] for r in own]), [r["train"]["nc3"] for r in own])
        answers.append(slope > 0 and explained >= EXPLAINED)
        told.append(f"{network}: {slope:.3f} (log10: {slope * np.log(10):.3f}), R² {explained:.2f}, {len(own)} runs")
        numbers[network] = {"slope": slope, "intercept": start, "r2": explained, "runs": len(own)}
    return Verdict(every(answers), "slope by natural log, " + "; ".join(told), numbers)


CLAIMS: Sequence[Any] = (accelerates, equal_loss, between_falls, between_stays, necessary, regressed)
