"""The jobs of `runs.edge_of_stability`: which data, networks, step sizes and seeds."""

from __future__ import annotations

from typing import Any

from probes.sweep.jobs import Job
from runs.edge_of_stability.minima import keep
from runs.edge_of_stability.spectra import spectrum
from runs.edge_of_stability.training import descend, stochastic

RATES = {"square": (0.4, 0.2), "entropy": (0.3, 0.15)}  # of gradient descent
SMALL = 0.02  # too small to reach 2/eta in the time
REPEATS = 3  # of what is small
SGD_RATE = 0.4  # of all batch sizes that are compared, and of the full batch
BATCHES = (16, 64, 256)
EDGE = {8: (0.3, 40000, 666), 16: (0.45, 40000, 1000)}  # by batch size: near the largest step size that trains;
# steps, unless the loss is at STOP of its first value before; every how many of them are measured
SGD_COUNT, STOP = 8192, 0.02  # as many images as Andreyev and Beneventano have, who stop at a loss too
STARTS = {8: 2, 16: REPEATS}
RATIOS = (0.5, 1.0, 1.5, 2.0, 4.0, 16.0)
SEEDS = 5  # of spectra
WIDTHS, CLUSTERS = (32, 64, 128), (2, 3, 5, 10)
FIXED = 5  # clusters, where it is the width that changes


def plan(quick: bool) -> list[Job]:
    """The jobs. Runs that are compared share a stream: they start from the same weights."""
    return [*_descent(quick), *_spectra(quick), *_minima(quick), *_stochastic(quick)]


def _data(quick: bool) -> dict[str, Any]:
    if quick:
        return {"data": "digits", "count": 1000, "width": 64}
    return {"data": "fashion", "count": 5000, "width": 200}


def _descent(quick: bool) -> list[Job]:
    """Once on 5,000 images, and several starts on 1,000."""
    whole = {**_data(quick), "steps": 200 if quick else 2000, "every": 25}
    rates = [(loss, rate) for loss, both in RATES.items() for rate in both]
    rates += [("square", SMALL)]
    jobs = [Job(f"{loss}-{rate}-0", descend, {"loss": loss, "rate": rate, **whole}, "start-0") for loss, rate in rates]
    fewer = whole | {"count": 500 if quick else 1000}
    for n in range(1 if quick else REPEATS):
        for loss, both in RATES.items():
            jobs.append(Job(f"fewer-{loss}-{n}", descend, {"loss": loss, "rate": both[1], **fewer}, f"start-{n}"))
    return jobs


def _stochastic(quick: bool) -> list[Job]:
    """Batch sizes at one step size, and each at the largest that trains, where training ends at 2/eta if anywhere."""
    data = _data(quick)

    def job(name: str, rate: float, batch: int, steps: int, every: int, repeat: int = 0, **more: Any) -> Job:
        settings = {"rate": rate, "batch": batch, **data, "steps": steps, "every": every, "stop": 0.0}
        return Job(name, stochastic, settings | more, f"start-{repeat}")

    compared = [(f"sgd-{batch}", SGD_RATE, batch) for batch in BATCHES]
    compared += [("slow-16", SMALL, 16)]
    edge = [(batch, n) for batch, starts in STARTS.items() for n in range(1 if quick else starts)]
    if quick:
        found = [job(f"edge-{batch}-{n}", EDGE[batch][0], batch, 240, 80) for batch, n in edge]
        return found + [job(*one, 240, 80) for one in compared]
    more = {"count": SGD_COUNT, "stop": STOP}
    found = [job(*one, 8000, 250) for one in compared]
    for batch, n in edge:
        rate, steps, every = EDGE[batch]
        found.append(job(f"edge-{batch}-{n}", rate, batch, steps, every, n, **more))
    return found


def _minima(quick: bool) -> list[Job]:
    settings = {"data": "fashion", "count": 500, "width": 64, "rate": 0.05, "steps": 2500, "epochs": 12}
    settings |= {"ratios": list(RATIOS)}
    if quick:
        settings |= {"data": "digits", "count": 200, "rate": 0.2, "steps": 800, "epochs": 3, "ratios": [0.5, 2.0]}
    return [Job(f"keep-{n}", keep, settings) for n in range(1 if quick else REPEATS)]


def _spectra(quick: bool) -> list[Job]:
    """By width on images and on five clusters, by the number of clusters at the largest width."""
    widths, clusters = (WIDTHS[:2], (2, FIXED)) if quick else (WIDTHS, CLUSTERS)
    size = {"count": 300, "epochs": 5, "eigenvalues": 20} if quick else {"count": 1000, "epochs": 30, "eigenvalues": 30}
    grid = [("digits", 10, width) for width in widths]
    grid += [("clusters", FIXED, width) for width in widths[:-1]]
    grid += [("clusters", number, widths[-1]) for number in clusters]
    return [
        Job(f"{data}-{number}-{width}-{n}", spectrum, {"data": data, "classes": number, "width": width, **size})
        for data, number, width in grid
        for n in range(1 if quick else SEEDS)
    ]
