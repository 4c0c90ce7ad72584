"""The basis alone: its operations against dense ones, wherever it lies, in many pieces, and what it leaves behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from paths import ROOT
from spectra_cases import ShardedSpace, seeded_generator
from torch import Tensor

from landscape.operators.vectors import VectorSpace
from landscape.spectra.basis import place
from landscape.spectra.basis.basis import Basis
from landscape.spectra.basis.place import Where

PLACES: list[Where] = ["device", "host", "disk"]
N = 96


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with long vectors: four columns at a time. Temporary files go to a folder of the test."""
    monkeypatch.setattr(place, "_CHUNK_BYTES", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def orthonormal_columns(k: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linalg.qr(torch.randn(N, k, dtype=torch.float64, generator=seeded_generator(k))).Q.to(dtype)


class CountingSpace(VectorSpace):
    """Remembers the most columns of a basis that were handed to it at once, and how often ranks would talk."""

    most = reductions = 0

    def gram(self, X: Tensor, Y: Tensor, *, exact: bool = True) -> Tensor:
        self.most = max(self.most, X.shape[-1])
        return super().gram(X, Y, exact=exact)

    def reduce(self, G: Tensor) -> Tensor:
        self.reductions += 1
        return super().reduce(G)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("columns", [1, 8, 45])
def test_operations_are_the_dense_ones(where: Where, dtype: torch.dtype, columns: int) -> None:
    Q, eps = orthonormal_columns(columns, dtype), torch.finfo(dtype).eps
    basis = Basis(VectorSpace(N, dtype, torch.device("cpu")), 60, where)
    for start in range(0, columns, 3):
        basis.append(Q[:, start : start + 3])
    assert basis.size == columns
    assert torch.equal(basis.tensor(), Q)
    W = torch.randn(N, 3, dtype=dtype, generator=seeded_generator(1))
    h = Q.double().T @ W.double()
    torch.testing.assert_close(basis.inner(W), h, rtol=0, atol=1e-13)
    for _ in range(2):  # forwards and backwards
        coefficients, rest = basis.orthogonalise(W)
        torch.testing.assert_close(coefficients, h, rtol=0, atol=50 * eps)
        torch.testing.assert_close(rest.double(), W.double() - Q.double() @ h, rtol=0, atol=50 * eps)
        assert (Q.T @ rest).abs().max() < 20 * eps
    S = torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64, generator=seeded_generator(2))).Q
    S = S[:, : (columns + 1) // 2]
    expected = Q.double() @ S
    torch.testing.assert_close(basis.combine(S).double(), expected, rtol=0, atol=20 * eps)
    basis.restart(S)
    torch.testing.assert_close(basis.tensor().double(), expected, rtol=0, atol=20 * eps)
    basis.append(Q[:, :1])  # goes on as before
    assert basis.size == S.shape[1] + 1
    assert torch.equal(basis.tensor()[:, -1:], Q[:, :1])
    assert basis.footprint.vectors == max(columns, basis.size) * N * dtype.itemsize


@pytest.mark.parametrize("where", PLACES)
def test_a_restart_of_long_vectors_goes_by_rows(where: Where, monkeypatch: pytest.MonkeyPatch) -> None:
    from landscape.spectra.basis import basis as module

    monkeypatch.setattr(module, "_ROWS", 1)  # n / size = 4 rows at a time
    Q = orthonormal_columns(24)
    basis = Basis(VectorSpace(N, torch.float64, torch.device("cpu")), 24, where)
    basis.append(Q)
    S = torch.linalg.qr(torch.randn(24, 11, dtype=torch.float64, generator=seeded_generator(2))).Q
    basis.restart(S)
    torch.testing.assert_close(basis.tensor(), Q @ S, rtol=0, atol=1e-14)


@pytest.mark.parametrize("where", PLACES)
def test_beyond_the_capacity_the_oldest_are_forgotten(where: Where) -> None:
    Q = orthonormal_columns(40)
    basis = Basis(VectorSpace(N, torch.float64, torch.device("cpu")), 11, where)
    for i in range(40):
        basis.append(Q[:, i : i + 1])
        held = Q[:, max(0, i - 10) : i + 1]
        assert torch.equal(basis.tensor(), held)
        W = torch.ones(N, 1, dtype=torch.float64)
        torch.testing.assert_close(basis.inner(W), held.T @ W, rtol=0, atol=1e-13)
        h, rest = basis.orthogonalise(W)
        torch.testing.assert_close(h, held.T @ W, rtol=0, atol=1e-13)
        torch.testing.assert_close(rest, W - held @ (held.T @ W), rtol=0, atol=1e-13)
        S = torch.arange(float(basis.size)).double().reshape(-1, 1)
        torch.testing.assert_close(basis.combine(S), held @ S, rtol=0, atol=1e-12)


@pytest.mark.parametrize("where", PLACES)
def test_no_more_than_a_chunk_is_worked_on_and_ranks_talk_once_a_chunk(where: Where) -> None:
    space = CountingSpace(N, torch.float64, torch.device("cpu"))
    basis = Basis(space, 60, where)
    basis.append(orthonormal_columns(30))
    basis.orthogonalise(torch.ones(N, 1, dtype=torch.float64))
    assert (space.most, space.reductions) == (4, 8)
    basis.inner(torch.ones(N, 1, dtype=torch.float64))
    assert (space.most, space.reductions) == (4, 9)


def test_short_vectors_are_one_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    space = CountingSpace(N, torch.float64, torch.device("cpu"))
    basis = Basis(space, 60)
    basis.append(orthonormal_columns(60))
    basis.orthogonalise(torch.ones(N, 1, dtype=torch.float64))
    assert (space.most, space.reductions) == (60, 1)


def test_a_first_pass_is_nearly_exact_and_a_second_one_leaves_no_more_than_two_exact_ones() -> None:
    n = 3 * (1 << 16) + 5  # in pieces
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(n, 6, dtype=torch.float64, generator=generator)).Q.float()
    W = torch.randn(n, 1, generator=generator) + 1e3 * Q.sum(dim=1, keepdim=True)
    basis = Basis(VectorSpace(n, torch.float32, torch.device("cpu")), 6)
    basis.append(Q)
    exact = Q.double().T @ W.double()
    h, once = basis.orthogonalise(W, exact=False)
    torch.testing.assert_close(h, exact, rtol=4e-6, atol=0.0)
    _, twice = basis.orthogonalise(once)
    _, reference = basis.orthogonalise(basis.project(W))
    left, least = (float((Q.double().T @ w.double()).norm() / w.double().norm()) for w in (twice, reference))
    assert left <= 2 * least + 1e-9


@pytest.mark.parametrize("where", PLACES)
def test_a_rank_keeps_its_own_rows(where: Where) -> None:
    """Also one without any; every numbers of chunks is that of all ranks."""
    whole = VectorSpace(N, torch.float64, torch.device("cpu"))
    space, Q = ShardedSpace(whole), orthonormal_columns(30)
    basis = Basis(space, 30, where)
    basis.append(space.shard(Q))
    W = torch.ones(N, 2, dtype=torch.float64)
    torch.testing.assert_close(space.full(basis.project(space.shard(W))), W - Q @ (Q.T @ W), rtol=0, atol=1e-13)
    empty = Basis(VectorSpace(N, torch.float64, torch.device("cpu"), shape=(0,)), 30, where)
    empty.append(torch.empty(0, 30, dtype=torch.float64))
    assert empty.inner(torch.empty(0, 2, dtype=torch.float64)).tolist() == [[0.0, 0.0]] * 30
    assert empty.project(torch.empty(0, 2, dtype=torch.float64)).shape == (0, 2)
    empty.restart(torch.eye(30, dtype=torch.float64)[:, :3])
    assert empty.tensor().shape == (0, 3)


def mapped(folder: Path) -> bool:
    """Whether this process has a file of the folder in its memory."""
    return str(folder) in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
def test_the_file_has_no_name_and_goes_with_the_last_tensor(tmp_path: Path) -> None:
    basis = Basis(VectorSpace(N, torch.float64, torch.device("cpu")), 20, "disk")
    basis.reserve(20)
    basis.append(orthonormal_columns(12))
    whole = basis.tensor()
    assert mapped(tmp_path)
    assert list(tmp_path.iterdir()) == []
    basis.close()
    assert mapped(tmp_path)  # somebody looks at it
    assert torch.equal(whole, orthonormal_columns(12))
    del whole
    assert not mapped(tmp_path)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(MemoryError) as caught:
        Basis(VectorSpace(N, torch.float64, torch.device("cpu")), 20, "disk").append(orthonormal_columns(1))
    text = str(caught.value)
    assert "\n" not in text
    assert str(tmp_path) in text
    assert "No space left" in text
    assert "TMPDIR" in text
    assert list(tmp_path.iterdir()) == []


def test_no_folder_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(MemoryError, match=r"nowhere.*TMPDIR"):
        Basis(VectorSpace(N, torch.float64, torch.device("cpu")), 20, "disk").append(orthonormal_columns(1))


def test_a_file_that_may_not_grow_is_one_line() -> None:
    """A true limit of the system, where writing on would kill the process."""
    pytest.importorskip("resource")
    code = (
        "import resource, torch\n"
        "from landscape import MatrixOperator\n"
        "from landscape.spectra import eigsh\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    eigsh(MatrixOperator(torch.eye(200)), 3, basis='disk')\n"
        "except MemoryError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    assert "File too large" in found.stdout
    assert found.stdout.count("\n") == 1
