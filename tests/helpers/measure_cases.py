"""All that reads an objective's batches beside its operators, as numbers, on one process and on each rank."""

from dataclasses import asdict
from functools import partial

import data_parallel_cases as cases
import torch
from data_parallel_cases import CASES, NAMES, batches_of, dealt, objective
from talks import raised
from torch import nn

from landscape import EKFAC, KFAC, BlockDiagonal, FiniteDifferenceHessian, Hessian, TangentKernel
from landscape.collapse import gather, gather_agreement, measure
from landscape.conditioning import gauss_newton, linear_network_of
from landscape.regularity import measure as rows
from landscape.sharpness import (
    batch_sharpness,
    critical_sharpness,
    gradient_statistics,
    sam_sharpness,
    second_order_stationary,
)
from landscape.surface import align, barrier, curvature_along, dropout_stability, path, plane, random_directions


def chain():
    return nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False))


def targets(generator, rows):
    x, _ = cases.numbers(generator, rows)
    return x, torch.randn(rows, 3, dtype=torch.float64, generator=generator)


CASES["chain"] = (chain, nn.MSELoss(), targets, (4, 1, 3))
CASES["one batch"] = (cases.mlp, nn.CrossEntropyLoss(), cases.numbers, (6,))
NAMES = (*NAMES, "chain", "one batch")


def collapse(f, head=None):
    found = asdict(measure(f, head=head)) | {"means": gather(f, head=head).means}
    statistics = gather(f, head=head)
    gather_agreement(f, statistics, head=head)
    found["agreement"] = statistics.agreement
    return {key: value for key, value in found.items() if not isinstance(value, str)}


def kernel(f):
    A = TangentKernel(f)
    K = A.gram()
    V = torch.randn(len(K), 2, generator=torch.Generator().manual_seed(0), dtype=f.dtype)
    products = torch.cat([A @ V, (A @ V[:, 0])[:, None]], dim=1)
    error = (products - K @ torch.cat([V, V[:, :1]], dim=1)).norm() / K.norm()
    return {"samples": A.samples, "spectrum": torch.linalg.eigvalsh(K), "products are right": error < 1e-12, "gram": K}


def conditioning(f, loss_hessian):
    found = gauss_newton(f, loss_hessian=loss_hessian)
    names = ("kappa", "rank", "largest", "matvecs", "converged")
    return {name: getattr(found, name) for name in names} | {"eigenvalues": found.eigenvalues}


def bounds(f):
    """Beyond the budget: Lanczos on products."""
    f.memory = 8 * 40 * f.size
    found = gauss_newton(f)
    f.memory = "auto"
    return {"converged": found.converged, "largest": found.largest}


def gradients(f, parts=None):
    found = asdict(gradient_statistics(f, parts=parts))
    errors = {name: found.pop(f"noise_{name}_stderr") for name in ("trace", "scale")}
    return found | {"errors are told": 0.0 < errors["trace"] < float("inf") or found["noise_trace"] == 0.0}


def sharpness(f):
    found = asdict(batch_sharpness(f)) | {
        f"of two: {k}": v for k, v in asdict(batch_sharpness(f, batch_size=2)).items()
    }
    early = batch_sharpness(f, rtol=1e9, min_batches=2)
    found |= {"early": early.converged, "fewer": early.products <= max(2, f.ranks.size)}
    found["sam"] = sam_sharpness(f).value
    found["critical"] = critical_sharpness(f).value
    point = second_order_stationary(f, tol=1e-10, generator=torch.Generator().manual_seed(0))
    return {k: v for k, v in found.items() if "checked" not in k} | {"lambda_min": point.lambda_min}


def regularity(f):
    end = f.theta() + 0.1
    found = asdict(rows.measure(f, end)) | {"estimated": rows.measure(f, end, infimum="estimate").infimum}
    each = rows.measure_samples(f, end)
    for name in ("inner", "loss", "final_loss", "grad_norm"):
        found[f"samples' {name}"] = torch.tensor(sorted(getattr(row, name) for row in each))
    return found


def differences(f):
    A = FiniteDifferenceHessian(f)
    return {"product": A @ torch.ones(f.size)}


def surface(f):
    """On more points than go together."""
    D = random_directions(f, 2, generator=torch.Generator().manual_seed(0))
    found = plane(f, D, points=12)
    return {"values": found.values, "curvature": found.curvature, "slopes": found.gradient}


def connections(f):
    a = f.theta()
    b = a + 0.3 * torch.randn(f.size, generator=torch.Generator().manual_seed(1)).to(a)
    low = path(f, a, b, steps=5, points=3)
    found = {"barrier": barrier(f, a, b, points=5).values, "aligned": align(f, a, b), "path": low.values}
    found["curvature"] = curvature_along(f, low.at(low.t), tol=1e-10, generator=torch.Generator().manual_seed(2)).values
    return found | {"dropout": dropout_stability(f, 0.5, samples=4, generator=torch.Generator().manual_seed(3)).value}


MEASURES = {
    "kernel": kernel,
    "gradients": gradients,
    "gradients of parts": lambda f: gradients(f, parts=2),
    "sharpness": sharpness,
    "differences": differences,
    "kappa": lambda f: conditioning(f, False),
    "kappa with the loss": lambda f: conditioning(f, True),
    "collapse": collapse,
    "collapse of tokens": lambda f: collapse(f, "head"),
    "linear": lambda f: {"kappa": linear_network_of(f).kappa, "bound": linear_network_of(f).bound},
    "regularity": regularity,
    "beyond the budget": bounds,
    "surface": surface,
    "connections": connections,
}
CASE = {
    "mlp": ("kernel", "gradients", "gradients of parts", "sharpness", "differences", "kappa", "collapse", "surface"),
    "transformer": ("gradients", "kappa", "collapse of tokens", "connections"),
    "batch norm": ("gradients", "kappa with the loss", "collapse", "connections"),
    "sum": ("gradients", "kappa with the loss"),
    "one batch": ("gradients", "kappa"),
    "chain": ("linear", "regularity", "beyond the budget", "gradients of parts"),
}


def everything(name, f):
    found = {part: MEASURES[part](f) for part in CASE[name]}
    return {f"{part}, {key}": value for part, values in found.items() for key, value in values.items()}


def measured(rank, world, way):
    """Of every case under DistributedDataParallel."""
    wrap = nn.parallel.DistributedDataParallel
    return {n: everything(n, objective(n, dealt(batches_of(n), rank, world, way), wrap)) for n in NAMES}


def of_blocks(f):
    return BlockDiagonal(Hessian(f))


def sharded(rank, world):
    """What there is of models under `fully_shard`, and what is said of the rest."""
    from sharded_cases import shard

    found = {}
    for name in ("mlp", "batch norm"):
        f = objective(name, dealt(batches_of(name), rank, world, "dealt"), shard)
        found[name] = of_any_model(f)
    refused = [TangentKernel, KFAC, EKFAC, of_blocks, batch_sharpness, sam_sharpness, critical_sharpness]
    found["refused"] = [raised(partial(work, f)) for work in refused]
    found["refused"].append(raised(partial(rows.measure, f, f.theta())))
    theta = f.theta()
    found["refused"] += [raised(partial(work, f, theta, theta)) for work in (barrier, align, path)]
    others = (partial(plane, directions=theta), partial(dropout_stability, share=0.5), partial(random_directions, k=2))
    found["refused"] += [raised(partial(work, f)) for work in others]
    statistics = gradient_statistics(f)
    found["noise"] = statistics.noise_scale, statistics.reason
    return found


def of_any_model(f):
    """As numbers."""
    parts = {"collapse": collapse(f), "kappa": conditioning(f, False), "kappa with the loss": conditioning(f, True)}
    found = {f"{part}, {key}": value for part, values in parts.items() for key, value in values.items()}
    statistics = gradient_statistics(f)
    found |= {"loss": statistics.loss, "norm": statistics.norm}
    return {key: value for key, value in found.items() if not key.endswith(("matvecs", "eigenvalues"))}
