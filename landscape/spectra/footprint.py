"""What a spectrum will take beside its products, before it starts."""

from __future__ import annotations

from landscape.operators.linear import LinearOperator
from landscape.spectra.basis.place import BasisChoice, Footprint
from landscape.spectra.chains import chains_place
from landscape.spectra.task import search_place


def footprint(
    A: LinearOperator, *, k: int | None = None, steps: int | None = None, probes: int = 1, basis: BasisChoice = "auto"
) -> Footprint:
    """What `eigsh` for k pairs takes at most, or `density` with that many steps, and where, as things stand now.

    No product is made. The result of the algorithm says what it took.

    Raises `ValueError` unless one of k and steps is given, `MemoryError` as the algorithm would.

    Example:
        >>> import torch
        >>> from landscape import MatrixOperator
        >>> from landscape.spectra import footprint
        >>> A = MatrixOperator(torch.eye(100), memory=1 << 20)
        >>> print(footprint(A, steps=64, probes=8), "or", footprint(A, k=5, basis="disk"))
        basis 200 KiB on the device or basis 40 KiB on disk
    """
    if (k is None) == (steps is None):
        raise ValueError("give k, for eigsh, or steps, for density")
    if k is not None:
        place = search_place(A, k, 1, basis)
        return Footprint(place.columns * A.space.column_bytes, place.where)
    depth = min(steps or 1, A.shape[0])
    place, at_once = chains_place(A, probes, depth, basis, "density")
    return Footprint(max(at_once * depth, min(depth, place.columns)) * A.space.column_bytes, place.where)
