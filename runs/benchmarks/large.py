"""GPT-2 small on one machine: five eigenpairs and a density of 64 steps within a budget, the basis where it fits.

    python -m runs.benchmarks.large [--quick] [--gib 6] [--only eigsh|density] [--basis disk] [--out FILE.json]

A basis of 124 million parameters takes 0.46 GiB a vector. What comes back is checked by products of its own: the
residuals of the eigenpairs, and the first two moments of the density against those of its start vector. The peak is
that of the memory that cannot be given back (RssAnon), beyond what there was before; pages of a file can.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Hessian, Objective
from landscape.operators.linear import LinearOperator
from landscape.spectra import Density, Eigenpairs, density, eigsh, footprint
from runs.benchmarks import command
from runs.benchmarks.command import Row, console

_HEADINGS = "what", "seconds", "products", "of them, s", "peak GiB", "budget GiB", "basis", "checked"


class PeakMemory:
    """The most anonymous memory of this process while it lasts, in bytes beyond its beginning; 0 where unknown."""

    def __enter__(self) -> PeakMemory:
        self.before = self.most = _anonymous()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """The most, beyond the beginning."""
        return self.most - self.before

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, _anonymous())


def _anonymous() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


class Timed:
    """An operator's products, timed; a line on each for whoever waits."""

    def __init__(self, name: str) -> None:
        self.name, self.begun = name, time.perf_counter()

    def __call__(self, matvecs: int, planned: int, estimate: float) -> None:
        """The callback of an algorithm."""
        seconds = time.perf_counter() - self.begun
        console.print(f"{self.name}: {matvecs} products after {seconds:.0f} s, {estimate:.4g}", highlight=False)


def gpt2(quick: bool, memory: int) -> Objective:
    """The architecture with random weights, on 64 random tokens; a narrow one of two layers for quick."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size: dict[str, Any] = {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 512} if quick else {}
    size["attn_implementation"] = "eager"  # the fused ones have no second derivative
    config = GPT2Config(**size)
    model = GPT2LMHeadModel(config).eval()
    tokens = torch.randint(0, config.vocab_size, (1, 65))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    data = (tokens[:, :-1], tokens[:, 1:])
    return Objective(
        model, loss, data, forward=lambda m, x: m(x).logits, count=lambda _, y: y.numel(), memory=memory, check=False
    )


def seeded() -> torch.Generator:
    """The generator of a measurement."""
    return torch.Generator().manual_seed(0)


def check_pairs(A: LinearOperator, pairs: Eigenpairs) -> str:
    """The largest ||A v - w v|| of new products, relative to the largest value, beside what the result claims."""
    worst = 0.0
    for value, v in zip(pairs.values, pairs.vectors.unbind(-1), strict=True):
        worst = max(worst, float((A @ v).sub_(v, alpha=float(value)).norm()))
    largest = float(pairs.values.abs().max())
    claimed = float(pairs.residuals.max()) / largest
    return f"residuals {worst / largest:.1e}, claimed {claimed:.1e}, converged {pairs.converged}"


def check_moments(A: LinearOperator, found: Density) -> str:
    """Relative errors of the first two moments of the first probe: v.A v and ||A v||^2 for its start v."""
    v = A.random(1, "normal", seeded())[:, 0]
    v = v / v.double().norm().float()
    image = A @ v
    true = float(v.double() @ image.double()), float(image.double() @ image.double())
    moments = [float(found.weights[0] @ found.nodes[0] ** power) for power in (1, 2)]
    scale = true[1] ** 0.5, true[1]
    errors = [abs(a - b) / c for a, b, c in zip(moments, true, scale, strict=True)]
    return "moments off by {:.0e}, {:.0e}".format(*errors)


def measure(name: str, algorithm: Callable[[], Eigenpairs | Density], A: LinearOperator, planned: str) -> Row:
    """Run it once and check what comes back."""
    console.print(f"{name}: {planned} at most", highlight=False)
    begun = time.perf_counter()
    with PeakMemory() as peak:
        found = algorithm()
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    checked = check_pairs(A, found) if isinstance(found, Eigenpairs) else check_moments(A, found)
    products = len(found.values) if isinstance(found, Eigenpairs) else 1
    each = (time.perf_counter() - begun) / products
    row: Row = {"what": name, "n": A.shape[0], "seconds": seconds, "products": found.matvecs, "product_s": each}
    assert found.footprint is not None
    row |= {"peak_bytes": peak.bytes, "budget_bytes": A.memory, "basis": str(found.footprint), "checked": checked}
    return row | {"result": str(found) if isinstance(found, Eigenpairs) else found.nodes[0].tolist()}


def main(words: list[str] | None = None) -> None:
    """Measure, print, write."""
    chosen = command.arguments(
        words,
        __doc__,
        quick="a model of 0.2 million parameters",
        gib={"type": float, "default": 6.0, "help": "memory for vectors and graphs"},
        only={"choices": ("eigsh", "density"), "default": None},
        basis={"choices": ("auto", "device", "host", "disk"), "default": "auto"},
        steps={"type": int, "default": 64, "help": "of the density"},
    )
    steps = 8 if chosen.quick else chosen.steps
    A = Hessian(gpt2(chosen.quick, int(chosen.gib * 2**30)))
    basis: dict[str, Any] = {"basis": chosen.basis}
    rows: list[Row] = []
    if chosen.only != "density":
        planned = str(footprint(A, k=5, **basis))
        search: dict[str, Any] = {"tol": 1e-2, "generator": seeded(), "callback": Timed("eigsh"), **basis}
        rows.append(measure("eigsh, k = 5", lambda: eigsh(A, 5, **search), A, planned))
    if chosen.only != "eigsh":
        planned = str(footprint(A, steps=steps, **basis))
        settings: dict[str, Any] = {
            "probes": 1,
            "steps": steps,
            "generator": seeded(),
            "callback": Timed("density"),
            **basis,
        }
        rows.append(measure(f"density, {steps} steps", lambda: density(A, **settings), A, planned))
    cells = [
        (
            row["what"],
            f"{row['seconds']:.0f}",
            str(row["products"]),
            f"{row['products'] * row['product_s']:.0f}",
            f"{row['peak_bytes'] / 2**30:.2f}",
            f"{row['budget_bytes'] / 2**30:.2f}",
            row["basis"],
            row["checked"],
        )
        for row in rows
    ]
    console.print(command.table(f"GPT-2, n = {A.shape[0]:,}", _HEADINGS, cells, words=("basis", "checked")))
    command.write(chosen, "large", rows=rows)


if __name__ == "__main__":
    main()
