"""Objectives of Hugging Face folders and a file of texts: `--problem hf:causal-lm --data FILE`, without Python.

Each task is a model of the library, its inputs, and a loss of torch's own on its predictions, the mean over all loss
terms of the data: cross-entropy over tokens or texts (what the library's models return as their loss), mean squared
error for one label that is a number, binary cross-entropy for several labels a text.

    causal-lm                 each token from those before it; texts are cut, not joined
    masked-lm                 15 % of a text's tokens, at least one, replaced by the mask; which ones, the seed says
    sequence-classification   columns text (and text_pair) and label: a number or a name of the model's config
    seq2seq                   columns source and target
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from probes.checkpoints.labels import labels_of
from probes.checkpoints.pretrained import import_transformers, load_pretrained, load_tokenizer, quiet
from probes.checkpoints.saved import Say
from probes.checkpoints.texts import Row, Texts, column, has_column, read_rows
from probes.checkpoints.tokens import IGNORED, Example, Reader
from probes.errors import UserError

if TYPE_CHECKING:
    from landscape import Objective

_MASKED_SHARE = 0.15
_MODELS = {
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


def build_task(task: str, folder: Path, texts: Texts, seed: int, say: Say) -> Objective:
    """The objective of a task: the model of the folder on the texts. `say` hears what was decided.

    Raises `UserError` for a folder or a file that does not fit the task, in one line.
    """
    from landscape import Objective

    transformers = import_transformers()
    rows = read_rows(texts.path)
    tokenizer = load_tokenizer(folder)
    model = load_pretrained(folder, getattr(transformers, _MODELS[task]))
    reader = Reader(model, tokenizer, texts, folder)
    chosen = rows[: texts.samples]
    examples, loss = _EXAMPLES[task](reader, chosen, seed)
    size = reader.batch_size(task, examples)
    batches = [reader.batch(task, examples[at : at + size]) for at in range(0, len(examples), size)]
    _say_what(say, rows, examples, reader, size)
    _compare(say, task, model, loss, batches[0])
    return Objective(model, loss, batches, forward=_FORWARD[task])


def _say_what(say: Say, rows: Sequence[Row], examples: Sequence[Example], reader: Reader, size: int) -> None:
    taken = min(reader.texts.samples, len(rows))
    which = f"the first {taken} of {len(rows)}" if taken < len(rows) else f"all {taken}"
    short = f", {taken - len(examples)} too short" if len(examples) < taken else ""
    cut = f", {reader.cut} cut at {reader.length} tokens" if reader.cut else ""
    say(
        f"{which} texts of {reader.texts.path}{cut}{short}, in batches of {size}; {type(reader.model).__name__} in "
        "eval mode and float32 (--samples, --length and --batch-size set others)"
    )


def _compare(say: Say, task: str, model: nn.Module, loss: nn.Module, batch: tuple[dict[str, Tensor], Tensor]) -> None:
    """Say so when the library's own loss has more in it (a penalty on the routing of experts, say)."""
    inputs, targets = dict(batch[0]), batch[1]
    labels = targets if task != "causal-lm" else nn.functional.pad(targets, (1, 0), value=IGNORED)
    if task == "seq2seq":
        del inputs["decoder_input_ids"]
    with quiet(), torch.no_grad():
        ours, own = float(loss(_FORWARD[task](model, batch[0]), targets)), model(**inputs, labels=labels).loss
    if own is None or not abs(ours - float(own)) <= 1e-5 * abs(ours) + 1e-6:
        theirs = "none" if own is None else f"{float(own):g}"
        say(f"the model's own loss of the first batch is {theirs}; measured is {type(loss).__name__}, {ours:g} there")


# -- the tasks ------------------------------------------------------------------------------------------------


def _language(reader: Reader, rows: Sequence[Row]) -> list[Example]:
    """Texts, or token ids, without labels."""
    if has_column(rows, "input_ids"):
        return [reader.given(row, number) for number, row in enumerate(rows, 1)]
    return [Example(reader.tokens(text), None) for text in column(rows, "text", reader.texts.path)]


def _causal(reader: Reader, rows: Sequence[Row], seed: int) -> tuple[list[Example], nn.Module]:
    examples = _language(reader, rows)
    for example in examples:
        example.labels = example.inputs["input_ids"] if example.labels is None else example.labels
    long = [example for example in examples if any(label != IGNORED for label in example.labels[1:])]
    return _some(long, reader, "has no text of two tokens"), nn.CrossEntropyLoss()


def _masked(reader: Reader, rows: Sequence[Row], seed: int) -> tuple[list[Example], nn.Module]:
    examples = _language(reader, rows)
    generator = torch.Generator().manual_seed(seed)
    for example in examples:
        if example.labels is None:
            _mask(reader, example, generator)
    whole = [example for example in examples if any(label != IGNORED for label in example.labels)]
    return _some(whole, reader, "has no token that can be masked"), nn.CrossEntropyLoss()


def _mask(reader: Reader, example: Example, generator: torch.Generator) -> None:
    mask = getattr(reader.tokenizer, "mask_token_id", None)
    if mask is None:
        raise UserError(
            f"the tokenizer of {reader.folder} has no mask token: give input_ids and labels in a .jsonl file"
        )
    ids = example.inputs["input_ids"]
    special = set(reader.tokenizer.all_special_ids)
    plain = [at for at, token in enumerate(ids) if token not in special]
    order = torch.randperm(len(plain), generator=generator).tolist()
    chosen = {plain[at] for at in order[: max(1, round(_MASKED_SHARE * len(plain)))]}
    example.labels = [token if at in chosen else IGNORED for at, token in enumerate(ids)]
    example.inputs["input_ids"] = [mask if at in chosen else token for at, token in enumerate(ids)]


def _classification(reader: Reader, rows: Sequence[Row], seed: int) -> tuple[list[Example], nn.Module]:
    path = reader.texts.path
    labels, loss = labels_of(column(rows, "label", path), reader.model.config, path)
    if has_column(rows, "input_ids"):
        inputs = [reader.given({"input_ids": row["input_ids"]}, number).inputs for number, row in enumerate(rows, 1)]
    else:
        pairs = [row.get("text_pair") for row in rows]
        inputs = [reader.tokens(text, pair) for text, pair in zip(column(rows, "text", path), pairs, strict=True)]
    return [Example(one, label) for one, label in zip(inputs, labels, strict=True)], loss


def _seq2seq(reader: Reader, rows: Sequence[Row], seed: int) -> tuple[list[Example], nn.Module]:
    if not hasattr(reader.model, "prepare_decoder_input_ids_from_labels"):
        raise UserError(
            f"{type(reader.model).__name__} does not say how its decoder is fed: write a problem function, "
            "--problem module:function"
        )
    sources, targets = (column(rows, name, reader.texts.path) for name in ("source", "target"))
    examples = [
        Example(reader.tokens(source), reader.tokens(target, target=True)["input_ids"])
        for source, target in zip(sources, targets, strict=True)
    ]
    return examples, nn.CrossEntropyLoss()


def _some(examples: list[Example], reader: Reader, what: str) -> list[Example]:
    if not examples:
        raise UserError(f"{reader.texts.path} {what}")
    return examples


def _next_tokens(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """`(texts, vocabulary, tokens - 1)`: the prediction at each token of the one after it."""
    logits: Tensor = model(**inputs).logits
    return logits[:, :-1].transpose(1, 2)


def _tokens(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """`(texts, vocabulary, tokens)`."""
    logits: Tensor = model(**inputs).logits
    return logits.transpose(1, 2)


def _texts(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """`(texts, labels)`, or `(texts,)` where there is one."""
    logits: Tensor = model(**inputs).logits
    return logits.squeeze(-1) if logits.shape[-1] == 1 else logits


_EXAMPLES: dict[str, Callable[[Reader, Sequence[Row], int], tuple[list[Example], nn.Module]]] = {
    "causal-lm": _causal,
    "masked-lm": _masked,
    "sequence-classification": _classification,
    "seq2seq": _seq2seq,
}
_FORWARD = {"causal-lm": _next_tokens, "masked-lm": _tokens, "sequence-classification": _texts, "seq2seq": _tokens}
