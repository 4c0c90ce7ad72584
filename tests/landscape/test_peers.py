"""Numbers against PyHessian and curvlinops (extra `peers`), where those are right."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from landscape import EKFAC, KFAC, EmpiricalFisher, GaussNewton, Hessian, Objective
from landscape.spectra import eigsh, trace


@pytest.fixture(scope="module")
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    X, y = torch.randn(37, 6).double(), torch.randint(0, 4, (37,))
    return model, nn.CrossEntropyLoss(), X, y


def test_curvlinops_products(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linops = pytest.importorskip("curvlinops")
    model, loss, X, y = problem
    batches = [(X[:16], y[:16]), (X[16:32], y[16:32]), (X[32:], y[32:])]  # ragged
    objective = Objective(model, loss, batches)
    V = Hessian(objective).random(2, "normal", torch.Generator().manual_seed(0))
    parameters = list(model.parameters())
    for peer, ours in (
        (linops.HessianLinearOperator, Hessian),
        (linops.GGNLinearOperator, GaussNewton),
        (linops.EFLinearOperator, EmpiricalFisher),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = peer(model, loss, parameters, batches, check_deterministic=False) @ V
        assert torch.allclose(ours(objective) @ V, expected, rtol=1e-10, atol=1e-13)


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 4)]
    X, y = torch.randn(37, 2, 4, 4).double(), torch.randint(0, 4, (37,))
    return nn.Sequential(*layers).double(), [(X[:16], y[:16]), (X[16:32], y[16:32]), (X[32:], y[32:])]


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("share", ["expand", "reduce"])
@pytest.mark.parametrize("curvature", ["gauss-newton", "empirical-fisher"])
def test_curvlinops_kfac_and_its_inverse(pictures, curvature, share, separate):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linops = pytest.importorskip("curvlinops")
    model, batches = pictures
    options = {"fisher_type": "type-2" if curvature == "gauss-newton" else "empirical", "kfac_approx": share}
    options |= {"separate_weight_and_bias": separate, "check_deterministic": False}
    known = model, nn.CrossEntropyLoss(), list(model.parameters()), batches
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    V = torch.randn(objective.size, 2, generator=torch.Generator().manual_seed(0)).double()
    for peer, ours in ((linops.KFACLinearOperator, KFAC), (linops.EKFACLinearOperator, EKFAC)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = peer(*known, **options)
            expected = theirs @ V
        K = ours(objective, curvature, share, separate)
        assert float((K @ V - expected).norm()) < 1e-6 * float(expected.norm())
        inverse = linops.KFACInverseLinearOperator(theirs, damping=1e-3, use_exact_damping=True)
        expected = inverse @ V
        assert float((K.inverse(1e-3) @ V - expected).norm()) < 1e-6 * float(expected.norm())


def test_pyhessian_eigenvalues_and_trace(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("pyhessian")
    model, loss, X, y = problem
    model = model.float()
    try:
        objective = Objective(model, loss, (X.float(), y))
        ours = eigsh(Hessian(objective), 2, tol=1e-5, generator=torch.Generator().manual_seed(0))
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            theirs = peer.hessian(model, loss, data=(X.float(), y), cuda=False)
            values, _ = theirs.eigenvalues(maxIter=500, tol=1e-7, top_n=2)
            # its own stopping rule gives up too early, so take the mean and spread of its raw probes
            probes = theirs.trace(maxIter=400, tol=0.0)
        assert np.allclose(ours.values.numpy(), values, rtol=1e-3)
        estimate = trace(Hessian(objective), matvecs=objective.size, generator=torch.Generator().manual_seed(0))
        stderr = np.std(probes) / len(probes) ** 0.5
        assert abs(np.mean(probes) - estimate.value) < 4 * stderr
    finally:
        for p in model.parameters():  # the peer's backward leaves gradients and a reference cycle
            p.grad = None
        model.double()
