"""The README's code runs as it is printed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from paths import ROOT
from pretrained_folders import save_causal
from torch import nn

import solvers

README = (ROOT / "README.md").read_text()

COST_COLUMNS = ("Hessian", "Hessian, PyHessian", "Hessian, curvlinops", "Gauss-Newton", "Gauss-Newton, curvlinops")


def blocks(language):
    return re.findall(rf"^```{language}[ ]*(?:title=(\S+))?\n(.*?)^```", README, re.M | re.S)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_and_training_loop(folder, capsys):
    by_title = dict(blocks("python"))
    names: dict = {}
    exec(by_title[""], names)
    lines = [line for line in by_title[""].splitlines() if line.strip()]
    assert len(lines) <= 20
    assert names["top"].converged
    assert names["estimate"].stderr <= 0.02 * abs(names["estimate"].value)
    exec(by_title["loop"], names)
    with names["Trace"].open(folder / "run.h5") as trace:
        assert (len(trace["spectrum"]), len(trace["sharpness"])) == (3, 30)
    printed = capsys.readouterr().out
    assert "largest eigenvalues" in printed
    pytest.importorskip("xarray")
    pytest.importorskip("pandas")
    exec(by_title["offline"], names)
    assert "loss/parameter^2" in str(names["run"]["spectrum"].to_xarray()["values"].attrs)
    (run,) = names["runs"]
    assert run.config["lr"] == 0.1
    assert "Name: value" in capsys.readouterr().out
    execute(dict(blocks("console"))["offline"], folder)
    assert (folder / "compare.png").stat().st_size > 10_000
    assert (folder / "tables" / "run-sharpness.csv").read_text().count("\n") == 31
    exec(by_title["papers"], names)
    printed = capsys.readouterr().out
    assert "alpha-beta holds with beta" in printed
    assert "kappa" in printed
    assert "NC0" in printed
    exec(by_title["solvers"], names)
    assert names["solver"].last.products == 20
    exec(by_title["diffusion"], names)
    assert abs(names["ratio"].ratio[-1] - 1) < 5 * names["ratio"].ratio_stderr[-1]


def execute(commands, folder):
    landscape = Path(sys.executable).with_name("landscape")
    launch = str(landscape) if landscape.exists() else f"{sys.executable} -m probes.cli"
    path = str(ROOT)
    for command in commands.splitlines():
        script = command.replace("landscape", launch, 1)
        done = subprocess.run(
            script,
            shell=True,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=300,
            env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip(), command


def test_commands(folder):
    by_title = dict(blocks("python"))
    (folder / "problem.py").write_text(by_title["problem.py"])
    for step in (0, 10):
        torch.manual_seed(step)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        torch.save(model.state_dict(), folder / f"step{step}.pt")
    commands = dict(blocks("console"))[""]
    assert len(commands.splitlines()) <= 5
    execute(commands, folder)
    assert list((folder / "pictures").glob("*.png"))
    execute(dict(blocks("console"))["doctor"], folder)


def test_a_pretrained_folder_needs_no_python(folder):
    (folder / "lines.txt").write_text("the cat sat\nthe dog ran home\n" * 8)
    for step in (500, 1000):
        save_causal(folder / f"checkpoint-{step}", seed=step)
    execute(dict(blocks("console"))["pretrained"], folder)


@pytest.mark.filterwarnings("ignore")
def test_lightning_is_one_callback(folder):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    names = {"Trainer": lightning.Trainer, "settings": {**quiet, "max_epochs": 1, "enable_model_summary": False}}
    exec(dict(blocks("python"))["lightning"], names)
    data = torch.utils.data.TensorDataset(torch.randn(160, 3), torch.randint(0, 2, (160,)))
    names["trainer"].fit(Module(), torch.utils.data.DataLoader(data, 8))
    from probes import Trace

    assert Trace.open(folder / "lightning.h5")["spectrum"]["values"].shape[1] == 3


def test_pictures_are_there():
    root = ROOT
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (root / picture).stat().st_size > 10_000


@pytest.mark.slow
def test_the_table_is_the_demo(tmp_path):
    from probes import Trace

    root = str(ROOT)
    subprocess.run([sys.executable, "-m", "probes.cli", "demo", "--out", str(tmp_path)], check=True, cwd=root)
    row = next(line for line in README.splitlines() if line.startswith("| largest eigenvalues"))
    for name, cell in zip(("mlp", "cnn"), row.split("|")[2:4], strict=True):
        printed = [float(x) for x in cell.split("±")[0].split(",")]
        measured = Trace.open(tmp_path / f"{name}.h5")["spectrum"]["values"][-1][:5]
        # rounding differs between machines, and training adds to it
        assert measured == pytest.approx(printed, rel=0.05)


def test_the_costs_are_those_of_the_committed_benchmark():
    path = ROOT / "runs/benchmarks/results/products-cpu.json"
    rows = {(r["model"], r["batches"], r["vectors"], r["product"]): r for r in json.loads(path.read_text())["rows"]}
    table = re.findall(r"^\| (mlp|resnet|gpt), (1|16) batch(?:es)? \|(.*)\|$", README, re.M)
    assert len(table) == 6
    for model, batches, cells in table:
        for product, cell in zip(COST_COLUMNS, cells.split("|"), strict=True):
            assert cell.strip() == f"{rows[model, int(batches), 1, product]['gradients']:.2f}"


def test_the_table_of_solvers_lists_them_all():
    rows = README[README.index("| rule | step |") :].split("\n\n")[0].splitlines()[2:]
    listed = {name for row in rows for name in re.findall(r"`(\w+)[`(]", row.split("|")[1])}
    there = {
        name
        for name in solvers.__all__
        if isinstance(cls := getattr(solvers, name), type) and issubclass(cls, solvers.Solver)
    }
    assert listed == there - {"FirstOrder", "Solver"}
    assert all(row.count("|") - row.count(r"\|") == 5 and row.split("|")[-2].strip() for row in rows)


def test_the_ratios_of_a_step_are_those_of_the_committed_benchmark():
    rows = json.loads((ROOT / "runs/benchmarks/results/first-order-cpu.json").read_text())["rows"]
    ratio = {row["name"]: f"{row['ratio']:.1f}" for row in rows}
    said = "{NGN} (NGN), {NGN-M} (NGN-M), {NGN-MDv1} (MDv1) and {NGN-MDv2} (MDv2)".format(**ratio)
    assert said in README
