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
EDGE = {8: 0.3, 16: 0.45}  # near the largest step size that trains, by batch size
LENGTHS = {8: 40000, 16: 20000}  # steps, unless the loss is at STOP of its first value before
SGD_COUNT, STOP = 8192, 0.02  # as many images as Andreyev and Beneventano have, who stop at a loss too
RATIOS = (0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0)
SEEDS = 5  # of spectra
WIDTHS, CLUSTERS = (32, 64, 128), (2, 3, 5, 10)
FIXED = 5  # clusters, where it is the width that changes


def plan(quick: bool) -> list[Job]:
    """The jobs. Runs that are compared share a stream: they start from the same weights."""
    return [*_descent(quick), *_stochastic(quick), *_minima(quick), *_spectra(quick)]


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

    def job(name: str, rate: float, batch: int, steps: int, repeat: int = 0, **more: Any) -> Job:
        settings = {
            "rate": rate,
            "batch": batch,
            **data,
            "steps": steps,
            "every": 80 if quick else steps // 60,
            "stop": 0.0,
        }
        return Job(name, stochastic, settings | more, f"start-{repeat}")

    compared = [(f"sgd-{batch}", SGD_RATE, batch) for batch in BATCHES]
    compared += [("slow-16", SMALL, 16)]
    lengths = dict.fromkeys(EDGE, 240) if quick else LENGTHS
    more = {} if quick else {"count": SGD_COUNT, "stop": STOP}
    edge = [
        job(f"edge-{batch}-{n}", rate, batch, lengths[batch], n, **more)
        for n in range(1 if quick else REPEATS)
        for batch, rate in EDGE.items()
    ]
    return [*edge, *(job(*one, 240 if quick else 8000) for one in compared)]


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
