"""The claims of `runs.gauss_newton_conditioning` on layers: slopes of ReLU, convolutions, batch norm."""

from __future__ import annotations

import numpy as np

from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.gauss_newton_conditioning.batch_norm import NORMS
from runs.gauss_newton_conditioning.criteria import (
    PAPER,
    chosen,
    deficiency,
    exceeding,
    geometric,
    grouped,
    kept,
    lines,
    lists,
    number,
    rows,
)
from runs.shared.tables import falling, listed, rising

# -- leaky ReLU ----------------------------------------------------------------------------------------------


@claim(
    "leaky ReLU: the bound holds",
    source="theorem",
    literature=f"kappa of one hidden layer of leaky ReLU is bounded from above ({PAPER})",
    criterion="in no network, on images nor among the small random ones, is kappa above the bound",
    needs=["slopes", "small"],
    quick=True,
    control=Control("b2 of the authors' code in its place", lambda judge, results: judge(results, "b2")),
)
def leaky(results: Results, bound: str = "bound") -> Verdict:
    tables = {job: rows(results, job) for job in ("slopes", "small")}

    found = {}
    for job, table in tables.items():
        ratio = table[bound] / table["kappa"]
        ratio = ratio[np.isfinite(ratio)]
        found[job] = {"exceeded": exceeding(table, bound), "finite": len(ratio), "ratio": float(np.median(ratio))}
    return every(
        found,
        lambda at: at["exceeded"] == 0,
        lambda job, at: (
            f"{'images' if job == 'slopes' else 'small'}: exceeded by {at['exceeded']} of {len(tables[job]['kappa'])}, "
            f"median ratio {at['ratio']:.2f} where finite ({at['finite']})"
        ),
        after=f"; {deficiency(tables['slopes'])}",
    )


@claim(
    "leaky ReLU: b1.5 and b2 hold too",
    source="code",
    literature=f"two simpler expressions are computed as bounds (code of {PAPER})",
    criterion="no network exceeds either, on images or among the small random ones and the one made to break b2",
    needs=["slopes", "small"],
)
def estimates(results: Results) -> Verdict:
    images, small = (rows(results, job) for job in ("slopes", "small"))
    made = chosen(small, made=1.0)
    columns = {"b1.5": "b15", "b2": "b2"}
    return every(
        {n: {"slopes": exceeding(images, c), "small": exceeding(small, c)} for n, c in columns.items()},
        lambda above: not any(above.values()),
        lambda name, above: (
            f"{name} exceeded by {above['slopes']} of {len(images['kappa'])} on images (κ at most "
            f"{(images['kappa'] / images[columns[name]]).max():.2f} of it), by {above['small']} of "
            f"{len(small['kappa'])} small ones"
        ),
        after=f"; made to break it: κ {number(made['kappa'][0])}, b2 {number(made['b2'][0])}",
    )


# -- convolutions --------------------------------------------------------------------------------------------


def _convolutions(results: Results, first: str, second: str, *, rise: bool) -> Verdict:
    table = rows(results, "convolution")
    groups, half = (grouped(chosen(table, half=which), first, second) for which in (0.0, 1.0))
    trend = rising if rise else falling
    shows = "shows" if all(map(trend, lines(half).values())) else "does not show"
    told = f"by {first}: {lists(lines(groups))}; with half the covariance, where it {shows}: {lists(lines(half))}"
    numbers = {"root": kept(groups), "half": kept(half)}
    return Verdict(all(map(trend, lines(groups).values())), told, numbers)


_ROOT = "the root of the covariance as it is defined; half the covariance, which the script takes for it, shown"


@claim(
    "convolutions: more filters are worse",
    source="figure",
    literature=f"two linear convolutions, white data of 36 inputs: more filters, larger kappa ({PAPER})",
    criterion="at every kernel size mean kappa of 60 (entries of the Toeplitz matrices as parameters, both layers with "
    f"as many filters) rises with each of 2, 3, 4, 5 filters; {_ROOT}",
    needs="convolution",
)
def filters(results: Results) -> Verdict:
    return _convolutions(results, "kernel", "filters", rise=True)


@claim(
    "convolutions: larger kernels are better",
    source="figure",
    literature=f"as above: larger kernel, smaller kappa ({PAPER})",
    criterion=f"at every number of filters mean kappa of 60 falls with each of the sizes 7, 9, 11; {_ROOT}",
    needs="convolution",
)
def kernels(results: Results) -> Verdict:
    return _convolutions(results, "filters", "kernel", rise=False)


# -- batch norm ----------------------------------------------------------------------------------------------


CLEARLY = 0.5


@claim(
    "batch norm lowers kappa",
    source="figure",
    literature=f"one linear hidden layer, raw grey images of 8 × 8 pixels, n = 1000: clearly lower with it ({PAPER})",
    criterion=f"at each of the widths 8 … 48 mean kappa of the Jacobian of the whole batch in train mode is at most "
    f"{CLEARLY:g} times that without batch norm; Fashion-MNIST, eval mode shown",
    needs="norm-*",
    control=Control("eval mode, where mean and variance are constants", lambda judge, results: judge(results, "eval")),
)
def norm(results: Results, mode: str = "train") -> Verdict:
    groups = grouped(rows(results, "norm-*"), "norm", "width")
    found = dict(zip(NORMS, lines(groups).values(), strict=True))
    (shown,) = (name for name in NORMS[1:] if name != mode)
    columns = zip(sorted({width for _, width in groups}), found["none"], found[mode], found[shown], strict=True)
    return every(
        {f"{width:g}": tuple(values) for width, *values in columns},
        lambda kappa: kappa[1] <= CLEARLY * kappa[0],
        lambda width, kappa: f"{width}: {number(kappa[0])} → {number(kappa[1])} ({number(kappa[2])})",
        numbers=kept(groups),
        before=f"κ without → {mode} mode ({shown} mode, shown), by width: ",
    )


@claim(
    "batch norm: wider is better",
    source="figure",
    literature=f"with batch norm kappa still improves with the width ({PAPER})",
    criterion="as above in train mode, mean kappa falls with each larger width",
    needs="norm-*",
    control=Control("the widths in reverse order", lambda judge, results: judge(results, reverse=True)),
)
def norm_width(results: Results, reverse: bool = False) -> Verdict:
    groups = grouped(chosen(rows(results, "norm-*"), norm=float(NORMS.index("train"))), "width")
    found = {f"{width:g}": geometric(values) for (width,), values in sorted(groups.items(), reverse=reverse)}
    told = listed({width: number(value) for width, value in found.items()})
    return Verdict(falling(list(found.values())), f"by width: {told}", kept(groups))


CLAIMS = (leaky, estimates, filters, kernels, norm, norm_width)
