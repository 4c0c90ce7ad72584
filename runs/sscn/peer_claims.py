"""The claims of `runs.sscn` on other solvers: coordinate descent, RS-RNM, gradient descent, L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runs.engine.claims import Claim, Control, Results, Source, Verdict, claim
from runs.sscn.criteria import PAPER, Race, best, costs, names, race_verdict
from runs.sscn.plan import REAL, SETUPS, middle_size

COMPARED = tuple(p for p, setup in SETUPS.items() if setup.peers and p != "weak")
_ON = "on MNIST's fours and nines, pairs of their pixels, leukemia and NCI60"


def _lbfgs(problems: Sequence[str], others: Callable[[str], list[str]]) -> Control:
    """A solver that is faster than SSCN, in the place of those that it is compared with."""
    stands = {job: f"{p}-lbfgs" for p in problems for job in others(p)}
    return Control(
        "L-BFGS in their place",
        lambda judge, results: judge(results.instead(stands)),
        tuple(f"{p}-lbfgs" for p in problems),
    )


def _faster(
    name: str,
    source: Source,
    said: str,
    than: str,
    problems: Sequence[str],
    others: Callable[[str], list[str]],
    *,
    what: str = "seconds",
    control: bool = True,
    words: str = "",
    beside: Callable[[str], list[str]] = lambda p: [],
) -> Claim:
    """The best size below n against the best of the others."""
    where = _ON if tuple(problems) == REAL else f"on {', '.join(problems)}"

    @claim(
        name,
        source=source,
        literature=said,
        criterion=f"{where} the best constant size below n (doubling) takes less {what} to a gradient norm of 1e-6, "
        f"median of the starts, than {than}",
        needs=[job for p in problems for job in (*names(p), *others(p), *beside(p))],
        control=_lbfgs(problems, others) if control else None,
    )
    def judge(results: Results) -> Verdict:
        races = [(best(costs(results, names(p), what)), best(costs(results, others(p), what))) for p in problems]
        shown = dict[str, float]()
        for p in problems if words else ():
            shown |= best(costs(results, beside(p), what))
        return race_verdict(results, races, what, beside=(words, shown))

    return judge


@claim(
    "fewer steps than coordinate descent",
    source="figure",
    literature=f"coordinate descent with doubling L is the first-order baseline, over iterations (figures and code "
    f"of {PAPER})",
    criterion="on every linear model SSCN takes fewer steps to a gradient norm of 1e-6, median of the starts, than "
    "coordinate descent of the same size, at every constant size",
    needs=[job for p in COMPARED for job in (*names(p), *names(p, "cd"))],
    control=_lbfgs(COMPARED, lambda p: names(p, "cd")),
)
def in_steps(results: Results) -> Verdict:
    pairs = [pair for p in COMPARED for pair in zip(names(p), names(p, "cd"), strict=True)]
    return race_verdict(results, ((costs(results, [own]), costs(results, [cd])) for own, cd in pairs), "steps", 4)


def _descents(p: str, kind: str = "cd") -> list[str]:
    return names(p, kind, full=True)


in_seconds = _faster(
    "faster than coordinate descent",
    "abstract",
    f"substantial speed-ups over conventional first-order methods ({PAPER}); coordinate descent, L from 1 at each "
    "step, with up to all coordinates (code)",
    "coordinate descent of every size, n included",
    REAL,
    _descents,
    words="with L kept from step to step",
    beside=lambda p: _descents(p, "cd-kept"),
)
in_coordinates = _faster(
    "fewer coordinates than coordinate descent",
    "derived",
    "the code counts τ² + τ for a step of SSCN and τ for one of coordinate descent, on axes of their own",
    "coordinate descent of every size, n included",
    REAL,
    _descents,
    what="coordinates",
    control=False,
)
weak = _faster(
    "faster than coordinate descent where λ is small",
    "own",
    "own question: λ = 0.001 in place of 0.1, with which the problem is worse conditioned",
    "coordinate descent of every size, n included, L kept from step to step",
    ("weak",),
    lambda p: _descents(p, "cd-kept"),
    control=False,
)
gradient_descent = _faster(
    "faster than gradient descent",
    "abstract",
    f"substantial speed-ups over conventional first-order methods ({PAPER})",
    "gradient descent with the step size 1/L, L the bound of the Hessian that the data give",
    REAL,
    lambda p: [f"{p}-gd"],
)
lbfgs = _faster(
    "faster than L-BFGS",
    "own",
    "own question: torch's L-BFGS with a strong Wolfe search",
    "L-BFGS",
    REAL,
    lambda p: [f"{p}-lbfgs"],
    control=False,
)


@claim(
    "faster than RS-RNM",
    source="abstract",
    literature=f"speed-ups over other second-order subspace methods ({PAPER}); RS-RNM is the one in its code",
    criterion="on every linear model SSCN (doubling, middle size) comes to a gradient norm of 1e-6 in less seconds, "
    "median of the starts, than RS-RNM in as many dimensions, with P's entries of deviation 1 / s as in that code "
    "and with 1 / √s (unit); both use kept margins",
    needs=[f"{p}-{k}-{middle_size(p)}" for p in COMPARED for k in ("rsrnm", "rsrnm-unit", "doubling")],
    control=_lbfgs(COMPARED, lambda p: [f"{p}-{k}-{middle_size(p)}" for k in ("rsrnm", "rsrnm-unit")]),
)
def random_subspaces(results: Results) -> Verdict:
    def race(p: str) -> Race:
        own, *others = (f"{p}-{k}-{middle_size(p)}" for k in ("doubling", "rsrnm", "rsrnm-unit"))
        return costs(results, [own], "seconds"), costs(results, others, "seconds")

    return race_verdict(results, map(race, COMPARED), "seconds", 2)


CLAIMS = in_steps, in_seconds, in_coordinates, weak, gradient_descent, random_subspaces, lbfgs
