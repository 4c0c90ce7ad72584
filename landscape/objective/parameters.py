"""The flat view of chosen parameters: which ones, in which order, and how a vector maps to them and back."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landscape.objective.sharded.layout import Layout

Selection = str | Iterable[str] | Callable[..., bool] | None


class FlatView:
    """Chosen parameters of a model as one vector: `p.reshape(-1)` of each, in the order of `named_parameters()`.

    Tied parameters appear once, under their first name. Names are resolved anew at each use, because a training
    loop may replace a parameter object (`load_state_dict(assign=True)`).

    Attributes:
        names, slices, size: of the whole vector.
        shapes, rows: of what this rank holds of the parameters, and of the vector.
        layout: which rows these are, in a sharded model.
    """

    def __init__(
        self, model: nn.Module, selection: Selection, layout: Callable[[list[str]], Layout | None] = lambda names: None
    ) -> None:
        self.names = _select(model, selection)
        self._by_default = selection is None
        parameters = dict(model.named_parameters())
        self.shapes = {name: parameters[name].shape for name in self.names}
        self.slices: dict[str, slice] = {}
        self.size = 0
        for name, shape in self.shapes.items():
            self.slices[name] = slice(self.size, self.size + shape.numel())
            self.size += shape.numel()
        self.rows = self.size
        self.layout = layout(self.names)
        if self.layout is not None:
            self.rows = self.layout.rows
            self.shapes = dict(zip(self.names, (share.local_shape for share in self.layout.shares), strict=True))

    def moved(self, model: nn.Module) -> list[str]:
        """Names that were taken because they require grad and do not any more, or were left out and do now."""
        if not self._by_default:
            return []
        return [name for name, p in model.named_parameters() if p.requires_grad != (name in self.slices)]

    def resolve(self, parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
        """The chosen ones of the parameters by name. Raises `ValueError` when one is gone or reshaped."""
        for name in self.names:
            if name not in parameters or parameters[name].shape != self.shapes[name]:
                raise ValueError(f"parameter {name!r} of the model is gone or has another shape: make a new Objective")
        return [parameters[name] for name in self.names]

    def flatten(self, values: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
        """One vector `(n,)` from a dict of tensors by name."""
        missing = [name for name in self.names if name not in values]
        unknown = [name for name in values if name not in self.slices]
        if missing or unknown:
            raise KeyError(
                f"flatten needs exactly the names of the objective; missing {missing[:3]}, unknown {unknown[:3]}"
            )
        pieces = []
        for name in self.names:
            value = torch.as_tensor(values[name]).detach()
            value = getattr(value, "_local_tensor", value) if self.layout is not None else value
            if value.shape != self.shapes[name]:
                raise ValueError(f"{name}: expected shape {tuple(self.shapes[name])}, got {tuple(value.shape)}")
            pieces.append(value.to(device=device, dtype=dtype).reshape(-1))
        return torch.cat(pieces)

    def unflatten(self, v: Tensor) -> dict[str, Tensor]:
        """A dict of views of the vector `(n,)` by name."""
        if v.ndim != 1 or v.shape[0] != self.rows:
            raise ValueError(f"unflatten needs a vector of shape ({self.rows},), not {tuple(v.shape)}")
        return dict(zip(self.names, split(v, self.shapes.values()), strict=True))


def split(v: Tensor, shapes: Iterable[torch.Size]) -> list[Tensor]:
    """Views of `(..., n)` in these shapes, in order."""
    shapes = list(shapes)
    pieces = v.split([shape.numel() for shape in shapes], dim=-1)
    return [piece.reshape((*v.shape[:-1], *shape)) for piece, shape in zip(pieces, shapes, strict=True)]


def join(pieces: Iterable[Tensor], shapes: Iterable[torch.Size], dtype: torch.dtype, device: torch.device) -> Tensor:
    """`(..., n)` without a graph from pieces in these shapes, with leading dimensions."""
    flat = []
    for piece, shape in zip(pieces, shapes, strict=True):
        lead = piece.shape[: piece.ndim - len(shape)]
        dense = piece.detach().to_dense() if piece.is_sparse else piece.detach()
        flat.append(dense.reshape(*lead, -1).to(dtype=dtype, device=device))
    return torch.cat(flat, dim=-1)


def vector_dtype(parameters: Iterable[Tensor]) -> torch.dtype:
    """Of vectors and products: float64 if any parameter is, else float32, never half."""
    return torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32


def _select(model: nn.Module, selection: Selection) -> list[str]:
    first = dict(model.named_parameters())
    if not first:
        raise ValueError("the model has no parameters")
    if selection is None:
        names = [name for name, p in first.items() if p.requires_grad]
        if not names:
            raise ValueError("no parameter of the model requires grad: name the ones to measure with parameters=")
    elif callable(selection):
        names = [name for name, p in first.items() if _predicate(selection)(name, p)]
    else:
        names = _match(model, [selection] if isinstance(selection, str) else list(selection), first)
    if not names:
        raise ValueError(f"parameters= selects none of the model's parameters ({', '.join(list(first)[:5])}, ...)")
    odd = [name for name in names if not first[name].is_floating_point()]
    if odd:
        raise TypeError(
            f"parameter {odd[0]!r} is {first[odd[0]].dtype}: only real floating point can be differentiated"
        )
    if any(first[name].is_inference() for name in names):
        raise TypeError(
            "the parameters were created under inference_mode and cannot be differentiated: build the model outside"
        )
    return names


def _match(model: nn.Module, patterns: list[str], first: dict[str, nn.Parameter]) -> list[str]:
    by_identity = {id(p): name for name, p in first.items()}
    chosen: set[str] = set()
    every = [(name, p) for name, p in model.named_parameters(remove_duplicate=False)]
    for pattern in patterns:
        hits = {by_identity[id(p)] for name, p in every if name == pattern or fnmatch.fnmatchcase(name, pattern)}
        if not hits:
            raise ValueError(
                f"parameters={pattern!r} matches none of {', '.join(list(first)[:8])}{', ...' * (len(first) > 8)}"
            )
        chosen |= hits
    return [name for name in first if name in chosen]


def _predicate(function: Callable[..., bool]) -> Callable[[str, Any], bool]:
    """Predicates may take (name) or (name, parameter)."""
    try:
        required = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
        ]
    except (TypeError, ValueError):
        required = []
    return (lambda name, p: bool(function(name, p))) if len(required) >= 2 else (lambda name, p: bool(function(name)))
