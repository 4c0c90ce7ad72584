"""The callback under a real Hugging Face trainer: its numbers, its steps, and that nobody notices it."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from landscape import Objective
from probes import Alignment, Field, Gradient, Spectrum, Trace, Updates

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from probes.integrations.transformers import MonitorCallback  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory")
LABELS = 12  # tokens a sample, so that no batch is ragged


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return tmp_path


@pytest.fixture
def ids():
    return torch.randint(0, 8, (16, LABELS), generator=torch.Generator().manual_seed(0))


def gpt(dropout=0.0):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=8,
        n_positions=12,
        n_embd=4,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        loss_type="ForCausalLM",
    )
    return transformers.GPT2LMHeadModel(config)


def train(model, ids, *callbacks, steps=6, resume=None, **settings):
    args = transformers.TrainingArguments(
        "out",
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=2,
        **{"save_strategy": "no", "dataloader_pin_memory": False} | settings,
    )
    dataset = [{"input_ids": row, "labels": row} for row in ids]
    trainer = transformers.Trainer(model, args, train_dataset=dataset, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def exact(weights, ids):
    """The two largest eigenvalues of the mean over all tokens but the first of each row, by dense double backward."""
    model = gpt().double().train()
    model.set_attn_implementation("eager")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied
    parameters = list(model.parameters())
    logits = model(input_ids=ids).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 8), ids[:, 1:].reshape(-1))
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    eye = torch.eye(len(gradient), dtype=torch.float64)
    columns = torch.autograd.grad(gradient, parameters, eye, is_grads_batched=True)
    H = torch.cat([c.reshape(len(eye), -1) for c in columns], 1)
    return torch.linalg.eigvalsh((H + H.T) / 2).flip(0)[:2].numpy()


@pytest.mark.parametrize("half", [False, True])
def test_the_numbers_are_those_of_the_saved_weights(folder, ids, half, capsys):
    callback = MonitorCallback([Spectrum(k=2, every=3), Gradient()], "run.h5", every=2, on_error="raise")
    train(gpt(), ids, callback, save_strategy="steps", save_steps=3, bf16=half)
    trace = Trace.open("run.h5")
    assert trace["spectrum"]["step"].tolist() == [0, 3, 6]
    assert trace["gradient"]["step"].tolist() == [0, 2, 4, 6]
    assert trace["gradient"]["epoch"].tolist() == [0, 0.5, 1, 1.5]
    assert trace["training"]["step"].tolist() == [2, 4, 6]
    assert np.all(np.abs(trace["training"]["loss"] - 2) < 0.5)
    assert trace.config["learning_rate"] == 1e-2
    assert trace.seed == 42  # the trainer's
    for row, step in ((1, 3), (2, 6)):
        weights = load_file(folder / "out" / f"checkpoint-{step}" / "model.safetensors")
        np.testing.assert_allclose(trace["spectrum"]["values"][row], exact(weights, ids), rtol=2e-3)


def test_training_is_what_it_is_without(folder, ids, capsys):
    plain, watched = gpt(dropout=0.3), gpt(dropout=0.3)
    train(plain, ids)
    train(watched, ids, MonitorCallback([Spectrum(), Updates()], "run.h5", on_error="raise"))
    assert len(Trace.open("run.h5")["spectrum"]) == 7
    assert vars(watched).keys() == vars(plain).keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_a_run_that_is_resumed_has_the_trace_of_one_that_was_not(folder, ids, capsys):
    def callback(name):
        return MonitorCallback([Gradient(every=2)], name, on_error="raise")

    saving = {"save_strategy": "steps", "save_steps": 3}
    train(gpt(), ids, callback("whole.h5"), steps=8, lr_scheduler_type="constant")
    train(gpt(), ids, callback("half.h5"), steps=5, lr_scheduler_type="constant", **saving)
    kept = json.loads((folder / "out/checkpoint-3/landscape.json").read_text())
    assert kept["monitor"]["before"]["gradient"][0] == 3
    train(gpt(), ids, callback("half.h5"), steps=8, resume="out/checkpoint-3", lr_scheduler_type="constant", **saving)
    expected, found = Trace.open("whole.h5"), Trace.open("half.h5")
    assert found["gradient"]["step"].tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_allclose(found["gradient"]["norm"], expected["gradient"]["norm"], rtol=1e-6)
    np.testing.assert_allclose(found["gradient"]["loss"], expected["gradient"]["loss"], rtol=1e-6)


def test_a_choice_of_the_samples(folder, ids, capsys):
    chosen = MonitorCallback([Gradient(every=6)], "chosen.h5", samples=9, on_error="raise")
    model = gpt()
    train(model, ids, chosen)
    (first, second) = (batch.inputs["input_ids"] for batch in chosen._training.monitor.objective.sweep())
    assert (len(first), len(second)) == (4, 4)  # whole batches
    there = {tuple(row.tolist()) for row in ids}
    assert len({tuple(row.tolist()) for row in torch.cat([first, second])} & there) == 8
    other = MonitorCallback([Gradient(every=6)], "other.h5", samples=9, on_error="raise")
    train(gpt(), ids, other, seed=43)  # the seed says which
    drawn = torch.cat([batch.inputs["input_ids"] for batch in other._training.monitor.objective.sweep()])
    assert not torch.equal(drawn, torch.cat([first, second]))
    loss = torch.stack([model(input_ids=part, labels=part).loss for part in (first, second)]).mean()
    assert Trace.open("chosen.h5")["gradient"]["loss"][-1] == pytest.approx(loss.item(), rel=1e-5)


@dataclass(frozen=True)
class Told:
    """Records the loss that it is told of."""

    name: str = "told"
    every: object = 1
    needs = frozenset()

    def fields(self, context):
        return {"value": Field()}

    def measure(self, context):
        return {"value": math.nan if context.loss is None else float(context.loss)}


def test_the_loss_that_was_logged_last_is_told(folder, ids, capsys):
    train(gpt(), ids, MonitorCallback([Told()], "run.h5", on_error="raise"))
    trace = Trace.open("run.h5")
    logged = trace["training"]["loss"]
    assert len(set(logged)) == 3
    found = dict(zip(trace["told"]["step"].tolist(), trace["told"]["value"], strict=True))
    assert math.isnan(found[1])
    assert [found[3], found[5]] == [logged[0], logged[1]]


def test_batches_and_objectives_of_the_users_own(folder, ids, capsys):
    part = {"input_ids": ids[:3], "labels": ids[:3]}

    def of(model):
        return Objective(model, lambda outputs, _: 2 * outputs.loss, [part])

    model = gpt()
    train(model, ids, MonitorCallback([Gradient(every=6)], "data.h5", data=[part], on_error="raise"))
    expected = model(**part).loss.item()
    assert Trace.open("data.h5")["gradient"]["loss"][-1] == pytest.approx(expected, rel=1e-5)
    model = gpt()
    train(model, ids, MonitorCallback([Gradient(every=6)], "own.h5", objective=of, on_error="raise"))
    assert Trace.open("own.h5")["gradient"]["loss"][-1] == pytest.approx(2 * expected, rel=1e-5)


def test_what_cannot_be_measured_is_refused(folder, ids, capsys):
    with pytest.raises(ValueError, match="needs the batch"):
        MonitorCallback([Alignment(of="batch")], "run.h5")
    with pytest.raises(ValueError, match=r"smooths labels.*objective="):
        train(gpt(), ids, MonitorCallback([Gradient()], "run.h5"), label_smoothing_factor=0.1)
    unlabelled = MonitorCallback([Gradient()], "run.h5", data=[{"input_ids": ids[:3]}], on_error="raise")
    with pytest.raises(ValueError, match=r"no loss.*objective="):
        train(gpt(), ids, unlabelled)
