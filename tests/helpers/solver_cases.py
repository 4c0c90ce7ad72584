"""Every solver by a name, each with settings under which a few steps on a small network are harmless."""

import torch
from newton_cases import generator
from torch import nn
from torch.nn import functional as F

from solvers import (
    NGN,
    OASIS,
    PSGD,
    RSRNM,
    SAM,
    SANIA,
    SGD,
    SOAP,
    SSCN,
    AdaGradNorm,
    AdaHessian,
    AdamCoupled,
    CoordinateDescent,
    CubicNewton,
    DampedNewton,
    DecSPS,
    GradientNormalizedNewton,
    GradientRegularizedNewton,
    LazyCubicNewton,
    MoMo,
    MoMoAdam,
    Muon,
    SaddleFreeNewton,
    ScaledGD,
    Scion,
    Shampoo,
    SignSGD,
    Signum,
    Sophia,
    SPSMax,
    SteepestDescent,
    TrustRegionNewton,
)


def scaled_gd(parameters, **settings):
    """The two matrices of a small model are a pair of factors."""
    given = list(parameters)
    there = [one[1] if isinstance(one, tuple) else one for one in given]
    matrices = [p for p in there if not isinstance(p, dict) and p.ndim == 2]
    pairs = [tuple(reversed(matrices))] if [len(p) for p in matrices] == [4, 2] else []
    return ScaledGD(given, 0.02, pairs=pairs, damping=0.1, **settings)


BY_GRADIENT = {  # what steps with .grad alone
    "SGD": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
    "SignSGD": lambda p: SignSGD(p, 0.01),
    "Signum": lambda p: Signum(p, 0.01, weight_decay=0.1),
    "AdamCoupled": lambda p: AdamCoupled(p, 0.01, coupled=0.1),
    "AdaGradNorm": lambda p: AdaGradNorm(p, 0.5),
    "Scion": lambda p: Scion(p, 0.01),
    "Muon": lambda p: Muon(p, 0.01, adam_lr=0.5, weight_decay=0.1),
    "SteepestDescent": lambda p: SteepestDescent(p, 0.02, momentum=0.5, weight_decay=0.1),
    "Shampoo": lambda p: Shampoo(p, 0.02, every=2, weight_decay=0.1),
    "SOAP": lambda p: SOAP(p, 0.02, every=2, limit=2, weight_decay=0.1),
    "PSGD": lambda p: PSGD(p, 0.01, every=2, limit=3, weight_decay=0.1, probability=0.7, generator=generator()),
    "ScaledGD": lambda p: scaled_gd(p, momentum=0.5, weight_decay=0.1),
    "ScaledGD-adam": lambda p: scaled_gd(p, variant="adam"),
}
BY_LOSS = {  # what needs the loss too
    "NGN": lambda p: NGN(p, 0.5, momentum=0.5),
    "NGN-D": lambda p: NGN(p, 0.5, variant="d"),
    "NGN-MDv1": lambda p: NGN(p, 0.01, variant="md1"),
    "SPSMax": lambda p: SPSMax(p, 0.5),
    "DecSPS": lambda p: DecSPS(p, 0.5),
    "MoMo": lambda p: MoMo(p, 0.5),
    "MoMoAdam": lambda p: MoMoAdam(p, 0.01),
    "SANIA": lambda p: SANIA(p, 0.5, metric="adagrad"),
    "SANIA-adam": lambda p: SANIA(p, 0.5),
}
TWICE = {  # what evaluates at two points
    "SAM": lambda p: SAM(p, 0.1),
    "SAM-Adam": lambda p: SAM(p, base=lambda groups: torch.optim.AdamW(groups, 0.01)),
}
CURVED = {  # what differentiates the loss twice, or looks into its graph
    "AdaHessian": lambda p: AdaHessian(p, 0.01, weight_decay=0.1, generator=generator()),
    "Sophia": lambda p: Sophia(p, 0.01, every=3, weight_decay=0.1, generator=generator()),
    "Sophia-G": lambda p: Sophia(p, 0.01, curvature="gauss-newton", every=3, generator=generator()),
    "OASIS": lambda p: OASIS(p, 0.5, first=0.01, alpha=0.1, momentum=0.5, generator=generator()),
    "SANIA-hessian": lambda p: SANIA(p, 0.5, metric="hessian", every=2, generator=generator()),
    "PSGD-newton": lambda p: PSGD(p, 0.002, variant="newton", every=2, form="dense", generator=generator()),
}
FIRST = BY_GRADIENT | BY_LOSS | TWICE
SECOND = {
    "SSCN": lambda p: SSCN(p, 5, generator=generator()),
    "SSCN-gaussian": lambda p: SSCN(p, 5, kind="gaussian", generator=generator()),
    "CubicNewton": CubicNewton,
    "CubicNewton-Krylov": lambda p: CubicNewton(p, krylov=6, generator=generator()),
    "LazyCubicNewton": lambda p: LazyCubicNewton(p, period=3),
    "adaptive": GradientRegularizedNewton,
    "line-search": lambda p: GradientRegularizedNewton(p, rule="line-search"),
    "super-universal": lambda p: GradientRegularizedNewton(p, rule="super-universal"),
    "GradientNormalizedNewton": GradientNormalizedNewton,
    "DampedNewton": lambda p: DampedNewton(p, 10.0),
    "SaddleFreeNewton": SaddleFreeNewton,
    "SaddleFreeNewton-rank": lambda p: SaddleFreeNewton(p, rank=3, generator=generator()),
    "TrustRegionNewton": TrustRegionNewton,
    "RSRNM": lambda p: RSRNM(p, 5, generator=generator()),
    "CoordinateDescent": lambda p: CoordinateDescent(p, 5, generator=generator()),
}
ALL = FIRST | CURVED | SECOND

X = torch.randn(16, 3, generator=generator(1))
Y = torch.randint(0, 2, (16,), generator=generator(2))


def small_model(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), *middle, nn.Tanh(), nn.Linear(4, 2))


def closure_of(model):
    dtype = next(model.parameters()).dtype
    return lambda: F.cross_entropy(model(X.to(dtype)), Y)


def backward_closure(solver, model):
    """As torch's own optimizers, and Lightning, have it."""

    def closure():
        with torch.enable_grad():
            solver.zero_grad()
            loss = closure_of(model)()
            loss.backward()
        return loss.detach()

    return closure


def values(model):
    return torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])


def steps(solver, closure, count):
    return [float(solver.step(closure)) for _ in range(count)]
