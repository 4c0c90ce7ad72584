"""Solvers inside the training loops of others: Lightning, transformers.Trainer, accelerate."""

import logging
import warnings

import pytest
import torch
from solver_cases import BY_GRADIENT, FIRST, SECOND, X, Y, closure_of, small_model, steps, values
from torch.nn import functional as F


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lightning_fit(name, model, *, manual=False, **options):
    L = pytest.importorskip("lightning")
    table = SECOND | FIRST

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model
            self.automatic_optimization = not manual

        def training_step(self, batch, index):
            loss = lambda: F.cross_entropy(self.net(batch[0]), batch[1])  # noqa: E731
            if not manual:
                return loss()
            return self.optimizers().step(loss)

        def configure_optimizers(self):
            return table[name](self.parameters())

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 16)
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **silent, **options)
    trainer.fit(Module(), data)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["SGD", "AdamCoupled", "NGN", "SAM"])
def test_lightning_automatic(name):
    """Three epochs of one batch are three steps."""
    pytest.importorskip("lightning")
    model, other = small_model(), small_model()
    lightning_fit(name, model)
    steps(FIRST[name](other.parameters()), closure_of(other), 3)
    torch.testing.assert_close(values(model), values(other), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("quiet")
def test_lightning_clips_before_the_step():
    pytest.importorskip("lightning")
    model, other = small_model(), small_model()
    lightning_fit("SGD", model, gradient_clip_val=0.1)
    solver = FIRST["SGD"](other.parameters())
    for _ in range(3):
        solver.zero_grad()
        closure_of(other)().backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        solver.step()
    torch.testing.assert_close(values(model), values(other), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["SSCN", "CubicNewton"])
def test_lightning_manual_is_what_second_order_takes(name):
    pytest.importorskip("lightning")
    with pytest.raises(ValueError, match=r"self\.automatic_optimization = False"):
        lightning_fit(name, small_model())
    model, other = small_model(), small_model()
    lightning_fit(name, model, manual=True)
    steps(SECOND[name](other.parameters()), closure_of(other), 3)
    torch.testing.assert_close(values(model), values(other), rtol=1e-4, atol=1e-5)


def hf_train(name, folder):
    T = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    config = T.BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    model = T.BertForSequenceClassification(config)
    rows = [{"input_ids": torch.arange(8) + i, "labels": torch.tensor(i % 3)} for i in range(8)]
    arguments = T.TrainingArguments(
        str(folder), max_steps=2, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True, logging_steps=1
    )
    before = values(model)
    table = SECOND | FIRST
    T.Trainer(model, arguments, train_dataset=rows, optimizers=(table[name](model.parameters()), None)).train()
    return before, values(model)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", list(BY_GRADIENT))
def test_transformers_trainer(name, tmp_path):
    before, after = hf_train(name, tmp_path)
    assert not torch.equal(before, after)
    assert bool(torch.isfinite(after).all())


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("name", "words"), [("NGN", "take a solver that moves by gradients alone"), ("SSCN", "has no closure to give")]
)
def test_transformers_trainer_gives_no_loss(name, words, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=words):
        hf_train(name, tmp_path)


@pytest.mark.parametrize("name", ["SGD", "NGN", "SAM", "CubicNewton", "SSCN"])
def test_accelerate_hands_closures_on(name):
    accelerate = pytest.importorskip("accelerate")
    model, other = small_model(), small_model()
    wrapped = accelerate.Accelerator(cpu=True).prepare((SECOND | FIRST)[name](model.parameters()))
    for _ in range(3):
        wrapped.step(closure_of(model))
    steps((SECOND | FIRST)[name](other.parameters()), closure_of(other), 3)
    assert torch.equal(values(model), values(other))
