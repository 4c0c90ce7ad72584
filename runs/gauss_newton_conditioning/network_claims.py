"""The claims of `runs.gauss_newton_conditioning` on slopes, convolutions, batch norm, pruning and training."""

from __future__ import annotations

import numpy as np

from runs.engine.claims import Results, Verdict, claim, every
from runs.gauss_newton_conditioning.criteria import (
    PAPER,
    Rows,
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
    literature=f"kappa of one hidden layer of leaky ReLU is bounded from above ({PAPER})",
    criterion="in no network, on digits nor among the small random ones, is kappa above the bound",
    needs=["slopes", "small"],
    quick=True,
)
def leaky(results: Results) -> Verdict:
    tables = {job: rows(results, job) for job in ("slopes", "small")}

    def finite_ratios(table: Rows) -> np.ndarray:
        ratio = table["bound"] / table["kappa"]
        return ratio[np.isfinite(ratio)]

    found = {
        job: {
            "exceeded": exceeding(table),
            "finite": len(finite_ratios(table)),
            "ratio": float(np.median(finite_ratios(table))),
        }
        for job, table in tables.items()
    }
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
    literature=f"two simpler expressions are computed as bounds (code of {PAPER})",
    criterion="no network exceeds either, on digits or among the small random ones and the one made to break b2",
    needs=["slopes", "small"],
)
def estimates(results: Results) -> Verdict:
    digits, small = (rows(results, job) for job in ("slopes", "small"))
    columns = {"b1.5": "b15", "b2": "b2"}
    made = chosen(small, made=1.0)
    return every(
        {
            name: {"slopes": exceeding(digits, column), "small": exceeding(small, column)}
            for name, column in columns.items()
        },
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
    literature=f"two linear convolutions, white data of 36 inputs: more filters, larger kappa ({PAPER})",
    criterion="at every kernel size mean kappa (entries of the Toeplitz matrices as parameters, both layers with as "
    "many filters) rises with each of 2, 3, 4, 5 filters",
    needs="convolution",
)
def filters(results: Results) -> Verdict:
    return _convolutions(results, "kernel", "filters", rise=True)


@claim(
    "convolutions: larger kernels are better",
    literature=f"as above: larger kernel, smaller kappa ({PAPER})",
    criterion="at every number of filters mean kappa falls with each of the sizes 7, 9, 11",
    needs="convolution",
)
def kernels(results: Results) -> Verdict:
    return _convolutions(results, "filters", "kernel", rise=False)


# -- batch norm ----------------------------------------------------------------------------------------------


def _norm(results: Results, pattern: str, mode: str) -> Verdict:
    table, at = rows(results, pattern), float(NORMS.index(mode))
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


@claim(
    "batch norm lowers kappa",
    literature=f"one hidden layer of ReLU, batch norm behind it: kappa is clearly lower ({PAPER})",
    criterion="at every width mean kappa is lower with it, in eval mode with the measured samples' statistics",
    needs="norm-*",
)
def norm(results: Results) -> Verdict:
    return _norm(results, "norm-*", "eval")


@claim(
    "batch norm, train mode",
    literature="as above, for the Jacobian of the whole batch in train mode, where samples share statistics",
    criterion="at every width mean kappa is lower with it",
    needs="norm-*",
)
def norm_training(results: Results) -> Verdict:
    return _norm(results, "norm-*", "train")


@claim(
    "batch norm, more outputs than parameters",
    literature=f"as in eval mode above ({PAPER}), where the parameters are fewer: 500 samples, widths 10 to 40",
    criterion="at every width mean kappa is lower with it, in eval mode with the measured samples' statistics",
    needs="many-*",
)
def norm_many(results: Results) -> Verdict:
    return _norm(results, "many-*", "eval")


@claim(
    "batch norm: wider is better",
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
    literature=f"the more weights of a ResNet are pruned at initialisation, the larger kappa of J J^T ({PAPER})",
    criterion="with the pruned weights left out of J, mean kappa at initialisation rises with each of 0, 20, 40, 60, "
    "80 % pruned",
    needs="pruning-*",
)
def pruned(results: Results) -> Verdict:
    return _pruned(results, 1.0)


@claim(
    "pruning raises kappa, pruned weights in J",
    literature=f"as above ({PAPER}); which of both was meant is not known here",
    criterion="as above with the pruned weights, which are 0, among the parameters of J",
    needs="pruning-*",
)
def pruned_inside(results: Results) -> Verdict:
    return _pruned(results, 0.0)


@claim(
    "pruning slows training",
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
