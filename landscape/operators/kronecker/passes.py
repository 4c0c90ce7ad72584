"""One pass over the data: each batch with the uses of its layers, and the derivatives in what they give.

Which rows of a layer belong to which sample is not guessed from shapes: derivatives of the first half of the samples
have to vanish in the rows of the others. And what the layers give together has to be the gradient that autograd finds,
so that no use of a parameter can be missed in silence. Both cost one reverse pass for each batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from landscape.objective.batch import Batch, samples
from landscape.objective.evaluation import Evaluation
from landscape.objective.objective import Objective
from landscape.operators.gauss_newton import JacobianOperator
from landscape.operators.jacobians import close, cotangents
from landscape.operators.kronecker import rules as _rules  # noqa: F401 which notes them
from landscape.operators.kronecker.layers.layer import Layer
from landscape.operators.kronecker.layers.use import SHARED, Use
from landscape.operators.kronecker.recorder import Recorder
from landscape.operators.kronecker.words import NoRule, mixed, refusal, unseen
from landscape.operators.output_roots import Root

Terms = Literal["auto", "apart", "signs"]
APART = 1024  # reverse passes for each batch up to which terms go one after the other


@dataclass(frozen=True)
class Seen:
    """One batch.

    Attributes:
        uses: of the layers, in order.
        samples: how many.
        weight: of the batch in f.
        weights: `(N,)` of each sample in f, their sum being the batch's own.
        live: `(N, terms)` bool: which of a sample's terms have a weight; None: all.
        signs: terms of a sample go together under random signs.
        mixed: a layer has taken statistics of the whole batch.
    """

    uses: Sequence[Use]
    samples: int
    weight: float
    weights: Tensor
    live: Tensor | None
    signs: bool
    mixed: bool
    _outputs: Tensor
    _root: Root
    _generator: torch.Generator
    _dtype: torch.dtype

    def slopes(self) -> Iterator[list[Tensor]]:
        """For each column of the root the derivatives of each use, `(N, R, groups, out)`."""
        given = list({id(use.output): use.output for use in self.uses}.values())
        columns = self._root.cotangents(self._outputs.detach(), self.samples, not self.signs, self._generator)
        for column in columns if given else ():
            cotangent = (self.weight**0.5 * column).to(self._outputs.dtype)
            found = torch.autograd.grad(
                self._outputs, given, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            by_output = dict(zip(map(id, given), found, strict=True))
            yield [use.slopes(by_output[id(use.output)]).to(self._dtype) for use in self.uses]

    def by_layer(self) -> dict[Layer, list[int]]:
        """The places of each layer's uses."""
        found: dict[Layer, list[int]] = {}
        for i, use in enumerate(self.uses):
            found.setdefault(use.layer, []).append(i)
        return found


class Passes:
    """Passes over the data of an objective, with the columns of the curvature of `exact`.

    Args:
        exact: the matrix whose blocks are approximated, of the same objective.
        separate: weights and biases are layers of their own.
        terms: how terms of one sample go.
        seed: of random signs.
    """

    def __init__(self, exact: JacobianOperator, separate: bool, terms: Terms, seed: int) -> None:
        self.exact, self.objective, self.separate, self.terms, self.seed = exact, exact.objective, separate, terms, seed
        self._shared: set[Hashable] = set()

    def batches(self) -> Iterator[Seen]:
        """This rank's batches that have loss terms (inside `measuring()`)."""
        for batch in self.objective.sweep():
            if not batch.padding:
                seen = self._seen(batch)
                if seen is not None:
                    yield seen

    def _seen(self, batch: Batch) -> Seen | None:
        objective = self.objective
        e, recorder = self.recorded(batch)
        if not e.weight:
            return None
        e.loss()  # says so when the loss is no scalar or has no graph
        outputs, single = e.tensor, e.detach()
        if single.outputs.dtype in (torch.float16, torch.bfloat16):
            single = replace(single, outputs=single.outputs.to(objective.dtype))
        root = self.exact.root(single)
        N = recorder.samples
        terms = 1 if root.centred else root.terms(outputs.shape, N)
        signs = terms > 1 and (self.terms == "signs" or (self.terms == "auto" and terms * root.count > APART))
        generator = torch.Generator().manual_seed((self.seed + 7919 * batch.index) % (1 << 63))
        weights, live = _sample_weights(single, N)
        return Seen(
            recorder.uses,
            N,
            e.weight,
            weights.to(objective.device, objective.dtype),
            live,
            signs,
            recorder.mixed,
            outputs,
            root,
            generator,
            objective.dtype,
        )

    def recorded(self, batch: Batch) -> tuple[Evaluation, Recorder]:
        """The batch's outputs and the uses that led to them, with each use's rows by sample."""
        first: Tensor | None = None
        while True:
            recorder = Recorder(
                dict(zip(self.objective.names, self.objective.leaves(), strict=True)),
                samples(batch),
                self.separate,
                self._shared,
            )
            e = self._evaluated(batch, recorder)
            outputs = e.tensor
            if recorder.refused:
                raise refusal(self.objective.names, recorder.refused)
            first = outputs.detach() if first is None else first
            if outputs.shape != first.shape or not close(outputs.detach(), first):
                raise _mixed(recorder, self._shared)
            if not e.weight:
                return e, recorder
            lost = self._misplaced(outputs, recorder)
            if not lost:
                return e, recorder
            if lost <= self._shared:
                raise _mixed(recorder, lost)
            self._shared |= lost

    def _evaluated(self, batch: Batch, recorder: Recorder) -> Evaluation:
        try:
            with recorder:
                return self.objective.evaluate(batch)
        except (RuntimeError, IndexError, ValueError) as error:
            if not any(use.axis == SHARED for use in recorder.uses):
                raise
            raise _mixed(recorder, {use.key for use in recorder.uses if use.axis == SHARED}) from error

    def _misplaced(self, outputs: Tensor, recorder: Recorder) -> set[Hashable]:
        """Finds each use's sample dimension; returns the keys of those that have none.

        Raises `TypeError` where the uses do not make up the parameters' gradient.
        """
        N = recorder.samples
        if outputs.ndim == 0 or len(outputs) % N:
            raise TypeError(
                f"the outputs have the shape {tuple(outputs.shape)} for {N} samples: K-FAC needs the samples along "
                "their first dimension"
            )
        half = (N + 1) // 2
        leaves, uses = self.objective.leaves(), recorder.uses
        given = [use.output for use in uses]
        W = cotangents(outputs, half * (len(outputs) // N))
        found = torch.autograd.grad(
            outputs, [*given, *leaves], W, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        lost = set()
        for use, g in zip(uses, found, strict=False):
            if not recorder.mixed and N > 1 and not _placed(use, g, half, use.key in self._shared):
                lost.add(use.key)
        if not lost:
            self._confirm(uses, found[: len(uses)], found[len(uses) :], N if recorder.mixed else half, outputs.dtype)
        return lost

    def _confirm(
        self, uses: Sequence[Use], slopes: Sequence[Tensor], expected: Sequence[Tensor], stop: int, dtype: torch.dtype
    ) -> None:
        objective = self.objective
        total = torch.zeros(1, objective.size, dtype=objective.dtype, device=objective.device)
        rounding = dict.fromkeys(objective.names, 0.0)
        for use, g in zip(uses, slopes, strict=True):
            use.layer.add(use.gradient(g, stop).to(objective.dtype).unsqueeze(0), total, objective.slices)
            for name in use.layer.names:
                rounding[name] += torch.finfo(dtype).eps * use.largest * float(g.abs().sum())
        wrong = []
        for name, right in zip(objective.names, expected, strict=True):
            found, right = total[0, objective.slices[name]], right.reshape(-1).to(objective.dtype)
            if not close(found, right, dtype) and float((found - right).abs().max()) > rounding[name]:
                wrong.append(name)
        if wrong:
            raise unseen(wrong)


def covered(objective: Objective) -> list[str]:
    """Names of the parameters that there is a rule for, on this rank's data."""
    names = objective.names
    while names:
        inner = objective.restrict(names)
        passes = Passes(JacobianOperator(inner), False, "auto", 0)
        try:
            with inner.measuring():
                for batch in inner.sweep():
                    if not batch.padding:
                        passes.recorded(batch)
            return names
        except NoRule as found:
            names = [name for name in names if name not in found.names]
    return []


def _placed(use: Use, g: Tensor, half: int, shared: bool) -> bool:
    """Chooses the dimension along which the second half of the samples sees nothing of the first."""
    for axis in [SHARED] if shared else use.axes():
        if axis == SHARED and use.output.numel() == use.shape.numel():
            return False  # one output for all: each sample is to get one of its own
        use.axis = axis
        others = use.derivative_by_sample(g)[half:]
        if not others.numel() or float(others.abs().max()) <= torch.finfo(g.dtype).eps * float(g.abs().max()):
            return True
    return False


def _mixed(recorder: Recorder, keys: set[Hashable]) -> NoRule:
    return mixed({name for use in recorder.uses if use.key in keys for name in use.layer.names})


def _sample_weights(e: Evaluation, N: int) -> tuple[Tensor, Tensor | None]:
    """`(N,)`, and which terms have a weight where some have none."""
    known, outputs, targets = e.criterion.known, e.outputs, e.batch.targets
    if known is not None and known.denominator == "classes" and isinstance(targets, Tensor):
        by_term = known.class_weights(outputs, targets).reshape(N, -1)
        live = by_term > 0
        return by_term.sum(1), None if bool(live.all()) else live
    whole = N if e.criterion.reduction == "sum" else e.weight
    return torch.full((N,), whole / N, dtype=torch.float64), None
