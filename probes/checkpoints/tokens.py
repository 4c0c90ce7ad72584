"""Texts as token ids for one model: cut, checked against its vocabulary, and padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probes.checkpoints.texts import Row, Texts
from probes.errors import UserError

IGNORED = -100


@dataclass
class Example:
    """One text as numbers: the model's inputs, and its labels (token by token, or one of the text)."""

    inputs: dict[str, list[int]]
    labels: Any = field(default_factory=list)


class Reader:
    """Makes examples and batches for one model and its tokenizer."""

    def __init__(self, model: nn.Module, tokenizer: Any, texts: Texts, folder: Path) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.texts = texts
        self.folder = folder
        self.length = self._length()
        self.cut = 0

    def _length(self) -> int:
        most = getattr(self.model.config, "max_position_embeddings", None)
        own = getattr(self.tokenizer, "model_max_length", None)
        most = min(n for n in (most, own, 1 << 30) if isinstance(n, int) and n > 0)
        return min(self.texts.length, most)

    def tokens(self, text: Any, pair: Any = None, *, target: bool = False) -> dict[str, list[int]]:
        """The inputs that the tokenizer makes of a text, cut at `length`."""
        if self.tokenizer is None:
            raise UserError(
                f"{self.folder} has no tokenizer: save it there, tokenizer.save_pretrained(folder), or give --data a "
                ".jsonl file with input_ids"
            )
        given = {"text_target": str(text)} if target else {"text": str(text), "text_pair": pair}
        whole = self.tokenizer(**given)
        if len(whole["input_ids"]) > self.length:
            self.cut += 1
            whole = self.tokenizer(**given, truncation=True, max_length=self.length)
        found = {name: list(whole[name]) for name in (*self.tokenizer.model_input_names, "input_ids") if name in whole}
        self._check_range(found["input_ids"])
        return found

    def given(self, row: Row, number: int) -> Example:
        """A row of token ids, with labels where it has them."""
        ids: Any = row.get("input_ids")
        labels: Any = row.get("labels")
        if not _is_ids(ids) or not (labels is None or (_is_ids(labels) and len(labels) == len(ids))):
            raise UserError(
                f"{self.texts.path}: input_ids of text number {number} are no list of token ids, or its labels are not "
                "as many"
            )
        self.cut += len(ids) > self.length
        self._check_range(ids)
        return Example({"input_ids": ids[: self.length]}, None if labels is None else labels[: self.length])

    def _check_range(self, ids: Sequence[int]) -> None:
        size = self.model.get_input_embeddings().num_embeddings
        if ids and not 0 <= min(ids) <= max(ids) < size:
            raise UserError(
                f"{self.texts.path} has the token {max(ids) if max(ids) >= size else min(ids)}, and the vocabulary of "
                f"{self.folder} ends at {size - 1}: is it the tokenizer of another model?"
            )

    def batch_size(self, task: str, examples: Sequence[Example]) -> int:
        """How many texts of a batch: one where a model looks for the last token and knows no padding."""
        config = self.model.config
        if task == "sequence-classification" and config.pad_token_id is None:
            config.pad_token_id = getattr(self.tokenizer, "pad_token_id", None)
            lengths = {len(example.inputs["input_ids"]) for example in examples}
            return 1 if config.pad_token_id is None and len(lengths) > 1 else self.texts.batch_size
        return self.texts.batch_size

    def batch(self, task: str, examples: Sequence[Example]) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs, padded on the right to the longest text, and targets."""
        inputs = {name: self._padded(name, [e.inputs[name] for e in examples]) for name in examples[0].inputs}
        lengths = [len(example.inputs["input_ids"]) for example in examples]
        inputs["attention_mask"] = _stack([[1] * length for length in lengths], 0)
        if task == "sequence-classification":
            return inputs, torch.tensor([example.labels for example in examples])
        labels = _stack([example.labels for example in examples], IGNORED)
        if task == "seq2seq":
            inputs["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels=labels)
        return inputs, labels[:, 1:] if task == "causal-lm" else labels

    def _padded(self, name: str, rows: Sequence[list[int]]) -> Tensor:
        ids = (getattr(self.tokenizer, "pad_token_id", None), getattr(self.model.config, "pad_token_id", None), 0)
        return _stack(rows, next(one for one in ids if isinstance(one, int)) if name == "input_ids" else 0)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _stack(rows: Sequence[list[int]], padding: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
