"""The claims of `runs.second_order` on how unlike a network's blocks are, each with the rule that decides it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from landscape.statistics import mean_stderr
from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Verdict, all_hold, claim, every
from runs.second_order.heterogeneity import MLPS, NETWORKS, SCALES
from runs.shared.tables import rising

WORSE = 1.1  # a loss so many times as large is one that is larger
PAR = 1.25  # up to so many times it is on par
NAMES = {"cnn": "CNN", "vit": "transformer", "text": "transformer on text"}
PAPER = "arXiv 2402.16788, abstract"
TRANSFORMERS = ("vit", "text")

Interval = tuple[float, float]


def interval(values: Sequence[float]) -> Interval:
    """Of the mean, 95 %."""
    mean, stderr = mean_stderr(torch.tensor(values, dtype=torch.float64))
    return float(mean - 1.96 * stderr), float(mean + 1.96 * stderr)


def as_text(found: Interval, digits: int = 2) -> str:
    """`low … high`."""
    return f"{short(found[0], digits)} … {short(found[1], digits)}".replace("-", "−")


# -- how unlike the blocks are -------------------------------------------------------------------------------


def means(results: Results, network: str, choice: str, key: str = "mean") -> list[float]:
    """The mean distance of the blocks (or its floor or error), by seed."""
    return [run[choice][key] for run in results.one(f"heterogeneity-{network}")["runs"]]


def middle(results: Results, network: str, choice: str) -> str:
    """`0.25 (floor 0.1)`: medians over seeds."""
    values, floors = (statistics.median(means(results, network, choice, key)) for key in ("mean", "floor"))
    return f"{short(values, 2)} (floor {short(floors, 2)})"


@claim(
    "blocks differ by more than noise",
    source="own",
    literature="own question: what two halves of one block's random vectors leave is the zero of the distances",
    criterion="in the CNN and both transformers, with each of the three units and widths, the mean Jensen-Shannon "
    "distance over all pairs of blocks less two of its standard errors is above the floor in every seed",
    needs="heterogeneity-*",
)
def beyond_noise(results: Results) -> Verdict:
    found: dict[str, bool] = {}
    for network in NETWORKS:
        for choice in ("code", "range", "tenth"):
            rows = zip(*(means(results, network, choice, key) for key in ("mean", "stderr", "floor")), strict=True)
            found[f"{NAMES[network]}, {choice}"] = all(mean - 2 * error > floor for mean, error, floor in rows)
    beyond = [name for name, yes in found.items() if yes]
    return Verdict(all_hold(found.values()), f"in {len(beyond)} of {len(found)}: {', '.join(beyond)}", found)


def unlike_claim(name: str, choice: str, how: str) -> Claim:
    """The claim that the transformer's blocks are more unlike than the CNN's."""

    @claim(
        name,
        source="abstract",
        literature=f"the spectra of blocks differ much in transformers, and little in CNNs ({PAPER}); {how}",
        criterion="the 95 % interval over seeds of the mean distance in the vision transformer less that in the CNN "
        "is above 0",
        needs="heterogeneity-*",
        control=Control("the CNN from other seeds", lambda rule, results: rule(results, "cnn-again")),
    )
    def judge(results: Results, network: str = "vit") -> Verdict:
        pairs = zip(means(results, network, choice), means(results, "cnn", choice), strict=True)
        found = interval([ours - cnn for ours, cnn in pairs])
        told = f"{middle(results, network, choice)} against {middle(results, 'cnn', choice)}, difference"
        after = f"; transformer on text {middle(results, 'text', choice)}" if network == "vit" else ""
        return Verdict(found[0] > 0, f"{told} {as_text(found)}{after}", {"difference": found})

    return judge


code = unlike_claim(
    "a transformer's blocks are more unlike than a CNN's",
    "code",
    "eigenvalues as they are, each smoothed by 1e-5^½ = 0.0032 as in the code that the authors have published",
)
span = unlike_claim(
    "also by the network's own range", "range", "eigenvalues as they are, smoothed by a hundredth of their range"
)
tenth = unlike_claim(
    "also with each block in its own unit",
    "tenth",
    "each block by its 10th largest eigenvalue as in the paper's figures, smoothed by a tenth of that",
)


# -- what SGD loses to Adam ----------------------------------------------------------------------------------


def tuned(results: Results, network: str, method: str) -> tuple[float, list[float], bool]:
    """The step size of least median loss, the losses by seed there, and whether it is at an end of the grid."""
    grid = results.one(f"training-{network}")["losses"][method]
    losses = {lr: [math.inf if loss is None else loss for loss in row] for lr, row in grid.items()}
    best = min(losses, key=lambda lr: statistics.median(losses[lr]))
    return float(best), losses[best], best in (next(iter(losses)), next(reversed(losses)))


def gaps(results: Results, network: str, method: str = "sgd", other: str = "adam") -> list[float]:
    """ln of the loss of one method over that of the other, by seed, each at its tuned step size."""
    pairs = zip(tuned(results, network, method)[1], tuned(results, network, other)[1], strict=True)
    return [math.log(ours / theirs) for ours, theirs in pairs]


def inside(results: Results, network: str, *methods: str) -> bool:
    """Whether no tuned step size is at an end of its grid."""
    return not any(tuned(results, network, method)[2] for method in methods)


def ratios(results: Results, network: str, method: str = "sgd", other: str = "adam") -> str:
    """`0.82 against 0.17 (steps 0.03, 0.01), times 3 … 6`."""
    (lr, losses, _), (other_lr, theirs, _) = (tuned(results, network, m) for m in (method, other))
    low, high = interval(gaps(results, network, method, other))
    medians = f"{short(statistics.median(losses), 2)} against {short(statistics.median(theirs), 2)}"
    end = "" if inside(results, network, method, other) else "; at an end of the grid"
    return f"{medians} (steps {lr:g}, {other_lr:g}{end}), × {as_text((math.exp(low), math.exp(high)))}"


@claim(
    "SGD loses to Adam on transformers",
    source="abstract",
    literature=f"SGD is worse than Adam on transformers ({PAPER})",
    criterion=f"on both transformers the 95 % interval over seeds of SGD's late loss over Adam's (geometric mean, step "
    f"sizes tuned by the median) is above {WORSE}",
    needs=[f"training-{name}" for name in TRANSFORMERS],
)
def loses(results: Results) -> Verdict:
    found = {name: interval(gaps(results, name)) for name in TRANSFORMERS}
    holds = [
        low > math.log(WORSE) if inside(results, name, "sgd", "adam") else None for name, (low, _) in found.items()
    ]
    told = "; ".join(f"{NAMES[name]}: {ratios(results, name)}" for name in found)
    return Verdict(all_hold(holds), told, found)


@claim(
    "and is on par on the CNN",
    source="abstract",
    literature=f"SGD can be on par with Adam where blocks are alike, as in CNNs ({PAPER})",
    criterion=f"on the CNN SGD's late loss over Adam's is at most {PAR} (geometric mean over seeds)",
    needs="training-cnn",
)
def par(results: Results) -> Verdict:
    mean = math.exp(statistics.fmean(gaps(results, "cnn")))
    holds = mean <= PAR if inside(results, "cnn", "sgd", "adam") else None
    return Verdict(holds, f"{ratios(results, 'cnn')}, mean {short(mean, 3)}", {"mean": mean})


@claim(
    "it loses more on the transformer than on the CNN",
    source="abstract",
    literature=f"SGD falls behind Adam where blocks differ ({PAPER})",
    criterion="the 95 % interval over seeds of ln (SGD's loss / Adam's) on the vision transformer less that on the CNN "
    "is above 0",
    needs=["training-vit", "training-cnn"],
)
def loses_more(results: Results) -> Verdict:
    pairs = zip(gaps(results, "vit"), gaps(results, "cnn"), strict=True)
    found = interval([ours - cnn for ours, cnn in pairs])
    holds = found[0] > 0 if all(inside(results, name, "sgd", "adam") for name in ("vit", "cnn")) else None
    return Verdict(holds, f"difference {as_text(found)}", {"difference": found})


@claim(
    "step sizes by block help SGD",
    source="abstract",
    literature="one step size for all blocks is why SGD fails, and different ones across blocks could rescue it (arXiv "
    "2402.16788, abstract of the first versions)",
    criterion="on both transformers the 95 % interval over seeds of the late loss of SGD with step sizes in inverse "
    "proportion to the layers' largest |eigenvalue| at the start, over that of plain SGD (geometric mean, tuned), is "
    "below 1",
    needs=[f"training-{name}" for name in TRANSFORMERS],
    control=Control("each layer with the step size of the next", lambda rule, results: rule(results, "dealt-sgd")),
)
def by_block(results: Results, method: str = "block-sgd") -> Verdict:
    found = {name: interval(gaps(results, name, method, "sgd")) for name in TRANSFORMERS}
    holds = [high < 0 if inside(results, name, method, "sgd") else None for name, (_, high) in found.items()]
    told = "; ".join(f"{NAMES[name]}: {ratios(results, name, method, 'sgd')}" for name in found)
    return Verdict(all_hold(holds), told, found)


# -- blocks that are made unlike -----------------------------------------------------------------------------


@claim(
    "scaled layers are more unlike",
    source="text",
    literature="layers of an MLP that are multiplied by constants make blocks that differ (arXiv 2402.16788, as "
    "recalled; here layers by s and 1 / s in turn, with weights that leave the function as it is)",
    criterion=f"the 95 % interval over seeds of the mean distance at s = {SCALES[-1]} less that at s = 1 is above "
    "0.001, eigenvalues as they are and smoothed as in the authors' code",
    needs="heterogeneity-mlp-*",
    control=Control("each block in its own unit, which no scale changes", lambda rule, results: rule(results, "tenth")),
)
def scaled(results: Results, choice: str = "code") -> Verdict:
    pairs = zip(means(results, MLPS[-1], choice), means(results, MLPS[0], choice), strict=True)
    found = interval([large - one for large, one in pairs])
    told = ", ".join(f"{s}: {middle(results, name, choice)}" for s, name in zip(SCALES, MLPS, strict=True))
    return Verdict(found[0] > 1e-3, f"by s {told}, difference {as_text(found)}", {"difference": found})


@claim(
    "and SGD loses more to Adam with them",
    source="text",
    literature="the more unlike the blocks of an MLP are made, the worse SGD is beside Adam (arXiv 2402.16788, as "
    "recalled)",
    criterion="the medians over seeds of SGD's late loss over Adam's rise with s, and the 95 % interval of ln of it at "
    f"s = {SCALES[-1]} less that at s = 1 is above 0",
    needs="training-mlp-*",
    control=Control("SGD with step sizes by block", lambda rule, results: rule(results, "block-sgd")),
)
def scaled_gap(results: Results, method: str = "sgd") -> Verdict:
    found = {name: gaps(results, name, method) for name in MLPS}
    difference = interval([large - one for large, one in zip(found[MLPS[-1]], found[MLPS[0]], strict=True)])
    verdict = every(
        {str(s): name for s, name in zip(SCALES, MLPS, strict=True)},
        lambda name: True if inside(results, name, method, "adam") else None,
        lambda s, name: f"{s}: {ratios(results, name, method)}",
        before="by s ",
        after=f"; difference {as_text(difference)}",
    )
    risen = rising([statistics.median(values) for values in found.values()]) and difference[0] > 0
    return Verdict(all_hold([risen, verdict.holds]), verdict.measured, {"difference": difference})


UNLIKE = (beyond_noise, code, span, tenth)
CLAIMS = (*UNLIKE, loses, par, loses_more, by_block, scaled, scaled_gap)
"""In the order of the page."""
