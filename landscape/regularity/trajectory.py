"""What a run leaves behind for the function classes: six numbers a step, held as float64 on the host.

Every condition of arXiv 2410.12455 and its competitors is an inequality between them, one inequality a row:
r_k = <g_k, x_k - x_K>, f_k(x_k), f_k(x_K), f_k^*, ||g_k|| and ||x_k - x_K||, where f_k is the loss of step k (a
mini-batch, one sample, or the whole data) and x_K the end point of the same run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Reference: TypeAlias = Literal["final", "infimum"]

EPS = float(np.finfo(np.float64).eps)
# Losses of a float32 model differ by this much between two orders of summation.
_SLACK = 16 * float(np.finfo(np.float32).eps)
_COARSE = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23}
# Below it a division by f_k(x_K) - f_k^* may overflow, so it counts as 0.
_SMALLEST = float(np.finfo(np.float64).tiny) * 2.0**100
_FIELDS = ("inner", "loss", "final_loss", "infimum", "grad_norm", "distance")


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Trajectory:
    """Rows (k) of a run or of several; their order does not matter. All `(T,)` float64, read-only.

    Any row may come from any function: `Trajectory.concatenate` joins seeds, and the samples i at one checkpoint
    are rows as well. That x_K is the run's own last iterate is for whoever records it to see to.

    Args:
        inner: <g_k, x_k - x_K>, g_k the gradient of f_k at x_k.
        loss: f_k(x_k).
        final_loss: f_k(x_K), the same f_k at the end point.
        infimum: f_k^* = inf f_k; a scalar stands for all rows. 0 where nothing better is known: too small a value
            makes the alpha-beta-condition easier to satisfy.
        grad_norm: ||g_k||.
        distance: ||x_k - x_K||.
        steps: labels of the rows, integers, by which steps are named everywhere; default 0, 1, ..., T-1.
        rounding: relative error of the losses; default that of the least exact dtype in which they came. Pass
            1.2e-7 for float32 losses that were stored as float64. A difference of losses within it has no sign.

    Raises:
        TypeError: a field that holds no real numbers.
        ValueError: fields of unequal length, no rows, entries that are not finite or negative norms, a loss below
            its infimum by more than rounding, or rows that are all x_K itself, which say nothing.

    Example:
        >>> from landscape.regularity import Trajectory
        >>> x = [2.0, 1.0]  # on the way to 0 on f(x) = x^2 / 2
        >>> t = Trajectory([4.0, 1.0], [2.0, 0.5], [0.0, 0.0], infimum=0.0, grad_norm=x, distance=x)
        >>> t, t.drop.tolist()
        (Trajectory(2 rows, steps 0 to 1), [2.0, 0.5])
    """

    inner: Array
    loss: Array
    final_loss: Array
    infimum: Array
    grad_norm: Array
    distance: Array
    steps: NDArray[np.int64]
    rounding: float

    def __init__(
        self,
        inner: Any,
        loss: Any,
        final_loss: Any,
        infimum: Any,
        grad_norm: Any,
        distance: Any,
        *,
        steps: Any = None,
        rounding: float | None = None,
    ) -> None:
        given = (inner, loss, final_loss, infimum, grad_norm, distance)
        arrays = {name: as_array(value, name) for name, value in zip(_FIELDS, given, strict=True)}
        if arrays["infimum"].ndim == 0:
            arrays["infimum"] = np.full(arrays["loss"].shape, float(arrays["infimum"]))
        for name, array in arrays.items():
            if array.ndim != 1:
                raise ValueError(f"{name} must have one number a step, not the shape {array.shape}")
        if len({len(array) for array in arrays.values()}) > 1:
            said = ", ".join(f"{name} {len(array)}" for name, array in arrays.items())
            raise ValueError(f"the fields have unequal lengths ({said}): each needs one number a step")
        if len(arrays["inner"]) == 0:
            raise ValueError("the trajectory has no steps: record at least one before its end point")
        labels = _labels(steps, len(arrays["inner"]))
        for name, array in arrays.items():
            bad = ~np.isfinite(array)
            said = f"{name} is {array[int(np.argmax(bad))]} at step {{}}: cut the trajectory before the run diverges"
            _refuse(bad, labels, said)
        for name in ("grad_norm", "distance"):
            _refuse(arrays[name] < 0, labels, f"{name} is negative at step {{}}, which no norm is")
        for name in ("loss", "final_loss"):
            slack = _SLACK * np.maximum(np.abs(arrays[name]), np.abs(arrays["infimum"]))
            below = arrays["infimum"] - arrays[name] > slack
            _refuse(below, labels, f"{name} is below the infimum at step {{}}: pass a smaller infimum")
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        object.__setattr__(self, "steps", labels)
        object.__setattr__(self, "rounding", _rounding(rounding, loss, final_loss))
        if self.at_end.all():
            raise ValueError(
                "every step of the trajectory is its own end point x_K, where all conditions hold trivially: "
                "record at least one step before the end"
            )

    def __repr__(self) -> str:
        return f"Trajectory({len(self)} rows, steps {self.steps.min()} to {self.steps.max()})"

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def drop(self) -> Array:
        """D_k = f_k(x_k) - f_k(x_K), of either sign."""
        return self.loss - self.final_loss

    @property
    def excess(self) -> Array:
        """E_k = f_k(x_K) - f_k^* >= 0, what the end point leaves on the table; 0 where it is not above rounding."""
        excess = self.final_loss - self.infimum
        noise = 4.0 * self.rounding * np.maximum(np.abs(self.final_loss), np.abs(self.infimum))
        return np.where(excess > np.maximum(noise, _SMALLEST), excess, 0.0)

    @property
    def at_end(self) -> NDArray[np.bool_]:
        """Where x_k is x_K itself, and every inequality towards it is 0 >= 0."""
        return (self.distance == 0) & (self.inner == 0) & (self.loss == self.final_loss)

    def above(self, reference: Reference) -> Array:
        """f_k(x_k) - f_k(x_K) for "final", f_k(x_k) - f_k^* for "infimum"; `ValueError` for another word."""
        if reference == "final":
            return self.drop
        if reference == "infimum":
            return self.loss - self.infimum
        raise ValueError(f'the reference is "final" or "infimum", not {reference!r}')

    def resolution(self, reference: Reference) -> Array:
        """How small a difference `above` may be before rounding decides its sign."""
        other = self.final_loss if reference == "final" else self.infimum
        return 4.0 * self.rounding * np.maximum(np.abs(self.loss), np.abs(other))

    def select(self, rows: Any) -> Trajectory:
        """The trajectory of some rows only (a mask, indices or a slice), with their labels."""
        parts = {name: getattr(self, name)[rows] for name in (*_FIELDS, "steps")}
        return Trajectory(**parts, rounding=self.rounding)

    @staticmethod
    def concatenate(trajectories: Iterable[Trajectory]) -> Trajectory:
        """All rows of several trajectories (seeds, say) as one: what holds for it holds for each.

        Labels are kept as they are, so the same step may occur several times; a result's `binding_row` counts
        rows in the order given. Raises `ValueError` for none.
        """
        parts = list(trajectories)
        if not parts:
            raise ValueError("there is no trajectory to concatenate")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_FIELDS, "steps")}
        return Trajectory(**joined, rounding=max(part.rounding for part in parts))


def as_array(value: Any, name: str) -> Array:
    """A copy of numbers, lists, tensors of any device or arrays as float64; `TypeError` for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()
        value = value.numpy()
    elif isinstance(value, (list, tuple)) and any(hasattr(item, "detach") for item in value):
        value = [as_array(item, name) for item in value]
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.asarray(None)
    if array.size == 0:
        return np.zeros(array.shape)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds no real numbers ({array.dtype}): pass a list, an array or a tensor of them")
    return np.array(array, dtype=np.float64)


def _labels(steps: Any, rows: int) -> NDArray[np.int64]:
    labels = np.arange(rows) if steps is None else as_array(steps, "steps")
    if labels.shape != (rows,):
        raise ValueError(f"steps labels rows, of which there are {rows}; it has the shape {labels.shape}")
    if not np.array_equal(labels, np.floor(labels)):
        raise ValueError("steps must be integers, one a row")
    whole = labels.astype(np.int64)
    whole.setflags(write=False)
    return whole


def _refuse(bad: NDArray[np.bool_], labels: NDArray[np.int64], sentence: str) -> None:
    if bad.any():
        more = int(bad.sum()) - 1
        raise ValueError(sentence.format(labels[int(np.argmax(bad))]) + (f" ({more} more such steps)" if more else ""))


def _rounding(rounding: float | None, *losses: Any) -> float:
    if rounding is not None:
        if not 0 <= rounding < 1:
            raise ValueError(f"rounding is a relative error in [0, 1), not {rounding}")
        return max(float(rounding), EPS)
    firsts = [value[0] if isinstance(value, (list, tuple)) else value for value in losses]
    names = [str(getattr(value, "dtype", "float64")).rsplit(".", 1)[-1] for value in firsts]
    return max(_COARSE.get(name, EPS) for name in names)
