"""All blocks at once against each by itself, and what is said of them against dense matrices and known spectra."""

import threading

import numpy as np
import pytest
import torch
from operator_cases import CASES
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm
from torch import nn

from landscape import BlockDiagonal, GaussNewton, Hessian, Objective
from landscape.spectra import block_spectra, blockwise, density, eigsh, heterogeneity, trace


class Quadratic(nn.Module):
    """f = sum over blocks of <a, theta^2> / 2: the Hessian is the diagonal matrix of the a."""

    def __init__(self, **spectra):
        super().__init__()
        self.parts = nn.ModuleDict()
        for name, values in spectra.items():
            self.parts[name] = nn.Module()
            self.parts[name].theta = nn.Parameter(torch.ones(len(values)).double())
        self.spectra = {name: torch.as_tensor(values).double() for name, values in spectra.items()}

    def forward(self, x):
        each = (0.5 * (a * self.parts[name].theta.square()).sum() for name, a in self.spectra.items())
        return x * sum(each)


def quadratic(**spectra):
    x = torch.ones(1, 1).double()
    return BlockDiagonal(
        Hessian(Objective(Quadratic(**spectra), lambda z, _: z.mean(), (x, None))), {n: f"parts.{n}.*" for n in spectra}
    )


def network():
    case = CASES["multihead"]()
    return Objective(case.model, case.loss, case.batches)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def bulk(n, seed, scale=1.0):
    values = 0.3 * np.abs(np.random.default_rng(seed).standard_normal(n))
    values[:12] = np.linspace(3.0, 1.5, 12)
    return scale * values


@pytest.mark.parametrize("kind", [Hessian, GaussNewton])
def test_all_blocks_at_once_are_each_by_itself(kind):
    A = kind(network())
    D = BlockDiagonal(A)
    found = block_spectra(D, k=3, probes=3, steps=6, generator=seeded(5))
    most = 0
    for i, (name, one) in enumerate(found.blocks.items()):
        alone, rng = A.restrict(D.layout[name].names), seeded(5 + i)
        k = min(3, alone.shape[0])
        ends = [eigsh(alone, k, generator=rng)]
        if kind is Hessian:
            ends.append(eigsh(alone, 1, which="SA", generator=rng))
        quadrature = density(alone, probes=3, steps=6, generator=rng)
        assert torch.allclose(one.top.values, ends[0].values, rtol=1e-9, atol=1e-12)
        assert (one.bottom is None) == (kind is GaussNewton)
        assert torch.allclose(one.density.nodes, quadrature.nodes, rtol=1e-7, atol=1e-9)
        assert torch.allclose(one.density.weights, quadrature.weights, atol=1e-7)
        assert one.matvecs == sum(e.matvecs for e in ends) + quadrature.matvecs
        most = max(most, one.matvecs)
    assert found.converged
    assert most <= found.matvecs < sum(one.matvecs for one in found.blocks.values())
    assert D.matvecs == found.matvecs


def test_numbers_of_a_block_lie_within_their_errors():
    objective = network()
    H = BlockDiagonal(Hessian(objective))
    exact = {name: torch.linalg.eigvalsh(block.to_dense()) for name, block in H.blocks.items()}
    misses = {"trace": 0, "frobenius": 0, "stable_rank": 0, "effective_rank": 0}
    runs = 5
    for seed in range(runs):
        for name, one in block_spectra(H, probes=4, steps=12, generator=seeded(seed)).blocks.items():
            values = exact[name]
            p = values.abs() / values.abs().sum()
            truth = {
                "trace": values.sum(),
                "frobenius": values.square().sum(),
                "stable_rank": values.square().sum() / values.abs().max() ** 2,
                "effective_rank": torch.exp(-torch.special.xlogy(p, p).sum()),
            }
            assert abs(one.norm[0] - float(values.abs().max())) <= one.norm[1] + 1e-3 * one.norm[0]
            assert abs(float(one.top.values[0] - values[-1])) <= 1e-3 * float(values.abs().max())
            for what, value in truth.items():
                estimate = getattr(one, what)
                misses[what] += abs(estimate.value - float(value)) > 2 * estimate.stderr
    for what, missed in misses.items():
        assert missed <= 0.1 * runs * len(exact), (what, missed)


def test_known_ranks():
    D = quadratic(flat=np.full(40, 2.0), one=np.r_[3.0, np.zeros(29)], none=np.zeros(8), both=np.tile([1.0, -1.0], 10))
    found = block_spectra(D, generator=seeded(0))
    ranks = {name: (one.stable_rank.value, one.effective_rank.value) for name, one in found.blocks.items()}
    assert ranks["flat"] == pytest.approx((40, 40))
    assert ranks["none"] == (0.0, 0.0)
    assert ranks["both"] == pytest.approx((20, 20))
    assert abs(ranks["one"][0] - 1) <= 2 * found["one"].stable_rank.stderr
    assert ranks["one"][1] == pytest.approx(found["one"].trace.value / 3, rel=1e-6)  # one eigenvalue, counted by probes
    assert found["both"].norm[0] == pytest.approx(1.0)
    assert "h" not in found.blocks
    assert "flat: largest eigenvalue 2" in str(found)


def test_any_algorithm_runs_on_all_blocks():
    D = BlockDiagonal(Hessian(network()))
    found = blockwise(D, lambda block: trace(block, generator=seeded(3)))
    with D.keeping():
        for name, block in D.blocks.items():
            assert found[name].value == pytest.approx(trace(block, generator=seeded(3)).value, rel=1e-10)


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_what_fails_in_a_block_ends_all(error):
    D = BlockDiagonal(Hessian(network()))

    def algorithm(block):
        if block.name == "head":
            _ = block @ torch.ones(block.shape[0])
            raise error
        return trace(block, generator=seeded(0))

    before = threading.active_count()
    with pytest.raises(type(error)) as caught:
        blockwise(D, algorithm)
    assert "in block 'head'" in caught.value.__notes__
    assert threading.active_count() == before
    assert not D._kept


def test_interrupted_between_products():
    D = BlockDiagonal(Hessian(network()))

    def after():
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        blockwise(D, lambda block: trace(block), after=after)
    assert threading.active_count() == before
    assert not D._kept


def test_a_callback_stops_all_blocks_with_what_they_have():
    told = []

    def callback(made, planned, estimate):
        told.append((made, float(estimate)))
        return made >= 3

    D = BlockDiagonal(Hessian(network()))
    found = block_spectra(D, generator=seeded(0), callback=callback)
    assert not found.converged
    assert list(found.blocks) == list(D.layout)
    assert found.matvecs < 20
    assert told[-1][1] == max(value for _, value in told)


def test_random_vectors_are_those_of_the_seed():
    D = quadratic(a=bulk(60, 0), b=bulk(50, 1))
    once, again, other = (block_spectra(D, probes=2, steps=8, generator=seeded(s))["b"].density for s in (1, 1, 2))
    assert torch.equal(once.nodes, again.nodes)
    assert not torch.equal(once.nodes, other.nodes)


@pytest.mark.parametrize("setting", ["k", "probes", "steps"])
def test_wrong_settings(setting):
    with pytest.raises(ValueError, match="at least 1"):
        block_spectra(quadratic(a=[1.0]), **{setting: 0})


# -- heterogeneity --------------------------------------------------------------------------------------------------


def smoothed(values, edges, sigma):
    return np.diff(norm.cdf((edges[:, None] - np.asarray(values)) / sigma).mean(axis=1))


def test_distances_are_those_of_the_smoothed_spectra():
    spectra = {"a": bulk(300, 0), "b": np.r_[np.linspace(3, 2, 150), np.linspace(-1, 0, 150)], "c": bulk(200, 2, 0.5)}
    found = heterogeneity(block_spectra(quadratic(**spectra), probes=6, steps=40, generator=seeded(0)), sigma=0.1)
    edges = np.linspace(found.low, found.high, found.bins + 1)
    curves = [smoothed(values, edges, 0.1) for values in spectra.values()]
    for i in range(3):
        for j in range(3):
            expected = jensenshannon(curves[i], curves[j], base=2)
            allowed = 3 * float(found.stderr[i, j]) + float(found.floor[i] + found.floor[j]) ** 2 / max(expected, 0.1)
            assert abs(float(found.distances[i, j]) - expected) <= allowed, (i, j, expected)
    assert found.mean[0] == pytest.approx(float(found.distances[[0, 0, 1], [1, 2, 2]].mean()))
    assert torch.equal(found.distances, found.distances.T)
    assert bool((found.stderr[[0, 0, 1], [1, 2, 2]] > 0).all())


def test_equal_spectra_are_as_far_apart_as_a_block_is_from_itself():
    found = heterogeneity(
        block_spectra(quadratic(a=bulk(300, 0), b=bulk(300, 1), c=bulk(300, 2)), probes=4, generator=seeded(0))
    )
    assert 0 < found.mean[0] < 1.5 * found.mean_floor < 0.5


def test_normalised_by_the_tenth_scales_do_not_count():
    D = quadratic(a=bulk(300, 0), b=bulk(300, 1, 20.0), few=np.ones(3), flat=np.zeros(30))
    spectra = block_spectra(D, k=10, probes=4, generator=seeded(0))
    raw, own = heterogeneity(spectra), heterogeneity(spectra, normalise="tenth")
    assert float(raw.distances[0, 1]) > 3 * float(own.distances[0, 1])
    assert float(own.distances[0, 1]) < 1.5 * float(own.floor[:2].max())
    assert own.left_out == ("few", "flat")
    assert bool(own.distances[2:].isnan().all())
    assert "left out: few, flat" in str(own)
    assert "sigma" in str(own)


def test_what_cannot_be_compared_is_refused():
    spectra = block_spectra(quadratic(a=bulk(30, 0), b=bulk(30, 1)), generator=seeded(0))
    with pytest.raises(ValueError, match="k=10"):
        heterogeneity(spectra, normalise="tenth")
    with pytest.raises(ValueError, match="sigma must be positive"):
        heterogeneity(spectra, sigma=0.0)
    with pytest.raises(ValueError, match='"none" or "tenth"'):
        heterogeneity(spectra, normalise="tenths")
    with pytest.raises(ValueError, match="two blocks"):
        heterogeneity(block_spectra(quadratic(a=[1.0, 2.0]), generator=seeded(0)))
    single = heterogeneity(block_spectra(quadratic(a=[1.0], b=[2.0]), probes=1, generator=seeded(0)))
    assert single.mean[1] == float("inf")
    assert bool(single.floor.isnan().all())
