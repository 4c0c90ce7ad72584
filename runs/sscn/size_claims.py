"""The claims of `runs.sscn` on constant sizes, each with its rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probes.numbers import finite, short
from runs.engine.claims import Claim, Control, Results, Source, Verdict, claim, every
from runs.shared.tables import falling, listed
from runs.sscn.criteria import PAPER, cost, cost_or_used, costs_by_size, list_text, names
from runs.sscn.plan import PROBLEMS, REAL, RULED, middle_size

TIE = 1.1  # seconds repeat to within a tenth
ROBUST = ("cauchy", "geman-mcclure", "squares")
LOGISTIC = tuple(p for p in PROBLEMS if p not in (*ROBUST, "lse-hard"))


def _frozen(problem: str, size: int) -> Control:
    """One subset for all steps: the steps without the property that the claim is about."""
    stands = {f"{problem}-doubling-{size}": "digits-frozen-6"}
    what = f"one subset for all steps, on digits, in place of {problem}, τ = {size}"
    return Control(what, lambda judge, results: judge(results.instead(stands)), ("digits-frozen-6",))


def _converges(
    rule: str, problems: Sequence[str], name: str, source: Source, said: str, control: Control | None = None
) -> Claim:
    shown = [f"{p}-script-{middle_size(p)}" for p in problems] if rule == "ratio" else []

    @claim(
        name,
        source=source,
        literature=said,
        needs=[job for p in problems for job in names(p, rule)] + shown,
        criterion="from every start and with every constant size below n the gradient norm comes to 1e-6 "
        + ("(the network: 1e-2) " if "mlp" in problems else "")
        + "within the steps and seconds given",
        control=control,
    )
    def judge(results: Results) -> Verdict:
        found = costs_by_size(results, problems, "steps", rule)
        missed = [_end(results, job) for p in problems for job in names(p, rule) if math.isinf(cost(results, job))]
        text = "steps by size: " + listed({p: list_text(values) for p, values in found.items()})
        text += f". Not reached: {'; '.join(missed)}" if missed else ""
        if shown:
            text += f". To the letter of the script: {'; '.join(_end(results, job) for job in shown)}"
        return Verdict(not missed, text, finite(found))

    return judge


def _end(results: Results, job: str) -> str:
    """Where the worst run of a job ended, in words."""
    run = max(results.one(job)["runs"], key=lambda run: run["gradient_norm"])
    moved = f"{run['accepted']} of {run['steps']} steps taken, M {float(run['M']):.2g}"
    return f"{job} ‖∇f‖ {run['gradient_norm']:.2g}, f {run['loss']:.3g} ({moved})"


any_size = _converges(
    "doubling",
    LOGISTIC,
    "any subspace size converges, M large enough",
    "abstract",
    f"converges to a stationary point for any subspace size, from any start ({PAPER}; its theorems take an M that is "
    "large enough); rule here: M doubles on the same subset until f falls as the model says",
    _frozen("digits", 6),
)
robust = _converges(
    "doubling",
    ROBUST,
    "the same on robust regression and non-linear least squares",
    "code",
    "support vector regression with the losses of Cauchy and of Geman and McClure; non-linear least squares "
    f"(code of {PAPER}); here with exact derivatives and the rule above",
    _frozen("cauchy", 6),
)
published = _converges(
    "ratio",
    RULED,
    "any subspace size converges, M by the published rule",
    "code",
    f"one subset a step, M by the ratio of decreases (code of {PAPER})",
)


@claim(
    "larger subspaces need fewer steps",
    source="text",
    literature=f"rates interpolate between subspaces of any size and cubic Newton (abstract and theorems of {PAPER})",
    criterion="on every problem the median of the steps to the target falls with every size, the whole space included "
    "where it got there (NCI60: without)",
    needs=[job for p in LOGISTIC for job in names(p, full=True)],
    control=Control("the sum of τ² + τ in place of steps", lambda judge, results: judge(results, "coordinates")),
)
def fewer(results: Results, what: str = "steps") -> Verdict:
    found = costs_by_size(results, LOGISTIC, what, full=True)
    for steps in found.values():
        if math.isinf(steps[-1]):  # a step of the whole space takes a minute there
            steps.pop()
    return every(
        found,
        falling,
        lambda problem, steps: f"{problem}: {list_text(steps, 4)}",
        before=f"{what} by size: ",
        numbers=finite(found),
    )


def _below(what: str, words: str, name: str, control: Control) -> Claim:
    @claim(
        name,
        source="figure",
        literature=f"sizes compared over {words}, τ = n among them; speed-ups (figures and abstract of {PAPER})",
        criterion="on MNIST's fours and nines, pairs of their pixels, leukemia and NCI60 some constant size below n "
        f"takes at most {TIE:g} times the {words} of τ = n to a gradient norm of 1e-6, median of the starts, or of "
        "what τ = n has used without getting there",
        needs=[job for p in REAL for job in names(p, full=True)],
        control=control,
    )
    def judge(results: Results, problems: Sequence[str] = REAL) -> Verdict:
        found = costs_by_size(results, problems, what, full=True)
        whole = {p: cost_or_used(results, f"{p}-cubic", what) for p in problems}
        return every(
            {p: (values, whole[p]) for p, values in found.items()},
            lambda it: min(it[0][:-1]) <= TIE * it[1],
            lambda p, it: (
                f"{p}: {list_text(it[0], 3)}" + ("" if math.isfinite(it[0][-1]) else f" (used: {short(it[1], 3)})")
            ),
            before=f"{words} by size, n last: ",
            numbers=finite(found),
        )

    return judge


in_seconds = _below(
    "seconds",
    "seconds",
    "a size below n wins or ties in seconds where the spectrum decays",
    Control(
        "data of madelon's generator, whose spectrum is flat",
        lambda judge, results: judge(results, ("madelon",)),
        ("madelon-*",),
    ),
)
in_coordinates = _below(
    "coordinates",
    "Σ τ² + τ",
    "a size below n wins or ties in coordinates",
    Control(
        "log-sum-exp with μ = 0.01, where no subset of 30, 100 or 200 arrives in 1000 steps or 6 seconds",
        lambda judge, results: judge(results, ("lse-hard",)),
        ("lse-hard-*",),
    ),
)
CLAIMS = any_size, published, robust, fewer, in_seconds, in_coordinates
