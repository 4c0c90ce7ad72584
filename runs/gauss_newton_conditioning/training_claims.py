"""The claims of `runs.gauss_newton_conditioning` on training: a pruned ResNet, three layers, and one by its width."""

from __future__ import annotations

from runs.engine.claims import Control, Results, Verdict, claim, every
from runs.gauss_newton_conditioning.criteria import (
    PAPER,
    Array,
    chosen,
    deficiency,
    distinct,
    exceeding,
    geometric,
    grouped,
    kept,
    lines,
    lists,
    number,
    rank_correlation,
    rows,
)
from runs.shared.tables import rising

TREND = -0.9  # one exchange of neighbours among six has 0.94

# -- pruning -------------------------------------------------------------------------------------------------

_INITS = Control("initialisations in the place of fractions", lambda judge, results: judge(results, "job"))


@claim(
    "pruning raises kappa",
    source="figure",
    literature=f"the more of a ResNet is pruned at initialisation, the larger kappa of J J^T along training ({PAPER})",
    criterion="at each of the epochs 0, 5, 10, 15 mean kappa over 5 initialisations rises with each of 0, 20, 40, 60, "
    "80 % pruned; as in the authors' code biases and batch norm are pruned too, J is by all parameters, pruned ones at "
    "0, an eigenvalue counts from 1e-7",
    needs="pruning-*",
    control=_INITS,
)
def pruned(results: Results, key: str = "fraction") -> Verdict:
    table = rows(results, "pruning-*")
    groups = grouped(table, "epochs", key)
    short = grouped(table, key, values=table["size"] - table["rank"])
    lacking = ", ".join(f"{values.mean():.0f}" for values in short.values())
    told = f"by epoch: {lists(lines(groups))}; zero eigenvalues of {table['size'][0]:g}, in the mean: {lacking}"
    return Verdict(all(map(rising, lines(groups).values())), told, kept(groups))


@claim(
    "pruning slows training",
    source="figure",
    literature=f"the more is pruned, the higher the training loss ({PAPER})",
    criterion="the mean training loss over all epochs rises with each fraction, in the arithmetic mean over runs",
    needs="pruning-*",
    control=_INITS,
)
def pruned_loss(results: Results, key: str = "fraction") -> Verdict:
    table = rows(results, "pruning-*", "loss")
    epochs = int(((table["fraction"] == 0) & (table["job"] == 0)).sum())
    runs = {f"{k:g}": v.reshape(-1, epochs) for (k,), v in grouped(table, key, values=table["value"]).items()}
    mean = {name: float(losses.mean()) for name, losses in runs.items()}
    last = {name: float(losses[:, -1].mean()) for name, losses in runs.items()}
    told = f"{', '.join(map(number, mean.values()))}; in the last epoch {', '.join(map(number, last.values()))}"
    return Verdict(rising(list(mean.values())), told, {"mean": mean, "last": last})


# -- training ------------------------------------------------------------------------------------------------


def _pruned_runs(results: Results) -> dict[str, Array]:
    return {name: chosen(rows(results, name), fraction=0.0)["kappa"] for name in results.data("pruning-*")}


@claim(
    "kappa stays in a narrow range in training",
    source="figure",
    literature=f"three linear layers, SGD on white data: kappa stays between about 6 and 12 ({PAPER})",
    criterion="in every run the largest kappa is at most twice the smallest",
    needs="training-*",
    control=Control(
        "the ResNet of above, none pruned", lambda judge, results: judge(results, _pruned_runs(results)), ("pruning-*",)
    ),
)
def steady(results: Results, runs: dict[str, Array] | None = None) -> Verdict:
    found = {}
    for name, kappa in (runs or {name: rows(results, name)["kappa"] for name in results.data("training-*")}).items():
        found[name] = {"range": float(kappa.max() / kappa.min()), "first": float(kappa[0]), "last": float(kappa[-1])}
    data = list(results.data("training-*").values())[-1]  # one run's loss says whether it trained
    losses = f"; loss {number(data['first'])} → {number(data['last'])}, {deficiency(rows(results, 'training-*'))}"
    return every(
        found,
        lambda run: run["range"] <= 2,
        lambda name, run: f"{number(run['first'])} → {number(run['last'])} (× {run['range']:.2f})",
        after="" if runs else losses,
    )


@claim(
    "the bound stays close in training",
    source="figure",
    literature=f"as above, the bound follows kappa closely ({PAPER})",
    criterion="it is never exceeded and never more than twice kappa",
    needs="training-*",
    control=Control(
        "its root in its place, as if condition numbers were not squared", lambda judge, results: judge(results, 0.5)
    ),
)
def stays_close(results: Results, power: float = 1.0) -> Verdict:
    table = rows(results, "training-*")
    table["bound"] = table["bound"] ** power
    above, worst = exceeding(table), float((table["bound"] / table["kappa"]).max())
    told = f"exceeded by {above} of {len(table['kappa'])}, at most {worst:.2f} times kappa"
    return Verdict(above == 0 and worst <= 2, told, {"exceeded": above, "ratio": worst})


# -- width ---------------------------------------------------------------------------------------------------


def best_rates(results: Results) -> dict[float, float]:
    """For each width the step size with the lowest mean loss along training, among those at which no run diverged."""
    table = rows(results, "wide-*")
    table = chosen_late(table)
    found = {}
    for width in distinct(table, "width"):
        part = chosen(table, width=width)
        losses = {rate: v for (rate,), v in grouped(part, "rate", values=part["loss"]).items()}
        complete = max(map(len, losses.values()))
        found[width] = min((float(v.mean()), rate) for rate, v in losses.items() if len(v) == complete)[1]
    return found


def chosen_late(table: dict[str, Array]) -> dict[str, Array]:
    """The rows after the start."""
    return {column: values[table["epochs"] > 0] for column, values in table.items()}


def _along(results: Results, column: str, *, reverse: bool) -> Verdict:
    table, rates = chosen_late(rows(results, "wide-*")), best_rates(results)
    found = {}
    for width in sorted(rates, reverse=reverse):
        values = chosen(table, width=width, rate=rates[width])[column]
        found[width] = geometric(values) if column == "kappa" else float(values.mean())
    correlation = rank_correlation(list(found.values()))
    told = "; ".join(f"{width:g}: {number(value)} (η = {rates[width]:g})" for width, value in found.items())
    told += f"; rank correlation {correlation:.2f}"
    numbers = {f"{width:g}": {"mean": value, "rate": rates[width]} for width, value in found.items()}
    return Verdict(correlation <= TREND, told, numbers)


_REVERSED = Control("the widths in reverse order", lambda judge, results: judge(results, reverse=True))
_SETTING = (
    "one linear hidden layer, white Fashion-MNIST (d = 48, n = 1000), SGD with the best of six step sizes, "
    "widths 15 … 200, 60 epochs, 5 initialisations"
)


@claim(
    "wider: faster",
    source="figure",
    literature=f"one linear hidden layer, SGD with a step size searched on a grid: wider is faster ({PAPER})",
    criterion=f"{_SETTING}: the mean loss along training has a rank correlation with the width of at most {TREND:g}",
    needs="wide-*",
    control=_REVERSED,
)
def faster(results: Results, reverse: bool = False) -> Verdict:
    return _along(results, "loss", reverse=reverse)


@claim(
    "wider: better conditioned along training",
    source="figure",
    literature=f"as above: wider has the lower kappa along training ({PAPER})",
    criterion=f"the same runs: mean kappa along training has a rank correlation with the width of at most {TREND:g}",
    needs="wide-*",
    control=_REVERSED,
)
def conditioned(results: Results, reverse: bool = False) -> Verdict:
    return _along(results, "kappa", reverse=reverse)


CLAIMS = (pruned, pruned_loss, steady, stays_close, faster, conditioned)
