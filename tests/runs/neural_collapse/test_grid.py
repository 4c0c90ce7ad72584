"""The paper's full grid: its cells, its networks and data, and a slice of it that runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from probes.errors import UserError
from probes.sweep.runner import Runner
from runs.engine.options import FOLDER
from runs.neural_collapse import grid, paper


def test_the_grid_is_the_papers() -> None:
    jobs = grid.plan()
    assert len({job.name for job in jobs}) == len(jobs) == 3888
    each = Counter((job.settings["network"], job.settings["data"], job.settings["optimizer"]) for job in jobs)
    assert set(each.values()) == {108}
    assert {job.settings["lr"] for job in jobs if job.settings["optimizer"] == "SGDW"} == {1e-3, 1e-2, 0.0679}
    # the runs of Table 5 are among them
    for cell in ("SGD-lr0.01-m0.9-d0.05", "SGDW-lr0.0679-m0.5-d0.05", "Adam-lr0.005-m0.98-d0.05"):
        assert any(job.name == f"resnet9-fashion-{cell}" for job in jobs)
    for cell in ("AdamW-lr0.005-m0.95-d5", "Signum-lr0.001-m0.9-d0.05", "SignumW-lr0.001-m0.98-d10"):
        assert any(job.name == f"resnet9-fashion-{cell}" for job in jobs)
    assert [grid.rate_factor(epoch, 3) for epoch in range(3)] == pytest.approx([1.0, 0.1, 0.01])
    assert [grid.rate_factor(0, 1), grid.rate_factor(0, 2), grid.rate_factor(1, 2)] == pytest.approx([1.0, 1.0, 0.1])
    rates = [grid.rate_factor(epoch, 200) for epoch in (0, 65, 66, 132, 133, 199)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    order = torch.cat([grid.batch_of(step, 468, 60_000, 1) for step in range(468)])
    assert len(order.unique()) == 468 * 128


def test_the_networks() -> None:
    """ResNet9 has 6.57 million parameters with ten classes and no bias in the head."""
    counts = {name: sum(p.numel() for p in make(3).parameters()) for name, make in paper.NETWORKS.items()}
    widths = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    assert counts["resnet9"] == sum(9 * a * b + 3 * b for a, b in widths) + 5120
    widths = [(3, 64), (64, 128), (128, 512), (512, 512), (512, 256), (256, 256)]
    assert counts["vgg9"] == sum(9 * a * b + 3 * b for a, b in widths) + 10240
    for make in paper.NETWORKS.values():
        assert make(1).eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_images_are_resized_and_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.random((20, 1, 28, 28), dtype=np.float32))
    flat = (x - x.mean()) / x.std()
    (found, _), _ = paper._normalised((x, torch.arange(20)), (x, torch.arange(20)))
    assert found.shape == (20, 1, 32, 32)
    # 32 positions over 28: the middle of the image is the mean of its four middle pixels
    assert found[0, 0, 15:17, 15:17].mean() == pytest.approx(flat[0, 0, 13:15, 13:15].mean().item(), rel=1e-4)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(UserError, match="CIFAR10 is not on this machine"):
        paper.load("cifar10")
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rows = random.integers(0, 256, (6, 10, 3073), np.uint8)
    for i, name in enumerate([f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]):
        (folder / name).write_bytes(rows[i].tobytes())
    (x, y), (held, _) = paper.load("cifar10")
    assert (x.shape, held.shape) == ((50, 3, 32, 32), (10, 3, 32, 32))
    assert y.tolist() == rows[:5, :, 0].reshape(-1).tolist()
    assert x.mean((0, 2, 3)).abs().max() < 1e-4


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--stand-in", "digits", "--only", "lenet*"], "no run is named lenet*"),
        (["--only", "vgg9-cifar10-*"], "CIFAR10 is not on this machine"),
    ):
        with pytest.raises(SystemExit):
            grid.main([*words, "--out", str(tmp_path / "out")])
        assert said in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_slice_runs_and_is_resumed(tmp_path: Path) -> None:
    """Stopped after some steps, it ends in the same numbers; without decay NC0 stays (Lemma E.5), with it falls."""
    jobs = {job.name: job for job in grid.plan("digits", epochs=1)}
    chosen = [jobs[f"vgg9-mnist-SGD-lr0.01-m0.9-d{decay}"] for decay in ("0", "0.5")]
    runner = Runner(tmp_path / "jobs", 0)
    assert not runner.run(chosen, limit=5.0)
    assert all(0 < outcome.share < 1 for outcome in runner.paused.values())
    found = runner.run(chosen)
    whole = Runner(tmp_path / "whole", 0).run(chosen[1:])
    assert found[chosen[1].name].data == whole[chosen[1].name].data
    without, decayed = (found[job.name].data for job in chosen)
    assert without["last"]["nc0"] == pytest.approx(without["start"]["nc0"], rel=1e-3)
    assert decayed["last"]["nc0"] < 0.95 * without["last"]["nc0"]
