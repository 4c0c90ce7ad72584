"""`--problem hf:...`: small models from a config, their own loss on all the data at once, and the dense Hessian."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained_folders import BERT, GPT2, VOCABULARY, WORDS, save_model, save_tokenizer
from scipy.sparse.linalg import LinearOperator
from scipy.sparse.linalg import eigsh as scipy_eigsh

import landscape
from landscape.spectra import eigsh
from probes import Trace
from probes.checkpoints.load import match_checkpoint
from probes.checkpoints.problem import build_objective
from probes.checkpoints.texts import Texts
from probes.cli import main
from probes.errors import UserError

transformers = pytest.importorskip("transformers")


def text(seed: int, most: int = 7) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choices(WORDS, k=rng.randint(2, most)))


LINES = [text(seed) for seed in range(11)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


def build(task: str, folder: Path, data: Path, said: list[str] | None = None, **sizes: int) -> Any:
    say = (said if said is not None else []).append
    return build_objective(f"hf:{task}", folder, Texts(data, **({"batch_size": 4} | sizes)), seed=3, say=say)


def whole_batch(tokenizer: Any, texts: list[str]) -> tuple[Any, torch.Tensor]:
    """All texts at once, and their tokens as labels, -100 where there is padding."""
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    return batch, batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)


def check(objective: Any, loss: Any) -> None:
    """Value and one product of the Hessian against double backward of the library's loss on all data in float64."""
    assert objective.value() == pytest.approx(loss(objective.model).item(), rel=1e-5)
    exact = double_backward(objective, loss)
    v = torch.randn(objective.size, generator=torch.Generator().manual_seed(0))
    product = landscape.Hessian(objective) @ v
    difference = (product.double() - exact(v.double())).norm()
    assert difference < 1e-4 * product.norm(), float(difference / product.norm())


def double_backward(objective: Any, loss: Any) -> Any:
    """v -> Hv."""
    model = copy.deepcopy(objective.model).double()
    parameters = [dict(model.named_parameters())[name] for name in objective.names]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        gradients = torch.autograd.grad(loss(model), parameters, create_graph=True)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])

    def product(v: torch.Tensor) -> torch.Tensor:
        rows = torch.autograd.grad(flat @ v, parameters, retain_graph=True)
        return torch.cat([row.reshape(-1) for row in rows])

    return product


def test_causal_lm(folder: Path, tmp_path: Path) -> None:
    sizes = {**GPT2, "n_positions": 8, "n_embd": 4}
    save_model(folder, "GPT2LMHeadModel", transformers.GPT2Config(**sizes))
    batch, labels = whole_batch(save_tokenizer(folder), LINES)
    data = tmp_path / "lines.txt"
    data.write_text("\n\n".join(LINES) + "\n")
    said: list[str] = []
    objective = build("causal-lm", folder, data, said)
    assert said == [
        f"all 11 texts of {data}, in batches of 4; GPT2LMHeadModel in eval mode and float32 "
        "(--samples, --length and --batch-size set others)"
    ]

    def loss(model: Any) -> torch.Tensor:
        return model(**batch, labels=labels).loss

    check(objective, loss)
    product = double_backward(objective, loss)
    n = objective.size
    dense = LinearOperator((n, n), lambda v: product(torch.tensor(v).reshape(-1)).numpy(), dtype=np.float64)
    exact = scipy_eigsh(dense, k=3, which="LA", return_eigenvectors=False)
    found = eigsh(landscape.Hessian(objective), k=3, tol=1e-4)
    np.testing.assert_allclose(found.values.numpy(), sorted(exact, reverse=True), rtol=2e-4)


def test_causal_lm_in_half_precision_of_token_ids_with_labels(folder: Path, tmp_path: Path) -> None:
    config = transformers.LlamaConfig(**BERT, num_key_value_heads=1)
    save_model(folder, "LlamaForCausalLM", config).to(torch.bfloat16).save_pretrained(folder)
    rows = [{"input_ids": [6, 7, 8, 9], "labels": [-100, -100, 8, 9]}, {"input_ids": [9, 8]}, {"input_ids": [7]}]
    said: list[str] = []
    objective = build("causal-lm", folder, write(tmp_path / "ids.jsonl", rows), said)  # there is no tokenizer
    assert ", 1 too short, in batches" in said[0]
    assert objective.dtype == torch.float32
    ids = torch.tensor([[6, 7, 8, 9], [9, 8, 0, 0]])
    labels = torch.tensor([[-100, -100, 8, 9], [9, 8, -100, -100]])
    check(objective, lambda model: model(input_ids=ids, attention_mask=(ids > 0).long(), labels=labels).loss)


def test_texts_are_cut_where_the_model_ends(folder: Path, tmp_path: Path) -> None:
    save_model(folder, "GPT2LMHeadModel", transformers.GPT2Config(**GPT2))  # 32 places
    save_tokenizer(folder)
    ids = [6 + (at * at) % 11 for at in range(40)]
    said: list[str] = []
    objective = build("causal-lm", folder, write(tmp_path / "ids.jsonl", [{"input_ids": ids, "labels": ids}]), said)
    assert "1 cut at 32 tokens" in said[0]
    (batch,) = objective.sweep()
    assert batch.inputs["input_ids"].tolist() == [ids[:32]]
    assert batch.targets.tolist() == [ids[1:32]]
    (tmp_path / "long.txt").write_text(" ".join(WORDS * 3))
    (cut,) = build("causal-lm", folder, tmp_path / "long.txt").sweep()
    assert cut.targets.shape == (1, 31)


def test_masked_lm(folder: Path, tmp_path: Path) -> None:
    save_model(folder, "BertForMaskedLM", transformers.BertConfig(**BERT))
    tokenizer = save_tokenizer(folder, frame=True)
    data = write(tmp_path / "lines.jsonl", [{"text": line} for line in LINES])
    objective = build("masked-lm", folder, data)
    batches = [(batch.inputs, batch.targets) for batch in objective.sweep()]
    row, masked = 0, 0
    for inputs, targets in batches:
        for ids, labels in zip(inputs["input_ids"], targets, strict=True):
            chosen = labels != -100
            words = len(LINES[row].split())
            assert int(chosen.sum()) == max(1, round(0.15 * words))
            assert (ids[chosen] == tokenizer.mask_token_id).all()
            assert not chosen[0]  # [CLS] and [SEP] stay
            assert not chosen[words + 1]
            kept = torch.where(chosen, labels, ids)  # what was there before
            assert kept[: words + 2].tolist() == tokenizer(LINES[row])["input_ids"]
            row, masked = row + 1, masked + int(chosen.sum())
    assert row == len(LINES)
    assert build("masked-lm", folder, data).value() == objective.value()  # the seed says which are masked
    other = build_objective("hf:masked-lm", folder, Texts(data, batch_size=4), seed=4, say=[].append)
    assert other.value() != objective.value()

    def loss(model: Any) -> torch.Tensor:
        losses = [model(**inputs, labels=labels).loss * (labels != -100).sum() for inputs, labels in batches]
        return torch.stack(losses).sum() / masked

    check(objective, loss)


@pytest.mark.parametrize("kind", ["names", "number", "several"])
def test_sequence_classification(folder: Path, tmp_path: Path, kind: str) -> None:
    names = ["bad", "fair", "good"]
    ids = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    config = transformers.BertConfig(
        **BERT, **(ids if kind == "names" else {"num_labels": 1 if kind == "number" else 2})
    )
    save_model(folder, "BertForSequenceClassification", config)
    tokenizer = save_tokenizer(folder, frame=True)
    if kind == "names":
        labels = torch.arange(len(LINES)) % 3
        values = [names[at] if row % 2 else str(int(at)) for row, at in enumerate(labels)]
        data = tmp_path / "labelled.csv"
        lines = [f'"{line}",{value}' for line, value in zip(LINES, values, strict=True)]
        data.write_text("\n".join(["text,label", *lines]))
    else:
        labels = torch.rand(len(LINES)) if kind == "number" else torch.randint(0, 2, (len(LINES), 2)).float()
        values = [{"text": line, "label": label.tolist()} for line, label in zip(LINES, labels, strict=True)]
        data = write(tmp_path / "labelled.jsonl", values)
    said: list[str] = []
    objective = build("sequence-classification", folder, data, said)
    assert len(said) == 1
    batch, _ = whole_batch(tokenizer, LINES)
    check(objective, lambda model: model(**batch, labels=labels.to(model.dtype) if kind != "names" else labels).loss)


@pytest.mark.parametrize("pad", [True, False])
def test_classification_by_the_last_token_of_a_text(folder: Path, tmp_path: Path, pad: bool) -> None:
    save_model(folder, "GPT2ForSequenceClassification", transformers.GPT2Config(**GPT2, num_labels=2))
    tokenizer = save_tokenizer(folder, pad=pad)
    labels = [row % 2 for row in range(len(LINES))]
    rows = [{"text": line, "label": label} for line, label in zip(LINES, labels, strict=True)]
    said: list[str] = []
    objective = build("sequence-classification", folder, write(tmp_path / "a.jsonl", rows), said)
    assert ("in batches of 4" if pad else "in batches of 1") in said[0]

    def loss(model: Any) -> torch.Tensor:
        """One text after the other: what padding does to none of them."""
        texts = [torch.tensor([tokenizer(line)["input_ids"]]) for line in LINES]
        losses = [model(input_ids=ids, labels=torch.tensor([y])).loss for ids, y in zip(texts, labels, strict=True)]
        return torch.stack(losses).mean()

    check(objective, loss)


def test_seq2seq(folder: Path, tmp_path: Path) -> None:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    save_model(folder, "T5ForConditionalGeneration", config)
    tokenizer = save_tokenizer(folder)
    targets = [text(seed, most=4) for seed in range(100, 111)]
    rows = [{"source": source, "target": target} for source, target in zip(LINES, targets, strict=True)]
    objective = build("seq2seq", folder, write(tmp_path / "a.jsonl", rows))
    batch, _ = whole_batch(tokenizer, LINES)
    _, labels = whole_batch(tokenizer, targets)
    check(objective, lambda model: model(**batch, labels=labels).loss)


def test_a_loss_with_more_in_it_than_the_cross_entropy_is_said(folder: Path, tmp_path: Path) -> None:
    config = transformers.MixtralConfig(**BERT, num_key_value_heads=1, num_local_experts=2, output_router_logits=True)
    save_model(folder, "MixtralForCausalLM", config)
    save_tokenizer(folder)
    data = tmp_path / "lines.txt"
    data.write_text("\n".join(LINES))
    said: list[str] = []
    objective = build("causal-lm", folder, data, said, samples=5, length=3)
    assert [batch.targets.shape for batch in objective.sweep()] == [(4, 2), (1, 2)]
    assert said[0].startswith(f"the first 5 of 11 texts of {data}, ")
    assert " cut at 3 tokens, in batches of 4;" in said[0]
    assert said[1].startswith("the model's own loss of the first batch is ")
    assert "measured is CrossEntropyLoss" in said[1]


def test_one_command_and_no_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for step in (10, 20):
        save_model(Path(f"run/checkpoint-{step}"), "GPT2LMHeadModel", transformers.GPT2Config(**GPT2), seed=step)
    save_tokenizer(Path("run"))  # above its checkpoints, where a trainer saves it
    Path("lines.txt").write_text("\n".join(LINES))
    words = ["probe", "run/checkpoint-20", "run/checkpoint-10", "--problem", "hf:causal-lm", "--data", "lines.txt"]
    words += ["--probe", "spectrum:k=2", "-o", "a.h5"]

    def command(*more: str) -> tuple[int, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([*words, *more])
        return int(stopped.value.code or 0), capfd.readouterr().err

    status, err = command()
    assert status == 0, err
    assert err.startswith("note: all 11 texts of lines.txt, in batches of 8; GPT2LMHeadModel")
    assert err.count("\n") == 1
    with Trace.open("a.h5") as trace:
        assert trace["spectrum"]["step"].tolist() == [10, 20]
        assert trace.config["texts"] == {"data": "lines.txt", "length": 128, "samples": 256, "batch size": 8}
        losses = trace["loss"]["value"]
    for row, step in enumerate((10, 20)):
        assert losses[row] == pytest.approx(
            build("causal-lm", Path(f"run/checkpoint-{step}"), Path("lines.txt")).value()
        )
    status, err = command("--resume", "--length", "5")
    assert (status, "a.h5 was measured with length 128, not 5" in err) == (1, True), err
    Path("lines.txt").write_text("\n".join(reversed(WORDS)) + "\na cat\n")
    status, err = command("--resume")
    assert (status, "the loss at step 10 is" in err) == (1, True), err


def test_a_second_file_of_texts_is_the_other_set_of_hgp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(Path("run"), "GPT2LMHeadModel", transformers.GPT2Config(**GPT2), seed=1)
    save_tokenizer(Path("run"))
    Path("lines.txt").write_text("\n".join(LINES))
    Path("same.txt").write_text("\n".join(LINES))
    words = ["--problem", "hf:causal-lm", "--data", "lines.txt", "--batch-size", "2", "--length", "6", "-o", "a.h5"]
    with pytest.raises(SystemExit) as stopped:
        main(["probe", "run", *words, "--steps", "0", "--probe", "hgp:second=same.txt,parts=2"])
    assert not stopped.value.code
    with Trace.open("a.h5") as trace:
        assert trace["hgp"].settings["second"] == "same.txt"
        assert trace["hgp"]["samples"][0] == len(LINES) // 2
        assert trace["hgp"]["cosine"][0] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--problem", "hf:causal-lm"], "--problem hf:causal-lm needs texts: --data FILE.txt"),
        (["--problem", "hf:causl-lm", "--data", "a.txt"], "there is no problem hf:causl-lm; did you mean 'causal-lm'?"),
        (["--problem", "hf:tagging", "--data", "a.txt"], "known are causal-lm, masked-lm"),
        (["--problem", "a.py:f", "--data", "a.txt"], "--data goes with --problem hf:..., a.py:f has its own data"),
        (["--problem", "a.py:f", "--batch-size", "3"], "--batch-size goes with --data"),
    ],
)
def test_bad_arguments(words: list[str], message: str, capfd: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["probe", "no.pt", *words])
    assert stopped.value.code == 2
    assert message in capfd.readouterr().err


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    for name in ("full", "bare", "other"):
        save_model(home / name, "BertForMaskedLM", transformers.BertConfig(**BERT))
        if name != "bare":
            save_tokenizer(home / name, frame=True)
    (home / "empty").mkdir()
    tokenizer = json.loads((home / "other" / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["the"] = 99
    (home / "other" / "tokenizer.json").write_text(json.dumps(tokenizer))
    (home / "a.txt").write_text("the cat\nthe dog ran\n")
    (home / "blank.txt").write_text("\n \n")
    (home / "bad.jsonl").write_text('{"text": "the"}\n{"text": \n')
    (home / "number.jsonl").write_text("3\n")
    (home / "names.csv").write_text("sentences,label\nthe cat,1\n")
    (home / "labels.csv").write_text("text,label\nthe cat,1\nthe dog,7\n")
    (home / "wide.csv").write_text("text,label\nthe cat, and a dog,1\n")
    (home / "ids.jsonl").write_text('{"input_ids": [6, 7]}\n{"input_ids": "67"}\n')
    (home / "end.jsonl").write_text(f'{{"input_ids": [6, 7]}}\n{{"input_ids": [8, {VOCABULARY}]}}\n')
    (home / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    return home


BAD = {
    "no folder": ("masked-lm", "gpt2", "a.txt", "there is no folder .*gpt2: hf: problems take folders of this machine"),
    "no config": ("masked-lm", "empty", "a.txt", r"is no folder with a config\.json"),
    "a file": ("masked-lm", "a.txt", "a.txt", r"is no folder with a config\.json"),
    "no tokenizer": ("masked-lm", "bare", "a.txt", "bare has no tokenizer: save it there"),
    "another tokenizer": ("masked-lm", "other", "a.txt", "has the token 99, and the vocabulary of .* ends at 21"),
    "a head at random": ("sequence-classification", "full", "labels.csv", r"has no weights for .*classifier\.bias"),
    "no texts": ("masked-lm", "full", "blank.txt", "has no texts in it"),
    "no file": ("masked-lm", "full", "no.txt", r"there is no file .*no\.txt"),
    "another kind": ("masked-lm", "full", "a.parquet", r"--data takes a \.txt, \.jsonl, \.csv or \.tsv file"),
    "no JSON": ("masked-lm", "full", "bad.jsonl", r"line 2 of .*bad\.jsonl is no JSON"),
    "no object": ("masked-lm", "full", "number.jsonl", r"line 1 of .* is a int"),
    "no column": ("masked-lm", "full", "names.csv", "no column 'text': its columns are sentences, label"),
    "too many columns": ("masked-lm", "full", "wide.csv", "more columns in its text number 1"),
    "no ids": ("masked-lm", "full", "ids.jsonl", "input_ids of text number 2 are no list of token ids"),
    "a token after the last": ("masked-lm", "full", "end.jsonl", "has the token 22, and the vocabulary .* ends at 21"),
    "no text at all": ("masked-lm", "full", "binary.txt", "cannot be read as text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_line(models: Path, case: str) -> None:
    task, folder, data, message = BAD[case]
    with pytest.raises(UserError, match=message) as raised:
        build(task, models / folder, models / data)
    assert "\n" not in str(raised.value)


def test_labels_that_the_model_does_not_know(folder: Path, tmp_path: Path) -> None:
    save_model(folder, "BertForSequenceClassification", transformers.BertConfig(**BERT, num_labels=2))
    save_tokenizer(folder, frame=True)
    for label, message in (
        (7, "label 7 of text number 1 is none of the 2"),
        (2, "label 2 of text number 1 is none of the 2"),
        ("good", "0 to 1, or LABEL_0, LABEL_1"),
    ):
        data = write(tmp_path / "a.jsonl", [{"text": "the cat", "label": label}])
        with pytest.raises(UserError, match=message):
            build("sequence-classification", folder, data)


def test_a_number_that_is_none_is_no_label(folder: Path, tmp_path: Path) -> None:
    save_model(folder, "BertForSequenceClassification", transformers.BertConfig(**BERT, num_labels=1))
    save_tokenizer(folder, frame=True)
    for label in ("NaN", "Infinity", "true", '"good"'):
        data = tmp_path / "a.jsonl"
        data.write_text(f'{{"text": "the cat", "label": 0.5}}\n{{"text": "the dog", "label": {label}}}')
        with pytest.raises(UserError, match="of text number 2 is no number"):
            build("sequence-classification", folder, data)


def test_folders_are_read_by_the_library_for_its_own_models(tmp_path: Path) -> None:
    config = transformers.MixtralConfig(**BERT, num_key_value_heads=1, num_local_experts=2)
    model = save_model(tmp_path / "a", "MixtralForCausalLM", config)  # its experts are saved one by one
    other = transformers.MixtralForCausalLM(config)
    matched = match_checkpoint(tmp_path / "a", other)
    assert all(torch.equal(matched[name], value) for name, value in model.state_dict().items())


def test_weights_without_a_place_are_said(tmp_path: Path) -> None:
    """A head of pretraining beside the one that is measured."""
    save_model(tmp_path / "a", "BertForPreTraining", transformers.BertConfig(**BERT))
    said: list[str] = []
    match_checkpoint(tmp_path / "a", transformers.BertForMaskedLM(transformers.BertConfig(**BERT)), said.append)
    (note,) = said
    assert note.startswith("bert.pooler.dense.bias")
    assert note.endswith("left out: BertForMaskedLM has no place for them")
