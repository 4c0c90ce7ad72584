"""Sees attention in a forward pass, whichever module it happens in: in torch's functions, or as softmax of q k^T.

What softmax is taken of is followed back to a product of two tensors that are no parameters, through what keeps its
entries in place. Fused kernels other than torch's are not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from landscape.objective.batch import tensors_in
from landscape.objective.hooks import first_input
from landscape.objective.state import borrowed_buffers
from landscape.operators.blocks.heads import Matrix, attentions, head_splits
from landscape.operators.functions import name_of
from landscape.representation.attention.call import Call, Projections
from landscape.representation.attention.multihead import multihead_call

# What leaves the entries of its input in their places.
_KEPT = {
    *("mul", "div", "add", "sub", "truediv", "masked_fill", "where", "clamp", "clamp_min", "clamp_max", "tanh"),
    *("to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "detach", "nan_to_num"),
    *("view", "reshape", "unflatten", "flatten", "unsqueeze", "squeeze", "maximum", "minimum"),
}
_PRODUCTS = {"matmul", "bmm", "baddbmm"}


class Recorder(TorchFunctionMode):
    """Hands every call of attention on, with the name of the module that it happens in.

    Attributes:
        used: attention modules, by their names, whose projections have been called.
        root: what the model itself is called.
    """

    def __init__(self, model: nn.Module, take: Callable[[str, Call], None]) -> None:
        super().__init__()
        self._model, self._take = model, take
        self.root = type(model).__name__
        self._names = {module: name for name, module in model.named_modules()}
        with borrowed_buffers(model):  # weights that update themselves whenever they are looked at
            self._known: dict[str, Mapping[str, Matrix]] = dict(attentions(model))
        self._projections = {m.weight.rpartition(".")[0] for found in self._known.values() for m in found.values()}
        self._inside: list[str] = []
        self._inputs: dict[str, Tensor] = {}
        self._scores: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # the tensor is held, so that its id stays its own
        self._calls: Counter[str] = Counter()
        self._entered: set[str] = set()
        self._last = ""  # the attention whose projection was called last
        self.used: set[str] = set()

    # -- hooks on all modules --------------------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before a module runs."""
        self._inside.append(self._names.get(module, ""))
        self._entered.add(self._inside[-1])

    def leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """After it; the inputs of projections are kept."""
        name = self._inside.pop()
        value = first_input(args, kwargs)
        if value is not None and name in self._projections:
            self._inputs[name] = value
            around = {path for path in self._known if path == self.root or name.startswith(f"{path}.")}
            self.used |= around
            self._last = max(around, key=len, default="")

    def begin(self) -> None:
        """Before a batch."""
        self._calls.clear()
        self._scores.clear()
        self._inputs.clear()
        self._inside.clear()

    # -- functions of torch ------------------------------------------------------------------------------------------

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        name = name_of(func)
        if name == "multi_head_attention_forward":
            self._found(multihead_call(args, options))
        elif name == "scaled_dot_product_attention":
            self._kernel(*args, **options)
        elif name == "softmax":
            self._softmax(*args, **options)
        out = func(*args, **options)
        if isinstance(out, Tensor) and out.is_floating_point() and out.ndim >= 2:
            self._follow(name, out, args, options)
        return out

    def _follow(self, name: str, out: Tensor, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        if name in _PRODUCTS:
            first, second = list(tensors_in([args, options]))[-2:]
            plain = not any(isinstance(t, nn.Parameter) for t in (first, second))
            if plain and (first.ndim > 2 or self._named()) and second.ndim == first.ndim:
                self._scores[id(out)] = out, first, second.mT
        elif name == "einsum" and (factors := _contracted(args)) is not None:
            self._scores[id(out)] = out, *factors
        elif name in _KEPT:
            for t in tensors_in([args, options]):
                known = self._scores.get(id(t))
                if known is not None and t.shape[-2:] == out.shape[-2:] and t.numel() == out.numel():
                    self._scores[id(out)] = out, *known[1:]

    def _softmax(self, input: Any, dim: Any = None, *_: Any, **__: Any) -> None:
        known = self._scores.get(id(input))
        if known is None or dim not in (-1, input.ndim - 1):
            return
        lead, N = input.shape[:-2], self._samples()
        try:
            q, k = (
                t.reshape(*lead, *t.shape[-2:]) if t.ndim != input.ndim else t.expand(*lead, *t.shape[-2:])
                for t in known[1:]
            )
        except RuntimeError:  # leading dimensions that are not those of the product
            return
        q, k, logits = (_four(t, N) for t in (q, k, input))
        self._found(Call(q, k, None, logits=logits))

    def _kernel(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        lead, N = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2]), self._samples()
        L, S, d = query.shape[-2], key.shape[-2], query.shape[-1]
        if is_causal:
            attn_mask = torch.ones(L, S, dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
        mask = None if attn_mask is None else _four(attn_mask.expand(*lead, L, S), N)
        q, k = _four(query.expand(*lead, L, d), N), _four(key.expand(*lead, S, d), N)
        self._found(Call(q, k, d**-0.5 if scale is None else scale, mask))

    def _found(self, call: Call) -> None:
        place = self._named() or (self._inside[-1] if self._inside else "") or self.root
        self._calls[place] += 1
        if call.projections is None:
            made = self._projected(place, call)
            own = call.q.shape[2] == call.k.shape[2] and (made is None or made.x is made.y)
            call = Call(call.q, call.k, call.scale, call.mask, call.logits, own, made)
        self._take(place if self._calls[place] == 1 else f"{place} ({self._calls[place]})", call)

    # -- where it happens --------------------------------------------------------------------------------------------

    def _named(self) -> str:
        """The innermost module that runs and is known to be attention, or one that only holds layers; "" for none."""
        inside = [name or self.root for name in self._inside]
        held = self._last and self._last not in self._entered and inside
        if held and (inside[-1] == self.root or self._last.startswith(f"{inside[-1]}.")):
            return self._last
        return next((name for name in reversed(inside) if name in self._known), "")

    def _input(self, matrix: Matrix) -> Tensor | None:
        return self._inputs.get(matrix.weight.rpartition(".")[0])

    def _samples(self) -> int | None:
        """As the inputs of the projections have it, to tell samples from heads; None where it is not known."""
        matrices = self._known.get(self._named(), {})
        x = next(
            (x for role in ("fused", "query") if role in matrices and (x := self._input(matrices[role])) is not None),
            None,
        )
        return None if x is None or x.ndim < 3 else x.shape[:-2].numel()

    def _projected(self, place: str, call: Call) -> Projections | None:
        """The weights of queries and keys with what they were called with, as far as they are known."""
        matrices, (N, H, L, d), S = self._known.get(place, {}), call.q.shape, call.k.shape[2]
        try:
            splits = [one for some in head_splits(place, matrices, H).values() for one in some] if matrices else []
            rows = {role: [one for one in splits if one.role == role] for role in ("query", "key")}
            found = {}
            for role, length in (("query", L), ("key", S)):
                matrix = matrices.get(role) or matrices["fused"]
                x, parts = self._input(matrix), [one for one in rows[role] if one.dim == matrix.out]
                module = self._model.get_submodule(matrix.weight.rpartition(".")[0])
                weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
                assert x is not None
                assert isinstance(weight, Tensor)
                W = weight if matrix.out == 0 else weight.mT
                heads = sorted({(one.head, one.start, one.stop) for one in parts})
                heads = [heads[h * len(heads) // H] for h in range(H)]
                stacked = torch.stack([W[start:stop] for _, start, stop in heads])
                biases = None if bias is None else torch.stack([bias[start:stop] for _, start, stop in heads])
                found[role] = x, x.reshape(N, length, -1), stacked.reshape(H, d, -1), biases
        except (KeyError, ValueError, RuntimeError, AssertionError, ZeroDivisionError, IndexError):
            return None  # of other shapes than those that are known: queries and keys themselves will do
        (own, x, Wq, bq), (other, y, Wk, bk) = found["query"], found["key"]
        return Projections(x, x if own is other else y, Wq, Wk, bq, bk)


def _four(t: Tensor, samples: int | None) -> Tensor:
    """`(samples, heads, m, n)` of a tensor with any leading dimensions."""
    if t.ndim == 3 and samples and t.shape[0] != samples and t.shape[0] % samples == 0:
        return t.reshape(samples, -1, *t.shape[1:])
    if t.ndim <= 3:
        return t.unsqueeze(1) if t.ndim == 3 else t[None, None]
    return t.flatten(0, t.ndim - 4) if t.ndim > 4 else t


def _contracted(args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
    """Queries `(..., l, d)` and keys `(..., s, d)` of an einsum that makes `(..., l, s)` of two tensors."""
    operands = list(tensors_in(args[1:]))
    if len(operands) != 2 or not isinstance(args[0], str) or "." in args[0] or "->" not in args[0]:
        return None
    left, made = args[0].replace(" ", "").split("->")
    names = left.split(",")
    if len(made) < 3 or len(names) != 2 or any(isinstance(t, nn.Parameter) for t in operands):
        return None
    lead, ends = made[:-2], made[-2:]
    order = sorted(range(2), key=lambda i: ends[0] not in names[i])  # queries first
    summed = [c for c in names[0] if c in names[1] and c not in made]
    found = []
    for i, end in zip(order, ends, strict=True):
        if set(names[i]) - set(lead) != {end, *summed} or not summed:
            return None
        t = operands[i].permute([names[i].index(c) for c in (*(c for c in lead if c in names[i]), end, *summed)])
        for place, c in enumerate(lead):
            t = t if c in names[i] else t.unsqueeze(place)
        found.append(t.flatten(len(lead) + 1))
    return found[0], found[1]
