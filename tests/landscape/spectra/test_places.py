"""Every algorithm gives the same numbers to the last bit wherever its basis lies, and leaves no file behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spectra_cases import DiagonalOperator, ShardedOperator, best, matrix, seeded_generator, spectra

from landscape.operators.linear import LinearOperator
from landscape.operators.matrix import MatrixOperator
from landscape.spectra import condition, condition_number, density, eigsh, lanczos, trace
from landscape.spectra.basis import place
from landscape.spectra.basis.place import BasisChoice

N = 96
TIGHT = 14  # columns of a basis that has to restart


def operator(name: str, dtype: torch.dtype = torch.float64, columns: int = 1000) -> LinearOperator:
    return DiagonalOperator(spectra(N)[name], dtype, memory=columns * N * dtype.itemsize)


def search(A: LinearOperator, basis: BasisChoice, k: int = 4, **settings: Any) -> list[Any]:
    found = eigsh(A, k, basis=basis, generator=seeded_generator(0), **settings)
    return [found.values, found.vectors, found.residuals, found.matvecs]


def warm(A: LinearOperator, basis: BasisChoice) -> list[Any]:
    cold = eigsh(A, 4, basis=basis, generator=seeded_generator(0))
    return search(A, basis, v0=cold.vectors + 1e-3)


def resumed(A: LinearOperator, basis: BasisChoice) -> list[Any]:
    v = A.random(1, "normal", seeded_generator(3))[..., 0]
    found = lanczos(A, lanczos(A, v, 12, basis=basis), 20, basis=basis)
    return [found.alpha, found.beta, found.basis, found.residual]


def rule(A: LinearOperator, basis: BasisChoice, steps: int = 40) -> list[Any]:
    found = density(A, probes=3, steps=steps, basis=basis, generator=seeded_generator(0))
    return [found.nodes, found.weights, found.complete]


def estimate(A: LinearOperator, basis: BasisChoice, method: str) -> list[Any]:
    found = trace(A, method=method, matvecs=120, rtol=1e-6, basis=basis, generator=seeded_generator(0))
    return [found.value, found.stderr, found.matvecs]


def kappa(A: LinearOperator, basis: BasisChoice) -> list[Any]:
    bound = condition.lower_bound(A, None, basis)
    return [bound.kappa, bound.rank]


ALGORITHMS: dict[str, Callable[[LinearOperator, BasisChoice], list[Any]]] = {
    "eigsh": search,
    "both ends": lambda A, basis: search(A, basis, which="LM"),
    "blocks": lambda A, basis: search(A, basis, block=3),
    "warm": warm,
    "nearly all": lambda A, basis: search(A, basis, k=N - 1),
    "no confirmation": lambda A, basis: search(A, basis, confirm=False),
    "lanczos": resumed,
    "density": rule,
    "whole density": lambda A, basis: rule(A, basis, N + 5),
    "hutch++": lambda A, basis: estimate(A, basis, "hutch++"),
    "xtrace": lambda A, basis: estimate(A, basis, "xtrace"),
    "condition": kappa,
}


def same(expected: list[Any], found: list[Any]) -> None:
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


@pytest.mark.parametrize("chunk", ["small", "large"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_the_place_changes_no_bit(
    algorithm: str, dtype: torch.dtype, chunk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk == "small":
        monkeypatch.setattr(place, "_CHUNK_BYTES", 0)
    run, A = ALGORITHMS[algorithm], operator("indefinite" if algorithm != "condition" else "decaying", dtype)
    expected = run(A, "device")
    for basis in ("host", "disk"):
        same(expected, run(A, basis))


@pytest.mark.parametrize("which", ["LA", "LM"])
def test_restarts_on_disk_are_those_in_memory(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    A = operator("indefinite", columns=TIGHT + 9)  # nine beside the basis
    expected = search(A, "device", which=which, tol=1e-6)
    monkeypatch.setattr(place, "available_disk", lambda: TIGHT * N * 8)
    monkeypatch.setattr(place, "_CHUNK_BYTES", 0)
    found = eigsh(A, 4, which=which, tol=1e-6, basis="disk", generator=seeded_generator(0))
    assert found.converged
    assert found.footprint is not None
    assert found.matvecs == expected[3] > TIGHT
    assert found.footprint.vectors == TIGHT * N * 8  # it was full
    torch.testing.assert_close(found.values, expected[0], rtol=0, atol=1e-9)
    true = torch.from_numpy(best(spectra(N)["indefinite"], which, 4))
    torch.testing.assert_close(found.values, true, rtol=0, atol=2e-6)


@pytest.mark.parametrize("basis", ["device", "disk"])
def test_a_space_on_several_ranks(basis: BasisChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_CHUNK_BYTES", 0)
    A = matrix(spectra(80)["outliers"])
    one, many = MatrixOperator(A, memory=1 << 30), ShardedOperator(A)
    expected, found = (eigsh(X, 5, basis=basis, generator=seeded_generator(0)) for X in (one, many))
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(many.space.full(found.vectors).abs(), expected.vectors.abs(), rtol=0, atol=1e-6)


def test_condition_numbers_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condition, "DENSE_LIMIT", 10)
    A = operator("decaying")
    found = [condition_number(A, rank=3, basis=basis) for basis in ("device", "disk")]
    assert [one.kappa for one in found] == pytest.approx([3**1.5] * 2, rel=1e-4)
    assert [one.footprint.where for one in found if one.footprint is not None] == ["device", "disk"]


class Stumbling(DiagonalOperator):
    """Gives up after some products."""

    error: BaseException = KeyboardInterrupt()

    def _matmat(self, V: torch.Tensor) -> torch.Tensor:
        if self.matvecs > 40:
            raise self.error
        return super()._matmat(V)


RUNS: dict[str, Callable[[LinearOperator], object]] = {
    "eigsh": lambda A: eigsh(A, 4, tol=1e-9, basis="disk"),
    "density": lambda A: density(A, probes=2, steps=30, basis="disk"),
    "lanczos": lambda A: lanczos(A, torch.ones(N), 50, basis="disk"),
    "xtrace": lambda A: trace(A, method="xtrace", rtol=1e-9, matvecs=60, basis="disk"),
    "condition": lambda A: condition.lower_bound(A, None, "disk"),
}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("out of luck")])
@pytest.mark.parametrize("algorithm", list(RUNS))
def test_nothing_is_left_on_disk(
    algorithm: str, error: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[bool] = []

    def mapped() -> bool:
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    class Watching(Stumbling):
        def _matmat(self, V: torch.Tensor) -> torch.Tensor:
            seen.append(mapped())
            return super()._matmat(V) if error is not None else self.d * V

    A = Watching(np.linspace(1.0, 2.0, N))
    if error is None:
        RUNS[algorithm](A)
    else:
        A.error = error
        with pytest.raises(type(error)):
            RUNS[algorithm](A)
    assert any(seen)  # it was there
    assert not mapped()
    assert list(tmp_path.iterdir()) == []


def test_a_callback_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(matvecs: int, planned: int, estimate: float) -> None:
        if matvecs > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:  # the traceback holds on to everything
        eigsh(operator("outliers"), 4, basis="disk", callback=interrupt)
    if Path("/proc/self/maps").exists():
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert caught.traceback
    assert list(tmp_path.iterdir()) == []
