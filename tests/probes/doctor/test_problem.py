"""`landscape doctor --problem`: each kind of trouble is one line that names it, and what is well is said to be."""

import json
import statistics
import time

import pytest
import torch
from paths import ROOT
from torch import nn
from wrong_layers import OpaqueTanh

from landscape import Hessian, Objective
from probes.cli import main
from probes.doctor.costs import Costs, examine_costs
from probes.doctor.derivatives import determinism, noise, self_check
from probes.doctor.finding import finding
from probes.doctor.model import loss, modes, parameters
from probes.doctor.names import names, shadows
from probes.doctor.problem import examine_problem


def network(*layers, batches=1, **options):
    torch.manual_seed(0)
    data = [(torch.randn(20, 6), torch.randint(0, 3, (20,))) for _ in range(batches)]
    model = nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 3))
    return Objective(model, nn.CrossEntropyLoss(), data if batches > 1 else data[0], **options)


def report(objective, tmp_path):
    found = list(examine_problem(objective, tmp_path))
    assert len({one.what for one in found}) == len(found)
    return {one.what: one for one in found}


class Opaque(OpaqueTanh):
    """A backward that autograd cannot see into."""


class Bag(nn.Module):
    """A layer of torch's own that has no second derivative."""

    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(9, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.words(x))


class Counting(nn.Module):
    """Another function each time it is called."""

    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return x * (1 + self.calls % 7)


def test_a_healthy_network(tmp_path):
    found = report(network(nn.Tanh()), tmp_path)
    assert not [one for one in found.values() if one.status == "FAIL"]
    for what in (
        "names",
        "values",
        "modes",
        "loss",
        "second derivatives",
        "self-check hessian",
        "determinism",
        "noise",
    ):
        assert found[what].status == "ok", what
    assert found["parameters"].values["total"] == found["parameters"].values["measured"] == 6 * 8 + 8 + 8 * 3 + 3
    assert found["self-check gauss-newton"].values["verdict"] == "agrees"
    assert found["loss"].values["loss"] == pytest.approx(network(nn.Tanh()).value())


def test_parameters_frozen_and_tied():
    objective = network(nn.Tanh())
    model = objective.model
    model[0].weight.requires_grad_(False)
    model.register_module("again", model[2])
    found = parameters(Objective(model, nn.CrossEntropyLoss(), (torch.randn(9, 6), torch.arange(9) % 3))).values
    assert (found["total"], found["frozen"], found["measured"]) == (83, 48, 35)
    assert found["tied"] == ["again.weight", "again.bias"]
    assert found["tensors"] == {"float32 on cpu": 4}


def test_modes_name_dropout_and_batch_norm():
    objective = network(nn.BatchNorm1d(8), nn.Dropout(0.5))
    found = modes(objective)
    assert found.status == "note"
    assert (found.values["dropout"], found.values["batch_norm"]) == (["2"], ["1"])
    objective.model[1].eval()
    found = modes(objective)
    assert found.values["batch_norm"] == []
    assert "4 of 5 modules in train mode" in found.text
    still = network(nn.BatchNorm1d(8), nn.Dropout(0.5), mode="eval")
    assert still.model.training
    assert modes(still).status == "ok"


def test_layers_with_running_statistics_are_tried_without_moving_them(tmp_path):
    objective = network(nn.BatchNorm1d(8), nn.Tanh())
    before = {name: buffer.clone() for name, buffer in objective.model.named_buffers()}
    found = report(objective, tmp_path)
    assert not [one for one in found.values() if one.status == "FAIL"]
    assert found["second derivatives"].status == "ok"
    assert before
    assert all(torch.equal(before[name], buffer) for name, buffer in objective.model.named_buffers())


def test_values_that_are_no_numbers_end_the_report(tmp_path):
    objective = network(nn.Tanh())
    with torch.no_grad():
        objective.model[0].bias[2] = torch.inf
    found = report(objective, tmp_path)
    assert found["values"].status == "FAIL"
    assert "0.bias" in found["values"].text
    assert "determinism" not in found


def test_a_model_that_cannot_be_run_ends_the_report(tmp_path):
    found = report(network(nn.Linear(5, 8)), tmp_path)
    assert found["loss"].status == "FAIL"
    assert "cannot be multiplied" in found["loss"].text
    assert "gradient" not in found


def test_a_parameter_that_nothing_depends_on():
    objective = network(nn.Tanh())
    objective.model.register_parameter("spare", nn.Parameter(torch.ones(2)))
    unused = Objective(objective.model, nn.CrossEntropyLoss(), (torch.randn(9, 6), torch.arange(9) % 3))
    found = loss(unused)
    assert (found.status, found.values["zero_gradient"]) == ("note", ["spare"])


def test_layers_without_second_derivatives_are_named(tmp_path):
    torch.manual_seed(0)
    objective = Objective(Bag(), nn.CrossEntropyLoss(), (torch.randint(0, 9, (12, 5)), torch.arange(12) % 3))
    found = report(objective, tmp_path)
    assert found["second derivatives"].values["layers"] == ["words (EmbeddingBag)"]
    assert found["self-check hessian"].status == "FAIL"
    assert found["self-check gauss-newton"].text == "fails for the same reason"
    assert found["probe spectrum"].text == "not possible: there is no hessian product here, see above"
    assert found["probe gradient"].status == ""  # goes without


def test_a_derivative_that_is_wrong_is_named():
    found = finding("self-check", lambda: self_check(network(Opaque()), "hessian"))
    assert found.status == "FAIL"
    assert "'1' (Opaque)" in found.text


def test_a_model_that_is_no_function():
    found = finding("determinism", lambda: determinism(network(nn.Tanh(), Counting(), check=False)))
    assert found.status == "FAIL"
    assert determinism(network(nn.Dropout(0.5))).status == "ok"


def test_a_matrix_that_is_zero():
    objective = Objective(nn.Linear(6, 3), nn.L1Loss(), (torch.randn(9, 6), torch.randn(9, 3)))
    found = self_check(objective, "gauss-newton")
    assert found.status == "note"
    assert "exactly zero" in found.text


def test_half_precision_is_noise():
    torch.manual_seed(0)
    model = nn.Linear(6, 3).bfloat16()
    objective = Objective(model, nn.CrossEntropyLoss(), (torch.randn(9, 6).bfloat16(), torch.arange(9) % 3))
    found = noise(objective)
    assert found.status == "note"
    assert found.values["noise"] == objective.noise > 1e-3


def test_costs_are_those_of_a_clock():
    objective = network(nn.Linear(8, 900), nn.Tanh(), nn.Linear(900, 8), batches=3)
    costs = Costs(objective)
    A = Hessian(objective)
    v = A.random(1)[:, 0]
    A @ v

    def seconds():
        start = time.perf_counter()
        A @ v
        return time.perf_counter() - start

    assert costs.time("hessian") == pytest.approx(statistics.median(seconds() for _ in range(9)), rel=1.0)
    assert costs.batches == 3
    A @ v
    assert costs.graph == pytest.approx(A._bytes / 3, rel=0.01)


def test_what_takes_long_is_timed_on_one_batch(monkeypatch):
    monkeypatch.setattr("probes.doctor.costs._LONG", 0.0)
    costs = Costs(network(nn.Tanh(), batches=4))
    timed, times = costs.timed
    assert times == 4
    assert len(list(timed.sweep())) == 1
    found = {one.what: one for one in examine_costs(costs.whole)}
    assert "timed on the first of 4 batches" in found["gradient"].text


def test_graphs_beyond_the_budget():
    small = {one.what: one for one in examine_costs(network(nn.Tanh(), batches=4, memory=8_000))}["memory"]
    assert small.status == "note"
    assert 0 < small.values["kept"] < 4
    none = {one.what: one for one in examine_costs(network(nn.Tanh(), memory=100))}["memory"]
    assert none.status == "FAIL"


def test_names_that_hide_packages(tmp_path):
    assert names(tmp_path).status == "ok"
    (tmp_path / "torch.py").touch()
    (tmp_path / "solvers").mkdir()
    (tmp_path / "solvers" / "__init__.py").touch()
    (tmp_path / "landscape").mkdir()  # without an __init__: Python prefers the installed package
    (tmp_path / "random.py").touch()
    (tmp_path / "model.py").touch()
    assert shadows(tmp_path) == ["random.py", "solvers", "torch.py"]
    assert names(tmp_path).status == "FAIL"
    assert shadows(ROOT) == []  # a checkout of the packages themselves


PROBLEM = """
import torch
from torch import nn
from landscape import Objective
def good():
    print("loading")
    torch.manual_seed(0)
    return Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (torch.randn(9, 4), torch.arange(9) % 3))
def bad():
    found = good()
    found.model.weight.data[0, 0] = float("nan")
    return found
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trouble.py").write_text(PROBLEM)

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main(["doctor", *words])
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return call


def test_the_command(command, monkeypatch):
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        status, printed, _ = command("--problem", "trouble.py:good")
        assert status == 0
        assert max(map(len, printed.splitlines())) <= width
        assert "\x1b" not in printed
        assert "n = 15 measured of 15" in printed
    status, printed, told = command("--problem", "trouble.py:bad")
    assert status == 1
    assert "FAIL values" in printed
    assert told.endswith("landscape: 1 of the checks failed: see the lines marked FAIL\n")


def test_the_command_for_programs(command):
    status, printed, _ = command("--problem", "trouble.py:good", "--json")
    document = json.loads(printed)
    assert (status, document["ok"], document["problem"]) == (0, True, "trouble.py:good")
    rows = {row["what"]: row for row in document["findings"]}
    assert rows["gradient"]["seconds"] > 0
    assert rows["parameters"]["total"] == 15
    status, printed, _ = command("--problem", "trouble.py:bad", "--json")
    assert status == 1
    assert json.loads(printed)["ok"] is False
    status, printed, _ = command("--json")
    assert {"torch", "names"} <= {row["what"] for row in json.loads(printed)["findings"]}
    assert command("--problem", "trouble.py:none")[0] == 1
