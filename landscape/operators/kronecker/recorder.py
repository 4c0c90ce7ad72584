"""What a forward pass does with its parameters, seen operation by operation, whichever module it happens in.

Every function of torch that gets a chosen parameter is seen, so that a weight which is used without its module is no
other case, and a use that there is no rule for has a name. What is not seen (functions of somebody's own) shows when
gradients are compared.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from landscape.objective.batch import tensors_in
from landscape.operators.functions import name_of
from landscape.operators.kronecker.layers.use import SHARED, Use

_SAME = {"to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone", "alias"}
_TURNED = {"t", "T", "mT", "transpose", "permute", "swapaxes"}


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from that is made of parameters alone.

    Attributes:
        leaves: the chosen ones that it is made of, by name.
        form: it is the only one of them, or that one transposed, or some function of them.
        value: the tensor itself, or what it is an expanded view of.
    """

    leaves: Mapping[str, Tensor]
    form: Literal["plain", "transposed", "function"]
    value: Tensor

    @property
    def name(self) -> str | None:
        """Of the parameter, where the tensor is that."""
        return next(iter(self.leaves)) if self.form == "plain" else None


Rule = Callable[..., list[Use] | None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Notes a rule under these names of functions.

    It is called as `rule(recorder, out, *args, **options)` and returns the uses that the call is, or None where it has
    no rule for the parameters among its arguments.
    """

    def note(one: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, one))
        return one

    return note


class Recorder(TorchFunctionMode):
    """Records the uses of parameters in one forward pass.

    Attributes:
        samples: of the batch.
        separate: a bias is a layer of its own.
        uses: in order.
        refused: names of parameters that have been used in a way without a rule, with the name of the function.
        mixed: a layer has taken statistics of the whole batch.
    """

    def __init__(
        self, chosen: Mapping[str, Tensor], samples: int, separate: bool, shared: Collection[Hashable] = ()
    ) -> None:
        super().__init__()
        self.samples, self.separate, self._shared = samples, separate, shared
        self.uses: list[Use] = []
        self.refused: dict[str, str] = {}
        self.mixed = False
        self._origins: dict[int, tuple[Tensor, Origin]] = {  # the tensor is held, so that its id stays its own
            id(p): (p, Origin({name: p}, "plain", p)) for name, p in chosen.items()
        }
        self._calls: Counter[Hashable] = Counter()

    def origin(self, t: Any) -> Origin | None:
        """Of a tensor that is made of chosen parameters alone."""
        found = self._origins.get(id(t))
        return None if found is None else found[1]

    def plain(self, t: Any) -> str | None:
        """The name of a tensor that is a chosen parameter."""
        found = self.origin(t)
        return None if found is None else found.name

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        given = list(tensors_in([args, options]))
        name = name_of(func)
        if name == "batch_norm":
            self.mixed |= bool(options.get("training", args[5] if len(args) > 5 else False))
        origins = [found for t in given if (found := self.origin(t)) is not None]
        out = func(*args, **options)
        if not origins:
            return out
        made = [t for t in tensors_in(out) if t.requires_grad and self.origin(t) is None]
        if not made:
            return out
        if len(origins) == len(given):
            leaves = {name: p for origin in origins for name, p in origin.leaves.items()}
            form = origins[0].form if len(given) == 1 else "function"
            for t in made:
                value = origins[0].value if name == "expand" else t
                self._origins[id(t)] = t, Origin(leaves, _form_after(form, name, t, given[0]), value)
            return out
        return self._used(name, out, args, options, origins)

    def _used(self, name: str, out: Any, args: Any, options: dict[str, Any], origins: list[Origin]) -> Any:
        one = RULES.get(name)
        fits = one is not None and isinstance(out, Tensor) and _takes(one, (self, out, *args), options)
        uses = one(self, out, *args, **options) if one is not None and fits else None
        known = {n for use in uses or () for n in use.layer.names}
        rest = {n for origin in origins for n in origin.leaves} - known
        self.refused.update(dict.fromkeys(rest, name))
        if not uses:
            return out
        for use in uses:
            call = self._calls[use.layer]
            self._calls[use.layer] += 1
            use.key = (use.layer, call)
            use.axis = SHARED if use.key in self._shared or use.axes() == [SHARED] else use.axes()[0]
        if any(t is out for t in tensors_in([args, options])):  # in place: whoever called it goes on with that tensor
            self.uses += uses
            return out
        if uses[0].axis == SHARED and self.samples > 1:
            lead = out if out.ndim == 0 or out.shape[0] != 1 else out[0]
            out = lead.expand(self.samples, *lead.shape)
            for use in uses:
                use.output = out
        self.uses += uses
        return out.clone()  # what follows may overwrite it


def _takes(one: Rule, args: Any, options: dict[str, Any]) -> bool:
    """Whether a call has the arguments that a rule knows: torch has namesakes with others (`torch.layer_norm`)."""
    try:
        inspect.signature(one).bind(*args, **options)
    except TypeError:
        return False
    return True


def _form_after(form: str, name: str, t: Tensor, before: Tensor) -> Any:
    if name in _SAME and t.shape == before.shape:
        return form
    if name in _TURNED and t.ndim == 2 and t.shape == before.shape[::-1] and t.stride() == before.stride()[::-1]:
        return {"plain": "transposed", "transposed": "plain"}.get(form, "function")
    return "function"
