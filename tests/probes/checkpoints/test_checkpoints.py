"""Checkpoints: every format that is read, every way in which one can be wrong, and the steps they stand for."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from probes.checkpoints.load import load_checkpoint, match_checkpoint
from probes.checkpoints.match import match
from probes.checkpoints.saved import read_saved, read_state_dict
from probes.checkpoints.steps import checkpoint_steps
from probes.errors import UserError
from probes.hashes import hash_of


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
        lambda s: prefixed(s, "module._orig_mod.model."),
        lambda s: {**s, "epoch": 3, "args": {"lr": 0.1}},
        lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
        lambda s: {("module." + k if k.startswith("0") else k): v for k, v in s.items()},
        lambda s: {k.replace("0.", "0._orig_mod."): v for k, v in s.items()},
    ],
)
def test_wrapped_and_prefixed(tmp_path: Path, state: dict[str, torch.Tensor], wrap: object) -> None:
    torch.save(wrap(state), tmp_path / "a.pt")  # type: ignore[operator]
    model, said = network(0), []
    load_checkpoint(tmp_path / "a.pt", model)
    assert same(model, state)
    match_checkpoint(tmp_path / "a.pt", model, said.append)
    assert said == []  # all of these are known


def stepped() -> dict[str, object]:
    """The state of an optimizer that has moved once."""
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    adam = torch.optim.Adam([weight])
    adam.step()
    return adam.state_dict()


LOOKED_THROUGH = {
    "several levels": (
        lambda s, o: {"checkpoint": {"model": {"state_dict": prefixed(s, "module.")}}, "epoch": 2},
        ["the weights are those under 'checkpoint'"],
    ),
    "what callbacks keep": (
        lambda s, o: {"state_dict": prefixed(s, "net."), "callbacks": {"best": {"score": torch.ones(())}}},
        ["the weights are those under 'net.', which is looked through"],
    ),
    "net": (lambda s, o: {"state_dict": prefixed(s, "net."), "epoch": 3}, ["'net.', which is looked through"]),
    "compiled inside": (lambda s, o: prefixed(s, "module.net._orig_mod."), ["under 'net.'"]),
    "two names": (lambda s, o: prefixed(s, "model.backbone."), ["under 'model.backbone.'"]),
    "a loss beside": (lambda s, o: {**prefixed(s, "net."), "loss.weight": torch.ones(2)}, ["; loss.weight left out"]),
    "another network": (
        lambda s, o: {"generator": s, "critic": {"w": torch.ones(2)}},
        ["'generator.'", "critic.w left"],
    ),
    "one odd name": (lambda s, o: {"my_weights": s, "args": {"lr": 0.1}}, ["under 'my_weights'"]),
    "an optimizer beside": (lambda s, o: {"my_weights": s, "adam": stepped()}, ["under 'my_weights'"]),
    "one of other shapes": (
        lambda s, o: prefixed(s, "a.") | prefixed(o | {"2.weight": torch.ones(7, 4)}, "b."),
        ["the weights are those under 'a.'"],
    ),
    "an average beside": (lambda s, o: {"model": s, "ema": o}, ["under 'model'; 'ema' left out"]),
}


@pytest.mark.parametrize("case", LOOKED_THROUGH)
def test_a_name_that_is_not_known_is_looked_through_and_said(
    tmp_path: Path, state: dict[str, torch.Tensor], case: str
) -> None:
    make, words = LOOKED_THROUGH[case]
    torch.save(make(state, dict(network(7).state_dict())), tmp_path / "a.pt")
    model, said = network(0), []
    matched = match_checkpoint(tmp_path / "a.pt", model, said.append)
    assert all(torch.equal(matched[key], value) for key, value in state.items())
    assert len(said) == 1
    assert all(word in said[0] for word in words), said


def test_a_name_that_only_the_model_has_is_added_and_said(state: dict[str, torch.Tensor]) -> None:
    said: list[str] = []
    matched = match(state, nn.ModuleDict({"net": network()}), say=said.append)
    assert torch.equal(matched["net.0.weight"], state["0.weight"])
    assert said == ["the keys are loaded under 'net.', which the model's keys have before them"]


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
    "keys and shapes": (
        lambda s: {**{k: v for k, v in s.items() if k != "0.bias"}, "x": s["0.bias"], "2.weight": torch.ones(7, 4)},
        r"missing 0.bias; unexpected x; of another shape 2.weight \(7, 4\) in the file and \(2, 4\)",
    ),
    "shapes under a name": (
        lambda s: prefixed(s | {"2.weight": torch.ones(7, 4)}, "net."),
        r"2.weight has shape \(7, 4",
    ),
    "twice": (lambda s: prefixed(s, "student.") | prefixed(s, "teacher."), "2 times, under 'student.', 'teacher.'"),
    "meta": (lambda s: {k: v.to("meta") for k, v in s.items()}, "0.weight .* meta device"),
    "int8": (lambda s: {**s, "0.weight": s["0.weight"].to(torch.int8)}, "0.weight .* torch.int8.* quantised"),
    "adapter": (
        lambda s: {"base.0.lora_A.weight": torch.ones(2, 3), "base.0.lora_B.weight": torch.ones(4, 2)},
        r"LoRA adapter \(base.0.lora_A.weight, .* cannot take alone: merge it",
    ),
    "packed": (lambda s: {"0.qweight": torch.ones(2, dtype=torch.int32)}, r"quantised weights \(0.qweight\)"),
    "scheduler": (lambda s: {"last_epoch": 3, "base_lrs": [0.1]}, "no weights .* last_epoch, base_lrs"),
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


def test_a_model_without_memory_is_refused_by_name(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(UserError, match=r"0\.weight of Sequential is on the meta device .*to_empty"):
        match(state, network().to("meta"))


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
        (["step1e3.pt", "step2e3.pt"], [1000, 2000]),
        (["step_2.5e4", "step_1e3"], [1000, 25000]),
        (["step2M.pt", "step900k.pt"], [900_000, 2_000_000]),
        (["step10k.pt", "step2k.pt"], [2000, 10000]),
        (["lr1e-3_10.pt", "lr1e-4_20.pt"], [10, 20]),
        (["a1e3f.pt", "a2e3f.pt"], [1, 2]),
        (["run/checkpoint-500", "run/checkpoint-1000"], [500, 1000]),
        (["run/checkpoint-500/model.safetensors"], [500]),
        (["global_step5/mp_rank_00_states.pt", "global_step9/mp_rank_00_states.pt"], [5, 9]),
        (["iter2_of_iter100.pt", "iter3_of_iter50.pt"], [50, 100]),
        (["epoch1_step5.pt", "epoch2_step5.pt"], [1, 2]),
        (["resnet18_a.pt", "resnet18_b.pt"], [0, 1]),
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


@pytest.mark.parametrize(
    ("names", "step"),
    [
        (["step200.pt", "step200.safetensors"], 200),
        (["net_1.pt", "net_1.safetensors"], 1),
        (["run1/step200.pt", "run2/step200.pt"], 200),
        (["step200_seed1.pt", "step200_seed2.pt"], 200),
        (["step1e3.pt", "step1000.pt"], 1000),
    ],
)
def test_two_files_of_one_step_are_refused_by_name(names: list[str], step: int) -> None:
    with pytest.raises(UserError, match=rf"{names[0]} and {names[1]} both claim step {step}"):
        checkpoint_steps(names)


def test_steps_inside_the_files(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    torch.save({"model": state, "epoch": 1, "global_step": torch.tensor(20)}, best)
    torch.save({"state_dict": state, "epoch": 1, "global_step": 10}, last)
    said: list[str] = []
    assert checkpoint_steps([best, last], say=said.append) == [(10, last), (20, best)]
    assert said == ["the names give no steps: they are the global_step inside the files; --steps sets others"]
    (tmp_path / "trainer_state.json").write_text('{"global_step": 7}')
    assert checkpoint_steps([best]) == [(20, best)]  # what the file says goes before what lies beside it
    (tmp_path / "trainer_state.json").unlink()
    assert checkpoint_steps([best, last], [3, 4]) == [(3, best), (4, last)]
    numbered = tmp_path / "step7.pt"
    torch.save({"model": state, "global_step": 10}, numbered)
    assert checkpoint_steps([numbered]) == [(7, numbered)]  # the name goes before the content
    torch.save({"model": state, "global_step": 0}, best)
    assert checkpoint_steps([last, best]) == [(0, best), (10, last)]
    torch.save({"model": state, "epoch": 1, "global_step": 10}, best)
    with pytest.raises(UserError, match="both claim step 10, the global_step inside it"):
        checkpoint_steps([best, last])
    torch.save({"model": state, "epoch": 2, "step": 5}, best)  # what both say
    assert checkpoint_steps([best, last], say=said.append) == [(1, last), (2, best)]
    assert "the epoch inside the files" in said[-1]
    torch.save({"model": state}, best)  # one that says nothing: the positions
    assert checkpoint_steps([best, last], say=said.append) == [(0, best), (1, last)]
    assert "positions" in said[-1]


def test_what_an_optimizer_keeps_is_no_set_of_weights(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    kept = {"weights_of_mine": state, "optimizer": {name: {"exp_avg": value} for name, value in state.items()}}
    torch.save(kept, tmp_path / "a.pt")
    saved = read_saved(tmp_path / "a.pt")
    assert saved.state.keys() == state.keys()
    assert saved.notes == ("the weights are those under 'weights_of_mine'",)


def test_one_file_under_two_names(tmp_path: Path) -> None:
    (tmp_path / "step3.pt").write_bytes(b"x")
    (tmp_path / "last.pt").symlink_to(tmp_path / "step3.pt")
    with pytest.raises(UserError, match=r"step3.pt and .*last.pt are one file"):
        checkpoint_steps([tmp_path / "step3.pt", tmp_path / "last.pt"])


def test_the_hash_is_of_the_weights_not_of_the_file(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"state_dict": prefixed(state, "net."), "epoch": 3}, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pt")
    model = network()
    first, second = (hash_of(match_checkpoint(tmp_path / name, model)) for name in ("a.pt", "b.pt"))
    assert first == second
    assert len(first) == 32
    for changed in (
        spoil(state, "2.bias", 0.5),
        {**state, "2.bias": state["2.bias"].double()},
        {**state, "0.bias": state["1.bias"], "1.bias": state["0.bias"]},
    ):
        assert hash_of(changed) != hash_of(state)
    zeros = torch.zeros(3)
    others = ({"b": zeros}, {"a": zeros.int()}, {"a": zeros.reshape(3, 1)})
    assert len({hash_of(one) for one in ({"a": zeros}, *others)}) == 4
    assert hash_of({"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.tensor(1)}) != hash_of({"a": torch.ones(3)})
