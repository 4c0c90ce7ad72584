"""Checkpoints: every format that is read, every way in which one can be wrong, and the steps they stand for."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from probes.checkpoints.load import load_checkpoint, match, read_state_dict
from probes.checkpoints.steps import checkpoint_steps
from probes.errors import UserError


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(network(1).state_dict())


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": prefixed(s, "model."), "epoch": 3, "optimizer_states": [{"state": {}}]},
        lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}, "step": 7},
        lambda s: {"model_state_dict": prefixed(s, "module.")},
        lambda s: {"model": {"state_dict": s}},
        lambda s: prefixed(s, "_orig_mod.module."),
        lambda s: prefixed(s, "module.model."),
        lambda s: {("module." + k if k.startswith("0") else k): v for k, v in s.items()},
        lambda s: {k.replace("0.", "0._orig_mod."): v for k, v in s.items()},
    ],
)
def test_wrapped_and_prefixed(tmp_path: Path, state: dict[str, torch.Tensor], wrap: object) -> None:
    torch.save(wrap(state), tmp_path / "a.pt")  # type: ignore[operator]
    model = network(0)
    load_checkpoint(tmp_path / "a.pt", model)
    assert same(model, state)


def test_other_formats(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    save_file(state, tmp_path / "a.safetensors")
    save_file(state, tmp_path / "renamed.pt")  # told by its content, not by its name
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "renamed.pt", "old.pth"):
        model = network(0)
        load_checkpoint(tmp_path / name, model)
        assert same(model, state), name


def test_a_prefix_that_the_model_has_itself_stays() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    model = Wrapped()
    state = {key: value + 1 for key, value in model.state_dict().items()}
    assert match(state, model).keys() == state.keys()
    assert match(prefixed(state, "module."), model).keys() == state.keys()


def test_tied_parameters(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

    state = dict(Tied().state_dict())
    dropped = {"embed.weight": state["embed.weight"] + 1}  # as safetensors' save_model leaves it
    assert torch.equal(match(dropped, Tied())["head.weight"], dropped["embed.weight"])
    with pytest.raises(UserError, match="tied"):
        match({**dropped, "head.weight": state["head.weight"]}, Tied())


def test_a_mask_may_be_infinite_a_parameter_not(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    model, saved = Masked(), Masked().state_dict()
    model.mask.zero_()
    torch.save(saved, tmp_path / "a.pt")
    load_checkpoint(tmp_path / "a.pt", model)
    assert model.mask.tolist() == [0.0, -torch.inf]
    torch.save(spoil(saved, "weight", torch.inf), tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"weight .* not finite in 1 of 2"):
        load_checkpoint(tmp_path / "b.pt", model)
    assert model.weight.tolist() == [1.0, 1.0]


def spoil(state: dict[str, torch.Tensor], key: str, value: float) -> dict[str, torch.Tensor]:
    spoiled = {name: tensor.clone() for name, tensor in state.items()}
    spoiled[key].view(-1)[0] = value
    return spoiled


class Hyper:
    pass


BAD = {
    "keys": (lambda s: {k: v for k, v in s.items() if not k.startswith("2.")}, "missing 2.weight, 2.bias"),
    "unexpected": (lambda s: {**s, "extra.a": torch.ones(1)}, "unexpected extra.a"),
    "shape": (lambda s: {**s, "2.weight": torch.ones(7, 4)}, r"\(7, 4\) in the file and \(2, 4\) in the model"),
    "complex": (lambda s: {**s, "2.weight": s["2.weight"].to(torch.complex64)}, "complex"),
    "nan": (lambda s: spoil(s, "0.weight", float("nan")), r"0\.weight .* not finite in 1 of 12"),
    "inf": (lambda s: spoil(s, "2.bias", float("inf")), r"2\.bias .* not finite"),
    "running": (lambda s: spoil(s, "1.running_mean", float("nan")), "running_mean .* not finite"),
    "optimizer": (lambda s: torch.optim.Adam(network().parameters()).state_dict(), "optimizer's state and no weights"),
    "nothing": (lambda s: {"epoch": 3, "loss": 0.1}, "no weights .* epoch, loss"),
    "empty": (lambda s: {}, "no weights"),
    "tensor": (lambda s: torch.ones(3), "holds a Tensor"),
    "object": (lambda s: {"state_dict": s, "hyper": argparse.Namespace(a=1)}, r"more than weights \(argparse"),
    "module": (lambda s: network(), "more than weights .*state_dict"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content(tmp_path: Path, state: dict[str, torch.Tensor], case: str) -> None:
    make, message = BAD[case]
    path = tmp_path / "bad.pt"
    torch.save(make(state), path)
    model = network(0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match=message) as raised:
        load_checkpoint(path, model)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert same(model, before)  # nothing is half loaded


def test_bad_files(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pt", "a.safetensors", "old.pt"):
        whole = (tmp_path / name).read_bytes()
        for size in (len(whole) // 2, len(whole) - 8, 12):
            (tmp_path / f"cut-{name}").write_bytes(whole[:size])
            with pytest.raises(UserError, match=r"truncated or corrupt|more than weights|is no checkpoint"):
                read_state_dict(tmp_path / f"cut-{name}")
    cases = {
        "missing.pt": (None, "there is no checkpoint"),
        "empty.pt": (b"", "is empty"),
        "text.pt": (b"hello, this is a text\n", "is no checkpoint"),
        "plain.pkl": (pickle.dumps({"a": Hyper()}), "more than weights|truncated or corrupt"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_state_dict(tmp_path / name)
    with pytest.raises(UserError, match=r"is a folder: name the files in it, such as .*\.pt"):
        read_state_dict(tmp_path)


def test_loading_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="more than weights"):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["model_v2_step200.pt", "model_v2_step100.pt"], [100, 200]),
        (["epoch=1-step=40.ckpt", "epoch=0-step=20.ckpt"], [20, 40]),
        (["a-1e.pt", "a-2e.pt"], [1, 2]),
        (["lr0.1_10.pt", "lr0.2_20.pt"], [10, 20]),
        (["run/checkpoint-500/model.safetensors", "run/checkpoint-1000/model.safetensors"], [500, 1000]),
        (["first.pt", "last.pt"], [0, 1]),
        (["step10.pt", "step20.pt", "final.pt"], [0, 1, 2]),
        (["model_v2_step100.pt"], [100]),
        (["net_300.pt"], [300]),
        (["resnet18.pt"], [0]),
        (["best.pt"], [0]),
    ],
)
def test_steps_from_names(names: list[str], steps: list[int]) -> None:
    found = checkpoint_steps(names)
    assert [step for step, _ in found] == steps


def test_steps_given() -> None:
    assert checkpoint_steps(["b.pt", "a.pt"], [5, 3]) == [(3, Path("a.pt")), (5, Path("b.pt"))]
    for paths, steps, message in (
        (["a.pt", "b.pt"], [5, 5], "both claim step 5"),
        (["a.pt", "b.pt"], [5], "1 numbers for 2"),
        (["a.pt"], [-1], "negative"),
        (["a.pt", "a.pt"], None, "given twice"),
        (["a1.pt", "a2.pt", "a01.pt"], None, "both claim step 1"),
    ):
        with pytest.raises(UserError, match=message):
            checkpoint_steps(paths, steps)
