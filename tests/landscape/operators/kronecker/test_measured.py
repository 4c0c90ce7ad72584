"""K-FAC's options, what it says, and that it is never stale."""

import gc
import weakref

import numpy as np
import pytest
import torch
from kronecker_cases import exact_blocks, identity, on_blocks, relative
from torch import nn
from torch.nn import functional as F

from landscape import EKFAC, KFAC, EmpiricalFisher, GaussNewton, MonteCarloFisher, Objective
from landscape.spectra import eigsh, solve

KINDS = pytest.mark.parametrize("kind", [KFAC, EKFAC])


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


LABELS = torch.randint(0, 3, (11,), generator=torch.Generator().manual_seed(1))


def objective(model=None, loss=None, data=None, **options):
    return Objective(model or network(), loss or nn.CrossEntropyLoss(), data or (normal(11, 4), LABELS), **options)


class Language(nn.Module):
    """Tokens with positions, attention written out, a head: terms of a sample see each other."""

    def __init__(self, vocabulary=6, tie=False):
        super().__init__()
        torch.manual_seed(0)
        self.token, self.position = nn.Embedding(vocabulary, 4), nn.Embedding(8, 4)
        self.qkv, self.norm = nn.Linear(4, 12), nn.LayerNorm(4)
        self.head = nn.Linear(4, vocabulary, bias=False)
        if tie:
            self.head.weight = self.token.weight

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) | (tokens == 0).unsqueeze(1)
        hidden &= ~torch.eye(x.shape[1], dtype=torch.bool)
        x = x + (q @ k.mT).masked_fill(hidden, -1e9).softmax(-1) @ v
        return self.head(x).flatten(0, 1)


def language(tie=False, tokens=None, labels=None, **options):
    tokens = torch.randint(1, 6, (4, 5), generator=torch.Generator().manual_seed(2)) if tokens is None else tokens
    labels = tokens.roll(-1, 1) if labels is None else labels
    return Objective(Language(tie=tie).double(), nn.CrossEntropyLoss(), (tokens, labels.reshape(-1)), **options)


@KINDS
def test_follows_the_model(kind):
    f = objective()
    K, v = kind(f), normal(f.size, seed=3)
    inverse = K.inverse(0.1)
    before, solved = K @ v, inverse @ v
    again = K.factored()
    assert K.factored() is again  # nothing is measured twice
    K.release()
    assert K.factored() is again
    f.leaves()[0].data.mul_(1.5)
    assert relative(K @ v, before) > 1e-2
    assert torch.equal(K @ v, kind(f) @ v)
    assert relative(inverse @ v, solved) > 1e-3
    assert torch.equal(inverse @ v, kind(f).inverse(0.1) @ v)


@KINDS
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0]).double())])
def test_batches_and_ignored_samples_do_not_matter(kind, loss):
    X, y = normal(11, 4), LABELS
    whole = kind(objective(loss=loss)).to_dense()
    ragged = [(X[:5], y[:5]), (X[5:6], y[5:6]), (X[6:], y[6:])]
    assert relative(kind(objective(loss=loss, data=ragged)).to_dense(), whole) < 1e-12
    ignored = torch.full((3,), -100)
    with_ignored = [
        (X[:5], y[:5]),
        (normal(3, 4, seed=5), ignored),
        (torch.cat([X[5:], X[:3]]), torch.cat([y[5:], ignored])),
    ]
    assert relative(kind(objective(loss=loss, data=with_ignored)).to_dense(), whole) < 1e-12


@pytest.mark.parametrize("share", ["expand", "reduce"])
def test_padding_does_not_matter(share):
    tokens = torch.tensor([[1, 2, 3], [4, 5, 1]])
    labels = torch.tensor([[2, 3, 1], [5, 1, -100]])
    padded = F.pad(tokens, (0, 2)), F.pad(labels, (0, 2), value=-100)
    short, long = (KFAC(language(tokens=t, labels=y), share=share) for t, y in ((tokens, labels), padded))
    shared = [name for name in short.objective.names if share == "expand" or "position" not in name]
    v = normal(short.shape[0], seed=1)
    for name in shared:
        index = short.objective.slices[name]
        assert relative((long @ v)[index], (short @ v)[index]) < 1e-12, name


@KINDS
def test_a_weight_of_two_is_a_sample_twice(kind):
    X, y = normal(11, 4), LABELS
    weighted = objective(loss=nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 1.0]).double()))
    twice = objective(data=(torch.cat([X, X[y == 1]]), torch.cat([y, y[y == 1]])))
    assert relative(kind(weighted).to_dense(), kind(twice).to_dense()) < 1e-12


def test_positions_without_a_term_are_not_there():
    """Where positions do not see each other, those with an ignored label might as well be left out: dead ReLUs stay."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    X, y = normal(6, 5, 4), torch.randint(0, 3, (6, 5), generator=torch.Generator().manual_seed(1))
    y[normal(6, 5, seed=2) > 0.5] = -100
    positions = Objective(net, nn.CrossEntropyLoss(), (X, y), forward=lambda net, x: net(x).mT)
    apart = Objective(net, nn.CrossEntropyLoss(), (X[y >= 0], y[y >= 0]))
    assert bool(((net[0](X[y >= 0]) > 0).sum(-1) == 0).any())
    assert relative(KFAC(positions).to_dense(), KFAC(apart).to_dense()) < 1e-12


def test_what_precedes_the_terms_of_a_sample_counts():
    """A prompt, whose labels are ignored and which the answer sees."""
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).double()
    X, y = normal(6, 5, 4), torch.zeros(6, 5, dtype=torch.long)
    y[:, :2] = -100
    prompted = Objective(net, nn.CrossEntropyLoss(), (X, y), forward=lambda net, x: net[1](net[0](x).cumsum(1)).mT)
    (first, _) = (KFAC(prompted).factored()).blocks
    a = torch.cat([X, torch.ones_like(X[..., :1])], -1).flatten(0, 1)
    assert relative(first.A.matrix[0], a.T @ a / 30) < 1e-12


def test_terms_of_a_sample_apart_or_under_random_signs():
    f = language()
    exact = KFAC(f)
    assert abs(EKFAC(f).trace() / float(exact_blocks(exact).trace()) - 1) < 1e-9
    assert exact.note == ""
    draws = [KFAC(f, terms="signs", generator=torch.Generator().manual_seed(seed)) for seed in range(30)]
    v = normal(f.size, seed=1)
    products = torch.stack([K @ v for K in draws])
    stderr = products.std(0) / len(draws) ** 0.5
    assert float(((products.mean(0) - exact @ v) / stderr.clamp_min(1e-12)).square().mean()) < 2
    assert relative(products[0], exact @ v) > 1e-3
    assert torch.equal(draws[0] @ v, products[0])  # one matrix
    assert "random signs" in str(draws[0])


def test_fisher_of_drawn_labels_averages_to_gauss_newton():
    f = objective()
    draws = torch.stack(
        [KFAC(f, "fisher", samples=20, generator=torch.Generator().manual_seed(s)).to_dense() for s in range(20)]
    )
    stderr = draws.std(0) / 20**0.5
    z2 = float((draws.mean(0) - KFAC(f).to_dense()).square().sum() / stderr.square().sum())
    assert 0.1 < z2 < 3
    one = EKFAC(f, "fisher", generator=torch.Generator().manual_seed(0))
    fisher = MonteCarloFisher(f)
    fisher.seed = one.seed
    assert abs(one.trace() / float(on_blocks(one, fisher.to_dense()).trace()) - 1) < 1e-9


def test_empirical_fisher_of_each_term():
    for f in (objective(), language(), objective(loss=nn.MSELoss(), data=(normal(11, 4), normal(11, 3)))):
        E = EKFAC(f, "empirical-fisher")
        assert abs(E.trace() / float(on_blocks(E, EmpiricalFisher(f).to_dense()).trace()) - 1) < 1e-9


def test_scales_with_the_loss():
    twice = objective(
        loss=lambda outputs, targets: 2.0 * F.mse_loss(outputs, targets), data=(normal(11, 4), normal(11, 3))
    )
    once = objective(loss=nn.MSELoss(), data=(normal(11, 4), normal(11, 3)))
    assert relative(KFAC(twice).to_dense(), 2.0 * KFAC(once).to_dense()) < 1e-12
    summed = objective(loss=nn.MSELoss(reduction="sum"), data=(normal(11, 4), normal(11, 3)))
    assert relative(KFAC(summed).to_dense(), 33 * KFAC(once).to_dense()) < 1e-12


@KINDS
def test_a_side_above_the_limit_is_its_diagonal(kind):
    f = objective()
    whole, cut = kind(f), kind(f, limit=5)
    factors = {block.layer.names: block for block in whole.factored().blocks}
    assert cut.trace() > 0
    assert "0.weight and 0.bias: output side of 6 as its diagonal" in str(cut)
    assert "2.weight and 2.bias: input side of 7" in cut.note
    if kind is KFAC:
        for block in cut.factored().blocks:
            same = factors[block.layer.names]
            for side, other in ((block.B, same.B), (block.A, same.A)):
                expected = other.matrix if side.whole else other.matrix.diagonal(dim1=1, dim2=2)
                assert torch.allclose(side.matrix, expected, rtol=1e-12)
    scales = kind(language(), limit=20)
    assert scales.trace() > 0
    assert "norm.weight and norm.bias: exact block of 8 as its diagonal" in str(scales)
    dense = cut.to_dense()
    assert relative(cut.inverse(0.1).to_dense(), torch.linalg.inv(dense + 0.1 * identity(f.size))) < 1e-10
    assert abs(cut.trace() / float(dense.trace()) - 1) < 1e-12


def test_tied_weights_are_summed_and_said():
    f = language(tie=True)
    K = KFAC(f)
    assert K.trace() > 0
    assert "token.weight: summed over the layers that share it" in str(K)
    parts = [block for block in K.factored().blocks if "token.weight" in block.layer.names]
    assert len(parts) == 2
    damped = K.to_dense() + 0.1 * identity(f.size)
    assert relative(K.inverse(0.1).to_dense(), torch.linalg.inv(damped)) < 1e-10
    with pytest.raises(TypeError, match=r"token.weight are in several layers.*solve\(K, b, damping"):
        KFAC(f, limit=10).inverse(0.1)


def test_a_layer_that_is_called_again_is_said():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(torch.tanh(self.a(x))))

    f = Objective(Recurrent().double(), nn.MSELoss(), (normal(6, 4), normal(6, 2)))
    K = KFAC(f)
    K.trace()
    assert str(K).count("called") == 1
    assert "a.weight and a.bias: called 2 times in a pass" in str(K)


def test_factored_damping_is_that_of_the_paper():
    f = objective()
    K, damping = KFAC(f), 0.05
    blocks = []
    for block in K.factored().blocks:
        A, B = block.A.matrix[0], block.B.matrix[0]
        pi = ((A.trace() / len(A)) / (B.trace() / len(B))).sqrt()
        A, B = A + pi * damping**0.5 * identity(len(A)), B + damping**0.5 / pi * identity(len(B))
        v = normal(1, f.size, seed=4)
        X = block.layer.gather(v, f.slices)[0, 0]
        expected = torch.linalg.solve(B, torch.linalg.solve(A, X.T).T)
        found = block.layer.gather((K.inverse(damping, "factored") @ v[0]).unsqueeze(0), f.slices)[0, 0]
        assert relative(found, expected) < 1e-10
        blocks.append(block)
    with pytest.raises(ValueError, match="EKFAC are no products"):
        EKFAC(f).inverse(damping, "factored")


def test_what_cannot_be_inverted_is_refused():
    K = KFAC(objective())
    with pytest.raises(ValueError, match="damping must be positive, not -1"):
        K.inverse(-1.0)
    with pytest.raises(ValueError, match=r"singular \(\d+ of 51 eigenvalues are 0\): give a positive damping"):
        K.inverse(0.0)
    with pytest.raises(ValueError, match="singular"):
        K.logdet(0.0)
    regular = KFAC(objective(nn.Linear(4, 3).double(), nn.MSELoss(), (normal(11, 4), normal(11, 3))))
    assert relative(regular.inverse(0.0) @ (regular @ normal(15)), normal(15)) < 1e-9
    with pytest.raises(ValueError, match=r"share is one of 'expand', 'reduce', not 'sum'"):
        KFAC(objective(), share="sum")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        KFAC(objective(), limit=0)


@KINDS
def test_state_is_plain_arrays(kind):
    f = language(tie=True)
    K = kind(f, separate=True, limit=20)
    state = K.state()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "uf" for array in state.values())
    back = KFAC.from_state(state)
    v = normal(f.size, seed=2)
    assert torch.equal(back @ v, K @ v)
    assert back.note == K.note
    f.leaves()[0].data.mul_(2)
    assert not torch.equal(back @ v, K @ v)  # it follows nothing
    with pytest.raises(ValueError, match="no state of KFAC"):
        KFAC.from_state({"description": state["description"]})


def test_restricted_is_the_diagonal_block():
    f = objective(Language().double(), data=(torch.arange(10).reshape(2, 5) % 6, torch.arange(10) % 6))
    for K, names in (
        (KFAC(f), ["qkv.weight", "norm.bias"]),
        (EKFAC(f), ["qkv.*", "norm.*"]),
        (EKFAC(f, separate=True), ["qkv.weight"]),
        (KFAC(f, "fisher"), "qkv.*"),
        (KFAC(f, terms="signs"), "qkv.*"),
    ):
        part = K.restrict(names)
        index = torch.cat([torch.arange(f.size)[f.slices[name]] for name in part.objective.names])
        assert relative(part.to_dense(), K.to_dense()[index][:, index]) < 1e-12
    with pytest.raises(ValueError, match=r"qkv.weight and qkv.bias have one basis"):
        EKFAC(f).restrict("qkv.weight")


def test_batch_statistics_are_said():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    buffers = [b.clone() for b in model.buffers()]
    K = KFAC(objective(model.train()))
    assert K.trace() > 0
    assert "BatchNorm in train mode" in str(K)
    assert all(map(torch.equal, model.buffers(), buffers))
    assert all(p.grad is None for p in model.parameters())
    K = KFAC(objective(model.train(), mode="eval"))
    assert K.trace() > 0
    assert K.note == ""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision(dtype):
    model = Language()
    tokens = torch.randint(1, 6, (4, 5), generator=torch.Generator().manual_seed(2))
    data = (tokens, tokens.roll(-1, 1).reshape(-1))
    exact = KFAC(Objective(Language().to(dtype).double(), nn.CrossEntropyLoss(), data))
    K = KFAC(Objective(model.to(dtype), nn.CrossEntropyLoss(), data))
    v = normal(K.shape[0], seed=1).float()
    assert (K @ v).dtype == torch.float32
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    assert relative((K @ v).double(), exact @ v) < tolerance
    assert K.noise == K.objective.noise
    converted = KFAC(Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float64))
    assert relative(converted @ v, exact @ v) < 1e-10


@KINDS
def test_preconditions_a_solve(kind):
    X = normal(200, 8) * torch.logspace(0, -2, 8).double()
    y = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    f = objective(nn.Linear(8, 5).double(), data=(X, y))
    G, b, damping = GaussNewton(f), f.gradient(), 1e-6
    plain = solve(G, b, damping=damping, method="cg")
    faster = solve(G, b, damping=damping, method="cg", preconditioner=kind(f).inverse(damping))
    assert faster.converged
    assert faster.matvecs < 0.3 * plain.matvecs
    largest = eigsh(kind(f), 1, tol=1e-8, generator=torch.Generator().manual_seed(0)).values[0]
    assert float(largest) == pytest.approx(float(kind(f).eigenvalues()[0]), rel=1e-9)


@KINDS
def test_nothing_waits_for_the_garbage_collector(kind):
    gc.collect()
    gc.disable()
    try:
        K = kind(objective())
        inverse = K.inverse(0.1)
        gone = [weakref.ref(K), weakref.ref(inverse)]
        del K, inverse
        assert not any(ref() for ref in gone)
    finally:
        gc.enable()
