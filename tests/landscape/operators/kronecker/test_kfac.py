"""K-FAC against the cases in which it is exact, its definition, and dense algebra."""

import functools
import itertools

import pytest
import torch
from kronecker_cases import by_definition, exact_blocks, identity, on_blocks, relative
from operator_cases import CASES
from torch import nn

from landscape import EKFAC, KFAC, GaussNewton, Objective


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mlp(*widths, activation=nn.Tanh):
    torch.manual_seed(0)
    layers = [layer for pair in itertools.pairwise(widths) for layer in (activation(), nn.Linear(*pair))]
    return nn.Sequential(*layers[1:]).double()


def linear_network(N=7, **options):
    return Objective(
        mlp(4, 5, 6, 2, activation=nn.Identity), nn.MSELoss(), (normal(N, 4), normal(N, 2, seed=1)), **options
    )


# -- exact ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross-entropy", "squared error"])
def test_one_sample_is_exact(loss):
    labelled = torch.tensor([1]) if loss == "cross-entropy" else normal(1, 3, seed=1)
    f = Objective(
        mlp(4, 5, 3, activation=nn.ReLU),
        nn.CrossEntropyLoss() if loss == "cross-entropy" else nn.MSELoss(),
        (normal(1, 4), labelled),
    )
    K = KFAC(f)
    assert relative(K.to_dense(), exact_blocks(K)) < 1e-12
    assert relative(KFAC(f, separate=True).to_dense(), exact_blocks(KFAC(f, separate=True))) < 1e-12


@pytest.mark.parametrize("separate", [False, True])
def test_linear_networks_with_squared_error_are_exact(separate):
    f = linear_network()
    K = KFAC(f, separate=separate)
    assert relative(K.to_dense(), exact_blocks(K)) < 1e-12
    one = Objective(nn.Linear(3, 2).double(), nn.MSELoss(), (normal(9, 3), normal(9, 2)))
    if not separate:
        assert relative(KFAC(one).to_dense(), GaussNewton(one).to_dense()) < 1e-12


def test_expand_is_exact_for_positions_with_a_term_each():
    net = mlp(4, 5, 2, activation=nn.Identity)
    f = Objective(net, nn.MSELoss(), (normal(6, 3, 4), normal(6, 3, 2)))
    K = KFAC(f)
    assert relative(K.to_dense(), exact_blocks(K)) < 1e-12
    assert relative(KFAC(f, share="reduce").to_dense(), exact_blocks(K)) > 0.1


def test_reduce_is_exact_for_the_mean_over_positions():
    net = mlp(4, 5, 2, activation=nn.Identity)
    f = Objective(net, nn.MSELoss(), (normal(6, 3, 4), normal(6, 2)), forward=lambda net, x: net(x).mean(1))
    K = KFAC(f, share="reduce")
    assert relative(K.to_dense(), exact_blocks(K)) < 1e-12
    assert relative(KFAC(f).to_dense(), exact_blocks(K)) > 0.1


# -- not exact ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ["expand", "reduce"])
def test_of_a_network_that_it_is_not_exact_for(share):
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        nn.Tanh(),
        nn.Conv2d(3, 2, 2),
        nn.Flatten(),
        nn.Linear(28, 3),
    ).double()
    X, y = normal(5, 2, 6, 8), torch.tensor([0, 1, 2, 2, 1])
    K = KFAC(Objective(net, nn.CrossEntropyLoss(), [(X[:3], y[:3]), (X[3:], y[3:])]), share=share)
    assert relative(K.to_dense(), by_definition(net, X, y, share)) < 1e-12


@functools.cache
def table(name):
    """(objective, K-FAC, EKFAC, the exact blocks) of a case of operators."""
    case = CASES[name]()
    f = Objective(case.model, case.loss, case.batches, check=False, **case.options)
    K, E = KFAC(f), EKFAC(f)
    return f, K, E, exact_blocks(K)


WITHOUT = {"multihead", "lstm", "plain_function"}


@pytest.mark.parametrize("name", sorted(set(CASES) - WITHOUT))
def test_ekfac_has_the_trace_of_the_exact_blocks_and_is_nearer_to_them(name):
    _, K, E, G = table(name)
    assert float(on_blocks(K, K.to_dense()).norm()) == float(K.to_dense().norm())  # blocks do not see each other
    assert abs(K.trace() / float(K.to_dense().trace()) - 1) < 1e-10
    if name == "tied_and_ignored":  # the cross terms of its two uses are dropped
        assert "cross terms dropped" in str(K)
        return
    assert K.note == ""
    assert abs(E.trace() / float(G.trace()) - 1) < 1e-10
    assert float((G - E.to_dense()).norm()) <= float((G - K.to_dense()).norm())
    assert relative(K.to_dense(), G) < 1


@pytest.mark.parametrize("name", ["relu", "batchnorm_eval", "embedding", "tied_and_ignored", "frozen_and_unused"])
@pytest.mark.parametrize("kind", [1, 2])
def test_inverse_and_determinant_are_those_of_the_matrix(name, kind):
    f, K = table(name)[0], table(name)[kind]
    dense, damping = K.to_dense(), 0.03
    damped = dense + damping * identity(f.size)
    inverse = K.inverse(damping)
    assert relative(inverse.to_dense(), torch.linalg.inv(damped)) < 1e-10
    assert relative(inverse @ (K @ normal(f.size, 2) + damping * normal(f.size, 2)), normal(f.size, 2)) < 1e-10
    assert abs(K.logdet(damping) - float(torch.linalg.slogdet(damped)[1])) < 1e-8
    values = torch.linalg.eigvalsh(dense).flip(0)
    assert float((K.eigenvalues() - values).abs().max()) < 1e-10 * float(values[0])
