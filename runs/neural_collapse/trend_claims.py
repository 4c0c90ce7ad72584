"""The claims of `runs.neural_collapse` on trends: momentum, from AdamW to Adam, NC0 beside NC3."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np

from probes.digits import CLASSES
from probes.numbers import finite, short
from runs.engine.claims import Control, Results, Verdict, all_hold, claim, every
from runs.neural_collapse.criteria import (
    COUNT,
    FLOOR,
    PAPER,
    chosen,
    counting,
    not_rising,
    regression,
    runs,
    shuffled,
    values,
)
from runs.neural_collapse.jobs import MAP_DECAYS, MAP_STEPS, SEEDS, SHARED
from runs.neural_collapse.training import Row

ALLOWED = 0.01  # what the paper's own map rises by in places
ALMOST = 0.25  # of the range of NC3
EXPLAINED = 0.5  # R^2
ACCURACY_STAYS = 0.01
Cells = dict[tuple[float, float], dict[str, float]]  # by momentum and decay: means over seeds
KEPT = (0.5, 0.875)  # the last momentum takes steps of 2.2, lr / (1 - momentum), in which NC3 without decay is worse
PAIR = (0.5, 0.875, 0.012)  # momenta at one decay: decay / (1 - momentum) times the sum of the rates is 0.6 and 2.4
MEANS = f"means of {SEEDS} seeds"
SGD = (
    f"SGD with coupled decay on the ResNet, momenta {' and '.join(f'{momentum:g}' for momentum in KEPT)}, λ = "
    f"{', '.join(f'{decay:g}' for decay in MAP_DECAYS)}, {MAP_STEPS} steps, {MEANS}"
)


def cells(results: Results) -> Cells:
    """The momentum map."""
    found: dict[tuple[float, float], list[Row]] = defaultdict(list)
    for row in runs(results, "map-*"):
        if row["momentum"] not in KEPT:
            continue
        found[row["momentum"], row["decay"]].append(row)
    return {
        cell: {
            **{name: float(values(rows, name).mean()) for name in ("nc0", "nc2", "nc3", "accuracy")},
            "loss": float(np.mean([row["loss"] for row in rows])),
            "error": float(values(rows, "nc3").std(ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else 0.0,
        }
        for cell, rows in sorted(found.items())
    }


def lines_of(found: Cells, metric: str, along: int) -> dict[float, list[float]]:
    """A metric by the key `along` (0: momentum, 1: decay) at each value of the other one."""
    made: dict[float, list[float]] = {}
    for cell in sorted(found):
        made.setdefault(cell[1 - along], []).append(found[cell][metric])
    return made


@claim(
    "more momentum, more decay: lower NC2 and NC3",
    source="figure",
    literature=f"NC2 and NC3 of SGD fall along rows and columns of a map of momentum by decay, by 0.01 up in places "
    f"({PAPER}, Sec. 3.3, Fig. 5)",
    criterion=f"{SGD}: NC2 and NC3 fall with the decay at each momentum and with the momentum at each λ > 0, "
    f"no step up by more than {ALLOWED:g} (0.96875 was run and left out afterwards: at lr / (1 − β) = 2.2 NC3 "
    "is 0.47 without decay, against 0.32)",
    needs="map-*",
    control=Control("momenta and decays in reverse order", lambda judge, results: judge(results, -1)),
)
def accelerates(results: Results, order: int = 1) -> Verdict:
    found = cells(results)
    answers, told = [], []
    for metric in ("nc2", "nc3"):
        for along, other in ((1, "β"), (0, "λ")):
            lines = lines_of({cell: row for cell, row in found.items() if along or cell[1]}, metric, along)
            answers += [not_rising(line[::order], ALLOWED) for line in lines.values()]
            each = "; ".join(f"{other} = {key:g}: {', '.join(f'{v:.2f}' for v in line)}" for key, line in lines.items())
            told.append(f"{metric.upper()} {each}")
    return Verdict(all_hold(answers), ". ".join(told[::2]), {str(cell): row for cell, row in found.items()})


@claim(
    "momentum at equal train loss",
    source="text",
    literature="momenta 0.7 and 0.9 at decay 0.005 reach nearly the same train loss, but clearly different NC2 (0.42, "
    f"0.22) and NC3 (0.52, 0.30) ({PAPER}, Sec. 3.3, Fig. 4, 5)",
    criterion=f"ResNet, momenta {PAIR[0]:g} and {PAIR[1]:g} at λ = {PAIR[2]:g}, where λ Σ lr / (1 − β) is near the "
    f"paper's, {MEANS}: train losses differ by a factor of 1.5 at most, NC2 and NC3 are lower by 0.05 or more "
    "(moved from 0.96875, see above)",
    needs="map-*",
    control=Control(
        "the larger momentum at a fourth of the decay: λ / (1 − β) is the same",
        lambda judge, results: judge(results, PAIR[2] / 4),
    ),
)
def equal_loss(results: Results, decay: float = PAIR[2]) -> Verdict:
    found = cells(results)
    less, more = found[PAIR[0], PAIR[2]], found[PAIR[1], decay]
    low, high = sorted((less["loss"], more["loss"]))
    apart = all(less[name] - more[name] >= 0.05 for name in ("nc2", "nc3"))
    told = ", ".join(
        f"{name.upper()} {short(less[name], 3)} → {short(more[name], 3)}" for name in ("loss", "nc2", "nc3")
    )
    return Verdict(high <= 1.5 * low and apart, told, {"less": less, "more": more})


@claim(
    "NC3 by decay / (1 − momentum)",
    source="derived",
    literature=f"printed cells of equal λ / (1 − β) differ by 0.01 to 0.09 in NC3, of 0.56 in all ({PAPER}, Fig. 5)",
    criterion=f"{SGD}: cells of equal λ / (1 − β) > 0 differ in NC3 by at most {ALMOST:.0%} of its range",
    needs="map-*",
    control=Control("cells of equal λ", lambda judge, results: judge(results, 0)),
)
def one_number(results: Results, power: int = 1) -> Verdict:
    found = cells(results)
    range_ = np.ptp([row["nc3"] for row in found.values()])
    groups: dict[float, list[float]] = defaultdict(list)
    for (momentum, decay), row in found.items():
        if decay > 0:
            groups[round(decay / (1 - momentum) ** power, 9)].append(row["nc3"])
    several = {f"{key:g}": own for key, own in sorted(groups.items()) if len(own) > 1}
    return every(
        several,
        lambda own: np.ptp(own) <= ALMOST * range_,
        lambda name, own: f"{name}: {', '.join(f'{v:.2f}' for v in own)}",
        after=f"; the range is {range_:.2f}",
    )


# -- from AdamW to Adam --------------------------------------------------------------------------------------


def shares(results: Results) -> tuple[list[float], dict[str, list[float]]]:
    """The coupled shares of the decay, and means over seeds of what is measured there."""
    rows = runs(results, "between-*")
    found = sorted({row["share"] for row in rows})
    groups = [chosen(rows, share=share) for share in found]
    table: dict[str, list[float]] = {
        key: [float(values(own, key).mean()) for own in groups] for key in ("nc0", "nc1", "nc2", "nc3", "accuracy")
    }
    tests = [[row["accuracy_test"] for row in own] for own in groups]
    table["test"] = [float(np.mean(own)) for own in tests]
    table["test_error"] = [
        float(np.std(own, ddof=1) / math.sqrt(len(own))) if len(own) > 1 else math.nan for own in tests
    ]
    return found, table


_ADAM = f"Adam on the ResNet, λ = {SHARED} coupled and decoupled together, {MEANS}"


@claim(
    "from AdamW to Adam: NC0, NC2 and NC3 fall",
    source="figure",
    literature=f"with the sum of both decays fixed, the three fall smoothly as the coupled part grows ({PAPER}, Sec. "
    "3.4, Fig. 8)",
    criterion=f"{_ADAM}: from share to share none rises by more than {ALLOWED:g}, and each is lower with Adam than "
    "with AdamW",
    needs="between-*",
    control=Control("from Adam to AdamW", lambda judge, results: judge(results, -1)),
)
def between_falls(results: Results, order: int = 1) -> Verdict:
    found, table = shares(results)
    told = "; ".join(f"{key.upper()} {', '.join(short(v, 3) for v in table[key])}" for key in ("nc0", "nc2", "nc3"))
    told = f"shares {', '.join(f'{share:g}' for share in found)}: {told}; train accuracy {min(table['accuracy']):.1%}"
    holds = all(not_rising(table[key][::order], ALLOWED) for key in ("nc0", "nc2", "nc3"))
    return Verdict(holds, told, finite({"shares": found} | table))


@claim(
    "from AdamW to Adam: accuracy stays",
    source="figure",
    literature=f"the validation accuracy does not change on the way ({PAPER}, Sec. 3.4, Fig. 8)",
    criterion=f"{_ADAM}: test accuracies lie within one percentage point and 2 standard errors of one another",
    needs="between-*",
    control=Control(
        "SGD's runs without decay, rates and momenta in the place of shares",
        lambda judge, results: judge(results, True),
        ("grid-SGD-*",),
    ),
)
def between_stays(results: Results, grid: bool = False) -> Verdict:
    if grid:
        tests, error = [row["accuracy_test"] for row in chosen(runs(results, "grid-SGD-*"), decay=0.0)], 0.0
    else:
        table = shares(results)[1]
        tests, error = table["test"], float(np.mean(table["test_error"]))
    spread, slack = max(tests) - min(tests), ACCURACY_STAYS + 2 * math.sqrt(2) * error
    told = f"{', '.join(f'{value:.1%}' for value in tests)}: {spread:.1%} apart"
    if math.isnan(error) and spread > ACCURACY_STAYS:
        return Verdict(None, f"{told}; one seed has no standard error")
    return Verdict(spread <= slack or spread <= ACCURACY_STAYS, f"{told}, {slack:.1%} allowed", {"spread": spread})


# -- NC0 beside NC3 ------------------------------------------------------------------------------------------


@claim(
    "NC3 bounds NC0",
    source="theorem",
    literature=f"NC2 and NC3 imply NC0, which is necessary for them ({PAPER}, Prop. 2.1, about limits); by its proof "
    "‖Wᵀ1‖ / ‖W‖ ≤ √K NC3 at any time",
    criterion="‖Wᵀ1‖ / ‖W‖ over √K NC3 is at most 1 in every run of both networks, at the start and at the end",
    needs=["grid-*", "setting-*", "map-*", "between-*", "long-*"],
    quick=True,
    control=Control("NC3 without √K", lambda judge, results: judge(results, 1.0)),
)
def bounded(results: Results, factor: float = CLASSES**0.5) -> Verdict:
    found = [
        row[when]["nc0_normalized"] / (factor * row[when]["nc3"])
        for row in runs(results, "[!t]*-*")
        for when in ("start", "train")
    ]
    low, middle, high = np.quantile(found, [0, 0.5, 1])
    told = f"{short(low, 2)} … {middle:.2f} … {high:.2f} in {len(found) // 2} runs"
    return Verdict(bool(high <= 1), told, {"least": low, "median": middle, "largest": high})


@claim(
    "NC3 against log NC0",
    source="table",
    literature=f"NC3 rises with log NC0, a weak correlation: slope 0.158, R² 0.73 over all runs of ResNet9 on "
    f"Fashion-MNIST, 0.78 to 0.84 by rate; the base is not told ({PAPER}, Table 6)",
    criterion=f"least squares over the counting runs of the ResNet's grid with NC0 above {FLOOR:g}, which float32 "
    f"resolves, has a positive slope and R² ≥ {EXPLAINED}; {COUNT}",
    needs="grid-*",
    control=Control("NC0 shuffled among the runs", lambda judge, results: judge(results, True)),
)
def regressed(results: Results, shuffle: bool = False) -> Verdict:
    rows = [row for row in counting(runs(results, "grid-*")) if row["train"]["nc0"] > FLOOR]
    x = np.log(values(rows, "nc0"))
    slope, _, explained = regression(shuffled(x) if shuffle else x, values(rows, "nc3"))
    found: dict[str, Any] = {"slope": slope, "r2": explained, "runs": len(rows)}
    told = (
        f"slope {slope:.3f} by natural log ({slope * math.log(10):.3f} by log10), R² {explained:.2f}, {len(rows)} runs"
    )
    return Verdict(slope > 0 and explained >= EXPLAINED, told, found)


CLAIMS = (accelerates, equal_loss, one_number, between_falls, between_stays, bounded, regressed)
