"""Models of transformers from small configurations, their adapters and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from landscape import Objective
from situations.situation import Case, Situation

GROUP = "Transformers (Hugging Face)"
SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {
    "vocab_size": 32,
    "n_positions": 16,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = SMALL | {"num_local_experts": 4, "num_experts_per_tok": 2}


def build(name: str, config: str, **settings: Any) -> Any:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    made = getattr(transformers, name)(getattr(transformers, config)(**settings))
    if hasattr(made.config, "_experts_implementation"):
        made.config._experts_implementation = "eager"  # the grouped kernel has no float64
    return made.double().eval()


def ids(rows: int = 4, length: int = 7) -> Tensor:
    return torch.randint(3, 32, (rows, length), generator=torch.Generator().manual_seed(1))


def own(outputs: Any, targets: Any) -> Tensor:
    loss: Tensor = outputs.loss
    return loss


def labelled(model: Any, inputs: dict[str, Any], **options: Any) -> Case:
    return Case(Objective(model, own, inputs, **options), lambda: model(**inputs).loss)


def causal(name: str, config: str, **settings: Any) -> Case:
    return labelled(build(name, config, **settings), {"input_ids": ids(), "labels": ids()})


def gpt2(change: Callable[[Any], Any] = lambda model: model, **settings: Any) -> Case:
    return labelled(
        change(build("GPT2LMHeadModel", "GPT2Config", **GPT2 | settings)), {"input_ids": ids(), "labels": ids()}
    )


def ragged() -> Case:
    """Two batches with ignored labels: the loss of all tokens together."""
    model = build("GPT2LMHeadModel", "GPT2Config", **GPT2)
    labels = ids().clone()
    labels[3, 3:] = -100
    parts = [{"input_ids": ids()[a:b], "labels": labels[a:b]} for a, b in ((0, 3), (3, 4))]
    return Case(Objective(model, own, parts), lambda: model(input_ids=ids(), labels=labels).loss)


def seq2seq() -> Case:
    model = build(
        "T5ForConditionalGeneration",
        "T5Config",
        vocab_size=32,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    return labelled(model, {"input_ids": ids(), "labels": ids(4, 5)})


def bert(head: str, labels: Tensor) -> Case:
    settings = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[2, 5:] = 0
    return labelled(
        build(head, "BertConfig", **settings, num_labels=3),
        {"input_ids": ids(), "attention_mask": mask, "labels": labels},
    )


def vit() -> Case:
    model = build(
        "ViTForImageClassification",
        "ViTConfig",
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        image_size=8,
        patch_size=4,
        num_labels=3,
    )
    pixels = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return labelled(model, {"pixel_values": pixels, "labels": torch.tensor([0, 1, 2, 1])})


def lora() -> Case:
    import peft

    model = build("GPT2LMHeadModel", "GPT2Config", **GPT2)
    config = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    return labelled(peft.get_peft_model(model, config).double(), {"input_ids": ids(), "labels": ids()})


def checkpointed(model: Any) -> Any:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def frozen(model: Any) -> Any:
    model.transformer.requires_grad_(False)
    model.transformer.h[1].requires_grad_(True)
    return model


def prepared(model: Any) -> Any:
    import accelerate

    return accelerate.Accelerator(cpu=True).prepare_model(model)


def logits() -> Case:
    model = build("GPT2LMHeadModel", "GPT2Config", **GPT2)
    labels = torch.nn.functional.pad(ids()[:, 1:], (0, 1), value=-100)

    def forward(model: Any, x: Tensor) -> Tensor:
        return model(input_ids=x).logits.transpose(1, 2)

    return Case(
        Objective(model, torch.nn.CrossEntropyLoss(), (ids(), labels), forward=forward),
        lambda: torch.nn.functional.cross_entropy(forward(model, ids()), labels),
    )


MARKED = torch.where(ids() % 3 == 0, ids(), -100)
_case = partial(Situation, GROUP, needs=("transformers",))
_float32_inside = {"tolerance": 1e-6}  # losses, norms and rotary embeddings, whatever the weights are
SITUATIONS = [
    _case("GPT-2, labels in the batch (its weights are tied)", gpt2),
    _case("GPT-2, two batches with -100 in the labels", ragged, **_float32_inside),
    _case("GPT-2, logits and a loss of torch", logits),
    _case("GPT-2, eager attention", partial(gpt2, attn_implementation="eager")),
    _case(
        "GPT-2 with gradient checkpointing (not reentrant), training",
        partial(gpt2, checkpointed, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    ),
    _case("GPT-2, all but one block frozen", partial(gpt2, frozen)),
    _case("Llama", partial(causal, "LlamaForCausalLM", "LlamaConfig", **SMALL), **_float32_inside),
    _case(
        "Mistral, grouped queries and a window",
        partial(causal, "MistralForCausalLM", "MistralConfig", **SMALL, sliding_window=4),
        **_float32_inside,
    ),
    _case("Qwen2", partial(causal, "Qwen2ForCausalLM", "Qwen2Config", **SMALL), **_float32_inside),
    _case(
        "Mixtral, a mixture of experts",
        partial(causal, "MixtralForCausalLM", "MixtralConfig", **MOE),
        **_float32_inside,
    ),
    _case("Gemma", partial(causal, "GemmaForCausalLM", "GemmaConfig", **SMALL, head_dim=4), **_float32_inside),
    _case("T5, encoder and decoder", seq2seq),
    _case("BERT, masked language model with a padded row", partial(bert, "BertForMaskedLM", MARKED)),
    _case("BERT, sequence classification", partial(bert, "BertForSequenceClassification", torch.tensor([0, 1, 2, 1]))),
    _case("BERT, token classification", partial(bert, "BertForTokenClassification", ids() % 3)),
    _case("ViT, image classification", vit),
    Situation(GROUP, "LoRA adapters on GPT-2 (peft)", lora, needs=("transformers", "peft")),
    Situation(GROUP, "GPT-2 prepared by accelerate", partial(gpt2, prepared), needs=("transformers", "accelerate")),
]
