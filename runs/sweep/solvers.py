"""Solvers that `runs.sweep` knows by a short name; others are module:Class, as in `probes.sweep.solvers`.

adam                              a name of the table
ngn:momentum=0.9,variant=md1      with options on top of the table's
torch.optim:AdamW:betas=(0.9,0.95)      any `torch.optim.Optimizer` that takes `lr`
"""

from __future__ import annotations

from typing import Any

from probes.errors import UserError, did_you_mean
from probes.specs import parse_spec

Options = dict[str, Any]

SOLVERS: dict[str, tuple[str, Options]] = {
    "sgd": ("torch.optim:SGD", {}),
    "sgd-m": ("torch.optim:SGD", {"momentum": 0.9, "dampening": 0.9}),
    "adam": ("torch.optim:Adam", {}),
    "adamw": ("torch.optim:AdamW", {}),
    "ngn": ("solvers.first_order.ngn:NGN", {}),
    "ngn-m": ("solvers.first_order.ngn:NGN", {"momentum": 0.9}),
    "ngn-d": ("solvers.first_order.ngn:NGN", {"variant": "d"}),
    "ngn-md1": ("solvers.first_order.ngn:NGN", {"momentum": 0.9, "variant": "md1"}),
    "ngn-md2": ("solvers.first_order.ngn:NGN", {"momentum": 0.9, "variant": "md2"}),
    "sps": ("solvers.first_order.sps:SPSMax", {}),
    "momo": ("solvers.first_order.momo:MoMo", {}),
    "momo-adam": ("solvers.first_order.momo:MoMoAdam", {}),
    "adagrad-norm": ("solvers.first_order.adagrad_norm:AdaGradNorm", {}),
    "adahessian": ("solvers.preconditioned.adahessian:AdaHessian", {}),
    "sophia-h": ("solvers.preconditioned.sophia:Sophia", {}),
    "sophia-g": ("solvers.preconditioned.sophia:Sophia", {"curvature": "gauss-newton"}),
    "oasis": ("solvers.preconditioned.oasis:OASIS", {}),
    "sania": ("solvers.preconditioned.sania:SANIA", {}),
    "sania-hessian": ("solvers.preconditioned.sania:SANIA", {"metric": "hessian"}),
    "shampoo": ("solvers.preconditioned.shampoo:Shampoo", {"every": 10}),
    "soap": ("solvers.preconditioned.soap:SOAP", {}),
    "psgd": ("solvers.preconditioned.psgd:PSGD", {}),
    "psgd-newton": ("solvers.preconditioned.psgd:PSGD", {"variant": "newton"}),
    "trust-region": ("solvers.second_order.trust_region:TrustRegionNewton", {}),
    "kfac": ("solvers.preconditioned.kfac:KFACDescent", {}),
    "ekfac": ("solvers.preconditioned.kfac:KFACDescent", {"kind": "ekfac"}),
    "sam": ("solvers.first_order.sam:SAM", {"momentum": 0.9}),
    "scion": ("solvers.first_order.scion:Scion", {}),
    "muon": ("solvers.first_order.muon:Muon", {}),
    "spectral-descent": ("solvers.first_order.steepest_descent:SteepestDescent", {}),
    "signsgd": ("solvers.first_order.sign:SignSGD", {}),
    "signum": ("solvers.first_order.sign:Signum", {}),
}


def spec(name: str) -> str:
    """The solver as module:Class with options, the user's on top of the table's.

    Raises `UserError` (status 2) for a name that is not known, and options that are not written `name=value`.
    """
    short, given = parse_spec(name, SOLVERS, "the solver")
    if short not in SOLVERS and ":" not in short:
        near = did_you_mean(short, SOLVERS)
        known = f"known are {', '.join(SOLVERS)}, any other is module:Class"
        raise UserError(f"there is no solver {short!r}{near or ':'} {known}", status=2)
    source, options = SOLVERS.get(short, (short, {}))
    written = ",".join(f"{key}={value}" for key, value in {**options, **given}.items())
    return f"{source}:{written}" if written else source
