"""The README is short and shows what there is; numbers on the pages are those of committed results."""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from pages import blocks
from paths import ROOT

import solvers

README = (ROOT / "README.md").read_text()
BENCHMARKS = (ROOT / "docs/benchmarks.md").read_text()
START = (ROOT / "docs/start.md").read_text()
SOLVERS = (ROOT / "docs/guides/solvers.md").read_text()

COST_COLUMNS = ("Hessian", "Hessian, PyHessian", "Hessian, curvlinops", "Gauss-Newton", "Gauss-Newton, curvlinops")


def test_it_is_read_in_three_minutes():
    assert len(README.splitlines()) <= 125
    for block in blocks(ROOT / "README.md"):
        assert len([line for line in block.code.splitlines() if line]) <= 10, block.code


def test_pictures_are_there():
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).stat().st_size > 10_000


def test_it_lists_all_extras():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| ((?:`[a-z]+`(?:, )?)+) \|", README, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(extras)


def test_it_counts_the_situations_that_are_tried():
    (told,) = re.findall(r"\[(\d+) situations\]", README)
    assert (ROOT / "docs/works-with.md").read_text().splitlines()[2].startswith(f"{told} situations")


@pytest.mark.slow
def test_the_table_is_the_demo(tmp_path):
    from probes import Trace

    root = str(ROOT)
    subprocess.run([sys.executable, "-m", "probes.cli", "demo", "--out", str(tmp_path)], check=True, cwd=root)
    row = next(line for line in START.splitlines() if line.startswith("| largest eigenvalues"))
    for name, cell in zip(("mlp", "cnn"), row.split("|")[2:4], strict=True):
        printed = [float(x) for x in cell.split("±")[0].split(",")]
        measured = Trace.open(tmp_path / f"{name}.h5")["spectrum"]["values"][-1][:5]
        # rounding differs between machines, and training adds to it
        assert measured == pytest.approx(printed, rel=0.05)


def test_the_costs_are_those_of_the_committed_benchmark():
    path = ROOT / "runs/benchmarks/results/products-cpu.json"
    rows = {(r["model"], r["batches"], r["vectors"], r["product"]): r for r in json.loads(path.read_text())["rows"]}
    table = re.findall(r"^\| (mlp|resnet|gpt), (1|16) batch(?:es)? \|(.*)\|$", BENCHMARKS, re.M)
    assert len(table) == 6
    for model, batches, cells in table:
        for product, cell in zip(COST_COLUMNS, cells.split("|"), strict=True):
            assert cell.strip() == f"{rows[model, int(batches), 1, product]['gradients']:.2f}"


def test_the_planes_are_those_of_the_committed_benchmark():
    rows = json.loads((ROOT / "runs/benchmarks/results/surface-cpu.json").read_text())["rows"]
    for row in rows:
        ratios = (row[f"{way}, ratio"][0] for way in ("at and value", "bare loop"))
        cells = " | ".join(f"{number:.1f}" for number in (row["seconds"][0], *ratios))
        assert f"| {row['model']} | {cells} |" in BENCHMARKS


def test_the_table_of_solvers_lists_them_all():
    rows = SOLVERS[SOLVERS.index("| rule | step |") :].split("\n\n")[0].splitlines()[2:]
    listed = {name for row in rows for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])}
    there = {
        name
        for name in solvers.__all__
        if isinstance(cls := getattr(solvers, name), type) and issubclass(cls, solvers.Solver)
    }
    assert listed == there - {"FirstOrder", "Solver"}
    assert all(row.count("|") - row.count(r"\|") == 5 and row.split("|")[-2].strip() for row in rows)


def test_the_steps_with_curvature_are_those_of_the_committed_benchmark():
    rows = json.loads((ROOT / "runs/benchmarks/results/preconditioned-cpu.json").read_text())["rows"]
    own = [row["name"] for row in rows if row["model"] == "mlp" and not row["name"].startswith(("its", "torch"))]
    by = {(row["model"], row["name"]): row for row in rows}
    for name in own:
        cells = []
        for row in (by["mlp", name], by["gpt", name]):
            peer = row["to"] != "torch AdamW"
            cells += [f"{row['ratio'][0]:.1f}", f"{row['peer'][0]:.2f}" if peer else ""]
        assert f"| {name} | {' | '.join(cells)} |" in BENCHMARKS


def test_the_ratios_of_a_step_are_those_of_the_committed_benchmark():
    rows = json.loads((ROOT / "runs/benchmarks/results/first-order-cpu.json").read_text())["rows"]
    ratio = {row["name"]: f"{row['ratio']:.1f}" for row in rows}
    said = "{NGN} (NGN), {NGN-M} (NGN-M), {NGN-MDv1} (MDv1) and {NGN-MDv2} (MDv2)".format(**ratio)
    assert said in BENCHMARKS
