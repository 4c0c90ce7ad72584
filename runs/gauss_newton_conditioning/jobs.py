"""The jobs of `runs.gauss_newton_conditioning` on closed forms: linear, one hidden (leaky) ReLU layer, convolutions.

Each measures several networks from several initialisations, and its trace has a row for each of them.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from landscape import Objective
from landscape.conditioning import (
    convolution_matrix,
    from_eigenvalues,
    gauss_newton,
    leaky_relu_network,
    linear_network,
)
from probes.digits import CLASSES, digits
from probes.sweep.jobs import Job, JobContext
from runs.gauss_newton_conditioning import networks
from runs.gauss_newton_conditioning.data import (
    ConditionRows,
    covariance,
    generator,
    images,
    initialisations,
    kaiming,
    white,
)

DEPTHS = (2, 3, 4, 5, 6, 8, 10)
WIDTHS = {"digits": (64, 100, 200, 400, 800), "random": (50, 100, 200, 400, 800)}
REFERENCE = {2: 13.6, 3: 59.0, 4: 163.0, 6: 696.0}  # m = 50, d = 49, k = 10; each the mean of 3 initialisations
FACTORS = (10, 20, 40, 80, 160)
HIDDEN = (15, 20, 50, 100, 150, 200)
SKIPS = {"0": 0.0, "1/L": -1.0, "1/√L": -0.5, "0.5": 0.5, "1": 1.0, "2": 2.0}  # negative: a power of L
SLOPES = (0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 1.0)
POSITIONS, FILTERS, KERNELS = 36, (2, 3, 4, 5), (7, 9, 11)


def plan(quick: bool) -> list[Job]:
    """The jobs."""
    inits, depths = (2, [2, 3, 4]) if quick else (5, list(DEPTHS))
    common = {"depths": depths, "inits": inits}
    jobs = [
        Job(f"{data}-{width}", depth, {"data": data, "width": width, **common})
        for data, widths in WIDTHS.items()
        for width in (widths[1:3] if quick else widths)
    ]
    jobs.append(Job("reference", reference, {"depths": list(REFERENCE)[:2] if quick else list(REFERENCE), "inits": 10}))
    factors = FACTORS[:2] if quick else FACTORS
    jobs += [Job(f"proportional-{factor}", proportional, {"factor": factor, **common}) for factor in factors]
    jobs.append(Job("hidden", hidden, {"widths": list(HIDDEN[2:4] if quick else HIDDEN), "inits": inits}))
    jobs.append(Job("whitening", whitening, {"width": 100 if quick else 800, **common}))
    shapes = {"64": [61, 64, 10], "200": [61, 200, 10], "square": [20, 20, 20]}
    names = ("64", "square") if quick else shapes
    jobs += [Job(f"skip-{name}", skips, {"widths": shapes[name], **common}) for name in names]
    jobs.append(Job("slopes", slopes, {"widths": [50] if quick else [50, 100, 200], "inits": inits}))
    jobs.append(Job("small", small, {"count": 200 if quick else 5000}))
    filters, kernels = (FILTERS[:2], KERNELS[1:]) if quick else (FILTERS, KERNELS)
    settings = {"filters": list(filters), "kernels": list(kernels), "inits": inits}
    jobs.append(Job("convolution", convolution, settings))
    return jobs + networks.plan(quick)


# -- linear networks -----------------------------------------------------------------------------------------


def depth(job: JobContext, data: str, width: int, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa at one width, by depth, on white data: digits (d = 61) or random ones (d = 49)."""
    x = images() if data == "digits" else random(1000, 49, job)
    sigma = covariance(white(x))
    with job.trace(data=data, width=width) as trace:
        rows = ConditionRows(trace, "width", "depth", "init")
        for init, source, layers in initialisations(job, inits, depths):
            weights = kaiming([len(sigma), *[width] * (layers - 1), CLASSES], source)
            rows.add(linear_network(weights, sigma), width=width, depth=layers, init=init)
    return {"inputs": len(sigma), "width": width}


def reference(job: JobContext, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa at m = 50, d = 49, k = 10, white data."""
    return depth(job, "random", 50, depths, inits)


def proportional(job: JobContext, factor: int, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa by depth L at width factor * L, and at the width that this has at two layers; white digits."""
    inputs = images().shape[1]
    with job.trace(factor=factor) as trace:
        rows = ConditionRows(trace, "factor", "fixed", "width", "depth", "init")
        for init, source, layers in initialisations(job, inits, depths):
            for fixed, width in enumerate((factor * layers, factor * depths[0])):
                weights = kaiming([inputs, *[width] * (layers - 1), CLASSES], source)
                rows.add(linear_network(weights), factor=factor, fixed=fixed, width=width, depth=layers, init=init)
    return {"inputs": inputs, "factor": factor}


def hidden(job: JobContext, widths: list[int], inits: int) -> dict[str, Any]:
    """One hidden layer, white digits, by width, also below d."""
    inputs = images().shape[1]
    with job.trace() as trace:
        rows = ConditionRows(trace, "width", "init")
        for init, source, width in initialisations(job, inits, widths):
            rows.add(linear_network(kaiming([inputs, width, CLASSES], source)), width=width, init=init)
    return {"inputs": inputs}


def whitening(job: JobContext, width: int, depths: list[int], inits: int) -> dict[str, Any]:
    """The same networks on digits as they are (pixels that never change left out), and white."""
    sigma = covariance(images())
    with job.trace(width=width) as trace:
        rows = ConditionRows(trace, "depth", "white", "init")
        for init, source, layers in initialisations(job, inits, depths):
            weights = kaiming([len(sigma), *[width] * (layers - 1), CLASSES], source)
            for is_white, data in enumerate((sigma, None)):
                rows.add(linear_network(weights, data), depth=layers, white=is_white, init=init)
    kappa_data = linear_network([torch.eye(1, len(sigma))], sigma).kappa_data
    return {"inputs": len(sigma), "width": width, "kappa_data": kappa_data}


def skips(job: JobContext, widths: list[int], depths: list[int], inits: int) -> dict[str, Any]:
    """F(x) = (W_L + beta I) ... (W_1 + beta I) x with several beta on the same weights; white data."""
    inputs, width, outputs = widths
    with job.trace(widths=widths) as trace:
        rows = ConditionRows(trace, "depth", "skip", "beta", "init")
        for init, source, layers in initialisations(job, inits, depths):
            weights = kaiming([inputs, *[width] * (layers - 1), outputs], source)
            for number, power in enumerate(SKIPS.values()):
                beta = float(layers) ** power if power < 0 else power
                rows.add(linear_network(weights, skip=beta), depth=layers, skip=number, beta=beta, init=init)
    return {"widths": widths}


# -- one hidden layer with (leaky) ReLU ----------------------------------------------------------------------


def slopes(job: JobContext, widths: list[int], inits: int) -> dict[str, Any]:
    """kappa and bounds by slope on 40 digits, as they are and white."""
    x = images(40)
    data = (x, white(x))
    with job.trace(samples=40) as trace:
        rows = ConditionRows(trace, "width", "slope", "white", "init", "b15", "b2")
        for init, source, width in initialisations(job, inits, widths):
            V, W = kaiming([x.shape[1], width, CLASSES], source)
            for slope in SLOPES:
                for is_white, inputs in enumerate(data):
                    found = leaky_relu_network(V, W, inputs.T, slope=slope)
                    rows.add(found, width=width, slope=slope, white=is_white, init=init)
    return {"inputs": x.shape[1], "samples": 40}


def small(job: JobContext, count: int) -> dict[str, Any]:
    """Many small random networks, where bounds are tried hardest, and one made to break b2."""
    source = generator(job, 0)

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=source))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    with job.trace(count=count) as trace:
        rows = ConditionRows(trace, "slope", "made", "b15", "b2")
        for made in range(count + 1):
            if made < count:
                d, m, k = between(2, 6), between(2, 6), between(1, 3)
                slope = 0.01 + 0.89 * float(torch.rand(1, generator=source, dtype=torch.float64))
                V, W, X = normal(m, d), normal(k, m), normal(d, between(1, d))
            else:
                slope = 0.1
                V, W, X = torch.tensor([[1.0, -1.0], [-10.0, 0.1]]), 0.01 * torch.eye(2), torch.eye(2)
            rows.add(leaky_relu_network(V, W, X, slope=slope), slope=slope, made=float(made == count))
            job.progress(made, count)
    return {"count": count}


# -- convolutions --------------------------------------------------------------------------------------------


def convolution(job: JobContext, filters: list[int], kernels: list[int], inits: int) -> dict[str, Any]:
    """Two linear convolutions of one kernel size and as many filters each, on 36 inputs, white data.

    Once by the entries of the Toeplitz matrices, as the paper has it: two layers on white data make a Kronecker sum,
    whose eigenvalues are sums. Once by the kernels themselves, shared between positions, on the inner 6 x 6 pixels.
    """
    x = white(images_of_36())
    targets = torch.zeros(len(x), 1, dtype=torch.float64)
    with job.trace(positions=POSITIONS) as trace:
        rows = ConditionRows(trace, "filters", "kernel", "shared", "init")
        for init, source, (count, size) in initialisations(job, inits, list(product(filters, kernels))):
            first, second = kaiming([size, count], source)[0], kaiming([count * size, count], source)[0]
            pair = first.reshape(count, 1, size), second.reshape(count, count, size)
            keys = {"filters": count, "kernel": size, "init": init}
            rows.add(toeplitz(*pair), shared=0, **keys)
            layers = nn.Conv1d(1, count, size, bias=False), nn.Conv1d(count, count, size, bias=False)
            net = nn.Sequential(*layers).double()
            with torch.no_grad():
                for layer, kernel in zip(layers, pair, strict=True):
                    layer.weight.copy_(kernel)
            objective = Objective(net, lambda outputs, y: outputs.square().mean(), (x.unsqueeze(1), targets))
            rows.add(gauss_newton(objective), shared=1, **keys)
    return {"inputs": x.shape[1]}


def toeplitz(first: Tensor, second: Tensor) -> Any:
    """Exact kappa of two convolutions by the entries of their matrices, for white data."""
    T = convolution_matrix(first, POSITIONS)
    S = convolution_matrix(second, POSITIONS - first.shape[2] + 1)
    right, left = torch.linalg.eigvalsh(T.T @ T), torch.linalg.eigvalsh(S @ S.T)
    return from_eigenvalues((left[:, None] + right[None, :]).flatten())


def images_of_36() -> Tensor:
    """The inner 6 x 6 pixels of 300 digits."""
    return (digits().train[0][:300, 0, 1:7, 1:7].flatten(1).double() + 1) / 2


def random(samples: int, inputs: int, job: JobContext) -> Tensor:
    """Standard normal data."""
    return torch.randn(samples, inputs, generator=generator(job, -1), dtype=torch.float64)
