"""Data sets are read from where they lie, whole or not at all; what is not here is said in one line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import runs.shared.data as data
from probes.errors import UserError
from runs.engine.options import FOLDER
from runs.shared.data import genes, images, places, text

READERS = (data.fashion_mnist, data.mnist, data.mnist_5k, data.nci60, data.khan, data.leukemia, data.english)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder in which anything is looked for."""
    for reader in READERS:
        reader.cache_clear()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(places, "TORCHVISION", (tmp_path / "torchvision",))
    for module in (images, genes):
        monkeypatch.setattr(module, "package", lambda *_: None)
        monkeypatch.setattr(module, "Path", lambda _: tmp_path / "nowhere")
    monkeypatch.setattr(text.shutil, "which", lambda _: None)
    return tmp_path


def idx(values: np.ndarray) -> bytes:
    words = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return b"\x00\x00\x08" + bytes([values.ndim]) + words + values.astype(np.uint8).tobytes()


def write_idx(folder: Path, zipped: bool) -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)
    kept = {}
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 5), ("t10k", 3)):
        kept[part] = source.integers(0, 256, (n, 28, 28))
        for name, values in (("images-idx3", kept[part]), ("labels-idx1", np.arange(n))):
            raw = idx(values)
            path = folder / f"{part}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(raw) if zipped else raw)
    return kept


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("reader", "inside"), [(data.fashion_mnist, "FashionMNIST/raw"), (data.mnist, "MNIST/raw")])
@pytest.mark.parametrize("root", ["", "torchvision"])
def test_idx_files(folder: Path, reader: Any, inside: str, root: str, zipped: bool) -> None:
    kept = write_idx(folder / root / inside, zipped)
    found = reader()
    for part, (x, y) in (("train", found.train), ("t10k", found.test)):
        assert x.shape == (len(kept[part]), 1, 28, 28)
        assert torch.equal((x[:, 0] * 255).round().long(), torch.from_numpy(kept[part]))
        assert y.tolist() == list(range(len(x)))


@pytest.mark.parametrize("spoiled", ["short", "text", "labels"])
def test_files_that_are_not_whole(folder: Path, spoiled: str) -> None:
    write_idx(folder, False)
    images_, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    if spoiled == "labels":
        labels.write_bytes(idx(np.arange(4)))
    else:
        images_.write_bytes(images_.read_bytes()[:-1] if spoiled == "short" else b"<html>")
    with pytest.raises(UserError, match="do not belong together" if spoiled == "labels" else "no whole IDX file"):
        data.fashion_mnist()


def test_a_table_of_digits(folder: Path) -> None:
    table = np.zeros((5000, 785), dtype=np.uint8)
    table[:, 0], table[:, -1] = np.arange(5000) // 20, np.arange(5000) // 500
    with gzip.open(folder / "mnist_5k.csv.gz", "wt") as out:
        np.savetxt(out, table, fmt="%d", delimiter=",")
    found = data.mnist_5k()
    assert found.train[0].shape == (4000, 1, 28, 28)
    x, y = (torch.cat([a, b]) for a, b in zip(found.train, found.test, strict=True))
    assert torch.equal(y.bincount(), torch.full((10,), 500))
    assert torch.equal((x[:, 0, 0, 0] * 255).round().long() // 25, y)  # labels go with their images
    assert len(found.test[1].unique()) == 10  # they are sorted in the file


def test_genes(folder: Path) -> None:
    np.save(folder / "NCI60data.npy", np.arange(12.0).reshape(3, 4))
    (folder / "NCI60labs.csv").write_text("label\nCNS\nRENAL\nCNS\n")
    found = data.nci60()
    assert (found.classes, found.y.tolist(), found.x.shape) == (("CNS", "RENAL"), [0, 1, 0], (3, 4))
    for part, rows in (("train", "1,2\n3,4\n"), ("test", "5,6\n")):
        (folder / f"Khan_x{part}.csv").write_text(f'"V1","V2"\n{rows}')
        (folder / f"Khan_y{part}.csv").write_text('"x"\n' + "\n".join("21"[: len(rows.split())]) + "\n")
    found = data.khan()
    assert found.x.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert [found.classes[i] for i in found.y] == ["2", "1", "2"]


def test_text(folder: Path) -> None:
    (folder / "english.txt").write_text("In the beginning")
    assert data.english() == "In the beginning"


@pytest.mark.parametrize("reader", READERS)
def test_what_is_not_here_is_one_line(folder: Path, reader: Any) -> None:
    with pytest.raises(UserError) as raised:
        reader()
    said = str(raised.value)
    assert "on this machine" in said
    assert str(folder) in said
    assert FOLDER in said
    assert "install" in said or "download=True" in said


def test_a_wrong_folder_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from toy_experiment import experiment

    from runs.engine.experiment import main

    with pytest.raises(SystemExit):
        main(experiment(), ["--data", str(folder / "no")])
    assert "--data: a folder, which" in capsys.readouterr().err
