"""The jobs of `runs.gauss_newton_conditioning` on closed forms: linear, one hidden (leaky) ReLU layer, convolutions.

Each measures several networks from several initialisations, and its trace has a row for each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from landscape.conditioning import (
    Conditioning,
    convolution_matrix,
    from_eigenvalues,
    leaky_relu_network,
    linear_network,
)
from probes import Field
from probes.digits import CLASSES
from probes.sweep.jobs import Job, JobContext
from runs.gauss_newton_conditioning import batch_norm, pruning, training
from runs.gauss_newton_conditioning.data import (
    ConditionRows,
    covariance,
    generator,
    initialisations,
    kaiming,
    pixels,
    white,
)

DEPTHS = (2, 3, 4, 5, 6, 8, 10)
WIDTHS = (50, 75, 100, 200, 400, 800)
REFERENCE = {2: 13.6, 3: 59.0, 4: 163.0, 6: 696.0}  # m = 50, d = 49, k = 10; each the mean of 3 initialisations
FACTORS = (50, 100, 200, 400)
HIDDEN = (15, 20, 50, 60, 75, 90, 100, 150, 200)
SKIPS = {"0": 0.0, "1/L": -1.0, "1/√L": -0.5, "0.5": 0.5, "1": 1.0, "2": 2.0}  # negative: a power of L
MADE_SLOPE = 0.1
SLOPES = (0.0, 0.01, 0.1, 0.3, 0.5, 0.8, 1.0)
POSITIONS, FILTERS, KERNELS = 36, (2, 3, 4, 5), (7, 9, 11)
SAMPLES = 1000
NAMES = {"fashion": "Fashion-MNIST", "mnist": "MNIST", "digits": "digits", "random": "random"}


def plan(quick: bool) -> list[Job]:
    """The jobs. The first and second data are Fashion-MNIST and MNIST, in the reduced run digits and random ones."""
    inits, depths = (2, [2, 3, 4]) if quick else (5, list(DEPTHS))
    common = {"depths": depths, "inits": inits}
    first, second = ("digits", "random") if quick else ("fashion", "mnist")
    jobs = [
        Job(f"{name}-{width}", depth, {"data": data, "width": width, **common})
        for name, data in (("first", first), ("second", second))
        for width in (WIDTHS[2:4] if quick else WIDTHS)
    ]
    jobs.append(Job("reference", reference, {"depths": list(REFERENCE)[:2] if quick else list(REFERENCE), "inits": 10}))
    of_first = {"data": first, **common}
    factors = FACTORS[1:3] if quick else FACTORS
    jobs += [Job(f"proportional-{factor}", proportional, {"factor": factor, **of_first}) for factor in factors]
    jobs.append(
        Job("hidden", hidden, {"data": first, "widths": list(HIDDEN[-3:-1] if quick else HIDDEN), "inits": inits})
    )
    layered = {"data": first, "width": 100, "depths": depths[2:] if quick else [4, 6, 8, 10], "inits": inits}
    jobs.append(Job("products", products, layered))
    whole = {"width": 100, "stride": 1, **of_first} if quick else {"width": 800, "stride": 2, **of_first, "inits": 3}
    jobs.append(Job("whitening", whitening, whole))
    shapes = {"64": [48, 64, 10], "200": [48, 200, 10], "square": [20, 20, 20]}
    names = ("64", "square") if quick else shapes
    jobs += [Job(f"skip-{name}", skips, {"widths": shapes[name], **common}) for name in names]
    jobs.append(Job("skip-all", skips, {"widths": shapes["64"], "full": True, **common}))
    jobs.append(Job("slopes", slopes, {"data": first, "widths": [50] if quick else [50, 100, 200], "inits": inits}))
    jobs.append(Job("small", small, {"count": 200 if quick else 5000}))
    filters, kernels = (FILTERS[:2], KERNELS[1:]) if quick else (FILTERS, KERNELS)
    settings = {"filters": list(filters), "kernels": list(kernels), "inits": 2 if quick else 60}
    jobs.append(Job("convolution", convolution, settings))
    return jobs + batch_norm.plan(quick) + pruning.plan(quick) + training.plan(quick)


# -- linear networks -----------------------------------------------------------------------------------------


def depth(job: JobContext, data: str, width: int, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa at one width, by depth, on white data: images, or random ones of 49 inputs.

    What the data are does not matter once they are white: kappa has the same distribution on all of as many inputs.
    """
    x = random(SAMPLES, 49, job) if data == "random" else pixels(data, SAMPLES)
    sigma = covariance(white(x))
    with job.trace(data=data, width=width) as trace:
        rows = ConditionRows(trace, "width", "depth", "init")
        for init, source, layers in initialisations(job, inits, depths):
            weights = kaiming([len(sigma), *[width] * (layers - 1), CLASSES], source)
            rows.add(linear_network(weights, sigma), width=width, depth=layers, init=init)
    return {"data": data, "inputs": len(sigma), "width": width}


def reference(job: JobContext, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa at m = 50, d = 49, k = 10, white data."""
    return depth(job, "random", 50, depths, inits)


def proportional(job: JobContext, data: str, factor: int, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa by depth L at width factor * (L - 1), by the number of hidden layers, and at that of one; white data."""
    inputs = pixels(data, SAMPLES).shape[1]
    with job.trace(factor=factor) as trace:
        rows = ConditionRows(trace, "factor", "fixed", "width", "depth", "init")
        for init, source, layers in initialisations(job, inits, depths):
            for fixed, width in enumerate((factor * (layers - 1), factor)):
                weights = kaiming([inputs, *[width] * (layers - 1), CLASSES], source)
                rows.add(linear_network(weights), factor=factor, fixed=fixed, width=width, depth=layers, init=init)
    return {"inputs": inputs, "factor": factor}


def products(job: JobContext, data: str, width: int, depths: list[int], inits: int) -> dict[str, Any]:
    """kappa of what stands behind and before each layer, W_L ... W_(l+1) and W_(l-1) ... W_1; white data."""
    inputs = pixels(data, SAMPLES).shape[1]
    fields = {"depth": "weight matrices", "layer": "l", "left": "kappa of what follows", "right": "of what precedes"}
    with job.trace(width=width) as trace:
        trace.declare("products", {name: Field((), "float64", "", text) for name, text in fields.items()})
        row = 0
        for _, source, layers in initialisations(job, inits, depths):
            found = linear_network(kaiming([inputs, *[width] * (layers - 1), CLASSES], source))
            for layer, factors in enumerate(found.layers, start=1):
                left = factors.left_largest / factors.left_smallest
                right = factors.right_largest / factors.right_smallest
                trace.record("products", row, depth=layers, layer=layer, left=left, right=right)
                row += 1
    return {"inputs": inputs, "width": width}


def hidden(job: JobContext, data: str, widths: list[int], inits: int) -> dict[str, Any]:
    """One hidden layer, white data, by width, also below d."""
    inputs = pixels(data, SAMPLES).shape[1]
    with job.trace() as trace:
        rows = ConditionRows(trace, "width", "init")
        for init, source, width in initialisations(job, inits, widths):
            rows.add(linear_network(kaiming([inputs, width, CLASSES], source)), width=width, init=init)
    return {"inputs": inputs}


def whitening(job: JobContext, data: str, width: int, stride: int, depths: list[int], inits: int) -> dict[str, Any]:
    """The same networks on images as they are (pixels that never change left out), and white."""
    sigma = covariance(pixels(data, SAMPLES, stride))
    with job.trace(width=width) as trace:
        rows = ConditionRows(trace, "depth", "white", "init")
        for init, source, layers in initialisations(job, inits, depths):
            weights = kaiming([len(sigma), *[width] * (layers - 1), CLASSES], source)
            for is_white, matrix in enumerate((sigma, None)):
                rows.add(linear_network(weights, matrix), depth=layers, white=is_white, init=init)
    kappa_data = linear_network([torch.eye(1, len(sigma))], sigma).kappa_data
    return {"inputs": len(sigma), "width": width, "kappa_data": kappa_data}


def skips(job: JobContext, widths: list[int], depths: list[int], inits: int, full: bool = False) -> dict[str, Any]:
    """F(x) = (W_L + beta I) ... (W_1 + beta I) x, or fully skipped, with several beta on the same weights; white."""
    inputs, width, outputs = widths
    with job.trace(widths=widths) as trace:
        rows = ConditionRows(trace, "depth", "skip", "beta", "init")
        for init, source, layers in initialisations(job, inits, depths):
            weights = kaiming([inputs, *[width] * (layers - 1), outputs], source)
            for number, power in enumerate(SKIPS.values()):
                beta = float(layers) ** power if power < 0 else power
                found = fully_skipped(weights, beta) if full else linear_network(weights, skip=beta)
                rows.add(found, depth=layers, skip=number, beta=beta, init=init)
    return {"widths": widths}


def fully_skipped(weights: list[Tensor], beta: float) -> Conditioning:
    """White data, and layers that get beta times the outputs of all layers before: h_l = W_l h_(l-1) + beta sum h_j.

    The sum is over j < l, h_0 = x, of other widths cut or filled with zeros. With h_l = B_l x and F = A_l h_l + ... the
    kd x kd matrix is the sum of A_l A_l^T (x) B_(l-1)^T B_(l-1), as without skips.
    """
    sizes = [weights[0].shape[1], *(len(W) for W in weights)]

    def step(to: int, come: int) -> Tensor:
        skip = beta * torch.eye(sizes[to], sizes[come], dtype=torch.float64)
        return skip + weights[to - 1] if come == to - 1 else skip

    last = len(weights)
    right, left = [torch.eye(sizes[0], dtype=torch.float64)], {last: torch.eye(sizes[last], dtype=torch.float64)}
    for to in range(1, last):
        right.append(sum((step(to, come) @ B for come, B in enumerate(right)), torch.zeros(sizes[to], sizes[0])))
    for come in range(last - 1, 0, -1):
        left[come] = sum((A @ step(to, come) for to, A in left.items()), torch.zeros(sizes[last], sizes[come]))
    parts = [torch.kron(left[to] @ left[to].T, B.T @ B) for to, B in enumerate(right, start=1)]
    return from_eigenvalues(torch.linalg.eigvalsh(torch.stack(parts).sum(dim=0)))


# -- one hidden layer with (leaky) ReLU ----------------------------------------------------------------------


def slopes(job: JobContext, data: str, widths: list[int], inits: int) -> dict[str, Any]:
    """kappa and bounds by slope on 40 images, as they are and white."""
    x = pixels(data, 40)
    both = (x, white(x))
    with job.trace(samples=40) as trace:
        rows = ConditionRows(trace, "width", "slope", "white", "init", "b15", "b2")
        for init, source, width in initialisations(job, inits, widths):
            V, W = kaiming([x.shape[1], width, CLASSES], source)
            for slope in SLOPES:
                for is_white, inputs in enumerate(both):
                    found = leaky_relu_network(V, W, inputs.T, slope=slope)
                    rows.add(found, width=width, slope=slope, white=is_white, init=init)
    return {"inputs": x.shape[1], "samples": 40}


def small(job: JobContext, count: int) -> dict[str, Any]:
    """Many small random networks, where bounds are tried hardest, and one made to break b2."""
    with job.trace(count=count) as trace:
        rows = ConditionRows(trace, "slope", "made", "b15", "b2")
        for number, (found, slope) in enumerate(small_networks(generator(job, 0), count)):
            rows.add(found, slope=slope, made=0.0)
            job.progress(number, count)
        rows.add(made_to_break(), slope=MADE_SLOPE, made=1.0)
    return {"count": count}


def small_networks(source: torch.Generator, count: int) -> Iterator[tuple[Conditioning, float]]:
    """Two to six units and inputs, no more samples than inputs, slopes from 0.01 to 0.9; each with its slope."""

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=source))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    for _ in range(count):
        d, m, k = between(2, 6), between(2, 6), between(1, 3)
        slope = 0.01 + 0.89 * float(torch.rand(1, generator=source, dtype=torch.float64))
        yield leaky_relu_network(normal(m, d), normal(k, m), normal(d, between(1, d)), slope=slope), slope


def made_to_break() -> Conditioning:
    """A network whose kappa is a hundred times b2."""
    V, identity = torch.tensor([[1.0, -1.0], [-10.0, 0.1]]), torch.eye(2)
    return leaky_relu_network(V, 0.01 * identity, identity, slope=MADE_SLOPE)


# -- convolutions --------------------------------------------------------------------------------------------


def convolution(job: JobContext, filters: list[int], kernels: list[int], inits: int) -> dict[str, Any]:
    """Two linear convolutions of one kernel size and as many filters each, on 36 inputs, white data.

    By the entries of the Toeplitz matrices, as the paper has it: two layers on white data make a Kronecker sum, whose
    eigenvalues are sums. Once with the root of the covariance, once with half of it as in the script.
    """
    with job.trace(positions=POSITIONS) as trace:
        rows = ConditionRows(trace, "filters", "kernel", "half", "init")
        for init, source, (count, size) in initialisations(job, inits, list(product(filters, kernels))):
            first, second = kaiming([size, count], source)[0], kaiming([count * size, count], source)[0]
            pair = first.reshape(count, 1, size), second.reshape(count, count, size)
            for half, weight in enumerate((1.0, 1 / (4 * SAMPLES))):
                rows.add(toeplitz(*pair, weight), filters=count, kernel=size, half=half, init=init)
    return {"inputs": POSITIONS}


def toeplitz(first: Tensor, second: Tensor, weight: float = 1.0) -> Conditioning:
    """Exact kappa of two convolutions by the entries of their matrices, for white data; `weight`: of the first one."""
    T = convolution_matrix(first, POSITIONS)
    S = convolution_matrix(second, POSITIONS - first.shape[2] + 1)
    right, left = torch.linalg.eigvalsh(T.T @ T), torch.linalg.eigvalsh(S @ S.T)
    return from_eigenvalues((left[:, None] + weight * right[None, :]).flatten())


def random(samples: int, inputs: int, job: JobContext) -> Tensor:
    """Standard normal data."""
    return torch.randn(samples, inputs, generator=generator(job, -1), dtype=torch.float64)
