"""Every operator against dense autodiff in float64, over the case table."""

import gc
import weakref

import pytest
import torch
from operator_cases import CASES, dense, whole
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from landscape import (
    EmpiricalFisher,
    FiniteDifferenceHessian,
    FunctionalHessian,
    GaussNewton,
    Hessian,
    MonteCarloFisher,
    Objective,
)


def relative(A, B):
    return float((A - B).detach().norm() / B.detach().norm().clamp_min(1e-300))


@pytest.fixture(scope="module", params=list(CASES))
def table(request):
    case = CASES[request.param]()
    objective = Objective(case.model, case.loss, case.batches, **case.options)
    return case, objective, dense(case, objective.names)


def test_gradient(table):
    _, objective, (gradient, _, _) = table
    assert relative(objective.gradient(), gradient) < 1e-12


@pytest.mark.parametrize("budget", ["auto", 0], ids=["kept", "rebuilt"])
@pytest.mark.parametrize("kind", ["hessian", "gauss-newton", "functional"])
def test_products_agree_with_dense(table, kind, budget, generator):
    case, _, (_, hessian, gauss_newton) = table
    objective = Objective(case.model, case.loss, case.batches, memory=budget, **case.options)
    operator, matrix = {
        "hessian": (Hessian, hessian),
        "gauss-newton": (GaussNewton, gauss_newton),
        "functional": (FunctionalHessian, hessian - gauss_newton),
    }[kind]
    A = operator(objective)
    V = A.random(3, "normal", generator)
    scale = float((hessian @ V).norm())
    assert float((A @ V - matrix @ V).norm()) < 1e-10 * scale
    assert float((A @ V[:, 0] - matrix @ V[:, 0]).norm()) < 1e-10 * scale  # the kept graph, one vector
    assert A.matvecs == 4
    assert A.noise == 0.0


def test_hessian_is_the_sum_of_its_parts(table):
    _, objective, (_, hessian, _) = table
    parts = GaussNewton(objective) + FunctionalHessian(objective)
    V = parts.random(2, "normal", torch.Generator().manual_seed(1))
    assert relative(parts @ V, Hessian(objective) @ V) < 1e-10
    assert relative(parts @ V, hessian @ V) < 1e-10


def test_finite_differences_within_their_own_noise(table, generator):
    case, objective, (_, hessian, _) = table
    if isinstance(case.model[1] if isinstance(case.model, nn.Sequential) else None, nn.ReLU):
        pytest.skip("a difference may step over a kink")
    A = FiniteDifferenceHessian(objective)
    V = A.random(3, "rademacher", generator)
    assert relative(A @ V, hessian @ V) < max(20 * A.noise, 1e-7)
    assert 0 < A.noise < 1e-5


@pytest.mark.parametrize(
    "name", ["relu", "squared_error", "binary", "smoothed_and_weighted", "tied_and_ignored", "class_probabilities"]
)
def test_monte_carlo_fisher_averages_to_gauss_newton(name):
    case = CASES[name]()
    objective = Objective(case.model, case.loss, case.batches, **case.options)
    G = GaussNewton(objective).to_dense()
    draws = torch.stack(  # labels cost little beside the products
        [MonteCarloFisher(objective, 100, torch.Generator().manual_seed(s)).to_dense() for s in range(20)]
    )
    stderr = draws.std(0) / 20**0.5
    # the squared error is about its own expectation; the bounds are wide because the entries are correlated
    z2 = ((draws.mean(0) - G).square().sum() / stderr.square().sum()).item()
    assert 0.2 < z2 < 2.5
    one = MonteCarloFisher(objective, 3, torch.Generator().manual_seed(0))
    v = one.random(1, "normal", torch.Generator().manual_seed(0))
    assert torch.allclose(one @ v, one @ v, rtol=1e-10, atol=1e-12)  # the draws are fixed: one matrix


def test_every_batch_draws_labels_of_its_own():
    case = CASES["tanh"]()
    batch = case.batches[0]
    once, twice = (
        MonteCarloFisher(Objective(case.model, case.loss, [batch] * count), 1, torch.Generator().manual_seed(0))
        for count in (1, 2)
    )
    assert relative(twice.to_dense(), once.to_dense()) > 0.1


def per_unit_gradients(case, units):
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    rows = []
    for loss in units:
        pieces = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True, allow_unused=True)
        rows.append(torch.cat([g.reshape(-1) for g in pieces]))
    return torch.stack(rows)


def test_empirical_fisher_per_sample_and_term():
    case = CASES["tied_and_ignored"]()
    objective = Objective(case.model, case.loss, case.batches)
    X = torch.cat([x for x, _ in case.batches])
    y = torch.cat([t for _, t in case.batches])
    terms = nn.functional.cross_entropy(case.model(X), y, reduction="none")
    kept = y != -100
    g = per_unit_gradients(case, terms[kept])
    assert relative(EmpiricalFisher(objective).to_dense(), g.T @ g / kept.sum()) < 1e-12

    samples = [(terms[i].sum() / kept[i].sum(), kept[i].sum()) for i in range(len(y)) if kept[i].any()]
    g = per_unit_gradients(case, [loss for loss, _ in samples])
    c = torch.tensor([float(count) for _, count in samples]).double()
    expected = (g.T * c) @ g / c.sum()
    assert relative(EmpiricalFisher(objective, per="sample").to_dense(), expected) < 1e-12


@pytest.mark.parametrize("name", ["plain_function", "smoothed_and_weighted"])
def test_empirical_fisher_of_any_loss(name):
    case = CASES[name]()
    objective = Objective(case.model, case.loss, case.batches)
    X = torch.cat([x for x, _ in case.batches])
    y = torch.cat([t for _, t in case.batches])
    g = per_unit_gradients(case, [case.loss(case.model(X[i : i + 1]), y[i : i + 1]) for i in range(len(y))])
    c = torch.ones(len(y)).double() if name == "plain_function" else case.loss.weight[y]
    assert relative(EmpiricalFisher(objective, per="sample").to_dense(), (g.T * c) @ g / c.sum()) < 1e-12


def test_from_loss_is_the_same_product(table, generator):
    case, objective, (_, hessian, _) = table
    parameters = {name: p for name, p in case.model.named_parameters() if name in objective.names}
    frozen = [p for p in parameters.values() if not p.requires_grad]
    try:
        for p in frozen:
            p.requires_grad_(True)
        with sdpa_kernel(SDPBackend.MATH):  # a loss tensor brings its kernels with it
            X, y = whole(case)
            A = Hessian.from_loss(case.loss(case.model(X), y), parameters)
            V = A.random(2, "normal", generator)
            assert float((A @ V - hessian @ V).norm()) < 1e-10 * float((hessian @ V).norm())
    finally:
        for p in frozen:
            p.requires_grad_(False)


def test_from_loss_refuses_what_went_stale():
    case = CASES["relu"]()
    X, y = case.batches[0]
    A = Hessian.from_loss(case.loss(case.model(X), y), list(case.model.parameters()))
    v = torch.ones(A.shape[0])
    A @ v
    next(case.model.parameters()).data.mul_(2)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        A @ v


def test_restrict_is_the_diagonal_block(table):
    _, objective, (_, hessian, gauss_newton) = table
    name = objective.names[-1]
    cut = objective.slices[name]
    assert (
        relative(Hessian(objective).restrict([name]).to_dense(), hessian[cut, cut]) < 1e-9
        or hessian[cut, cut].norm() == 0
    )
    both = (Hessian(objective) + 2.0 * GaussNewton(objective)).shifted(0.5).restrict([name]).to_dense()
    expected = (hessian + 2 * gauss_newton)[cut, cut] + 0.5 * torch.eye(cut.stop - cut.start).double()
    assert relative(both, expected) < 1e-9


def test_block_and_scipy(table):
    _, objective, (_, hessian, _) = table
    A = Hessian(objective)
    index = [0, A.shape[0] - 1, 2]
    expected = hessian[index][:, index]
    assert float((A.block(index) - expected).norm()) < 1e-10 * float(hessian.norm())
    S = A.to_scipy()
    v = torch.randn(A.shape[0], generator=torch.Generator().manual_seed(0)).double()
    assert relative(torch.from_numpy(S @ v.numpy()), A @ v) < 1e-12


def test_an_operator_is_gone_when_its_last_name_is():
    """Nothing waits for the garbage collector: a graph that lives on is memory that the next training step lacks."""
    model = torch.nn.Linear(3, 2)
    X, y = torch.randn(5, 3), torch.randint(0, 2, (5,))
    f = Objective(model, torch.nn.CrossEntropyLoss(), (X, y))
    made = [
        *(kind(f) for kind in (Hessian, GaussNewton, EmpiricalFisher, FunctionalHessian, FiniteDifferenceHessian)),
        Hessian.from_loss(torch.nn.functional.cross_entropy(model(X), y), list(model.parameters())),
        Hessian(f) + 2.0 * GaussNewton(f),
    ]
    gone = []
    gc.collect()
    gc.disable()
    try:
        while made:
            A = made.pop()
            assert (A @ torch.ones(f.size)).isfinite().all()
            assert A.noise >= 0.0
            gone.append(weakref.ref(A))
            del A
        assert not any(ref() for ref in gone)
    finally:
        gc.enable()
