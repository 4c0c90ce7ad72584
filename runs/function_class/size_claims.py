"""The claims of `runs.function_class` on how beta goes with a network's size, its batches and its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from probes.numbers import short
from runs.engine.claims import Claim, Control, Results, Source, Verdict, claim
from runs.function_class import criteria
from runs.function_class.criteria import GAP, PAPER, Smallest, peak_inside, trend
from runs.shared.tables import listed

FLOOR = "β σ_int², the noise floor of the theorems, goes down with"
TENDENCY = "the rank correlation with the size of each seed has a mean over the seeds whose 95 % interval is below 0"


def _values(found: Smallest, what: str) -> tuple[float, ...]:
    return found.floors if what == "floor" else found.seeds


def _peak(
    name: str, family: str, *, source: Source, said: str, setting: str, end: str = "f(x_K), which falls"
) -> Claim:
    """Up, then down: judged on the beta that all seeds need, as the paper's maps are."""

    def verdict(judge: Callable[..., Verdict], results: Results) -> Verdict:
        return judge(results, of=lambda s: float(np.median(s.losses)))

    @claim(
        name,
        source=source,
        literature=f"{said} ({PAPER})",
        criterion=f"{setting}: β at gap {GAP} for all seeds at once is at neither end of the range larger than at its "
        "largest in between (undecided where it is 0 throughout)",
        needs=f"{family}-*",
        control=Control(f"the same rule on the loss {end}", verdict),
        other_setup=SMALL,
    )
    def judge(results: Results, of: Callable[[Smallest], float] = lambda s: s.beta) -> Verdict:
        found = criteria.family(results, f"{family}-*")
        values = [of(s) for s in found.values()]
        told: dict[str, object] = dict(found)
        if values != [s.beta for s in found.values()]:
            told = {size: short(value, 3) for size, value in zip(found, values, strict=True)}
        holds = peak_inside(values) if any(values) else None
        seeds = np.array([_values(s, "beta") for s in found.values()]).T
        inside = sum(peak_inside(list(row)) for row in seeds)
        after = f"; {inside} of {len(seeds)} seeds alone; {trend([s.most for s in found.values()])} of β for 99 %"
        return Verdict(holds, f"{listed(told)}{after}; {criteria.vacuous_text(found)}", criteria.as_json(found))

    return judge


def _falls(
    name: str, family: str, *, source: Source, said: str, setting: str, what: str = "beta", other_setup: str = ""
) -> Claim:
    """A tendency down, judged by rank correlation over the seeds."""

    def verdict(judge: Callable[..., Verdict], results: Results) -> Verdict:
        return judge(results, shift=1)

    of = "β times f(x_K)" if what == "floor" else f"β at gap {GAP}"

    @claim(
        name,
        source=source,
        literature=f"{said} ({PAPER})",
        criterion=f"{setting}: of {of}, {TENDENCY} (undecided where it is 0 throughout)",
        needs=f"{family}-*",
        control=Control("the sizes exchanged in a circle, one place further with each seed", verdict),
        other_setup=other_setup,
    )
    def judge(results: Results, shift: int = 0) -> Verdict:
        found = criteria.family(results, f"{family}-*")
        table = np.array([_values(s, what) for s in found.values()])
        for seed in range(table.shape[1]):
            table[:, seed] = np.roll(table[:, seed], shift * seed)
        made = trend(table.tolist())
        medians = {size: short(float(np.median(row)), 3) for size, row in zip(found, table, strict=True)}
        told = f"{made}; medians {listed(medians)}"
        if not shift:
            told += f"; for 99 % of the steps: {trend([s.most for s in found.values()])}; "
            told += criteria.vacuous_text(found)
        return Verdict(made.high < 0 if table.any() else None, told, criteria.as_json(found))

    return judge


CYCLE = "784-128-128-10, 6,000 images of Fashion-MNIST, batches of 64 … 512, 3,000 steps each of one cycle up to 0.1"
DIGITS = "1,347 digits of 8 x 8, 20 epochs, 3 seeds"
SMALL = "small networks without batch norm on digits, 20 epochs where the paper has 1,000 and more"
MLPS = f"{DIGITS}, MLPs of widths 16 … 512"
BLOCKS = f"{DIGITS}, 1 … 8 residual blocks without batch norm"

wide = _peak(
    "MLP: up, then down with width",
    "mlp",
    source="text",
    said="Sec. 5.1, App. D.3: the smallest α and β grow up to a medium width (512 of 32 … 4096) and then tend to get "
    "smaller; 1,500 epochs of Fashion-MNIST",
    setting=MLPS,
)
channels = _peak(
    "CNN: up, then down with channels",
    "cnn",
    source="text",
    said="Sec. 5.2, App. D.4: they grow up to 64 (main text) or 128 channels (appendix) of 32 … 2048 and then get "
    "smaller, on CIFAR10",
    setting=f"{DIGITS}, 4 … 64 channels",
)
deep = _falls(
    "deeper, smaller",
    "depth",
    source="text",
    said="App. D.7: they tend to get smaller with depth, ResNet9, 18 and 34 with batch norm on CIFAR100",
    setting=BLOCKS,
    other_setup=SMALL,
)
batch = _falls(
    "larger batches, smaller",
    "batch",
    source="text",
    said="Sec. 5.3, App. D.5: there is a tendency of the smallest α and β to go down with the batch, ResNet9 on "
    "CIFAR100",
    setting=CYCLE,
)


def _floor(what: str, family: str, of: str, setting: str, other_setup: str = "") -> Claim:
    said = f"Table 2: {FLOOR} {of} (an arrow, no numbers)"
    name = f"noise floor falls with {what}"
    return _falls(name, family, source="table", said=said, setting=setting, what="floor", other_setup=other_setup)


noise_width = _floor("width", "mlp", "the width", MLPS, SMALL)
noise_depth = _floor("depth", "depth", "the depth", BLOCKS, SMALL)
noise_batch = _floor("the batch", "batch", "the batch", CYCLE)


def _circle(judge: Callable[..., Verdict], results: Results) -> Verdict:
    return judge(results, names=("momentum", "sgd", "adam"))


@claim(
    "Adam < momentum < SGD",
    source="text",
    literature="App. D.6: the results suggest that α and β are smaller for Adam than for SGD with momentum, and there "
    f"typically smaller than for SGD, ResNet9 on CIFAR100 ({PAPER})",
    criterion=f"{DIGITS}, CNN: medians over the seeds of β at gap {GAP} for 99 % of the steps, Adam ≤ momentum ≤ SGD "
    "(undecided where all are 0)",
    needs="optimizer-*",
    control=Control("the three exchanged in a circle", _circle),
    other_setup=SMALL,
)
def optimizer(results: Results, names: Sequence[str] = ("adam", "momentum", "sgd")) -> Verdict:
    found = criteria.family(results, "optimizer-*")
    medians = [float(np.median(found[name].most)) for name in names]
    told = listed({name: found[name] for name in names})
    holds = medians == sorted(medians) if any(medians) else None
    return Verdict(holds, f"{told}; {criteria.vacuous_text(found)}", criteria.as_json(found))


CLAIMS = wide, channels, deep, batch, optimizer, noise_width, noise_depth, noise_batch
