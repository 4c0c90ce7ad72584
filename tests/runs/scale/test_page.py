"""The page shows what the model says, and the command prints it."""

import json

import pytest
from paths import ROOT

from runs.scale import __main__ as command
from runs.scale import page
from runs.scale.machine import H100, Machine
from runs.scale.model import Setting, device
from runs.scale.network import KINDS, of_size, transformer
from runs.scale.plan import best


def test_the_tables_of_the_page_are_those_of_the_model():
    text = page.PAGE.read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end -->") == 6
    assert page.renewed(text) == text
    assert (ROOT / "docs" / "scale.png").stat().st_size > 10_000


def test_the_page_says_the_ratios_of_the_committed_check():
    ratios = [c["predicted"] / c["measured"] for c in json.loads(page.MEASURED.read_text())["checks"]]
    assert f"between {min(ratios):.2f} and {max(ratios):.2f}" in " ".join(page.PAGE.read_text().split())


@pytest.mark.parametrize(
    ("size", "ranks", "first"),
    [
        (1e6, 1024, "launches"),
        (1e6, 64, "memory bandwidth"),
        (1e7, 1024, "network latency"),
        (1e8, 64, "arithmetic"),
        (1e8, 1024, "memory bandwidth"),
        (1e9, 1024, "arithmetic"),
        (1e10, 256, "memory"),
        (1e11, 1024, "memory"),
    ],
)
def test_the_bottlenecks_that_the_page_names(size, ranks, first):
    assert best(of_size(size), Setting(), ranks, H100).bottleneck == first


def test_what_the_page_says_of_places_and_sequences():
    assert best(of_size(1e9), Setting(), 1, H100).memory.place == "disk"
    fits = {(size, s): best(of_size(size, s), Setting(), 256, H100).step for size, s in ((1e10, 512), (1e11, 128))}
    assert all(fits.values())


def test_costs_in_gradients_are_near_those_of_the_benchmark():
    this = Machine.of_plain(json.loads(page.MEASURED.read_text())["machine"])
    rows = json.loads((ROOT / "runs/benchmarks/results/products-cpu.json").read_text())["rows"]
    measured = {r["product"]: r["gradients"] for r in rows if (r["model"], r["batches"], r["vectors"]) == ("gpt", 1, 1)}
    network = transformer(4, 128, 4, 64, 256)
    unit, hessian, gauss_newton = (device(network.work(kind, 512), Setting(), this).total for kind in KINDS)
    assert hessian / unit == pytest.approx(measured["Hessian"], rel=0.15)
    assert gauss_newton / unit == pytest.approx(measured["Gauss-Newton"], rel=0.15)


def test_the_command_prints_and_writes(tmp_path, capsys):
    command.main(["--machine", "a100", "--kind", "gauss-newton", "--json", str(tmp_path / "a100.json")])
    printed = capsys.readouterr().out
    assert "A100 SXM 80 GB" in printed
    assert "data sheet" in printed
    assert "Lanczos step" in printed
    written = json.loads((tmp_path / "a100.json").read_text())
    assert written["machine"]["nic"] == pytest.approx(0.75 * 25e9)
    assert written["setting"]["kind"] == "gauss-newton"
    assert not written["checks"]


def test_a_check_that_fails_is_one_line(monkeypatch):
    def fails():
        raise RuntimeError("rank 1 failed: no gloo")

    monkeypatch.setattr(command, "measured", fails)
    with pytest.raises(SystemExit, match=r"^python -m runs.scale: rank 1 failed: no gloo$"):
        command.main([])
