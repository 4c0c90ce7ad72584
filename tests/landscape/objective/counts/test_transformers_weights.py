"""Models of transformers with labels: batches of all lengths make the mean over all loss terms, by kind of head."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from landscape import (
    EmpiricalFisher,
    FunctionalHessian,
    GaussNewton,
    Hessian,
    MonteCarloFisher,
    Objective,
    TangentKernel,
)

transformers = pytest.importorskip("transformers")
SMALL = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def bert(kind, **options):
    config = transformers.BertConfig(**SMALL, max_position_embeddings=16, **options)
    return getattr(transformers, kind)(config)


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, max_position_embeddings=16))


def t5():
    config = transformers.T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def mixtral():
    config = transformers.MixtralConfig(
        **SMALL, num_key_value_heads=2, num_local_experts=2, output_router_logits=True, max_position_embeddings=16
    )
    return transformers.MixtralForCausalLM(config)


def tokens(n, length):
    return torch.randint(1, 20, (n, length))


def ignoring(labels):
    """Half of the first row and the last place of the others are not to be predicted."""
    labels = labels.clone()
    labels[0, : labels.shape[1] // 2] = -100
    labels[1:, -1] = -100
    return labels


def shifted(logits, labels):
    return logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()


def plain(logits, labels):
    return logits.reshape(-1, logits.shape[-1]), labels.flatten()


def of_tokens(batch):
    return {**batch, "labels": ignoring(batch["input_ids"] % 3 if "classes" in batch else batch["input_ids"])}


def token_batches():
    torch.manual_seed(1)
    ids = [tokens(3, 7), tokens(1, 4), tokens(2, 5)]
    return [{"input_ids": x, "labels": ignoring(x)} for x in ids]


def sample_batches(labels):
    torch.manual_seed(1)
    return [{"input_ids": tokens(n, m), "labels": labels(n)} for n, m in ((3, 7), (1, 4), (2, 5))]


CASES = {
    "causal": (gpt2, token_batches, shifted, F.cross_entropy),
    "causal, rotary": (llama, token_batches, shifted, F.cross_entropy),
    "masked": (lambda: bert("BertForMaskedLM"), token_batches, plain, F.cross_entropy),
    "seq2seq": (t5, token_batches, plain, F.cross_entropy),
    "tokens": (lambda: bert("BertForTokenClassification", num_labels=20), token_batches, plain, F.cross_entropy),
    "classes": (
        lambda: bert("BertForSequenceClassification", num_labels=3),
        lambda: sample_batches(lambda n: torch.randint(0, 3, (n,))),
        plain,
        F.cross_entropy,
    ),
    "regression": (
        lambda: bert("BertForSequenceClassification", num_labels=1),
        lambda: sample_batches(lambda n: torch.randn(n)),
        lambda logits, labels: (logits.flatten(), labels),
        F.mse_loss,
    ),
    "several labels": (
        lambda: bert("BertForSequenceClassification", num_labels=3, problem_type="multi_label_classification"),
        lambda: sample_batches(lambda n: torch.randint(0, 2, (n, 3)).float()),
        lambda logits, labels: (logits, labels),
        F.binary_cross_entropy_with_logits,
    ),
}


def own(outputs, labels):
    return outputs.loss


@pytest.fixture(params=CASES)
def case(request):
    make, batches, arrange, loss = CASES[request.param]
    torch.manual_seed(0)
    return make().eval(), batches(), arrange, loss


def last_norm(name):
    """A few parameters below the head, in each of the models."""
    return any(part in name for part in ("ln_f", "final_layer_norm", "output.LayerNorm.bias", "model.norm"))


def on_all(model, batches, arrange, loss, **options):
    """The loss of the logits of all batches together."""
    pairs = [arrange(model(**b).logits, b["labels"]) for b in batches]
    return loss(torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs]), **options)


def test_the_mean_is_over_all_terms(case):
    model, batches, arrange, loss = case
    f = Objective(model, own, batches)
    assert f.value() == pytest.approx(on_all(model, batches, arrange, loss).item(), rel=1e-6)
    assert Objective(model, lambda outputs, _: outputs, batches).value() == pytest.approx(f.value(), rel=1e-7)


def test_gauss_newton_is_that_of_the_logits(case):
    """Against the same model that returns its logits, and torch's own loss of them."""
    model, batches, arrange, loss = case
    f = Objective(model, own, batches, parameters=last_norm)

    def logits(m, inputs):
        return arrange(m(**inputs).logits, inputs["labels"])[0]

    pairs = [(b, arrange(model(**b).logits, b["labels"])[1]) for b in batches]
    plainly = Objective(model, loss, pairs, forward=logits, parameters=last_norm)
    expected = GaussNewton(plainly).to_dense()
    assert expected.norm() > 0
    assert torch.allclose(GaussNewton(f).to_dense(), expected, atol=1e-6 * float(expected.abs().max()) + 1e-7)
    assert GaussNewton(f).positive_semidefinite
    total = FunctionalHessian(f).to_dense() + expected
    H = Hessian(f).to_dense()
    assert torch.allclose(total, H, atol=1e-4 * float(H.abs().max()))
    fisher = EmpiricalFisher(f).to_dense()
    assert torch.allclose(fisher, EmpiricalFisher(plainly).to_dense(), atol=1e-5 * float(fisher.abs().max()))


def test_fisher_and_tangent_kernel_of_a_causal_model():
    torch.manual_seed(0)
    model, batches = gpt2().eval(), token_batches()
    f = Objective(model, own, batches, parameters="transformer.ln_f.bias")
    G = GaussNewton(f).to_dense()
    drawn = MonteCarloFisher(f, samples=400, generator=torch.Generator().manual_seed(0)).to_dense()
    assert (drawn - G).norm() < 0.15 * G.norm()
    terms = sum(int((b["labels"][:, 1:] != -100).sum()) for b in batches)
    kernel = TangentKernel(f)
    assert (kernel.samples, kernel.shape[0]) == (terms, 20 * terms)


def test_a_balance_of_experts_leaves_the_count_and_belongs_to_the_functional_part():
    torch.manual_seed(0)
    model = mixtral().eval()
    batches = token_batches()
    counts = [int((b["labels"][:, 1:] != -100).sum()) for b in batches]
    expected = sum(c * model(**b).loss.item() for c, b in zip(counts, batches, strict=True)) / sum(counts)
    assert model(**batches[0]).aux_loss > 0
    f = Objective(model, own, batches, parameters="*gate*")
    assert f.value() == pytest.approx(expected, rel=1e-6)
    H = Hessian(f).to_dense()
    both = GaussNewton(f).to_dense() + FunctionalHessian(f).to_dense()
    assert torch.allclose(both, H, atol=1e-5 * float(H.abs().max()))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers for it
def test_an_adapter_is_looked_through():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(gpt2(), peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)).eval()
    batches = token_batches()
    f = Objective(model, own, batches)
    assert f.value() == pytest.approx(on_all(model, batches, shifted, F.cross_entropy).item(), rel=1e-6)
    assert GaussNewton(f).positive_semidefinite


def test_torch_losses_of_the_logits():
    torch.manual_seed(0)
    model = bert("BertForSequenceClassification", num_labels=3).eval()
    batches = sample_batches(lambda n: torch.randint(0, 3, (n,)))
    f = Objective(model, nn.CrossEntropyLoss(), batches)
    assert f.value() == pytest.approx(Objective(model, own, batches).value(), rel=1e-6)
    assert torch.allclose(
        GaussNewton(f) @ torch.ones(f.size), GaussNewton(Objective(model, own, batches)) @ torch.ones(f.size), atol=1e-6
    )
    for loss in (nn.CrossEntropyLoss(), F.cross_entropy):
        with pytest.raises(ValueError, match="in the last one"):
            Objective(gpt2(), loss, token_batches()).value()


def test_a_loss_inside_that_is_not_known_is_refused_by_gauss_newton():
    class Smoothed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.lin = nn.Linear(4, 3)

        def forward(self, x, labels):
            logits = self.lin(x)
            return {"loss": F.cross_entropy(logits, labels, label_smoothing=0.1), "logits": logits}

    data = {"x": torch.randn(6, 4), "labels": torch.randint(0, 3, (6,))}
    f = Objective(Smoothed(), lambda out, y: out["loss"], data)
    with pytest.raises(TypeError, match="computed inside the model"):
        GaussNewton(f) @ torch.ones(f.size)
    assert Hessian(f).to_dense().norm() > 0


def test_what_was_recognised_of_one_loss_is_not_taken_for_another():
    torch.manual_seed(0)
    model = bert("BertForSequenceClassification", num_labels=3).eval()
    batches = sample_batches(lambda n: torch.randint(0, 3, (n,)))
    f = Objective(model, own, batches, parameters="classifier.bias")
    G = GaussNewton(f).to_dense()

    def doubled(model, inputs):
        outputs = model(**inputs)
        outputs.loss = 2 * outputs.loss
        return outputs

    for loss, forward in ((lambda outputs, _: 2 * outputs.loss, None), (own, doubled)):
        twice = Objective(model, loss, batches, forward=forward, parameters="classifier.bias")
        with pytest.raises(TypeError, match="computed inside the model"):
            GaussNewton(twice).to_dense()
    assert torch.equal(GaussNewton(f).to_dense(), G)


def test_a_loss_of_ones_own_of_the_logits_is_asked_for_its_count():
    torch.manual_seed(0)
    model = gpt2().eval()
    batches = [{"input_ids": x, "labels": x} for x in (tokens(3, 7), tokens(1, 4), tokens(2, 5))]

    def loss(outputs, labels):
        return F.cross_entropy(*shifted(outputs.logits, labels))

    with pytest.raises(ValueError, match=r"count=lambda outputs, targets: \(targets\[:, 1:\] != -100\).sum\(\)"):
        Objective(model, loss, batches).value()
    f = Objective(model, loss, batches, count=lambda outputs, targets: (targets[:, 1:] != -100).sum())
    assert f.value() == pytest.approx(Objective(model, own, batches).value(), rel=1e-6)


def test_a_count_beside_a_known_loss_has_to_be_its_own():
    torch.manual_seed(0)
    model, batches = gpt2().eval(), token_batches()
    with pytest.raises(ValueError, match=r"count= is not what the loss divides by: batch 1 has 2 terms"):
        Objective(model, own, batches, count=lambda outputs, targets: (targets != -100).sum()).value()
    twice = Objective(model, own, batches, count=lambda outputs, targets: 2 * (targets[:, 1:] != -100).sum())
    assert twice.value() == pytest.approx(Objective(model, own, batches).value(), rel=1e-6)


def test_a_loss_divided_by_the_number_of_items_of_all_batches_is_a_sum():
    torch.manual_seed(0)
    model = gpt2().eval()
    batches = [
        {"input_ids": x, "labels": x, "num_items_in_batch": torch.tensor(21.0)} for x in (tokens(3, 7), tokens(1, 4))
    ]
    with pytest.raises(ValueError, match='reduction="sum"'):
        Objective(model, own, batches).value()
    f = Objective(model, own, batches, reduction="sum")
    plain = [{"input_ids": b["input_ids"], "labels": b["labels"]} for b in batches]
    assert f.value() == pytest.approx(Objective(model, own, plain).value(), rel=1e-6)
