"""The tangent kernel and the condition number of the Gauss-Newton matrix, against dense Jacobians in float64."""

import math

import pytest
import torch
from operator_cases import CASES, dense, whole
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import GaussNewton, Objective, TangentKernel
from landscape.conditioning import gauss_newton
from landscape.spectra import condition_number, eigsh


def relative(A, B):
    return float((A - B).detach().norm() / B.detach().norm().clamp_min(1e-300))


def full_jacobian(case, names):
    """d outputs / d parameters by torch.func on all data at once, `(outputs, n)`."""
    X, _ = whole(case)
    values = {name: p.detach() for name, p in case.model.named_parameters() if name in names}
    with sdpa_kernel(SDPBackend.MATH):
        pieces = torch.func.jacrev(lambda v: functional_call(case.model, v, (X,)))(values)
    outputs = case.model(X).numel()
    return torch.cat([pieces[name].reshape(outputs, -1) for name in names], dim=1).detach()


def rows_with_target(case):
    """Of the flattened outputs of all data, those whose target is not ignored, and N."""
    X, y = whole(case)
    outputs = case.model(X)
    known = Objective(case.model, case.loss, case.batches, **case.options).criterion.known
    if known is None or known.denominator != "classes" or y.is_floating_point():
        return torch.arange(outputs.numel()), len(X)
    given = y != known.options.get("ignore_index", -100)
    mask = given.unsqueeze(1).expand_as(outputs).reshape(-1)
    return mask.nonzero()[:, 0], int(given.sum())


@pytest.fixture(scope="module", params=list(CASES))
def table(request):
    case = CASES[request.param]()
    objective = Objective(case.model, case.loss, case.batches, **case.options)
    rows, samples = rows_with_target(case)
    return case, objective, full_jacobian(case, objective.names)[rows], samples


def test_the_kernel_is_the_dual_gram_matrix(table):
    _, objective, J, samples = table
    kernel = TangentKernel(objective)
    expected = J @ J.T / samples
    assert kernel.samples == samples
    assert relative(kernel.gram(), expected) < 1e-12
    assert relative(kernel.to_dense(), expected) < 1e-12


@pytest.mark.parametrize("budget", ["auto", 0], ids=["kept", "rebuilt"])
def test_products_agree_with_dense(table, budget, generator):
    case, _, J, samples = table
    objective = Objective(case.model, case.loss, case.batches, memory=budget, **case.options)
    kernel = TangentKernel(objective)
    V = kernel.random(3, "normal", generator)
    expected = J @ (J.T @ V) / samples
    assert relative(kernel @ V, expected) < 1e-10
    assert relative(kernel @ V[:, 0], expected[:, 0]) < 1e-10


def nonzero(eigenvalues, threshold):
    return eigenvalues[eigenvalues > threshold]


def test_non_zero_spectra_are_those_of_gauss_newton(table):
    _, objective, J, samples = table
    result = gauss_newton(objective)
    expected = torch.linalg.eigvalsh(J.T @ J / samples)
    found, expected = (nonzero(e, 1e-10 * expected[-1]) for e in (result.eigenvalues, expected))
    assert len(found) == len(expected)
    assert float((found - expected).abs().max()) < 1e-10 * float(expected[-1])
    assert result.kappa == pytest.approx(result.largest / result.smallest)
    assert len(result.eigenvalues) == min(J.shape)
    assert result.matvecs == len(J)


@pytest.mark.parametrize("few", [False, True], ids=["all parameters", "few"])
def test_with_the_second_derivative_of_the_loss(table, few):
    case, objective, _, _ = table
    if few:  # fewer parameters than outputs: the other Gram matrix
        objective = objective.restrict(objective.names[-1])
    G = dense(case, objective.names)[2]
    if float(G.norm()) == 0.0:
        pytest.skip("that parameter is not used")
    result = gauss_newton(objective, loss_hessian=True)
    expected = torch.linalg.eigvalsh(G)
    level = 1e-10 * float(expected.abs().max())
    found, expected = (e[e.abs() > level] for e in (result.eigenvalues, expected))
    assert len(found) == len(expected)
    assert float((found - expected).abs().max()) < level


def test_fewer_parameters_than_outputs():
    case = CASES["tanh"]()
    objective = Objective(case.model, case.loss, case.batches, parameters=["4.*"])
    J = full_jacobian(case, objective.names)
    result = gauss_newton(objective)
    assert len(result.eigenvalues) == objective.size < len(J)
    assert relative(result.eigenvalues, torch.linalg.eigvalsh(J.T @ J / 19)) < 1e-12
    assert relative(TangentKernel(objective).gram(), J @ J.T / 19) < 1e-12


# -- layers ----------------------------------------------------------------------------------------------------------


def kernel_and_jacobian(model, X):
    objective = Objective(model, nn.MSELoss(), (X, torch.zeros_like(model(X).detach())))
    pieces = torch.func.jacrev(lambda v: functional_call(model, v, (X,)))(
        {name: p.detach() for name, p in model.named_parameters()}
    )
    outputs = model(X).numel()
    J = torch.cat([pieces[name].reshape(outputs, -1) for name in objective.names], dim=1).detach()
    return TangentKernel(objective).gram(), J @ J.T / len(X)


class Reuse(nn.Module):
    """A Linear layer whose weight enters a second time, without a call of the layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h @ self.first.weight)


class Twice(Reuse):
    def forward(self, x):
        return self.last(torch.tanh(self.first(torch.tanh(self.first(x)))))


class InPlace(Reuse):
    def forward(self, x):
        return self.last(nn.functional.relu(self.first(x), inplace=True))


class Unvectorised(Reuse):
    """A branch on a value, which cannot be vectorised over samples."""

    def forward(self, x):
        h = self.first(x)
        return self.last(h @ self.first.weight if float(h.detach().abs().sum()) > 0 else h)


class BatchMean(Reuse):
    """Samples that see each other."""

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return self.last(h - 0.1 * h.mean(0))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


@pytest.mark.parametrize("kind", [Reuse, Twice, InPlace, Unvectorised, BatchMean])
def test_layers_that_are_not_what_they_seem(kind):
    torch.manual_seed(0)
    found, expected = kernel_and_jacobian(kind().double(), torch.randn(7, 5).double())
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize("training", [False, True], ids=["running statistics", "batch statistics"])
def test_batch_statistics_give_the_full_batch_jacobian(training):
    torch.manual_seed(0)
    model = convolutional().double()
    model(3.0 + torch.randn(40, 1, 7, 7).double())  # running statistics that are not the identity
    model.train(training)
    X = torch.randn(6, 1, 7, 7).double()
    objective = Objective(model, nn.MSELoss(), (X, torch.zeros(6, 3).double()))
    rows = [torch.autograd.grad(output, list(model.parameters()), retain_graph=True) for output in model(X).reshape(-1)]
    J = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
    assert relative(TangentKernel(objective).gram(), J @ J.T / 6) < 1e-12


def test_in_parts_that_fit_the_budget():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 3)).double()
    model = nn.Sequential(model, nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 40, 2), nn.Flatten(), nn.Linear(80, 4)).double()
    X, y = torch.randn(12, 30).double(), torch.randint(0, 4, (12,))
    batches = list(zip(X.split(5), y.split(5), strict=True))
    whole_budget = TangentKernel(Objective(model, nn.CrossEntropyLoss(), batches)).gram()
    m = whole_budget.shape[0]
    little = Objective(model, nn.CrossEntropyLoss(), batches, memory=16 * m * m + 12_000)
    assert relative(TangentKernel(little).gram(), whole_budget) < 1e-12


def test_single_precision_is_the_forward_passes_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 4))
    X, y = torch.randn(25, 6), torch.randint(0, 4, (25,))
    single = gauss_newton(Objective(model, nn.CrossEntropyLoss(), (X, y)))
    double = gauss_newton(Objective(model, nn.CrossEntropyLoss(), (X.double(), y), dtype=torch.float64))
    assert single.threshold == pytest.approx(100 * torch.finfo(torch.float32).eps * single.largest)
    assert double.threshold == pytest.approx(100 * torch.finfo(torch.float64).eps * double.largest)
    assert float((single.eigenvalues - double.eigenvalues).abs().max()) < 1e-6 * double.largest


def test_half_precision_says_how_much_it_knows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 4)).to(torch.bfloat16)
    X, y = torch.randn(25, 6).to(torch.bfloat16), torch.randint(0, 4, (25,))
    half = gauss_newton(Objective(model, nn.CrossEntropyLoss(), (X, y)))
    double = gauss_newton(Objective(model, nn.CrossEntropyLoss(), (X, y), dtype=torch.float64))
    assert half.threshold == pytest.approx(100 * torch.finfo(torch.bfloat16).eps * half.largest)
    assert half.largest == pytest.approx(double.largest, rel=0.02)


# -- thresholds, limits, bad input -----------------------------------------------------------------------------------


@pytest.fixture
def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return Objective(model, nn.CrossEntropyLoss(), (torch.randn(10, 5).double(), torch.randint(0, 3, (10,))))


def test_thresholds(small):
    values = gauss_newton(small).eigenvalues
    assert gauss_newton(small, threshold="paper").threshold == pytest.approx(1e-8 / small.size)
    middle = float(0.5 * (values[-4] + values[-5]))
    result = gauss_newton(small, threshold=middle)
    assert result.rank == 4
    assert result.kappa == pytest.approx(float(values[-1] / values[-4]))
    assert result.neighbours == pytest.approx(
        {-2: float(values[-1] / values[-2]), -1: float(values[-1] / values[-3]), 1: float(values[-1] / values[-5])}
    )
    assert "at rank 5" in str(result)
    for bad in (-1.0, math.nan, math.inf, "papers"):
        with pytest.raises(ValueError, match="threshold"):
            gauss_newton(small, threshold=bad)


def test_beyond_the_budget_a_lower_bound(small):
    tight = Objective(small.model, small.criterion.loss, (small_inputs(small)), memory=9_000)
    for loss_hessian in (False, True):
        bound = gauss_newton(tight, loss_hessian=loss_hessian)
        assert not bound.converged
        assert bound.kappa <= gauss_newton(small, loss_hessian=loss_hessian).kappa * (1 + 1e-9)
    with pytest.raises(MemoryError, match="outputs would fit"):
        TangentKernel(tight).gram()


def test_beyond_the_budget_with_more_outputs_than_parameters():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()  # 26 parameters, 80 outputs
    x, y = torch.randn(40, 3).double(), torch.randint(0, 2, (40,))
    y[3] = -100  # a sample without a loss term has no outputs in J
    batches = [(x[:15], y[:15]), (x[15:], y[15:])]
    exact = gauss_newton(Objective(model, nn.CrossEntropyLoss(), batches))
    bound = gauss_newton(Objective(model, nn.CrossEntropyLoss(), batches, memory=9_000))
    assert exact.converged
    assert not bound.converged
    assert bound.largest == pytest.approx(exact.largest, rel=1e-9)  # J^T J over the samples, in whatever batches


def small_inputs(objective):
    batch = next(iter(objective.sweep()))
    return batch.inputs, batch.targets


def test_zero_jacobians_are_refused():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    data = (torch.randn(6, 4), torch.randint(0, 2, (6,)))
    objective = Objective(model, nn.CrossEntropyLoss(), data, parameters=["0.*"])
    with pytest.raises(ValueError, match="is zero"):
        gauss_newton(objective)


def test_a_loss_that_is_not_convex_in_its_outputs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 2)).double()

    def robust(outputs, targets):
        return torch.log1p((outputs - targets).square().sum(1)).mean()

    data = (torch.randn(12, 4).double(), 3.0 * torch.randn(12, 2).double())
    objective = Objective(model, robust, data)
    expected = torch.linalg.eigvalsh(GaussNewton(objective).to_dense())
    found = gauss_newton(objective, loss_hessian=True).eigenvalues
    assert float(expected[0]) < 0
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-10)
    assert float(found[-1]) == pytest.approx(float(expected[-1]), rel=1e-10)


def test_a_loss_that_couples_samples():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 2)).double()

    def spread(outputs, targets):
        return outputs.mean(0).square().sum() + 0.1 * (outputs - targets).square().mean()

    objective = Objective(model, spread, (torch.randn(8, 4).double(), torch.randn(8, 2).double()))
    expected = torch.linalg.eigvalsh(GaussNewton(objective).to_dense())
    found = gauss_newton(objective, loss_hessian=True).eigenvalues
    assert relative(found.flip(0), expected.flip(0)[: len(found)]) < 1e-10


def test_it_is_an_operator_like_the_others(small, generator):
    kernel = TangentKernel(small)
    dense_kernel = kernel.gram()
    values = torch.linalg.eigvalsh(dense_kernel)
    pairs = eigsh(kernel, 3, tol=1e-8, generator=generator)
    assert relative(pairs.values, values.flip(0)[:3]) < 1e-7
    assert condition_number(kernel).kappa == pytest.approx(gauss_newton(small).kappa)
    parts = kernel.restrict(["0.*"]) + kernel.restrict(["2.*"])
    V = kernel.random(2, "normal", generator)
    assert relative(parts @ V, kernel @ V) < 1e-12


def test_measuring_leaves_no_mark(small):
    model = small.model
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    gauss_newton(small)
    gauss_newton(small, loss_hessian=True)
    assert all(not m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_kernel_is_never_stale(small, generator):
    kernel = TangentKernel(small)
    V = kernel.random(2, "normal", generator)
    kernel @ V
    with torch.no_grad():
        small.model[0].weight.mul_(1.5)
    assert relative(kernel @ V, TangentKernel(small).gram() @ V) < 1e-12


def test_no_outputs_with_a_target():
    model = nn.Linear(3, 2)
    data = (torch.randn(4, 3), torch.full((4,), -100))
    with pytest.raises(ValueError, match="no outputs"):
        TangentKernel(Objective(model, nn.CrossEntropyLoss(), data))
