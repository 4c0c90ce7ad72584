"""Two constants in the theorems on NC0 under sign descent: its limit, and where W ends."""

from __future__ import annotations

from collections import deque

from probes.digits import CLASSES
from runs.findings.finding import Finding, Seen
from runs.neural_collapse.signs import entries, fixed_point, nc0, signs

ETA, DECAY, STEPS = 0.4, 0.05, 2000  # of decoupled decay
FIRST, COUPLED, HALVINGS, EACH = 0.02, 1e-3, 30, 60  # a rate that stays for 20 / FIRST steps, then halves


def measure() -> Seen:
    """The end of both rules from W = 0, features at the simplex, beside what is printed and what follows."""
    (last,) = deque(signs([ETA] * STEPS, DECAY, CLASSES, decoupled=True), maxlen=1)
    square = nc0(last) ** 2
    limits = (CLASSES - 2) ** 2 / DECAY**2, CLASSES * (CLASSES - 2) ** 2 / DECAY**2
    rates = [FIRST] * round(20 / FIRST) + [FIRST * 0.5 ** (1 + step / EACH) for step in range(HALVINGS * EACH)]
    a, b, _ = entries(signs(rates, COUPLED, CLASSES, decoupled=False))
    ends = float(a[-1]), float(b[-1])
    points = list(zip(fixed_point(COUPLED, printed=True), fixed_point(COUPLED), strict=True))
    found = {"‖Wᵀ1‖² at the end, decoupled": (square, *limits)}
    found |= {f"{name} at the end, coupled": (end, *both) for name, end, both in zip("ab", ends, points, strict=True)}
    again = all(abs(end / right - 1) < 1e-4 < abs(end / printed - 1) for end, printed, right in found.values())
    rows = [(name, *(f"{value:.5g}" for value in values)) for name, values in found.items()]
    return Seen(("", "simulated", "as printed", "as proved"), rows, again)


FINDING = Finding(
    "sign-limits",
    "arXiv 2602.16642 (v3)",
    "theorem 3.3: ‖Wᵀ1‖² tends to (K − 2)² / λ²; E.4: the logit gap in ψ is (a + b) / (K − 1)",
    "the limit is that of ‖Wᵀ1‖² / K, as the proof in E.3 has it, and the gap is (a + b) / √(K − 1): the "
    "features are the columns of (I − J/K) / √(K − 1)",
    measure,
)
