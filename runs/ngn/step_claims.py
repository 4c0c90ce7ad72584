"""The claims of `runs.ngn` on the steps that networks are trained with: their sizes, weight decay, divergence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.numbers import short
from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.ngn.criteria import NAMES, Array, rows, seeds
from runs.ngn.jobs import DECAYED, DECAYS, FORMS, NETWORKS
from runs.ngn.network_claims import PAPER, in_place, jobs
from runs.shared.tables import listed

LARGE = (1.0, 10.0, 100.0)
FAR = (0.1, 1.0, 10.0)  # step sizes of Adam, two orders of magnitude and more above its best
FALLEN = 0.9  # of the largest step
NEVER = ("ngn", "ngn-m", "ngn-md1")  # one model for all coordinates
ALIKE = 0.01  # relative difference of two test losses


def _shares(results: Results, solver: str, lrs: tuple[float, ...], key: str) -> dict[str, Array]:
    """One entry of how large the steps were, by step size, `(S,)` or `(S, tenths)`; 0 for a run that was lost."""
    empty = {"capped": 0.0, "near": 0.0, "largest": 0.0, "tenths": [0.0] * 10}
    found = {lr: [(r["share"] or empty)[key] for r in rows(results, "fashion", solver) if r["lr"] == lr] for lr in lrs}
    return {f"{lr:g}": np.array(values) for lr, values in found.items()}


@claim(
    "MoMo's steps are cut off at the step size, NGN-M's stay below",
    source="figure",
    literature=f"at large α₀ MoMo's sit at the cap for part of the training, NGN's do not ({PAPER}, Fig. 5, I.9)",
    criterion="on the MLP with Fashion-MNIST, at 1, 10 and 100, the share of steps at MoMo's cap is above that of "
    "NGN-M's steps of at least 0.9 c, and not 0; means over the seeds",
    needs=jobs(["fashion"], ["momo", "ngn-m"]),
    control=in_place(["fashion"], "ngn-m", "momo"),
)
def capped(results: Results) -> Verdict:
    at_cap = {lr: float(v.mean()) for lr, v in _shares(results, "momo", LARGE, "capped").items()}
    near = {lr: float(v.mean()) for lr, v in _shares(results, "ngn-m", LARGE, "near").items()}
    return every(
        {lr: (at_cap[lr], near[lr]) for lr in near},
        lambda pair: pair[0] > pair[1],
        lambda lr, pair: f"{lr}: {pair[0]:.2%}, {pair[1]:.2%}",
        before="MoMo at its cap, NGN-M at 0.9 c or more. ",
    )


@claim(
    "NGN-M's steps become smaller by themselves",
    source="figure",
    literature=f"γ_k rises first and falls gradually at every c ({PAPER}, Fig. 5, I.9: ViT, ResNet20)",
    criterion="on the MLP with Fashion-MNIST, at c = 1, 10 and 100, the mean of γ_k over the last of 10 epochs is at "
    f"most {FALLEN:g} of the largest γ_k; means over the seeds",
    needs=jobs(["fashion"], ["ngn-m"]),
    control=Control(
        "MoMo's steps at 0.1",
        lambda judge, results: judge(results, solver="momo", lrs=(0.1,)),
        tuple(jobs(["fashion"], ["momo"])),
    ),
)
def falling(results: Results, solver: str = "ngn-m", lrs: tuple[float, ...] = LARGE) -> Verdict:
    largest = _shares(results, solver, lrs, "largest")
    tenths = _shares(results, solver, lrs, "tenths")
    found = {
        lr: {"first": t[:, 0].mean(), "last": t[:, -1].mean(), "largest": largest[lr].mean()}
        for lr, t in tenths.items()
    }
    return every(
        found,
        lambda at: at["last"] <= FALLEN * at["largest"],
        lambda lr, at: f"{lr}: " + ", ".join(short(at[k], 2) for k in ("largest", "first", "last")),
        before="largest share of c, mean over the first and the last epoch. ",
    )


@claim(
    "at large step sizes NGN-MDv1's steps are smaller than Adam's in every layer",
    source="figure",
    literature=f"step over D_j smallest for MDv1, by orders of magnitude at large step sizes ({PAPER}, Fig. I.6, I.7)",
    criterion="on the MLP with Fashion-MNIST, at 0.1, 1 and 10, the median of step / D_j at the end, geometric mean "
    "over the seeds, is smaller for NGN-MDv1 in each of the three weight matrices",
    needs=jobs(["fashion"], ["adam", "ngn-md1"]),
    control=in_place(["fashion"], "ngn-md1", "adam", both=True),
)
def layers(results: Results) -> Verdict:
    def by_layer(solver: str, lr: float) -> Array | None:
        found = [r["metric"] for r in rows(results, "fashion", solver) if r["lr"] == lr]
        values = np.array([one for one in found if one and None not in one])
        return np.exp(np.log(values).mean(axis=0)) if len(values) else None

    found = {f"{lr:g}": (by_layer("ngn-md1", lr), by_layer("adam", lr)) for lr in FAR}
    kept = {lr: [own / other] for lr, (own, other) in found.items() if own is not None and other is not None}
    return every(
        {lr: ratios.tolist() for lr, (ratios,) in kept.items()},
        lambda ratios: max(ratios) < 1,
        lambda lr, ratios: f"{lr}: " + ", ".join(short(r, 2) for r in ratios),
        before="NGN-MDv1 over Adam by layer. ",
    )


# -- weight decay ----------------------------------------------------------------------------------------------------


def _decayed(results: Results) -> dict[str, Array]:
    """The test losses `(step sizes, seeds)` without decay, and of each form with each decay."""
    names = {"none": "ngn-md1"} | {f"{f}-{d:g}": f"ngn-md1-{f}-{d:g}" for f, d in itertools.product(FORMS, DECAYS)}

    def losses(data: Any) -> list[float]:
        kept = {r["lr"]: r for r in data["rows"]}
        return [np.inf if kept[lr]["test_loss"] is None else kept[lr]["test_loss"] for lr in DECAYED if lr in kept]

    return {name: np.array([losses(data) for data in seeds(results, "text", s)]).T for name, s in names.items()}


def _told(found: dict[str, Array]) -> str:
    return listed({name: ", ".join(short(float(v), 4) for v in at.mean(axis=1)) for name, at in found.items()})


DECAY_JOBS = jobs(["text"], ["ngn-md1", *(f"ngn-md1-{f}-{d:g}" for f, d in itertools.product(FORMS, DECAYS))])


@claim(
    "both forms of weight decay do alike",
    source="text",
    literature=f"about equal on 70M parameters, still stable ({PAPER}, App. G)",
    criterion=f"on text, with decays of {' and '.join(f'{d:g}' for d in DECAYS)} at step sizes "
    f"{' and '.join(f'{lr:g}' for lr in DECAYED)}, the mean test losses of both differ by at most {100 * ALIKE:g} %",
    needs=DECAY_JOBS,
    control=Control(
        "one form with ten times the other's decay, at the larger step size",
        lambda judge, results: judge(results, factor=DECAYS[-1] / DECAYS[0]),
    ),
)
def forms(results: Results, factor: float = 1.0) -> Verdict:
    found = _decayed(results)
    pairs = [(d, d * factor) for d in DECAYS if d * factor <= DECAYS[-1] * (1 + 1e-9)]
    apart = {
        f"{a:g}, {b:g}": float(np.abs(found[f"dec-{a:g}"].mean(axis=1) / found[f"w-{b:g}"].mean(axis=1) - 1).max())
        for a, b in pairs
    }
    holds = all(value <= ALIKE for value in apart.values())
    largest = max(apart.values())
    told = f"test loss at {' and '.join(f'{lr:g}' for lr in DECAYED)}. {_told(found)}; at most {largest:.2%} apart"
    return Verdict(holds, told, apart)


@claim(
    "weight decay improves on none",
    source="text",
    literature=f"lower perplexity than without, best with a smaller decay than AdamW's ({PAPER}, App. G)",
    criterion=f"on text one of the decays of the form dec lowers the best test loss by more than {100 * ALIKE:g} %; "
    "undecided where none moves it by as much: 300 steps of 50,000 parameters do not overfit",
    needs=DECAY_JOBS,
    control=Control("no decay in the place of both", lambda judge, results: judge(results, names=("none",))),
)
def improves(results: Results, names: Sequence[str] = tuple(f"dec-{d:g}" for d in DECAYS)) -> Verdict:
    best = {name: float(at.mean(axis=1).min()) for name, at in _decayed(results).items()}
    gains = {name: 1 - best[name] / best["none"] for name in names}
    told = "best test loss lower than without by " + listed({name: f"{gain:.2%}" for name, gain in gains.items()})
    undecided = all(abs(gain) <= ALIKE for gain in gains.values()) and names != ("none",)
    return Verdict(None if undecided else max(gains.values()) > ALIKE, told, gains)


# -- divergence ------------------------------------------------------------------------------------------------------


@claim(
    "on networks no run of NGN, NGN-M and NGN-MDv1 ends above its start",
    source="own",
    literature="own: papers say so of convex problems alone",
    criterion="of all runs on the four networks, at any step size and from any seed, none ends with a training loss "
    "above that at its start or not finite",
    needs=[f"{n}-{s}-*" for n, load in NETWORKS.items() for s in NEVER if s in load.solvers],
)
def never(results: Results) -> Verdict:
    lost: dict[str, list[int]] = {}  # diverged, not finite, all
    for n, s in ((n, s) for n, load in NETWORKS.items() for s in load.solvers):
        for row in rows(results, n, s):
            total = lost.setdefault(s, [0, 0, 0])
            for i, counted in enumerate((row["diverged"], row["loss"] is None, True)):
                total[i] += counted
    told = ", ".join(f"{NAMES[s]} {bad} of {runs} ({nan})" for s, (bad, nan, runs) in lost.items())
    return Verdict(not any(lost[s][0] for s in NEVER if s in lost), f"above (not finite): {told}", lost)


CLAIMS = capped, falling, layers, forms, improves, never
