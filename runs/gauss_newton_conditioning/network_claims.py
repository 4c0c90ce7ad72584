"""The claims of `runs.gauss_newton_conditioning` on slopes, convolutions, batch norm, pruning and training."""

from __future__ import annotations

import numpy as np

from runs.engine.claims import Claim, Results, Source, Verdict, claim, every
from runs.gauss_newton_conditioning.criteria import (
    PAPER,
    chosen,
    deficiency,
    distinct,
    exceeding,
    grouped,
    kept,
    lines,
    lists,
    number,
    rows,
)
from runs.gauss_newton_conditioning.networks import NORMS
from runs.shared.tables import falling, listed, rising

# -- leaky ReLU ----------------------------------------------------------------------------------------------


@claim(
    "leaky ReLU: the bound holds",
    source="theorem",
    literature=f"kappa of one hidden layer of leaky ReLU is bounded from above ({PAPER})",
    criterion="in no network, on digits nor among the small random ones, is kappa above the bound",
    needs=["slopes", "small"],
    quick=True,
)
def leaky(results: Results) -> Verdict:
    tables = {job: rows(results, job) for job in ("slopes", "small")}

    found = {}
    for job, table in tables.items():
        ratio = table["bound"] / table["kappa"]
        ratio = ratio[np.isfinite(ratio)]
        found[job] = {"exceeded": exceeding(table), "finite": len(ratio), "ratio": float(np.median(ratio))}
    return every(
        found,
        lambda at: at["exceeded"] == 0,
        lambda job, at: (
            f"{'digits' if job == 'slopes' else 'small'}: exceeded by {at['exceeded']} of {len(tables[job]['kappa'])}, "
            f"median ratio {at['ratio']:.2f} where finite ({at['finite']})"
        ),
        after=f"; {deficiency(tables['slopes'])}",
    )


@claim(
    "leaky ReLU: b1.5 and b2 hold too",
    source="code",
    literature=f"two simpler expressions are computed as bounds (code of {PAPER})",
    criterion="no network exceeds either, on digits or among the small random ones and the one made to break b2",
    needs=["slopes", "small"],
)
def estimates(results: Results) -> Verdict:
    digits, small = (rows(results, job) for job in ("slopes", "small"))
    made = chosen(small, made=1.0)
    columns = {"b1.5": "b15", "b2": "b2"}
    return every(
        {n: {"slopes": exceeding(digits, c), "small": exceeding(small, c)} for n, c in columns.items()},
        lambda above: not any(above.values()),
        lambda name, above: (
            f"{name} exceeded by {above['slopes']} of {len(digits['kappa'])} on digits (κ at most "
            f"{(digits['kappa'] / digits[columns[name]]).max():.2f} of it), by {above['small']} of "
            f"{len(small['kappa'])} small ones"
        ),
        after=f"; made to break it: κ {number(made['kappa'][0])}, b2 {number(made['b2'][0])}",
    )


# -- convolutions --------------------------------------------------------------------------------------------


def _convolutions(results: Results, first: str, second: str, *, rise: bool) -> Verdict:
    table = rows(results, "convolution")
    groups = grouped(chosen(table, shared=0.0), first, second)
    shared = chosen(table, shared=1.0)
    holds = all(map(rising if rise else falling, lines(groups).values()))
    beside = lists(lines(grouped(shared, first, second)))
    told = f"by {first}: {lists(lines(groups))}; by the shared kernels (not judged): {beside}, {deficiency(shared)}"
    return Verdict(holds, told, kept(groups))


@claim(
    "convolutions: more filters are worse",
    source="figure",
    literature=f"two linear convolutions, white data of 36 inputs: more filters, larger kappa ({PAPER})",
    criterion="at every kernel size mean kappa (entries of the Toeplitz matrices as parameters, both layers with as "
    "many filters) rises with each of 2, 3, 4, 5 filters",
    needs="convolution",
)
def filters(results: Results) -> Verdict:
    return _convolutions(results, "kernel", "filters", rise=True)


@claim(
    "convolutions: larger kernels are better",
    source="figure",
    literature=f"as above: larger kernel, smaller kappa ({PAPER})",
    criterion="at every number of filters mean kappa falls with each of the sizes 7, 9, 11",
    needs="convolution",
)
def kernels(results: Results) -> Verdict:
    return _convolutions(results, "filters", "kernel", rise=False)


# -- batch norm ----------------------------------------------------------------------------------------------


def norm_claim(name: str, literature: str, needs: str, mode: str = "eval", source: Source = "figure") -> Claim:
    """The claim that batch norm lowers kappa, in one mode."""
    beside = ", in eval mode with the measured samples' statistics" if mode == "eval" else ""

    rule = f"at every width mean kappa is lower with it{beside}"

    @claim(name, source=source, literature=literature, criterion=rule, needs=needs)
    def judge(results: Results) -> Verdict:
        table, at = rows(results, needs), float(NORMS.index(mode))
        groups = grouped(table, "norm", "width")
        found = lines(groups)
        pairs = zip(distinct(table, "width"), found[0.0], found[at], strict=True)
        ranks = [deficiency(chosen(table, norm=norm)) for norm in (0.0, at)]
        return every(
            {f"{width:g}": (without, beside) for width, without, beside in pairs},
            lambda pair: pair[1] < pair[0],
            lambda width, pair: f"{width}: {number(pair[0])} → {number(pair[1])}",
            numbers=kept(groups),
            before="κ without → with, by width: ",
            after=f"; without: {ranks[0]}; with: {ranks[1]}",
        )

    return judge


norm = norm_claim(
    "batch norm lowers kappa",
    f"one hidden layer of ReLU, batch norm behind it: kappa is clearly lower ({PAPER})",
    "norm-*",
)
norm_training = norm_claim(
    "batch norm, train mode",
    "as above, for the Jacobian of the whole batch in train mode, where samples share statistics",
    "norm-*",
    "train",
)
norm_many = norm_claim(
    "batch norm, more outputs than parameters",
    f"as in eval mode above ({PAPER}), where the parameters are fewer: 500 samples, widths 10 to 40",
    "many-*",
    source="own",
)


@claim(
    "batch norm: wider is better",
    source="figure",
    literature=f"with batch norm kappa still improves with the width ({PAPER})",
    criterion="in eval mode mean kappa falls with each larger width",
    needs="norm-*",
)
def norm_width(results: Results) -> Verdict:
    groups = grouped(chosen(rows(results, "norm-*"), norm=1.0), "norm", "width")
    (line,) = lines(groups).values()
    told = listed({f"{width:g}": number(value) for (_, width), value in zip(groups, line, strict=True)})
    return Verdict(falling(line), f"by width: {told}", kept(groups))


# -- pruning -------------------------------------------------------------------------------------------------


def _pruned(results: Results, left_out: float) -> Verdict:
    table = chosen(rows(results, "pruning-*"), left_out=left_out)
    groups = grouped(table, "trained", "fraction")
    initial, trained = (lines(groups)[when] for when in (0.0, 1.0))
    told = f"{', '.join(map(number, initial))}; after training (not judged) {', '.join(map(number, trained))}"
    told += f"; {deficiency(chosen(table, trained=0.0))} at initialisation"
    return Verdict(rising(initial), told, kept(groups))


@claim(
    "pruning raises kappa",
    source="figure",
    literature=f"the more weights of a ResNet are pruned at initialisation, the larger kappa of J J^T ({PAPER})",
    criterion="with the pruned weights left out of J, mean kappa at initialisation rises with each of 0, 20, 40, 60, "
    "80 % pruned",
    needs="pruning-*",
)
def pruned(results: Results) -> Verdict:
    return _pruned(results, 1.0)


@claim(
    "pruning raises kappa, pruned weights in J",
    source="code",
    literature=f"as above ({PAPER}); which of both was meant is not known here",
    criterion="as above with the pruned weights, which are 0, among the parameters of J",
    needs="pruning-*",
)
def pruned_inside(results: Results) -> Verdict:
    return _pruned(results, 0.0)


@claim(
    "pruning slows training",
    source="figure",
    literature=f"the more is pruned, the higher the training loss ({PAPER})",
    criterion="the mean training loss over all epochs rises with each fraction, in the arithmetic mean over runs",
    needs="pruning-*",
)
def pruned_loss(results: Results) -> Verdict:
    table = rows(results, "pruning-*", "loss")
    jobs = len(results.data("pruning-*"))
    runs = {f"{f:g}": v.reshape(jobs, -1) for (f,), v in grouped(table, "fraction", values=table["value"]).items()}
    mean = {fraction: float(losses.mean()) for fraction, losses in runs.items()}
    last = {fraction: float(losses[:, -1].mean()) for fraction, losses in runs.items()}
    told = f"{', '.join(map(number, mean.values()))}; in the last epoch {', '.join(map(number, last.values()))}"
    return Verdict(rising(list(mean.values())), told, {"mean": mean, "last": last})


# -- training ------------------------------------------------------------------------------------------------


@claim(
    "kappa stays in a narrow range in training",
    source="figure",
    literature=f"three linear layers, SGD on white data: kappa stays between about 6 and 12 ({PAPER})",
    criterion="in every run the largest kappa is at most twice the smallest",
    needs="training-*",
)
def steady(results: Results) -> Verdict:
    found = {}
    for name in results.data("training-*"):
        kappa = rows(results, name)["kappa"]
        found[name] = {"range": float(kappa.max() / kappa.min()), "first": float(kappa[0]), "last": float(kappa[-1])}
    data = list(results.data("training-*").values())[-1]  # one run's loss says whether it trained
    losses = f"loss {number(data['first'])} → {number(data['last'])}"
    return every(
        found,
        lambda run: run["range"] <= 2,
        lambda name, run: f"{number(run['first'])} → {number(run['last'])} (× {run['range']:.2f})",
        after=f"; {losses}, {deficiency(rows(results, 'training-*'))}",
    )


@claim(
    "the bound stays close in training",
    source="figure",
    literature=f"as above, the bound follows kappa closely ({PAPER})",
    criterion="it is never exceeded and never more than twice kappa",
    needs="training-*",
)
def stays_close(results: Results) -> Verdict:
    table = rows(results, "training-*")
    above, worst = exceeding(table), float((table["bound"] / table["kappa"]).max())
    told = f"exceeded by {above} of {len(table['kappa'])}, at most {worst:.2f} times kappa"
    return Verdict(above == 0 and worst <= 2, told, {"exceeded": above, "ratio": worst})


LAYERS = (leaky, estimates, filters, kernels, norm, norm_training, norm_many, norm_width)
CLAIMS = (*LAYERS, pruned, pruned_inside, pruned_loss, steady, stays_close)
