"""The entropy of every head's attention over an objective's data, beside the bound that spectral norms put on it.

The model is run as the objective says, without gradients, and left as it was.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from landscape.objective.hooks import hooked
from landscape.objective.objective import Objective
from landscape.representation.attention.call import Call, HeadSums, head_sums
from landscape.representation.attention.recorder import Recorder

_WAYS = (
    "it has to go through nn.MultiheadAttention, F.scaled_dot_product_attention or softmax(q @ k^T): of transformers "
    'load the model with attn_implementation="sdpa" or "eager"'
)


@dataclass(frozen=True)
class HeadEntropies:
    """One layer's attention, all numbers `(heads,)` float64 on the host and in nats, exact over the data.

    A row is a position of a sample that sees at least one key; padding, a position whose own key nobody sees, is none.

    Attributes:
        entropy: mean over the rows.
        least: the lowest of a row.
        bound: mean of the rows' lower bounds, from |x_i| ||W_Q^T W_K||_2 ||X - 1 m^T||_2 / sqrt(d) of each row's input
            x_i, and m the mean of the sample's inputs, which moves all logits of a row alike.
        loose_bound: the same from ||X||_2 for |x_i| and without m, as arXiv 2303.06296 has it.
        uniform: mean of log(keys that a row sees): the most that entropy could be.
        rows: how many.
        of_weights: the bounds are those of the weights and inputs; else of queries and keys, which are not what
            weights make of the inputs (rotated, normalised), or the weights are not known.
    """

    entropy: Tensor
    least: Tensor
    bound: Tensor
    loose_bound: Tensor
    uniform: Tensor
    rows: int
    of_weights: bool


def attention_entropy(objective: Objective, layers: Iterable[str] | str | None = None) -> dict[str, HeadEntropies]:
    """Entropies of attention by layer and head, over all of the data (of all ranks), with their lower bounds.

    A layer is called by its module; a second call in one pass has (2) behind the name. Attention is taken before
    dropout. Rows all count the same, whatever the loss makes of them. Logits are computed anew in float64 from queries
    and keys, or are those that softmax is taken of.

    Costs a forward pass, a product of queries and keys and the eigenvalues of two Gram matrices for each sample.

    Args:
        layers: names or globs of the modules; None is all.

    Raises:
        ValueError: no attention is seen, or not that of a module which is known by its projections (a kernel of its
            own); no layer of such a name.
        TypeError: the model is sharded.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.representation import attention_entropy
        >>> layer = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        >>> model = torch.nn.Sequential(layer, torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> with torch.no_grad():
        ...     _ = layer.self_attn.in_proj_weight.zero_()  # all keys are alike
        >>> f = Objective(model, torch.nn.CrossEntropyLoss(), (torch.randn(5, 3, 4), torch.zeros(5).long()))
        >>> found = attention_entropy(f)["0.self_attn"]
        >>> [round(x, 4) for x in (found.entropy / found.uniform).tolist()], found.rows
        ([1.0, 1.0], 15)
    """
    objective.only_whole("the entropy of attention")
    own: dict[str, HeadSums] = {}

    def add(name: str, sums: HeadSums, to: dict[str, HeadSums]) -> None:
        try:
            to[name] = to[name].add(sums) if name in to else sums
        except ValueError as error:
            raise ValueError(f"the attention of {name!r}: {error}") from None

    def work() -> dict[str, HeadSums]:
        _one_pass(objective, layers, lambda name, call: add(name, head_sums(call), own))
        return own

    total: dict[str, HeadSums] = {}
    for found in objective.gathered(work):
        for name, sums in found.items():
            add(name, sums, total)
    return {name: _means(sums) for name, sums in total.items()}


def attention_heads(objective: Objective, layers: Iterable[str] | str | None = None) -> dict[str, int]:
    """The layers that `attention_entropy` has, with their heads, from a pass over a few samples.

    Raises:
        ValueError, TypeError: as `attention_entropy`.

    Example:
        >>> import torch
        >>> from landscape import Objective
        >>> from landscape.representation import attention_heads
        >>> model = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        >>> attention_heads(Objective(model, torch.nn.MSELoss(), (torch.randn(5, 3, 4), torch.zeros(5, 3, 4))))
        {'self_attn': 2}
    """
    objective.only_whole("the entropy of attention")
    seen: dict[str, int] = {}
    _one_pass(objective.alone().sample(), layers, lambda name, call: seen.setdefault(name, call.q.shape[1]))
    return seen


def _one_pass(objective: Objective, layers: Iterable[str] | str | None, take: Callable[[str, Call], object]) -> None:
    """Hands every call of attention of the layers on."""
    chosen = None if layers is None else [layers] if isinstance(layers, str) else list(layers)
    seen: set[str] = set()

    def wanted(name: str) -> bool:
        return chosen is None or any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen)

    def found(name: str, call: Call) -> None:
        seen.add(name)
        if wanted(name):
            take(name, call)

    recorder, any_batch = Recorder(objective.module, found), False
    with objective.measuring(derivative=False), torch.no_grad(), ExitStack() as stack:
        for module in objective.module.modules():
            stack.callback(module.register_forward_pre_hook(recorder.enter, with_kwargs=True).remove)
        stack.enter_context(hooked(objective.module.modules(), recorder.leave))
        for batch in objective.sweep():
            if not batch.padding:
                any_batch = True
                recorder.begin()
                with parametrize.cached(), recorder:
                    objective.evaluate(batch)
    if any_batch:
        _refuse_unseen(seen, {name for name in recorder.used if wanted(name)}, chosen, recorder.root)


def _refuse_unseen(seen: set[str], used: set[str], chosen: list[str] | None, root: str) -> None:
    """Raises `ValueError` where nothing is seen of what was asked for, or not what a module has projections for."""
    for pattern in chosen or ():
        if not any(fnmatch.fnmatchcase(name, pattern) for name in (*seen, *used)):
            places = f"there is attention in {', '.join(sorted(seen)[:6])}" if seen else "no attention is seen at all"
            raise ValueError(f"no attention is seen in {pattern!r}: {places}")
    if not seen and not used:
        raise ValueError(f"no attention is seen in the forward pass: {_WAYS}")
    inside = {
        path: [name for name in seen if path == root or f"{name} ".startswith((f"{path}.", f"{path} "))]
        for path in used
    }
    missing = sorted(path for path, found in inside.items() if not found)
    if missing:
        raise ValueError(f"the attention of {missing[0]!r} is not seen: {_WAYS}; or leave it out with layers=")


def _means(found: HeadSums) -> HeadEntropies:
    count = found.sums[4]
    means = (found.sums[:4] / count.clamp_min(1.0)).unbind()
    entropy, bound, loose, uniform = (mean.masked_fill(count == 0, torch.nan) for mean in means)
    least = found.least.masked_fill(count == 0, torch.nan)
    return HeadEntropies(entropy, least, bound, loose, uniform, int(count.amax()), found.of_weights)
