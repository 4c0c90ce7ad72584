"""Class means and the scatter within classes of a stream of features, in one pass and without losing digits.

Two sets A and B of one class have together the mean m_A + n_B / (n_A + n_B) d and the scatter
S_A + S_B + n_A n_B / (n_A + n_B) d d^T with d = m_B - m_A (Chan, Golub, LeVeque 1979). Nothing large is ever
subtracted from something large, as in E[x x^T] - m m^T; and means are kept relative to a fixed point among the first
features, since rounding a mean of 1e3 would already cost a spread of 1e-2 its last digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from landscape.collapse.inputs import flatten, out_of_range, select_later, select_now, whole_number
from landscape.collapse.metrics import Agreement, CollapseMetrics, check_head, collapse_metrics

_TENSORS = ("counts", "shift", "offsets", "scatter", "traces", "agreement", "misplaced")


class CollapseStatistics:
    """What the metrics of neural collapse need to know of the features `(n, dim)`; one per set of data.

    All in float64 on the device of the first features, in any autograd mode: counts and means per class, one scatter
    within classes pooled over them, its trace per class. A batch costs one product `(dim, n) @ (n, dim)`.

    On the CPU bad labels and features raise at once and leave the statistics as they were. On another device that
    would have to wait for the device at every batch: there they are noticed by `metrics`.

    Args:
        num_classes: K >= 2, labels are 0 .. K-1.
        dim: D, the width of the features.
        ignore_index: samples with this label are left out, None for none.

    Attributes:
        counts: `(K,)` float64, samples per class.
        shift, offsets: `(D,)` and `(K, D)` float64, whose sum the class means are.
        scatter: `(D, D)` float64, sum over all samples of (h - mean)(h - mean)^T with the mean of their class.
        traces: `(K,)` float64, each class's part of the trace of `scatter`.
        rounding: the largest rounding unit of the features' dtypes so far.

    Raises:
        TypeError, ValueError: sizes that are no whole numbers or too small.

    Example:
        >>> import torch
        >>> from landscape.collapse import CollapseStatistics
        >>> statistics = CollapseStatistics(num_classes=2, dim=2)
        >>> statistics.update(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1]))
        >>> statistics.means.tolist(), statistics.traces.tolist()
        ([[2.0, 0.0], [0.0, 1.0]], [2.0, 0.0])
    """

    def __init__(self, num_classes: int, dim: int, *, ignore_index: int | None = -100) -> None:
        self.num_classes = num_classes = whole_number(num_classes, "num_classes", 2)
        self.dim = dim = whole_number(dim, "dim", 1)
        self.ignore_index = ignore_index
        self.rounding = torch.finfo(torch.float64).eps
        self._placed = False  # whether features have said which device it is
        self._started = False  # whether they have said where the shift is
        self.counts = torch.zeros(num_classes, dtype=torch.float64)
        self.shift = torch.zeros(dim, dtype=torch.float64)
        self.offsets = torch.zeros(num_classes, dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)
        self.traces = torch.zeros(num_classes, dtype=torch.float64)
        self.agreement = torch.zeros(len(Agreement._fields), dtype=torch.int64)
        self.misplaced = torch.zeros((), dtype=torch.int64)  # labels out of range, where nothing waited to look

    @property
    def device(self) -> torch.device:
        """Where the statistics lie."""
        return self.offsets.device

    @property
    def means(self) -> Tensor:
        """`(K, D)` float64: the class means, zero for a class without samples."""
        return (self.shift + self.offsets).masked_fill((self.counts == 0).unsqueeze(1), 0.0)

    # -- one pass --------------------------------------------------------------------------------------------------

    @torch.inference_mode(False)
    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch: features `(..., D)` of any floating dtype, labels `(...)` of integers on the same device.

        An agreement measured before is forgotten, since the means move.

        Raises:
            TypeError: labels that are not class indices, features that are not real floating numbers.
            ValueError: shapes that do not fit; on the CPU also labels out of range and features that are not finite.
        """
        X, y, kept = self._take(features, labels)
        if not len(X):
            return
        shift = self.shift if self._started else _near(X, kept)
        X.sub_(shift)
        if kept is not None:
            X.masked_fill_(~kept.unsqueeze(1), 0.0)
        n, nb = self.counts, torch.zeros_like(self.counts)
        ones = torch.ones_like(y, dtype=torch.float64) if kept is None else kept.double()
        nb.index_add_(0, y, ones)
        sums = torch.zeros_like(self.offsets).index_add_(0, y, X)
        if _at_once(X.device) and not bool(torch.isfinite(sums).all()):
            raise ValueError("the features have entries that are not finite: the network has diverged")
        total = (n + nb).clamp(min=1.0)
        mean = sums / nb.clamp(min=1.0).unsqueeze(1)
        d = mean - self.offsets
        # Summed over a class, x - mean is zero: so the rows x - mean + c d have the scatter S_B + n_B c^2 d d^T,
        # with c^2 = n_A / (n_A + n_B) Chan's, from one symmetric product.
        rows = X.sub_((mean - (n / total).sqrt().unsqueeze(1) * d).index_select(0, y))
        if kept is not None:
            rows *= ones.unsqueeze(1)
        self.scatter.addmm_(rows.T, rows)
        self.traces.index_add_(0, y, torch.linalg.vector_norm(rows, dim=1).square_())
        self.offsets.addcmul_(d, (nb / total).unsqueeze(1))
        self.shift, self._started = shift, True
        self.counts += nb
        self.rounding = max(self.rounding, torch.finfo(features.dtype).eps)
        self.agreement.zero_()

    def _take(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Features `(n, D)` in float64 that may be overwritten, class indices, and which samples count (None: all)."""
        X, y = flatten(features, labels, self.dim)
        if not self._placed:
            self._to(X.device)
        elif X.device != self.device:
            raise ValueError(f"the features are on {X.device}, the statistics on {self.device}")
        if _at_once(X.device):
            return *select_now(X, y, self.num_classes, self.ignore_index), None
        X, y, kept, outside = select_later(X, y, self.num_classes, self.ignore_index)
        self.misplaced += outside
        return X, y, kept

    @torch.inference_mode(False)
    @torch.no_grad()
    def merge(self, other: CollapseStatistics) -> CollapseStatistics:
        """Add the samples of `other` (another loader, another process), in place; returns self.

        `other` may lie on another device and stays as it is. An agreement measured before is forgotten.
        """
        if (other.num_classes, other.dim) != (self.num_classes, self.dim):
            raise ValueError(
                f"statistics of {other.num_classes} classes and width {other.dim} cannot be added to those of "
                f"{self.num_classes} classes and width {self.dim}"
            )
        if not self._placed and other._placed:
            self._to(other.device)
        if not self._started:
            self.shift, self._started = other.shift.to(self.device), other._started
        values = (getattr(other, name).to(self.device) for name in _TENSORS)
        counts, shift, offsets, scatter, traces, _, misplaced = values
        total = (self.counts + counts).clamp(min=1.0)
        d = (offsets - self.offsets) + (shift - self.shift)
        rows = (self.counts * counts / total).sqrt().unsqueeze(1) * d
        self.scatter = self.scatter + scatter + rows.T @ rows
        self.traces = self.traces + traces + rows.square().sum(1)
        self.offsets = self.offsets + (counts / total).unsqueeze(1) * d
        self.counts = self.counts + counts
        self.misplaced = self.misplaced + misplaced
        self.rounding = max(self.rounding, other.rounding)
        self.agreement.zero_()
        return self

    # -- the second pass -------------------------------------------------------------------------------------------

    @torch.inference_mode(False)
    @torch.no_grad()
    def update_agreement(self, features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """Count on a batch how often the head W h + b and the nearest of the class means say the same (for NC4).

        Comes after all samples are in, with the W and b that `metrics` will be given. The features may be others
        than those of the means: the paper takes test features. Classes without samples are never the nearest.

        Raises:
            TypeError, ValueError: as `update`; a weight or a bias of another shape; no samples yet.
        """
        W, b = check_head(weight, bias, self.num_classes, self.dim, self.device)
        X, y, kept = self._take(features, labels)
        present = self.counts > 0
        center = (self.offsets * present.unsqueeze(1)).sum(0) / present.sum().clamp(min=1)
        M = self.offsets - center
        scores = torch.addmm(
            -0.5 * M.square().sum(1), (X - self.shift) - center, M.T
        )  # what is nearest to h has the largest
        nearest = scores.masked_fill_(~present, -torch.inf).argmax(1)
        logits = X @ W.T
        said = logits.argmax(1)
        with_bias = said if b is None else (logits + b).argmax(1)
        hits = torch.stack([said == nearest, with_bias == nearest, with_bias == y, nearest == y, torch.ones_like(y)])
        if kept is not None:
            hits = hits * kept
        self.agreement += hits.sum(1)

    @torch.inference_mode(False)
    @torch.no_grad()
    def merge_agreement(self, other: CollapseStatistics) -> CollapseStatistics:
        """Add what `other` has counted in `update_agreement` around the same means, in place; returns self.

        For several processes: merge the statistics, hand them to all (`load_state_dict`), count, merge the counts.
        """
        self.agreement = self.agreement + other.agreement.to(self.device)
        self.misplaced = torch.maximum(self.misplaced, other.misplaced.to(self.device))
        return self

    # -- what comes out --------------------------------------------------------------------------------------------

    @torch.inference_mode(False)
    @torch.no_grad()
    def metrics(self, weight: Tensor, bias: Tensor | None = None) -> CollapseMetrics:
        """The metrics of these features with a last layer of weight `(K, D)` and bias `(K,)`.

        Raises:
            ValueError: no samples, or those of one class only; a weight or a bias of another shape or with entries
                that are not finite; on a device other than the CPU also labels out of range and features that are
                not finite, seen in `update`.
        """
        misplaced = int(self.misplaced)
        if misplaced:
            raise out_of_range(self.num_classes, f"{misplaced} of them")
        if not bool(torch.isfinite(self.traces).all() & torch.isfinite(self.offsets).all()):
            raise ValueError("the features have entries that are not finite: the network has diverged")
        sums = (self.counts, self.offsets, self.scatter, self.traces)
        agreement = Agreement(*self.agreement.tolist())
        return collapse_metrics(*sums, weight, bias, shift=self.shift, agreement=agreement, rounding=self.rounding)

    def state_dict(self) -> dict[str, Any]:
        """Copies of all tensors, and the sizes: what `torch.save` and another process need."""
        sizes = {"num_classes": self.num_classes, "dim": self.dim, "rounding": self.rounding}
        return sizes | {name: getattr(self, name).clone() for name in _TENSORS}

    @torch.inference_mode(False)
    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become what the state was taken from, on the device of its tensors.

        Raises:
            ValueError: something is missing, or of other sizes.
        """
        missing = [name for name in ("num_classes", "dim", "rounding", *_TENSORS) if name not in state]
        if missing:
            raise ValueError(f"this is no state of CollapseStatistics: {', '.join(missing)} is missing")
        sizes = {"num_classes": self.num_classes, "dim": self.dim}
        wrong = [f"{name}={state[name]}, not {size}" for name, size in sizes.items() if state[name] != size]
        wrong += [
            f"{name} of shape {tuple(state[name].shape)}"
            for name in _TENSORS
            if state[name].shape != getattr(self, name).shape
        ]
        if wrong:
            raise ValueError(f"the state is of other statistics: {'; '.join(wrong)}")
        for name in _TENSORS:
            setattr(self, name, state[name].detach().clone())
        self.rounding = float(state["rounding"])
        self._placed = self._started = bool(self.counts.any())

    def _to(self, device: torch.device) -> None:
        for name in _TENSORS:
            setattr(self, name, getattr(self, name).to(device))
        self._placed = True


def _near(X: Tensor, kept: Tensor | None) -> Tensor:
    """A point amid `(n, D)` features, `(D,)`, short enough that subtracting it from float32 rounds nothing away."""
    count = len(X) if kept is None else kept.sum().clamp(min=1)
    return (X.sum(0) / count).float().double()


def _at_once(device: torch.device) -> bool:
    """Whether looking at values costs no waiting."""
    return device.type == "cpu"
