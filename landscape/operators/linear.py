"""Linear operators: what every curvature matrix is, and all that an algorithm may do with one.

An operator is a symmetric (n, n) matrix known through its products. Its vectors are those of `A.space`, which says how
to take inner products, combine, draw and so on: an operator whose vectors are sharded over ranks has another space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from landscape.memory import Memory, budget
from landscape.operators.check import Check, worst
from landscape.operators.vectors import Kind, VectorSpace

if TYPE_CHECKING:
    import scipy.sparse.linalg

# Roundings in a number that is read off products: they, inner products and orthonormal bases round once or more per
# entry. Up to 16 in the trace of dense matrices of n = 50 to 1500 whose eigenvalues decay over all digits.
ROUNDINGS = 16.0


class LinearOperator:
    """A symmetric matrix known through its products with blocks of vectors.

    A subclass implements `_matmat(V)`: (n, k) in `.dtype` on `.device` to (n, k). Everything else is derived.

    Attributes:
        space: of the vectors; sums, multiples and shifts of the operator share it.
        shape: `(n, n)`, global even when the vectors are sharded.
        dtype, device: of the vectors, never half precision.
        matvecs: products made so far, counted in vectors.
        noise: relative error of one product beyond rounding in `dtype` (0.0 when exact). Algorithms add it to
            their error bars and do not try to converge below it.
        positive_semidefinite: True when that is known by construction.
        memory: bytes that algorithms may use for vectors of this operator.
        checked: what its self-check has found, made at the first product; None before it, and without one.

    Example:
        >>> import torch
        >>> from landscape import LinearOperator
        >>> class Triple(LinearOperator):
        ...     def _matmat(self, V):
        ...         return 3 * V
        >>> A = Triple(2, torch.float64, torch.device("cpu"))
        >>> A.shifted(1.0) @ torch.ones(2)
        tensor([4., 4.], dtype=torch.float64)
    """

    positive_semidefinite: bool = False
    zero: ClassVar[str] = ""  # what may make all of it zero, for the note of a result: ", as ..."
    __array_priority__: ClassVar[float] = 1e6  # a * A with a numpy scalar must come to __rmul__

    def __init__(
        self, size: int, dtype: torch.dtype, device: torch.device, *, noise: float = 0.0, memory: Memory = "auto"
    ) -> None:
        self.space = VectorSpace(size, dtype, device)
        self.shape = (size, size)
        self.dtype = dtype
        self.device = self.space.device
        self._noise = noise
        self.matvecs = 0
        self._memory = memory

    @property
    def noise(self) -> float:
        """Relative error of one product beyond rounding; where it has to be measured, when it is asked for."""
        return self._measured_noise()

    @noise.setter
    def noise(self, value: float) -> None:
        self._noise = value

    def _measured_noise(self) -> float:
        """What `noise` is now; a subclass may have to measure it."""
        return self._noise

    # -- what a subclass provides ------------------------------------------------------------------------

    def _matmat(self, V: Tensor) -> Tensor:
        raise NotImplementedError

    def restrict(self, names: Iterable[str] | str) -> LinearOperator:
        """The diagonal block that belongs to the named parameters (names or globs), as an operator."""
        raise TypeError(f"{type(self).__name__} has no named parameters to restrict to; use A.block(indices)")

    def release(self) -> None:
        """Drop everything kept between products (graphs, batches on the device). The next product rebuilds it."""

    @property
    def checked(self) -> Check | None:
        """The verdict of the self-check; results of algorithms carry it."""
        return None

    # -- products and algebra ----------------------------------------------------------------------------

    @property
    def memory(self) -> int:
        """Bytes that algorithms may use for vectors: the budget given, or half of what is free now."""
        return int(-self.space.ranks.largest(-budget(self._memory, self.device)))  # of several ranks, the least

    def __matmul__(self, V: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """A v for `(n,)`, A V for `(n, k)`; the result has the operator's dtype and device."""
        if isinstance(V, LinearOperator):
            raise TypeError("products of two operators are not symmetric in general: apply them one after the other")
        with torch.inference_mode(False), torch.no_grad():  # the caller's mode must not mark the result
            columns = self.space.columns(V)
            columns = columns.clone() if columns.is_inference() else columns
            if columns.shape[-1] == 0:
                return torch.zeros_like(columns)
            self.matvecs += columns.shape[-1]
            product = self._matmat(columns)
            if product.shape != columns.shape:
                raise ValueError(
                    f"{type(self).__name__}._matmat gives {tuple(product.shape)} for {tuple(columns.shape)}: it takes "
                    "(n, k) and returns A V in the same shape"
                )
            return product if columns.ndim == np.ndim(V) else product.squeeze(-1)

    def __add__(self, other: LinearOperator) -> LinearOperator:
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return _Combination(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return self + -other

    def __mul__(self, factor: float) -> LinearOperator:
        if isinstance(factor, LinearOperator):
            return NotImplemented
        return _Combination(self, factor=float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> LinearOperator:
        return -1.0 * self

    def shifted(self, s: float) -> LinearOperator:
        """A + s I."""
        return _Combination(self, shift=float(s))

    # -- vectors -------------------------------------------------------------------------------------------

    def inner(self, X: Tensor, Y: Tensor) -> Tensor:
        """X^T Y, as `VectorSpace.inner`."""
        return self.space.inner(X, Y)

    def combine(self, X: Tensor, C: Tensor) -> Tensor:
        """X @ C for a small C, as `VectorSpace.combine`."""
        return self.space.combine(X, C)

    def random(self, k: int, kind: Kind = "rademacher", generator: torch.Generator | None = None) -> Tensor:
        """`(n, k)` random columns, as `VectorSpace.random`."""
        return self.space.random(k, kind, generator)

    def unit(self, indices: Sequence[int] | Tensor) -> Tensor:
        """`(n, k)` unit vectors, as `VectorSpace.unit`."""
        return self.space.unit(indices)

    # -- dense and foreign views --------------------------------------------------------------------------

    def block(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The dense sub-matrix A[indices][:, indices], `(k, k)`, for k products."""
        n = self.shape[0]
        index = torch.as_tensor(indices).reshape(-1)
        if index.dtype == torch.bool:  # a mask
            if len(index) != n:
                raise IndexError(f"a mask of block indices has {n} entries, not {len(index)}")
            index = index.nonzero()[:, 0]
        if index.numel() and (index.is_floating_point() or index.is_complex()):
            raise TypeError(f"block indices are whole numbers or a mask, not {index.dtype}")
        index = index.long()
        if index.numel() and (int(index.min()) < -n or int(index.max()) >= n):
            raise IndexError(f"block indices must lie in [0, {n}), got {int(index.min())}..{int(index.max())}")
        index = index % n
        E = [self.unit(part) for part in index.split(self.products_per_call(index.numel()))]
        rows = [torch.cat([self.inner(F, self @ G) for F in E]) for G in E]
        return torch.cat(rows, dim=1).to(device=self.device, dtype=self.dtype)

    def to_dense(self) -> Tensor:
        """The matrix, `(n, n)`, for n products. Raises `MemoryError` when it does not fit the budget."""
        none = torch.zeros(self.shape[0], 0, dtype=self.dtype, device=self.device)
        return torch.cat([none, *self.columns()], dim=-1)

    def columns(self) -> Iterator[Tensor]:
        """The matrix in blocks of columns, one after the other; raises `MemoryError` where all of it does not fit."""
        n, needed = self.shape[0], self.shape[0] ** 2 * self.dtype.itemsize
        if needed > self.memory:
            raise MemoryError(
                f"a dense {n} x {n} matrix needs {needed / 2**30:.1f} GiB, the budget is {self.memory / 2**30:.1f} "
                f"GiB: up to n = {math.isqrt(self.memory // self.dtype.itemsize)} would fit"
            )
        step = self.products_per_call(n)
        for i in range(0, n, step):
            yield self.space.full(self @ self.unit(range(i, min(i + step, n))))

    def products_per_call(self, k: int) -> int:
        """How many columns algorithms should hand over at once when they want k of them."""
        if k <= 1:
            return 1  # the memory of several ranks is asked of all of them
        return int(max(1, min(k, 64, self.memory // (4 * self.space.column_bytes))))

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """The operator as a `scipy.sparse.linalg.LinearOperator` on numpy vectors of the same dtype."""
        from scipy.sparse.linalg import LinearOperator as ScipyOperator

        def product(V: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return np.asarray(self.space.full(self @ self.space.shard(torch.from_numpy(np.array(V)))).cpu().numpy())

        dtype = np.dtype(str(self.dtype).removeprefix("torch."))
        return ScipyOperator(self.shape, product, rmatvec=product, matmat=product, rmatmat=product, dtype=dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.shape[0]}, dtype={self.dtype}, device={self.device})"


class CombinedOperator(LinearOperator):
    """An operator made of others on one space; what `A + B`, `a * A` and the like are."""

    def __init__(self, first: LinearOperator, *others: LinearOperator) -> None:
        super().__init__(first.shape[0], first.dtype, first.device, memory=first._memory)
        self._parts = (first, *others)
        # of several ranks where one part is: all draw the same vectors
        self.space = next((A.space for A in self._parts if A.space.ranks.several), first.space)

    @override
    def _measured_noise(self) -> float:
        return max(A.noise for A in self._parts)

    @property
    @override
    def checked(self) -> Check | None:
        return worst(part.checked for part in self._parts)

    @override
    def release(self) -> None:
        for part in self._parts:
            part.release()


class _Combination(CombinedOperator):
    """factor * (A + B + ...) + shift * I."""

    def __init__(self, *parts: LinearOperator, factor: float = 1.0, shift: float = 0.0) -> None:
        first = parts[0]
        for other in parts[1:]:
            if first.shape != other.shape:
                raise ValueError(f"cannot add operators of shapes {first.shape} and {other.shape}")
            if first.dtype != other.dtype:
                raise TypeError(f"cannot add operators of dtypes {first.dtype} and {other.dtype}")
        super().__init__(*parts)
        self._factor, self._shift = factor, shift
        self.positive_semidefinite = all(A.positive_semidefinite for A in parts) and factor >= 0 and shift >= 0

    @override
    def _matmat(self, V: Tensor) -> Tensor:
        product = self._parts[0] @ V
        for part in self._parts[1:]:
            product = product + part @ V
        product = product if self._factor == 1.0 else self._factor * product
        return product if self._shift == 0.0 else product + self._shift * V

    @override
    def restrict(self, names: Iterable[str] | str) -> LinearOperator:
        names = [names] if isinstance(names, str) else list(names)
        parts = (part.restrict(names) for part in self._parts)
        return _Combination(*parts, factor=self._factor, shift=self._shift)


def products(A: LinearOperator, X: Tensor) -> Tensor:
    """A X, as many columns at once as the operator wants."""
    parts = [A @ part for part in X.split(A.products_per_call(X.shape[-1]), dim=-1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def rounding(A: LinearOperator) -> float:
    """Relative error of one product: machine precision of its dtype, or the noise when that is larger."""
    return max(torch.finfo(A.dtype).eps, A.noise)


def error_floor(A: LinearOperator) -> float:
    """Relative error of a number that is read off products of A: rounding and noise, what no algorithm gets below."""
    return ROUNDINGS * torch.finfo(A.dtype).eps + A.noise


def require_finite(A: LinearOperator, *numbers: Tensor | float) -> None:
    """Refuse what came out of a product that is not finite (`FloatingPointError`)."""
    if not all(bool(torch.isfinite(torch.as_tensor(x, dtype=torch.float64)).all()) for x in numbers):
        raise FloatingPointError(
            f"a product of {type(A).__name__} has entries that are not finite: the parameters, the data or the loss "
            "hold NaN or inf, or the second derivative overflows"
        )
