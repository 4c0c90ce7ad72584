"""The claims of `runs.edge_of_stability`, each with the rule that decides it."""

from __future__ import annotations

from probes.numbers import plus_minus, short
from runs.edge_of_stability import jobs
from runs.edge_of_stability.criteria import (
    in_thresholds,
    long_run,
    masses_at_zero,
    plateau,
    plateaus_of,
    ratios_of,
    reached,
    rounded_lists,
    share_raised,
    suffix,
)
from runs.engine.claims import Claim, Results, Verdict, all_hold, claim, every
from runs.shared.tables import listed, rising

# "At 2/eta" is this band around it: the sharpness hovers just above (Cohen et al., 2021, section 3.2).
LOW, HIGH = 0.95, 1.15
GAP = 1.5  # a gap narrower than this separates nothing: neighbours differ by 1.1 to 1.3 everywhere
SMALL, SGD_RATE = jobs.RATES[0], jobs.SGD_RATE
SAMPLES = 1347


def at_edge(plateau: float) -> bool:
    """Whether a plateau, in units of 2/eta, is at the edge of stability."""
    return LOW <= plateau <= HIGH


# -- gradient descent ----------------------------------------------------------------------------------------


@claim(
    "gradient descent sharpens",
    source="text",
    literature="the sharpness rises from its first value until it reaches 2/η (progressive sharpening: Cohen et al. "
    "2021)",
    criterion="every run starts below 2/η and reaches it, or ends with twice its first sharpness",
    needs="gd-*",
)
def sharpens(results: Results) -> Verdict:
    ratios = ratios_of(results, "gd-*", "sharpness")
    return every(
        ratios,
        lambda r: r[0] < 1 and (reached(r) is not None or r[-1] > 2 * r[0]),
        lambda name, r: f"{suffix(name)}: {r[0]:.2f} → {r.max() if reached(r) else r[-1]:.2f}",
        numbers=rounded_lists(ratios),
        before="η λmax / 2, first → largest, by η: ",
    )


@claim(
    "sharpness stays at 2/η",
    source="abstract",
    literature="once there, it stops rising and hovers just above 2/η (Cohen et al. 2021)",
    criterion=f"in every run that reaches 2/η the median of η λmax / 2 over the last third is in [{LOW}, {HIGH}]",
    needs="gd-*",
)
def stays(results: Results) -> Verdict:
    ratios = ratios_of(results, "gd-*", "sharpness")
    plateaus = {name: plateau(r) for name, r in ratios.items() if reached(r) is not None}
    if not plateaus:
        return Verdict(None, "no run reached 2/η")
    return every(plateaus, at_edge, lambda name, value: f"{suffix(name)}: {value:.3f}", before="by η: ")


@claim(
    "the loss falls in the long run only",
    source="abstract",
    literature="at the edge the loss goes up and down from step to step and falls over long spans (Cohen et al. 2021)",
    criterion="from where 2/η is reached, at least 5 % of the steps raise the loss, and its mean over the last fifth "
    "is below half of that over the first fifth",
    needs="gd-*",
)
def falls(results: Results) -> Verdict:
    found = {}
    for name, ratios in ratios_of(results, "gd-*", "sharpness").items():
        first = reached(ratios)
        if first is not None:
            with results.trace(name) as trace:
                losses = trace["loss"]["value"][int(trace["sharpness"]["step"][first]) :]
            found[name] = {"raised": share_raised(losses), "drop": long_run(losses)}
    return every(
        found,
        lambda run: run["raised"] >= 0.05 and run["drop"] < 0.5,
        lambda name, run: f"{suffix(name)}: {run['raised']:.0%}, loss × {run['drop']:.2g}",
        before="steps that raise it, by η: ",
    )


@claim(
    "a small step size stays stable",
    source="text",
    literature="below 2/η gradient descent lowers the loss at every step (descent lemma; Cohen et al. 2021)",
    criterion=f"at η = {SMALL} the sharpness never reaches 2/η and no step raises the loss (by more than 1e-6 of it)",
    needs=f"gd-{SMALL}",
    quick=True,
)
def stable(results: Results) -> Verdict:
    (ratio,) = ratios_of(results, f"gd-{SMALL}", "sharpness").values()
    with results.trace(f"gd-{SMALL}") as trace:
        raised = share_raised(trace["loss"]["value"])
    told = f"largest η λmax / 2: {ratio.max():.2f}; steps that raise the loss: {raised:.1%}"
    return Verdict(bool(ratio.max() < 1 and raised == 0), told, {"largest": float(ratio.max()), "raised": raised})


@claim(
    "cross-entropy: at 2/η until the end",
    source="text",
    literature="as with the square loss, but the sharpness falls when the loss nears zero (Cohen et al. 2021)",
    criterion=f"in every run at least a tenth of the measurements has η λmax / 2 >= {LOW}, and the last is below",
    needs="entropy-*",
)
def entropy(results: Results) -> Verdict:
    ratios = ratios_of(results, "entropy-*", "sharpness")
    return every(
        ratios,
        lambda r: (r >= LOW).mean() >= 0.1 and r[-1] < LOW,
        lambda name, r: f"{suffix(name)}: {(r >= LOW).mean():.0%} there, largest {r.max():.2f}, last {r[-1]:.2f}",
        numbers=rounded_lists(ratios),
        before="by η: ",
    )


# -- SGD -----------------------------------------------------------------------------------------------------


@claim(
    "SGD: batch sharpness at 2/η",
    source="abstract",
    literature="the mean curvature of mini-batches along their own gradients settles at 2/η (Andreyev and Beneventano "
    "2024)",
    criterion=f"at every batch size the median of η · batch sharpness / 2 over the last third is in [{LOW}, {HIGH}]",
    needs="sgd-*",
)
def batch_sharpness(results: Results) -> Verdict:
    plateaus = plateaus_of(results, "sgd-*", "batch-sharpness")
    before = f"η = {SGD_RATE}, by batch: "
    return every(plateaus, at_edge, lambda name, value: f"{suffix(name)}: {value:.2f}", before=before)


@claim(
    "SGD: λmax stays below",
    source="abstract",
    literature="λmax stays below 2/η and below the batch sharpness (Andreyev and Beneventano 2024)",
    criterion="at every batch size up to a tenth of the data the median of λmax over the last third is below 2/η and "
    "below that of the batch sharpness",
    needs="sgd-*",
)
def below(results: Results) -> Verdict:
    largest = plateaus_of(results, "sgd-*", "sharpness")
    batch = plateaus_of(results, "sgd-*", "batch-sharpness")
    return every(
        {name: (value, batch[name]) for name, value in largest.items() if int(suffix(name)) <= SAMPLES / 10},
        lambda pair: pair[0] < min(1.0, pair[1]),
        lambda name, pair: f"{suffix(name)}: {pair[0]:.2f} (batch sharpness {pair[1]:.2f})",
        numbers={"sharpness": largest, "batch sharpness": batch},
        before="η λmax / 2 by batch: ",
    )


@claim(
    "SGD: smaller batches, flatter",
    source="text",
    literature="the smaller the batch, the lower λmax at the same step size (Jastrzębski et al. 2020; Andreyev and "
    "Beneventano 2024)",
    criterion="the median of λmax over the last third rises with every batch size, up to the full batch",
    needs=["sgd-*", f"gd-{SGD_RATE}"],
)
def flatter(results: Results) -> Verdict:
    plateaus = plateaus_of(results, "sgd-*", "sharpness") | plateaus_of(results, f"gd-{SGD_RATE}", "sharpness")
    told = listed({suffix(n) if n.startswith("sgd") else "all": f"{value:.3f}" for n, value in plateaus.items()})
    return Verdict(rising(list(plateaus.values())), f"η λmax / 2 by batch: {told}", plateaus)


# -- the whole spectrum --------------------------------------------------------------------------------------


@claim(
    "a bulk at zero",
    source="abstract",
    literature="nearly all eigenvalues are small, before and after training (Sagun et al. 2017)",
    criterion="at least 90 % of the eigenvalues are within 1 % of λmax around zero, before and after, at every number "
    "of classes",
    needs="digits-*",
)
def bulk(results: Results) -> Verdict:
    def percent(share: tuple[float, float]) -> str:
        return f"{100 * share[0]:.1f} ± {100 * share[1]:.1f}"

    return every(
        {name: masses_at_zero(results, name) for name in results.data("digits-*")},
        lambda shares: all(mass >= 0.9 for mass, _ in shares),
        lambda name, shares: f"{suffix(name)}: {' → '.join(map(percent, shares))} %",
        before="by classes, before → after: ",
    )


def outlier_claim(name: str, literature: str, needs: str) -> Claim:
    """The claim that the outliers of the trained network are as many as classes."""

    @claim(
        name,
        source="text",
        literature=literature,
        criterion="at every number of classes K the widest gap in log spacing lies below K or K − 1 eigenvalues and is "
        f"× {GAP} or wider (rule of `probes.outliers`, 30 eigenvalues, after training)",
        needs=needs,
    )
    def judge(results: Results) -> Verdict:
        found = results.data(needs)
        squares = ", ".join(str((data["classes"] - 1) ** 2) for data in found.values())
        return every(
            found,
            lambda data: data["outliers"][1] in (data["classes"] - 1, data["classes"]) and data["gap"][1] >= GAP,
            lambda _, data: f"{data['classes']}: {data['outliers'][1]} (gap × {short(data['gap'][1], 3)})",
            before="by classes: ",
            after=f"; (K − 1)² would be {squares}",
        )

    return judge


classes = outlier_claim(
    "as many outliers as classes",
    "outliers of the trained network's Hessian are as many as classes (Sagun et al. 2017) or one fewer",
    "digits-*",
)
clusters = outlier_claim(
    "the same on Gaussian clusters",
    "as above, on the kind of data where it was first seen: one cluster a class (Sagun et al. 2017)",
    "blobs-*",
)


# -- the minima that SGD keeps -------------------------------------------------------------------------------


@claim(
    "SGD keeps tr(H) ≤ 2/η",
    source="theorem",
    literature="a minimum that is linearly stable for SGD has tr(H) ≤ 2/η (Wu and Su 2023): batch size 1, half square "
    "loss, one output, every sample fitted, second moments bounded under the linearised steps",
    criterion="every run that did not diverge ends with tr(H) − 2 stderr ≤ 2/η; runs start from random weights, and "
    "from a minimum with tr(H) a multiple of 2/η",
    needs=["keep", "scratch-*"],
)
def kept(results: Results) -> Verdict:
    runs = [(f"× {run['ratio']:g}", run) for run in results.one("keep")["runs"]]
    runs += [(f"random, η {run['rate']:g}", run) for run in results.data("scratch-*").values()]
    told = "; ".join(f"{start} → {in_thresholds(run)}" for start, run in runs)
    holds = all_hold(run["trace"] - 2 * run["stderr"] <= 2 / run["rate"] for _, run in runs if run["kept"])
    return Verdict(holds, f"η tr(H) / 2, start → end: {told}", {"runs": [run for _, run in runs]})


@claim(
    "gradient descent does not",
    source="theorem",
    literature="stability bounds λmax alone for gradient descent (Wu and Su 2023)",
    criterion=f"the minimum that those runs start from has λmax ≤ {HIGH} · 2/η, and tr(H) − 2 stderr > 2/η, for its "
    "own η",
    needs="keep",
)
def unbounded(results: Results) -> Verdict:
    found = results.one("keep")
    half = found["rate"] / 2
    holds = half * found["sharpness"] <= HIGH and half * (found["trace"] - 2 * found["stderr"]) > 1
    trace = plus_minus(half * found["trace"], half * found["stderr"])
    told = f"η = {found['rate']}: η λmax / 2 = {half * found['sharpness']:.2f}, η tr(H) / 2 = {trace}"
    return Verdict(bool(holds), told, {name: found[name] for name in ("rate", "sharpness", "trace", "stderr", "loss")})


STEPS = (sharpens, stays, falls, stable, entropy, batch_sharpness, below, flatter)
CLAIMS = (*STEPS, bulk, classes, clusters, kept, unbounded)
