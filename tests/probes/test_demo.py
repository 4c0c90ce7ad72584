"""The demo: reduced for every run of the tests, whole when asked for (-m slow)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import ROOT

from probes import Field, Trace
from probes.cli import main
from probes.demo import cnn, default_folder, mlp
from probes.digits import NETWORKS, build_network, digits
from probes.errors import UserError


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", *words])
    assert not stopped.value.code


def test_reduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    threads, folder = torch.get_num_threads(), tmp_path / "landscape-demo"
    names = {"mlp.h5", "mlp-training.h5", "mlp-step0.pt", "mlp-density.png", "mlp-training-spectrum.png", "report.html"}
    folder.mkdir()
    for name in names:  # of an earlier run: they are replaced
        if name.endswith(".h5"):
            with Trace.create(folder / name) as trace:
                trace.declare("spectrum", {"values": Field()})
                trace.record("spectrum", 7, values=1.0)
        else:
            (folder / name).write_text("old")
    run("--quick")
    out, err = capfd.readouterr()
    assert err == ""
    for text in (
        "outliers",
        "classes",
        "Gauss-Newton",
        "cost in gradients",
        "±",
        "landscape show",
        "Pictures",
        "Report",
    ):
        assert text in out
    assert torch.get_num_threads() == threads
    assert names <= {path.name for path in folder.iterdir()}
    assert all((folder / name).stat().st_size > 1000 for name in names)
    with Trace.open(folder / "mlp-training.h5") as trace:
        assert trace["spectrum"]["step"].tolist() == [0, 21, 42]
        inside = trace["spectrum"]["values"]
    with Trace.open(folder / "mlp.h5") as trace:
        # what the monitor saw in the loop is what the command sees in the checkpoint
        assert trace["spectrum"]["step"].tolist() == [0, 44]
        np.testing.assert_allclose(trace["spectrum"]["values"][0][:5], inside[0], rtol=1e-3)


@pytest.mark.parametrize("moment", ["train", "run.run"])
def test_ctrl_c_says_what_is_kept(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        # what measures checkpoints speaks of its own command
        raise UserError("interrupted; go on with: landscape demo --resume", status=130)

    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"probes.demo.{moment}", ctrl_c if moment == "train" else interrupted)
    folder = str(tmp_path / "the demo")
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--quick", "--out", folder])
    assert stopped.value.code == 130
    text = f"landscape: interrupted; the checkpoints and traces so far are kept in {folder}, begin again with: "
    assert capfd.readouterr().err == f"{text}landscape demo --quick --out '{folder}'\n"


def test_problems() -> None:
    state = torch.get_rng_state()
    assert (mlp().size, cnn().size) == (1210, 1210)
    assert torch.equal(state, torch.get_rng_state())
    first, second = (build_network(NETWORKS["mlp"], 3).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    data = digits()
    assert len(data.train[1]) + len(data.test[1]) == 1797
    assert data.train[1].unique().numel() == 10


def test_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_folder() == Path("landscape-demo")
    monkeypatch.chdir(ROOT)
    assert default_folder() == Path("runs/out/demo")


@pytest.mark.slow
def test_whole(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    run("--out", str(tmp_path))
    assert time.monotonic() - start < 120
    out = capfd.readouterr().out
    assert "1210" in out
    assert "cnn" in out
    # the command's trace of the last checkpoint against the dense matrix
    from landscape import GaussNewton, Hessian
    from probes.checkpoints.load import load_checkpoint

    objective = mlp()
    load_checkpoint(sorted(tmp_path.glob("mlp-step*.pt"), key=lambda p: p.stat().st_mtime)[-1], objective.model)
    exact = torch.linalg.eigvalsh(Hessian(objective).to_dense().double()).flip(0)
    curved = torch.linalg.eigvalsh(GaussNewton(objective).to_dense().double())
    with Trace.open(tmp_path / "mlp.h5") as trace:
        torch.testing.assert_close(
            torch.from_numpy(trace["spectrum"]["values"][-1].copy()), exact[:20], rtol=1e-3, atol=1e-3
        )
        value, stderr = float(trace["trace"]["value"][-1]), float(trace["trace"]["stderr"][-1])
        assert abs(value - float(exact.sum())) < 4 * stderr
        row = trace["condition"].row(-1)
        assert bool(row["converged"])
        assert int(row["ranks"][0]) == int((curved > 1e-2 * curved[-1]).sum())
