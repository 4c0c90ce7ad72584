from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra_cases import BrokenOperator, DiagonalOperator, matrix, seeded_generator, spectra

from landscape.operators.matrix import MatrixOperator
from landscape.spectra import Density, density


def test_first_moments_are_right_for_a_fixed_probe() -> None:
    A = matrix(spectra(60)["indefinite"])
    result = density(MatrixOperator(A), probes=3, steps=6, generator=seeded_generator(0))
    V = MatrixOperator(A).random(3, "normal", seeded_generator(0))
    V = V / V.norm(dim=0)
    X = V
    for j in range(12):  # 2 * steps - 1 moments beside the zeroth
        moments = (result.weights * result.nodes**j).sum(dim=1)
        assert torch.allclose(moments, (V * X).sum(dim=0), rtol=1e-10, atol=1e-13), j
        X = A @ X
    assert result.matvecs == 18
    assert torch.allclose(result.weights.sum(dim=1), torch.ones(3, dtype=torch.float64), atol=1e-14)


def test_curve_mass_and_moment_against_the_spectrum() -> None:
    d = spectra(400)["outliers"]
    result = density(DiagonalOperator(d), probes=10, steps=80, generator=seeded_generator(1))
    sigma = 0.02
    grid = torch.linspace(-0.2, 1.2, 701)
    mean, stderr = result.curve(grid, sigma)
    z = (grid.double()[:, None] - torch.from_numpy(d)) / sigma
    true = torch.exp(-0.5 * z**2).mean(dim=1) / (sigma * (2 * torch.pi) ** 0.5)
    assert float(torch.trapezoid(mean, grid.double())) == pytest.approx(1.0, abs=1e-6)
    assert ((mean - true).abs() <= 2 * stderr + 1e-3).double().mean() > 0.85
    for lo, hi in ((0.25, 1.1), (0.95, 1.1), (-1.0, 0.2)):
        mass = result.mass(lo, hi)
        assert abs(mass.value - np.mean((d >= lo) & (d <= hi))) <= 3 * mass.stderr
    assert result.mass(-10, 10).value == pytest.approx(1.0)
    for k in (1, 2, 3):
        moment = result.moment(k)
        assert abs(moment.value - np.mean(d**k)) <= 3 * moment.stderr
    assert result.moment(0).value == pytest.approx(1.0)


def test_mass_and_moments_of_given_nodes() -> None:
    nodes = torch.tensor([[-1.0, 0.5, 2.0], [-1.0, 1.0, 2.0]], dtype=torch.float64)
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.4, 0.6, 0.0]], dtype=torch.float64)
    made = Density(nodes, weights, n=7, matvecs=6, seed=0)
    for bounds, mass in (((-1.0, 0.5), 0.45), ((0.5, 0.5), 0.15), ((0.75, 2.0), 0.55), ((-0.9, 0.4), 0.0)):
        assert made.mass(*bounds).value == pytest.approx(mass), bounds  # both ends belong to the interval
    for k, moment in (
        (0, 1.0),
        (1, 0.5 * (-0.2 + 0.15 + 1.0) + 0.5 * 0.2),
        (3, 0.5 * (-0.2 + 0.0375 + 4.0) + 0.5 * 0.2),
    ):
        assert made.moment(k).value == pytest.approx(moment), k


def test_moments_cover_the_truth() -> None:
    d = spectra(200)["decaying"]
    found = [density(DiagonalOperator(d), probes=5, steps=4, generator=seeded_generator(s)) for s in range(200)]
    moments = [one.moment(1) for one in found]
    inside = [abs(m.value - d.mean()) <= 2 * m.stderr for m in moments]
    assert np.mean(inside) >= 0.88  # five samples of a skew distribution
    masses = [one.mass(-1.0, 0.5 * d.max()) for one in found]
    for estimates in (moments, masses):  # Student's factor is 1.42
        assert np.mean([m.stderr for m in estimates]) < 2.0 * np.std([m.value for m in estimates])


CLUSTERS = {  # eigenvalues on both sides of 0 that 20 nodes do not tell apart, and a gap
    "around zero": np.concatenate([1e-4 * np.random.default_rng(0).normal(size=180), np.linspace(0.1, 2.0, 20)]),
    "decaying, of both signs": 0.9 ** np.arange(200) * np.where(np.arange(200) % 3 == 0, -1.0, 1.0),
    "even": np.linspace(-1.0, 1.0, 200),
}


@pytest.mark.parametrize("d", CLUSTERS.values(), ids=CLUSTERS.keys())
def test_a_bound_inside_a_cluster_is_as_uncertain_as_its_nodes_lie_apart(d: np.ndarray) -> None:
    for seed in range(10):
        found = density(DiagonalOperator(d), probes=6, steps=20, generator=seeded_generator(seed))
        below = found.mass(-np.inf, 0.0)
        assert abs(below.value - np.mean(d <= 0)) <= below.stderr
    far = found.mass(-np.inf, 1.5 * d.max())
    assert far.value == pytest.approx(1.0)
    assert far.stderr < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_early_breakdown_is_padded(dtype: torch.dtype) -> None:
    d = np.zeros(30)
    d[:2] = [2.0, 1.0]
    result = density(DiagonalOperator(d, dtype), probes=4, steps=50, generator=seeded_generator(0))
    assert result.nodes.shape == result.weights.shape == (4, 50)
    assert (result.weights[:, 10:].sum(dim=1) < 1e-5).all()
    assert result.matvecs < 4 * 12
    assert torch.allclose(result.weights.sum(dim=1), torch.ones(4, dtype=torch.float64))
    share = result.mass(0.5, 3.0)
    assert abs(share.value - 2 / 30) <= 3 * share.stderr
    identity = density(DiagonalOperator(np.ones(20), dtype), probes=2, steps=5)
    assert torch.allclose(identity.nodes, torch.ones(2, 5, dtype=torch.float64), atol=1e-5)


def test_little_memory_runs_in_chunks_with_the_same_numbers() -> None:
    d = spectra(200)["outliers"]
    roomy = density(DiagonalOperator(d), probes=5, steps=30, generator=seeded_generator(3))
    tight = density(
        DiagonalOperator(d, memory=110 * 200 * 8), probes=5, steps=30, basis="device", generator=seeded_generator(3)
    )
    assert torch.allclose(roomy.nodes, tight.nodes, atol=1e-10)
    assert tight.complete


def test_no_room_for_a_basis_keeps_the_density() -> None:
    d = spectra(300)["outliers"]
    roomy = density(DiagonalOperator(d), probes=4, steps=100, generator=seeded_generator(3))
    window = density(
        DiagonalOperator(d, memory=8 * 300 * 8), probes=4, steps=100, basis="device", generator=seeded_generator(3)
    )
    assert not window.complete
    grid = torch.linspace(-0.2, 1.2, 201)
    one, many = roomy.curve(grid, 0.03)[0], window.curve(grid, 0.03)[0]
    assert (one - many).abs().max() < 1e-3 * one.max()
    with pytest.raises(MemoryError, match="density"):
        density(DiagonalOperator(d, memory=3 * 300 * 8), basis="device")


def test_the_callback_is_told_the_largest_node_so_far() -> None:
    told: list[float] = []
    A = MatrixOperator(torch.diag(torch.linspace(-9.0, 5.0, 200, dtype=torch.float64)))
    found = density(A, probes=2, steps=12, callback=lambda done, planned, top: told.append(top))
    assert told == sorted(told)
    assert told[-1] == pytest.approx(float(found.nodes.abs().max()), rel=1e-12)


def test_one_probe_callback_and_refusals() -> None:
    A = DiagonalOperator(spectra(50)["outliers"])
    one = density(A, probes=1, steps=10)
    assert one.mass(0, 1).stderr == float("inf")
    assert torch.isinf(one.curve([0.0, 1.0], 0.1)[1]).all()
    part = density(A, probes=3, steps=20, callback=lambda done, planned, top: done >= 15)
    assert part.nodes.shape == (3, 5)
    assert not part.complete
    assert part.matvecs == 15
    for wrong in ({"probes": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            density(A, **wrong)
    with pytest.raises(ValueError, match="sigma"):
        one.curve([0.0], 0.0)
    with pytest.raises(FloatingPointError, match="finite"):
        density(BrokenOperator(torch.eye(9)))
