"""Checkpoints in more than one file: folders of from_pretrained, shards with an index, torch.distributed.checkpoint."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from probes.checkpoints.load import match_checkpoint
from probes.checkpoints.saved import read_saved
from probes.checkpoints.steps import checkpoint_steps
from probes.errors import UserError

State = dict[str, torch.Tensor]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def state() -> State:
    return dict(network(1).state_dict())


def loads(path: Path, state: State) -> bool:
    matched = match_checkpoint(path, network(0))
    return matched.keys() == state.keys() and all(torch.equal(matched[key], value) for key, value in state.items())


def write_shards(folder: Path, state: State, ending: str = "safetensors") -> Path:
    """Two shards and their index."""
    folder.mkdir(parents=True)
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    where = {key: f"{stem}-0000{1 + at % 2}-of-00002.{ending}" for at, key in enumerate(state)}
    for name in set(where.values()):
        part = {key: state[key] for key in state if where[key] == name}
        save_file(part, folder / name) if ending == "safetensors" else torch.save(part, folder / name)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    return index


def distributed(folder: Path, content: object) -> Path:
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no process group
        dcp.save(content, checkpoint_id=folder)
    return folder


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_with_an_index(tmp_path: Path, state: State, ending: str) -> None:
    index = write_shards(tmp_path / "a", state, ending)
    assert loads(index, state)
    assert loads(index.parent, state)
    shard = min(path for path in index.parent.iterdir() if path.suffix == f".{ending}")
    with pytest.raises(UserError, match="is one of 2 shards: give the folder"):
        read_saved(shard)
    absent = json.loads(index.read_text())
    absent["weight_map"]["nowhere"] = shard.name
    index.write_text(json.dumps(absent))
    with pytest.raises(UserError, match=r"does not hold nowhere, which .*index.json says it does"):
        read_saved(index)
    shard.unlink()
    with pytest.raises(UserError, match=f"names shards that are not there: {shard.name}"):
        read_saved(index.parent)
    index.unlink()
    with pytest.raises(UserError, match=r"it holds shards .* no index"):
        read_saved(index.parent)


@pytest.mark.parametrize("content", ["{}", "[1]", "{bad", json.dumps({"weight_map": {}})])
def test_what_is_no_index(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json is no "):
        read_saved(tmp_path / "a.json")


def test_a_folder_of_from_pretrained(tmp_path: Path, state: State) -> None:
    folder = tmp_path / "checkpoint-500"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has a config\.json and no weights"):
        read_saved(folder)
    torch.save(network(3).state_dict(), folder / "pytorch_model.bin")
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer.pt")
    assert loads(folder, dict(network(3).state_dict()))
    save_file(state, folder / "model.safetensors")  # which transformers takes first
    assert loads(folder, state)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 500, "epoch": 0.5}))
    assert read_saved(folder).counters == {"global_step": 500}
    renamed = folder.rename(tmp_path / "final")
    assert checkpoint_steps([renamed]) == [(500, renamed)]
    with pytest.raises(UserError, match=r"is a folder: name the checkpoints in it, such as .*final"):
        read_saved(tmp_path)


def test_an_adapter_without_its_model(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"holds an adapter .*merge_and_unload"):
        read_saved(tmp_path)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"app": {"model": s}}])
def test_a_distributed_checkpoint(tmp_path: Path, state: State, wrap: object) -> None:
    model = network(1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    content = wrap(dict(state))  # type: ignore[operator]
    folder = distributed(tmp_path / "a", {**content, "optim": optimizer.state_dict(), "step": 9, "args": {"lr": 0.1}})
    assert loads(folder, state)
    assert read_saved(folder).counters == {"step": 9}


def test_a_distributed_checkpoint_that_is_damaged(tmp_path: Path, state: State) -> None:
    folder = distributed(tmp_path / "a", {"model": state})
    part = next(folder.glob("*.distcp"))
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_saved(folder)
    part.unlink()
    with pytest.raises(UserError, match=r"truncated or corrupt .*distcp: No such file"):
        read_saved(folder)
    part.write_bytes(whole)
    (folder / ".metadata").unlink()
    with pytest.raises(UserError, match=r"its \.metadata is missing"):
        read_saved(folder)


def test_a_distributed_checkpoint_runs_no_code(tmp_path: Path, state: State) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (open, (str(tmp_path / "ran"), "w"))

    folder = distributed(tmp_path / "a", {"model": state, "evil": Evil()})
    assert loads(folder, state)
    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"no metadata of a distributed checkpoint: it holds io\.open"):
        read_saved(folder)
    assert not (tmp_path / "ran").exists()
