"""The claims of `runs.gauss_newton_conditioning` on slopes, convolutions, batch norm, pruning and training."""

from __future__ import annotations

import numpy as np

from runs.engine.claims import Results, Verdict, claim
from runs.gauss_newton_conditioning import criteria
from runs.gauss_newton_conditioning.criteria import number
from runs.gauss_newton_conditioning.networks import NORMS

PAPER = "Zhao, Singh, Lucchi 2024"


# -- leaky ReLU ----------------------------------------------------------------------------------------------


@claim(
    "leaky ReLU: the bound holds",
    literature=f"kappa of one hidden layer of leaky ReLU is bounded from above ({PAPER})",
    criterion="in no network, on digits nor among the small random ones, is kappa above the bound",
    needs=["slopes", "small"],
    quick=True,
)
def leaky(results: Results) -> Verdict:
    """Violations, and how far above the bound is."""
    told, numbers, holds = [], {}, []
    for job in ("slopes", "small"):
        table = criteria.rows(results, job)
        above = criteria.exceeding(table)
        ratio = table["bound"] / table["kappa"]
        finite = ratio[np.isfinite(ratio)]
        holds.append(above == 0)
        told.append(
            f"{'digits' if job == 'slopes' else 'small'}: exceeded by {above} of {len(ratio)}, median ratio "
            f"{np.median(finite):.2f} where finite ({len(finite)})"
        )
        numbers[job] = {"exceeded": above, "finite": len(finite), "ratio": float(np.median(finite))}
    return Verdict(all(holds), f"{'; '.join(told)}; {criteria.deficiency(criteria.rows(results, 'slopes'))}", numbers)


@claim(
    "leaky ReLU: b1.5 and b2 hold too",
    literature=f"two simpler expressions are computed as bounds (code of {PAPER})",
    criterion="no network exceeds either, on digits or among the small random ones and the one made to break b2",
    needs=["slopes", "small"],
)
def estimates(results: Results) -> Verdict:
    """Violations of each."""
    told, numbers = [], {}
    digits = criteria.rows(results, "slopes")
    for name, column in (("b1.5", "b15"), ("b2", "b2")):
        found = {job: criteria.exceeding(criteria.rows(results, job), column) for job in ("slopes", "small")}
        sizes = {job: len(criteria.rows(results, job)["kappa"]) for job in found}
        told.append(
            f"{name} exceeded by {found['slopes']} of {sizes['slopes']} on digits (κ at most "
            f"{(digits['kappa'] / digits[column]).max():.2f} of it), by {found['small']} of {sizes['small']} small ones"
        )
        numbers[name] = found
    made = criteria.chosen(criteria.rows(results, "small"), made=1.0)
    told.append(f"made to break it: κ {number(made['kappa'][0])}, b2 {number(made['b2'][0])}")
    return Verdict(not any(v for found in numbers.values() for v in found.values()), "; ".join(told), numbers)


# -- convolutions --------------------------------------------------------------------------------------------


def _convolutions(results: Results, first: str, second: str, *, rise: bool) -> Verdict:
    table = criteria.rows(results, "convolution")
    groups = criteria.grouped(criteria.chosen(table, shared=0.0), first, second)
    found = criteria.lines(criteria.means(groups))
    shared = criteria.chosen(table, shared=1.0)
    beside = criteria.lines(criteria.means(criteria.grouped(shared, first, second)))
    holds = all((criteria.rising if rise else criteria.falling)(line) for line in found.values())
    told = f"by {first}: {criteria.lists(found)}; by the shared kernels (not judged): {criteria.lists(beside)}, "
    return Verdict(holds, told + criteria.deficiency(shared), criteria.kept(groups))


@claim(
    "convolutions: more filters are worse",
    literature=f"two linear convolutions, white data of 36 inputs: more filters, larger kappa ({PAPER})",
    criterion="at every kernel size mean kappa (entries of the Toeplitz matrices as parameters, both layers with as "
    "many filters) rises with each of 2, 3, 4, 5 filters",
    needs="convolution",
)
def filters(results: Results) -> Verdict:
    """Mean kappa by kernel size over the filters."""
    return _convolutions(results, "kernel", "filters", rise=True)


@claim(
    "convolutions: larger kernels are better",
    literature=f"as above: larger kernel, smaller kappa ({PAPER})",
    criterion="at every number of filters mean kappa falls with each of the sizes 7, 9, 11",
    needs="convolution",
)
def kernels(results: Results) -> Verdict:
    """Mean kappa by filters over the kernel sizes."""
    return _convolutions(results, "filters", "kernel", rise=False)


# -- batch norm ----------------------------------------------------------------------------------------------


def _norm(results: Results, pattern: str, mode: str) -> Verdict:
    table = criteria.rows(results, pattern)
    groups = criteria.grouped(table, "norm", "width")
    found = criteria.lines(criteria.means(groups))
    widths = sorted(set(table["width"].tolist()))
    without, with_norm = found[0.0], found[float(NORMS.index(mode))]
    told = "; ".join(
        f"{width:g}: {number(a)} → {number(b)}" for width, a, b in zip(widths, without, with_norm, strict=True)
    )
    ranks = criteria.deficiency(criteria.chosen(table, norm=float(NORMS.index(mode))))
    plain = criteria.deficiency(criteria.chosen(table, norm=0.0))
    told = f"κ without → with, by width: {told}; without: {plain}; with: {ranks}"
    return Verdict(all(b < a for a, b in zip(without, with_norm, strict=True)), told, criteria.kept(groups))


@claim(
    "batch norm lowers kappa",
    literature=f"one hidden layer of ReLU, batch norm behind it: kappa is clearly lower ({PAPER})",
    criterion="at every width mean kappa is lower with it, in eval mode with the measured samples' statistics",
    needs="norm-*",
)
def norm(results: Results) -> Verdict:
    """Mean kappa by width without and with."""
    return _norm(results, "norm-*", "eval")


@claim(
    "batch norm, train mode",
    literature="as above, for the Jacobian of the whole batch in train mode, where samples share statistics",
    criterion="at every width mean kappa is lower with it",
    needs="norm-*",
)
def norm_training(results: Results) -> Verdict:
    """Mean kappa by width without and with."""
    return _norm(results, "norm-*", "train")


@claim(
    "batch norm, more outputs than parameters",
    literature=f"as in eval mode above ({PAPER}), where the parameters are fewer: 500 samples, widths 10 to 40",
    criterion="at every width mean kappa is lower with it, in eval mode with the measured samples' statistics",
    needs="many-*",
)
def norm_many(results: Results) -> Verdict:
    """Mean kappa by width without and with."""
    return _norm(results, "many-*", "eval")


@claim(
    "batch norm: wider is better",
    literature=f"with batch norm kappa still improves with the width ({PAPER})",
    criterion="in eval mode mean kappa falls with each larger width",
    needs="norm-*",
)
def norm_width(results: Results) -> Verdict:
    """Mean kappa over the widths."""
    table = criteria.chosen(criteria.rows(results, "norm-*"), norm=1.0)
    groups = criteria.grouped(table, "norm", "width")
    (line,) = criteria.lines(criteria.means(groups)).values()
    widths = sorted(set(table["width"].tolist()))
    told = "; ".join(f"{width:g}: {number(v)}" for width, v in zip(widths, line, strict=True))
    return Verdict(criteria.falling(line), f"by width: {told}", criteria.kept(groups))


# -- pruning -------------------------------------------------------------------------------------------------


def _pruned(results: Results, left_out: float) -> Verdict:
    table = criteria.chosen(criteria.rows(results, "pruning-*"), left_out=left_out)
    groups = criteria.grouped(table, "trained", "fraction")
    found = criteria.lines(criteria.means(groups))
    told = f"{', '.join(map(number, found[0.0]))}; after training (not judged) {', '.join(map(number, found[1.0]))}"
    told += f"; {criteria.deficiency(criteria.chosen(table, trained=0.0))} at initialisation"
    return Verdict(criteria.rising(found[0.0]), told, criteria.kept(groups))


@claim(
    "pruning raises kappa",
    literature=f"the more weights of a ResNet are pruned at initialisation, the larger kappa of J J^T ({PAPER})",
    criterion="with the pruned weights left out of J, mean kappa at initialisation rises with each of 0, 20, 40, 60, "
    "80 % pruned",
    needs="pruning-*",
)
def pruned(results: Results) -> Verdict:
    """Mean kappa by the fraction pruned."""
    return _pruned(results, 1.0)


@claim(
    "pruning raises kappa, pruned weights in J",
    literature=f"as above ({PAPER}); which of both was meant is not known here",
    criterion="as above with the pruned weights, which are 0, among the parameters of J",
    needs="pruning-*",
)
def pruned_inside(results: Results) -> Verdict:
    """Mean kappa by the fraction pruned."""
    return _pruned(results, 0.0)


@claim(
    "pruning slows training",
    literature=f"the more is pruned, the higher the training loss ({PAPER})",
    criterion="the mean training loss over all epochs rises with each fraction, in the arithmetic mean over runs",
    needs="pruning-*",
)
def pruned_loss(results: Results) -> Verdict:
    """The loss over all epochs and in the last, by the fraction pruned."""
    table = criteria.rows(results, "pruning-*", "loss")
    values = {key: float(v.mean()) for key, v in criteria.grouped(table, "fraction", values=table["value"]).items()}
    jobs = len(results.data("pruning-*"))
    last = {}
    for (fraction,) in values:
        runs = table["value"][table["fraction"] == fraction].reshape(jobs, -1)
        last[f"{fraction:g}"] = float(runs[:, -1].mean())
    told = f"{', '.join(map(number, values.values()))}; in the last epoch {', '.join(map(number, last.values()))}"
    numbers = {"mean": {f"{f:g}": v for (f,), v in values.items()}, "last": last}
    return Verdict(criteria.rising(list(values.values())), told, numbers)


# -- training ------------------------------------------------------------------------------------------------


@claim(
    "kappa stays in a narrow range in training",
    literature=f"three linear layers, SGD on white data: kappa stays between about 6 and 12 ({PAPER})",
    criterion="in every run the largest kappa is at most twice the smallest",
    needs="training-*",
)
def steady(results: Results) -> Verdict:
    """The range in each run, and the loss, which says whether it trained."""
    told, numbers = [], {}
    for name, data in results.data("training-*").items():
        kappa = criteria.rows(results, name)["kappa"]
        told.append(f"{number(kappa[0])} → {number(kappa[-1])} (× {kappa.max() / kappa.min():.2f})")
        numbers[name] = {"range": float(kappa.max() / kappa.min()), "first": float(kappa[0]), "last": float(kappa[-1])}
        losses = f"loss {number(data['first'])} → {number(data['last'])}"
    told.append(f"{losses}, {criteria.deficiency(criteria.rows(results, 'training-*'))}")
    return Verdict(all(found["range"] <= 2 for found in numbers.values()), "; ".join(told), numbers)


@claim(
    "the bound stays close in training",
    literature=f"as above, the bound follows kappa closely ({PAPER})",
    criterion="it is never exceeded and never more than twice kappa",
    needs="training-*",
)
def stays_close(results: Results) -> Verdict:
    """Violations and the largest ratio."""
    table = criteria.rows(results, "training-*")
    above, worst = criteria.exceeding(table), float((table["bound"] / table["kappa"]).max())
    told = f"exceeded by {above} of {len(table['kappa'])}, at most {worst:.2f} times kappa"
    return Verdict(above == 0 and worst <= 2, told, {"exceeded": above, "ratio": worst})


MORE = (
    leaky,
    estimates,
    filters,
    kernels,
    norm,
    norm_training,
    norm_many,
    norm_width,
    pruned,
    pruned_inside,
    pruned_loss,
    steady,
    stays_close,
)
