"""All that can be asked of an objective and its matrices: on one process, and of a model cut by `fully_shard`."""

import numpy as np
import sharded_cases as cases
import torch

from landscape import EmpiricalFisher, FiniteDifferenceHessian, FunctionalHessian, GaussNewton, Hessian, TangentKernel
from landscape.collapse import measure
from landscape.conditioning import gauss_newton
from landscape.regularity import measure as regularity
from landscape.sharpness import alignment, batch_sharpness, critical_sharpness, gradient_statistics, sam_sharpness
from landscape.spectra import condition_number, density, diagonal, eigsh, lanczos, trace


def seed(number=0):
    return torch.Generator().manual_seed(number)


def fixed(A):
    """A vector of the whole, as the operator takes it."""
    return A.space.shard(torch.linspace(-1.0, 1.0, A.shape[0], dtype=A.dtype))


def largest(A, **options):
    return eigsh(A, k=2, generator=seed(), tol=1e-10, **options).values


def scipy_product(f):
    A = Hessian(f).to_scipy()
    return torch.from_numpy(A @ np.linspace(-1.0, 1.0, A.shape[0]))


def unit(f):
    A = Hessian(f)
    return A.space.full(A @ A.unit(range(3, 6)))


def restricted(f):
    A = Hessian(f)
    R = A.restrict([f.names[-1]])
    return R.to_dense()


def combined(f):
    A = (2.0 * Hessian(f) - GaussNewton(f)).shifted(0.5)
    return A.space.full(A @ fixed(A))


USES = {
    "to_dense": lambda f: Hessian(f).to_dense(),
    "block": lambda f: Hessian(f).block([0, f.size - 1, 5]),
    "to_scipy": scipy_product,
    "unit": unit,
    "restrict": restricted,
    "combined": combined,
    "empirical Fisher": lambda f: EmpiricalFisher(f).to_dense(),
    "differences": lambda f: largest(FiniteDifferenceHessian(f))[:0],  # their noise is another one in another order
    "functional Hessian": lambda f: FunctionalHessian(f).to_dense(),
    "tangent kernel": lambda f: TangentKernel(f).to_dense(),
    "smallest": lambda f: largest(Hessian(f), which="SA"),
    "on the disk": lambda f: largest(Hessian(f), basis="disk"),
    "on the host": lambda f: largest(Hessian(f), basis="host"),
    "warm start": lambda f: largest(Hessian(f), v0=eigsh(Hessian(f), k=2, generator=seed()).vectors),
    "blocks": lambda f: largest(Hessian(f), block=2),
    "lanczos": lambda f: lanczos(Hessian(f), fixed(Hessian(f)), 6).alpha,
    "density": lambda f: density(Hessian(f), probes=2, steps=6, generator=seed()).nodes,
    "density on the disk": lambda f: density(Hessian(f), probes=1, steps=6, generator=seed(), basis="disk").nodes,
    "hutch++": lambda f: trace(Hessian(f), method="hutch++", matvecs=12, generator=seed()).value,
    "xtrace": lambda f: trace(Hessian(f), method="xtrace", matvecs=12, generator=seed()).value,
    "diagonal": lambda f: Hessian(f).space.full(diagonal(Hessian(f), matvecs=3, generator=seed()).value),
    "condition number": lambda f: condition_number(GaussNewton(f)).largest,
    "kappa": lambda f: gauss_newton(f).kappa,
    "collapse": lambda f: measure(f).nc1,
    "batch sharpness": lambda f: batch_sharpness(f, generator=seed()).value,
    "gradient statistics": lambda f: gradient_statistics(f).norm,
    "critical sharpness": lambda f: critical_sharpness(f, fixed(Hessian(f))).value,
    "sam": lambda f: sam_sharpness(f, 0.05).value,
    "alignment": lambda f: alignment(f.gradient(), eigsh(Hessian(f), k=2, generator=seed())).total,
    "trajectory": lambda f: regularity.measure(f, f.theta()).loss,
}


def asked(f):
    """What comes back, or the kind and the text of what is raised, by name of the use."""
    found = {}
    for name, use in USES.items():
        try:
            found[name] = torch.as_tensor(use(f)).double()
        except Exception as error:
            found[name] = type(error).__name__, str(error)
    return found


def of_shares(rank, world, name):
    """On each rank, of a model that is cut and data that are dealt out."""
    data = cases.cases.dealt(cases.cases.batches_of(name), rank, world, "dealt")
    return asked(cases.objective(name, data, cases.shard))
