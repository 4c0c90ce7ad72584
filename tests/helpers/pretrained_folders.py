"""Small pretrained folders, made from a config: a model with a tokenizer of words, no hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = [*"the a cat dog sat ran on mat and bird flew over house big small red".split()]  # noqa: SIM905
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "</s>"]
VOCABULARY = len(SPECIAL) + len(WORDS)
SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8, "intermediate_size": 12}
BERT = {"vocab_size": VOCABULARY, **SIZES, "max_position_embeddings": 32}
GPT2 = {"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}


def save_tokenizer(folder: Path, *, frame: bool = False, pad: bool = True) -> Any:
    """Words by their place in a list; with `frame` [CLS] ... [SEP] around a text."""
    tokenizers, transformers = (pytest.importorskip(name) for name in ("tokenizers", "transformers"))
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: at for at, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if frame:
        words.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    names |= {"pad_token": "[PAD]"} if pad else {}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", **names)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_model(folder: Path, name: str, config: Any, seed: int = 0) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # far from uniform predictions
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    return model


def save_causal(folder: Path, seed: int = 0) -> Any:
    """A GPT-2 with its tokenizer."""
    save_tokenizer(folder)
    return save_model(folder, "GPT2LMHeadModel", pytest.importorskip("transformers").GPT2Config(**GPT2), seed)
