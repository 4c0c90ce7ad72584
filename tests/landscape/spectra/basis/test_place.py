"""Where a basis goes, by the budgets of the device, the host and the disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spectra_cases import DiagonalOperator

from landscape.operators.linear import LinearOperator
from landscape.spectra import Footprint, density, eigsh, footprint, lanczos
from landscape.spectra.basis import place
from landscape.spectra.basis.place import choose_place

N = 1000
COLUMN = 8 * N


def operator(columns: int) -> LinearOperator:
    return DiagonalOperator(np.linspace(1.0, 2.0, N), memory=columns * COLUMN)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(place, "available_disk", lambda: 500 * COLUMN)
    return monkeypatch


@pytest.mark.parametrize(("columns", "where"), [(104, "device"), (103, "disk")])
def test_the_device_first_then_the_disk(columns: int, where: str, disk: pytest.MonkeyPatch) -> None:
    assert choose_place(operator(columns), "auto", enough=100, beside=4).where == where


def test_the_host_comes_before_the_disk_where_it_is_not_the_device(disk: pytest.MonkeyPatch) -> None:
    A = operator(50)
    A.device = torch.device("cuda")  # the budget is given: nobody asks the device
    disk.setattr(place, "host_budget", lambda: 100 * COLUMN)
    assert choose_place(A, "auto", enough=100, beside=4).where == "host"
    disk.setattr(place, "host_budget", lambda: 99 * COLUMN)
    found = choose_place(A, "auto", enough=100, beside=4)
    assert (found.where, found.columns, found.aside) == ("disk", 500, 46)


def test_a_named_place_is_taken_and_the_roomiest_where_none_is_enough(disk: pytest.MonkeyPatch) -> None:
    for name in ("device", "host", "disk"):
        assert choose_place(operator(50), name, enough=10, beside=4).where == name
    assert choose_place(operator(50), "auto", enough=900, beside=4).where == "disk"
    assert choose_place(operator(700), "auto", enough=900, beside=4).where == "device"
    with pytest.raises(ValueError, match="basis is one of auto, device, host, disk, not 'tape'"):
        choose_place(operator(50), "tape", enough=10, beside=4)


def test_a_device_that_cannot_hold_what_is_worked_on_has_no_basis_anywhere(disk: pytest.MonkeyPatch) -> None:
    found = choose_place(operator(7), "auto", enough=10, beside=4)
    assert (found.where, found.columns) == ("device", 3)
    with pytest.raises(MemoryError, match="k = 4"):
        eigsh(operator(7), 4)
    with pytest.raises(MemoryError, match="10 basis vectors"):
        lanczos(operator(7), torch.ones(N), 10)


def test_algorithms_go_to_disk_by_themselves_and_tell_it(disk: pytest.MonkeyPatch) -> None:
    A = operator(40)
    pairs = eigsh(A, 3, generator=torch.Generator().manual_seed(0))
    assert pairs.footprint is not None
    assert (pairs.footprint.where, pairs.footprint.vectors % COLUMN) == ("disk", 0)
    assert str(pairs).endswith(" on disk")
    found = density(A, probes=2, steps=40, generator=torch.Generator().manual_seed(0))
    assert found.footprint == Footprint(2 * 40 * COLUMN, "disk") == footprint(A, steps=40, probes=2)
    assert found.complete
    assert footprint(A, k=3) == Footprint(128 * COLUMN, "disk")
    near = eigsh(operator(200), 3, generator=torch.Generator().manual_seed(0))
    assert near.footprint is not None
    assert near.footprint.where == "device"
    assert "basis" not in str(near)


def test_where_nothing_has_room_the_search_restarts_and_the_density_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "available_disk", lambda: 0)
    A = DiagonalOperator(1.0 / np.arange(1, N + 1), memory=24 * COLUMN)
    pairs = eigsh(A, 3, tol=1e-6, generator=torch.Generator().manual_seed(0))
    assert pairs.converged
    assert pairs.matvecs > 16
    assert pairs.footprint is not None
    assert pairs.footprint.where == "device"
    assert pairs.footprint.vectors <= 16 * COLUMN  # eight beside it
    assert not density(A, probes=1, steps=60, generator=torch.Generator().manual_seed(0)).complete
    with pytest.raises(MemoryError, match="has room for 20 of them on the device"):
        lanczos(A, torch.ones(N), 60)


def test_footprints_in_words() -> None:
    assert str(Footprint(5 << 29, "disk")) == "basis 2.5 GiB on disk"
    assert str(Footprint(1 << 20, "host", gathered=1500)) == "basis 1.0 MiB in host memory, 2 KiB of gathered weights"
    with pytest.raises(ValueError, match="k, for eigsh, or steps"):
        footprint(operator(10))
