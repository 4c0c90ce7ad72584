"""Which solvers stand beside one another on which problem, and how long each may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probes.sweep.jobs import Job
from runs.sscn.jobs import LEVELS, descend

FILE_SECONDS = 20.0  # of each solver on a file of the user
SEVERAL = LEVELS[2]  # gradient norm where solvers that are compared stop


@dataclass(frozen=True)
class Setup:
    """How a problem is run.

    Attributes:
        sizes: of constant subsets, ascending, all below n.
        starts: of each solver; `lone` of those that are slow to make a point.
        seconds: CPU seconds a start, of SSCN; `others`: of all others, and of SSCN with the published rules.
        every: steps from one look at the gradient to the next.
        steps: of SSCN at most.
        peers: whether it is compared with other solvers by time.
    """

    sizes: tuple[int, ...]
    starts: int
    seconds: float
    others: float
    every: int = 5
    steps: int = 8000
    lone: int = 1
    peers: bool = True


SETUPS: Mapping[str, Setup] = {
    "nci60": Setup((50, 100, 200, 500), starts=3, seconds=25.0, others=8.0),
    "mnist": Setup((28, 57, 113, 284), starts=5, seconds=8.0, others=4.0, every=2),
    "leukemia": Setup((50, 100, 200, 500), starts=3, seconds=20.0, others=5.0),
    "pairs": Setup((50, 100, 200, 400), starts=3, seconds=12.0, others=6.0),
    "digits": Setup((6, 20), starts=3, seconds=5.0, others=3.0, every=2),
    "cancer": Setup((3, 10), starts=3, seconds=5.0, others=3.0, every=2),
    "madelon": Setup((50, 100, 200), starts=3, seconds=10.0, others=5.0),
    "squares": Setup((50, 100, 200), starts=2, seconds=10.0, others=3.0, peers=False),
    "cauchy": Setup((6, 16), starts=3, seconds=6.0, others=4.0, peers=False),
    "geman-mcclure": Setup((6, 16), starts=3, seconds=6.0, others=4.0, peers=False),
    "lse": Setup((50, 100, 200), starts=1, seconds=12.0, others=5.0, peers=False),
    "lse-hard": Setup((30, 100, 200), starts=1, seconds=6.0, others=5.0, steps=1000, peers=False),
    "mlp": Setup((20, 100), starts=1, seconds=6.0, others=5.0, every=1, steps=600, peers=False),
    "weak": Setup((57, 113, 284), starts=1, seconds=6.0, others=5.0),
}
PROBLEMS = tuple(SETUPS)
REAL = ("mnist", "pairs", "leukemia", "nci60")  # whose spectra decay
WIDE = ("nci60", "leukemia")
RULED = ("nci60", "leukemia", "mnist", "digits", "cancer")  # with the published rules for M too
GROWING = ("mnist", "pairs", "lse")
ADAPTIVE = ("mnist", "squares")
CONSTANTS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # c of the adaptive sizes
PUBLISHED = 10.0  # c for n = 5000
WHOLE_SECONDS = {"nci60": 30.0, "leukemia": 30.0, "pairs": 45.0}
STAND_IN = {"mnist": "digits", "pairs": "digits", "leukemia": "digits", "nci60": "digits", "weak": "weak-digits"}


def plan(quick: bool) -> list[Job]:
    """Every problem with the solvers that stand beside one another on it; quick: cut short, digits for other data."""
    made = [job for problem in PROBLEMS for job in _Maker(problem, quick).jobs()]
    saddle = _Maker("mlp", quick)
    saddle.problem = "mlp-saddle"
    return [*made, saddle.job("doubling", 100, 600, 6.0), saddle.job("gd", 0, 200)]


def middle_size(problem: str) -> int:
    """The size in the middle of those of a problem; of two the larger one."""
    sizes = SETUPS[problem].sizes
    return sizes[len(sizes) // 2]


class _Maker:
    """Makes the jobs of one problem."""

    def __init__(self, problem: str, quick: bool) -> None:
        self.problem, self.quick, self.setup = problem, quick, SETUPS[problem]

    def job(self, solver: str, size: int, steps: int, seconds: float = 0.0, **changed: Any) -> Job:
        """One solver; `name` other than that of the solver and its size."""
        setup, quick = self.setup, self.quick
        tail = changed.pop("name", f"{solver}-{size}" if size else solver)
        problem = STAND_IN.get(self.problem, self.problem) if quick else self.problem
        settings = {
            "problem": problem,
            "solver": solver,
            "size": size,
            "steps": steps,
            "seconds": 0.05 if quick else seconds or setup.others,
            "every": setup.every,
            "starts": 1 if quick else setup.starts,
            "until": SEVERAL,
        }
        return Job(f"{self.problem}-{tail}", descend, settings | changed, self.problem)

    def jobs(self) -> list[Job]:
        """All of the problem."""
        setup, name, job = self.setup, self.problem, self.job
        tight = {"until": LEVELS[-1]}
        made = [job("doubling", tau, setup.steps, setup.seconds, **tight) for tau in setup.sizes[::-1]]
        few = {"starts": 1 if self.quick else setup.lone}
        wait = WHOLE_SECONDS.get(name, setup.seconds)
        made.append(job("cubic", 0, 300, wait, every=1, **(few if wait > setup.seconds else {}), **tight))
        if name in RULED:
            # a rejected step costs as much as another, so that a stall would take all the time there is
            for tau in setup.sizes[::-1]:
                slow = setup.seconds if tau >= 500 else 0.0  # a step of so many takes long: they too are to make 500
                made.append(job("ratio", tau, 5000, slow, **few, **tight))
            made += [job("script", tau, 5000, **few, **tight) for tau in {setup.sizes[0], middle_size(name)}]
        if name == "digits":
            made.append(job("frozen", setup.sizes[0], 1000))
        if name in GROWING:
            made += [
                job(kind, setup.sizes[0], setup.steps, setup.seconds, name=kind) for kind in ("exponential", "linear")
            ]
        if name in ADAPTIVE:
            made += [job("adaptive", 0, 3000, name=f"adaptive-{c:g}", c=c, every=1) for c in (*CONSTANTS, PUBLISHED)]
            made.append(job("adaptive-step", setup.sizes[0], 3000, name="adaptive-step", c=1e-4, every=1))
        return made + (self._peers() if setup.peers else [])

    def _peers(self) -> list[Job]:
        setup, job = self.setup, self.job
        made = []
        for solver in ("cd-kept",) if self.problem == "weak" else ("cd", "cd-kept"):
            made += [job(solver, tau, 20_000) for tau in setup.sizes]
            made.append(job(solver, 10**6, 20_000, name=f"{solver}-n"))
        few = {"starts": 1 if self.quick else setup.lone}
        if self.problem != "weak":
            made += [job(solver, middle_size(self.problem), 4000, **few) for solver in ("rsrnm", "rsrnm-unit")]
            made.append(job("gd", 0, 20_000, 1.5 * setup.others, every=10))
        made.append(job("lbfgs", 0, 2000, every=1))
        if self.problem in WIDE:
            made.append(job("krylov", 0, 300, every=1))
        return made


def of_file(problem: str, n: int, file: str) -> list[Job]:
    """The reduced set of solvers for a user's file with n features; `file` tells its contents."""
    sizes = sorted({max(1, n // 20), max(1, n // 5)})
    chosen: Mapping[str, tuple[str, int]] = {
        **{f"{rule}-{tau}": (rule, tau) for tau in sizes for rule in ("doubling", "ratio")},
        "cubic": ("cubic" if n <= 1500 else "krylov", 0),
        f"cd-{sizes[-1]}": ("cd-kept", sizes[-1]),
        "gd": ("gd", 0),
        "lbfgs": ("lbfgs", 0),
    }
    common = {"problem": problem, "steps": 3000, "seconds": FILE_SECONDS, "every": 5, "starts": 1, "file": file}
    return [Job(f"file-{k}", descend, common | {"solver": s, "size": t}, "file") for k, (s, t) in chosen.items()]
