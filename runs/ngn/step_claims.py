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
CAPPED = (0.1, 1.0)  # MoMo's best step size, and ten times it
TOLD = (0.1, *LARGE)
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
    criterion="on the MLP with Fashion-MNIST, at 0.1 and 1, MoMo's best step size and ten times it (10 and 100, which "
    "no step of MoMo reaches, are told; they were first judged too), the share of steps at MoMo's cap is above that of "
    f"NGN-M's steps of at least 0.9 c; {NETWORKS['fashion'].repeats}",
    needs=jobs(["fashion"], ["momo", "ngn-m"]),
    control=in_place(["fashion"], "ngn-m", "momo"),
)
def capped(results: Results) -> Verdict:
    at_cap = {lr: float(v.mean()) for lr, v in _shares(results, "momo", TOLD, "capped").items()}
    near = {lr: float(v.mean()) for lr, v in _shares(results, "ngn-m", TOLD, "near").items()}
    told = listed({lr: f"{at_cap[lr]:.2%}, {near[lr]:.2%}" for lr in near})
    holds = all(at_cap[f"{lr:g}"] > near[f"{lr:g}"] for lr in CAPPED)
    return Verdict(
        holds, f"MoMo at its cap, NGN-M at 0.9 c or more. {told}", {lr: [at_cap[lr], near[lr]] for lr in near}
    )


@claim(
    "NGN-M's steps become smaller by themselves",
    source="figure",
    literature=f"γ_k rises first and falls gradually at every c ({PAPER}, Fig. 5, I.9: ViT, ResNet20)",
    criterion="on the MLP with Fashion-MNIST, at c = 1, 10 and 100, the mean of γ_k over the last of 10 epochs is at "
    f"most {FALLEN:g} of the largest γ_k; {NETWORKS['fashion'].repeats}",
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
    f"over {NETWORKS['fashion'].repeats}, is smaller for NGN-MDv1 in each of the three weight matrices",
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
    ratios_of = {lr: ratios.tolist() for lr, (ratios,) in kept.items()}
    larger = [lr for lr, ratios in ratios_of.items() if max(ratios) >= 1]
    return every(
        ratios_of,
        lambda ratios: max(ratios) < 1,
        lambda lr, ratios: f"{lr}: " + ", ".join(short(r, 2) for r in ratios),
        before="NGN-MDv1 over Adam by layer. ",
        after=f". Not at {' and '.join(larger)}, where Adam is lost and its D_j are large" if larger else "",
    )


# -- weight decay ----------------------------------------------------------------------------------------------------


def _decayed(results: Results) -> dict[str, Array]:
    """The test losses `(step sizes, seeds)` without decay, and of each form with each decay."""
    names = {"none": "ngn-md1"} | {f"{f}-{d:g}": f"ngn-md1-{f}-{d:g}" for f, d in itertools.product(FORMS, DECAYS)}

    def losses(data: Any) -> list[float]:
        kept = {r["lr"]: r for r in data["rows"]}
        return [np.inf if kept[lr]["test_loss"] is None else kept[lr]["test_loss"] for lr in DECAYED if lr in kept]

    return {name: np.array([losses(data) for data in seeds(results, "text", s)]).T for name, s in names.items()}


DECAY_JOBS = jobs(["text"], ["ngn-md1", *(f"ngn-md1-{f}-{d:g}" for f, d in itertools.product(FORMS, DECAYS))])


@claim(
    "both forms of weight decay do alike",
    source="text",
    literature=f"about equal on 70M parameters, still stable ({PAPER}, App. G)",
    criterion=f"on text, with decays of {' and '.join(f'{d:g}' for d in DECAYS)}, the test losses of both at the "
    f"better of the step sizes {' and '.join(f'{lr:g}' for lr in DECAYED)} differ by at most {100 * ALIKE:g} %",
    needs=DECAY_JOBS,
    control=Control("the form dec at the larger step size alone", lambda judge, results: judge(results, dec=-1)),
)
def forms(results: Results, dec: int | None = None) -> Verdict:
    found = {name: at.mean(axis=1) for name, at in _decayed(results).items()}

    def best(name: str, at: int | None = None) -> float:
        return float(found[name].min() if at is None else found[name][at])

    apart = {f"{d:g}": abs(best(f"dec-{d:g}", dec) / best(f"w-{d:g}") - 1) for d in DECAYS}
    told = listed({name: ", ".join(short(float(v), 4) for v in losses) for name, losses in found.items()})
    before = f"test loss at {' and '.join(f'{lr:g}' for lr in DECAYED)}. {told}; at most "
    return Verdict(all(v <= ALIKE for v in apart.values()), f"{before}{max(apart.values()):.2%} apart", apart)


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
    criterion="of all runs on all networks, at any step size and from any seed, none ends with a training loss "
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
