"""The sweep over step sizes: its runs beside torch's own loop, its numbers, its command, resuming, what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from probes.digits import digits
from probes.errors import UserError
from probes.sweep import solvers as named
from probes.sweep import training
from probes.sweep.arguments import grid
from probes.sweep.curves import curves
from probes.sweep.problems import TrainingTask, build, evaluate
from probes.sweep.training import Descent, Trial
from runs import sweep
from runs.sweep import Sweep, problems, solvers

OWN = """
import torch
from torch import nn
from landscape import Objective

def problem():
    x = torch.linspace(-1, 1, 40)[:, None]
    return Objective(nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)), nn.MSELoss(), (x, x**2))

def wrong():
    return 3
"""


def row(solver: str, lr: float, seed: int, loss: float, first: float = 2.0) -> Trial:
    return Trial(solver, lr, seed, first, loss, diverged=not loss <= first)


def rows(table: dict[str, dict[float, list[float]]]) -> list[Trial]:
    """solver -> step size -> losses from seeds 0, 1, ..."""
    return [row(s, lr, i, x) for s, at in table.items() for lr, losses in at.items() for i, x in enumerate(losses)]


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_sensitivity_by_hand() -> None:
    (curve,) = curves(rows({"a": {0.1: [1.0, 1.5], 1.0: [0.5, 0.5], 10.0: [math.nan, 7.0], 100.0: [2.0, 1.0]}}))
    np.testing.assert_allclose(curve.lrs, [0.1, 1, 10, 100])
    np.testing.assert_allclose(curve.mean, [1.25, 0.5, 2.0, 1.5])  # what diverged counts as the start
    assert list(curve.diverged) == [0, 0, 2, 0]
    mean, error = curve.sensitivity
    # seed 0: (0.5 + 0 + 1.5 + 1.5) / 4; seed 1: (1 + 0 + 1.5 + 0.5) / 4
    assert mean == pytest.approx((0.875 + 0.75) / 2)
    assert error == pytest.approx(abs(0.875 - 0.75) / 2)
    assert curve.stderr[0] == pytest.approx(0.25)


def test_the_range_of_step_sizes_is_around_the_best() -> None:
    at = {1e-3: [1.0], 1e-2: [0.19], 1e-1: [0.1], 1.0: [0.15], 10.0: [0.3], 100.0: [0.1001]}
    (curve,) = curves(rows({"a": at}))
    assert curve.best == 2
    assert curve.decades() == pytest.approx(2.0)  # 1e-2 ... 1; 100 lies beyond a gap
    assert curve.decades(3.0) == pytest.approx(4.0)
    assert curve.decades(1.0) == 0.0
    assert curve.sensitivity[1] == 0.0  # one seed


def test_solvers_stay_in_their_order_and_gaps_are_refused() -> None:
    found = curves(rows({"b": {1.0: [1.0]}, "a": {1.0: [1.0]}}))
    assert [curve.solver for curve in found] == ["b", "a"]
    with pytest.raises(ValueError, match=r"a has no run at lr=2 with seed 1"):
        curves(rows({"a": {1.0: [1.0, 1.0], 2.0: [1.0]}}))


def built(name: str, seed: int) -> TrainingTask:
    return build(problems.spec(name), seed)


def descend(problem: TrainingTask, solver: str, lr: float, steps: int, batch: int, **more: Any) -> Trial:
    made = Descent(problem, solvers.spec(solver), lr, steps, batch, **more)
    made.run()
    return made.trial(solver, 0)


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_is_the_training_loop_that_it_stands_for() -> None:
    """Beside a loop written out, with torch's heavy ball as a formula."""
    found = descend(built("digits-mlp", 5), "sgd-m", 0.3, 12, 32, order=9)
    made = built("digits-mlp", 5)
    model = made.objective.model
    parameters = list(model.parameters())
    velocity = [torch.zeros_like(p) for p in parameters]
    before = made.objective.value()
    for step, (x, y) in enumerate(made.draws(32, 12, 9)):
        gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for p, v, g in zip(parameters, velocity, gradients, strict=True):
                v.copy_(g if step == 0 else 0.9 * v + 0.1 * g)
                p.sub_(0.3 * v)
    assert found.first_loss == before
    assert found.loss == pytest.approx(made.objective.value(), rel=1e-5)
    x, y = digits().test
    with torch.no_grad():
        right = (model(x).argmax(dim=1) == y).double().mean()
    assert found.test_accuracy == pytest.approx(float(right), abs=1e-12)
    assert (found.steps, found.diverged) == (12, False)


def test_runs_of_a_seed_start_alike() -> None:
    a, b, c = (built("digits-cnn", seed).objective.theta() for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    state = torch.get_rng_state()
    built("digits-vit", 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("solver", [s for s in solvers.SOLVERS if s != "sgd"])
def test_every_solver_of_the_table_descends(solver: str) -> None:
    small = "sign", "adam", "adah", "sophia", "shampoo", "soap", "spectral", "psgd"
    lr = 1e-3 if solver.startswith(small) else 0.01 if "-md" in solver or "adam" in solver else 0.5
    found = descend(built("digits-mlp", 0), solver, lr, 15, 64, looks=1)
    assert found.loss < found.first_loss
    assert not found.diverged


def test_what_diverges_says_so() -> None:
    found = descend(built("digits-mlp", 0), "sgd", 1e18, 10, 64)
    assert found.diverged
    assert found.steps < 10
    assert math.isnan(found.loss)
    assert found.capped == found.first_loss
    worse = descend(built("digits-mlp", 0), "signsgd", 1.0, 3, 64)
    assert math.isfinite(worse.loss)
    assert worse.diverged  # above its start


def test_schedules() -> None:
    assert [training.factor("sqrt", k, 9) for k in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [training.factor("cosine", k, 4) for k in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert training.factor("constant", 7, 9) == 1


def test_batches_of_ones_own_stay_whole() -> None:
    """A loader's batches, each once an epoch; one pair of tensors is cut instead."""
    net = nn.Linear(2, 1)
    own = [(torch.full((i + 1, 2), float(i)), torch.zeros(i + 1, 1)) for i in range(3)]
    made = TrainingTask(Objective(net, nn.MSELoss(), own))
    seen = [int(x[0, 0]) for x, _ in made.draws(2, 6, 0)]
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]
    pair = TrainingTask(Objective(net, nn.MSELoss(), (torch.randn(10, 2), torch.randn(10, 1))))
    assert [len(x) for x, _ in pair.draws(4, 5, 0)] == [4] * 5
    assert [len(x) for x, _ in pair.draws(64, 2, 0)] == [10] * 2
    loss, accuracy = evaluate(made.objective)
    assert loss == pytest.approx(made.objective.value(), rel=1e-12)
    assert math.isnan(accuracy)  # a regression has none


def test_options_of_solvers() -> None:
    text = "ngn:momentum=0.5,variant=md1, adam,torch.optim:AdamW:betas=(0.8,0.9),amsgrad=true"
    first, second, third = named.split_solvers(text)
    assert second == "adam"
    p = [torch.zeros(2, requires_grad=True)]
    ngn = named.make(solvers.spec(first), p, 0.25)
    assert {k: ngn.defaults[k] for k in ("lr", "momentum", "variant")} == {
        "lr": 0.25,
        "momentum": 0.5,
        "variant": "md1",
    }
    adamw = named.make(solvers.spec(third), p, 0.25)
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["betas"], adamw.defaults["amsgrad"]) == ((0.8, 0.9), True)


# -- the sweep and its command ---------------------------------------------------------------------------------------


def test_a_sweep_is_resumed_and_alike_in_several_processes(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"lrs": (0.1, 1.0), "seeds": 2, "steps": 10}
    here = Sweep("digits-mlp", ("sgd-m", "adam"), **asked).run(tmp_path / "here")
    beside = Sweep("digits-mlp", ("sgd-m", "adam"), **asked).run(tmp_path / "beside", at_once=2)
    assert [(r.solver, r.lr, r.seed, r.loss) for r in here.rows] == [
        (r.solver, r.lr, r.seed, r.loss) for r in beside.rows
    ]
    firsts = {r.seed: r.first_loss for r in here.rows}
    assert all(r.first_loss == firsts[r.seed] for r in here.rows)
    assert firsts[0] != firsts[1]

    ran: list[str] = []
    more = Sweep("digits-mlp", ("sgd-m", "adam", "ngn"), **asked)
    again = more.run(tmp_path / "here", listener=lambda name, *rest: ran.append(name) if len(rest) == 2 else None)
    assert {name.split("-")[0] for name in ran} == {"ngn"}
    assert again.rows[: len(here.rows)] == here.rows

    traces = again.traces
    assert [group.label for group in traces.groups()] == [
        f"solver={s} lr={lr}" for s in ("adam", "ngn", "sgd-m") for lr in (0.1, 1)
    ]  # the seeds are repetitions
    group = traces.where(solver="adam", lr=0.1, seed=1)
    (run,) = group
    with run.open() as trace:
        assert len(trace["loss"]["value"]) == 10
        found = next(r for r in again.rows if (r.solver, r.lr, r.seed) == ("adam", 0.1, 1))
        assert trace["whole"]["loss"][-1] == found.loss
        assert np.min(trace["whole"]["loss"]) == found.best_loss


def test_a_solver_that_fails_is_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    make = named.make

    def broken(spec: str, *rest: Any) -> Any:
        if "Adam" in spec:
            raise RuntimeError("adam is broken")
        return make(spec, *rest)

    monkeypatch.setattr(named, "make", broken)
    found = Sweep("digits-mlp", ("sgd", "adam"), (0.1,), 1, 2).run(tmp_path)
    assert [r.solver for r in found.rows] == ["sgd"]
    assert "adam is broken" in found.failures["adam"]
    with pytest.raises(UserError, match=r"every solver failed; adam: .*adam is broken"):
        Sweep("digits-mlp", ("adam",), (0.1,), 1, 2).run(tmp_path)


def test_the_command_on_ones_own_problem(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = ["--problem", f"{tmp_path / 'own.py'}:problem", "--solvers", "ngn-m,torch.optim:Rprop", "--lr", "1e-2:1:3"]
    words += ["--seeds", "2", "--steps", "20", "--batch", "8", "-o", str(tmp_path / "out")]
    sweep.main(words)
    printed = capsys.readouterr().out
    assert "ngn-m" in printed
    assert "torch.optim:Rprop" in printed
    assert "decades" in printed
    with (tmp_path / "out" / "runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 2 * 3 * 2
    assert {float(r["lr"]) for r in table} == {0.01, 0.1, 1.0}
    assert len({r["first_loss"] for r in table}) == 2  # one start for each seed
    report = json.loads((tmp_path / "out" / "sweep.json").read_text())
    (curve,) = (c for c in curves(Trial.of(_typed(r)) for r in table) if c.solver == "ngn-m")
    assert report["solvers"]["ngn-m"]["sensitivity"] == pytest.approx(curve.sensitivity)
    assert (tmp_path / "out" / "sensitivity.png").read_bytes()[:4] == b"\x89PNG"


def _typed(found: dict[str, str]) -> dict[str, Any]:
    kinds = {"solver": str, "seed": int, "steps": int, "diverged": lambda text: text == "True"}
    return {key: kinds.get(key, float)(value) for key, value in found.items()}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--problem": "digits-mpl"}, "did you mean 'digits-mlp'"),
        ({"--problem": "OWN:wrong"}, "returned an int: it must return landscape.Objective"),
        ({"--problem": "OWN:none"}, "has no function 'none'"),
        ({"--solvers": "ngm-m"}, "there is no solver 'ngm-m'; did you mean 'ngn-m'"),
        ({"--solvers": "torch.optim:Adan"}, "cannot be imported"),
        ({"--solvers": "torch.nn:Linear"}, "is no torch.optim.Optimizer"),
        ({"--solvers": "ngn:momentum=2"}, "momentum=2 is not possible"),
        ({"--solvers": "adam:beta=1"}, "unexpected keyword argument 'beta'"),
        ({"--solvers": "adam:lr=0"}, "positive and finite"),
        ({"--solvers": "adam,adam"}, "each one once"),
        ({"--lr": "1:0.1:3"}, "--lr is LOW:HIGH:COUNT"),
        ({"--lr": "a"}, "--lr is LOW:HIGH:COUNT"),
        ({"--lr": "-1,1"}, "positive and finite"),
        ({"--seeds": "0"}, "seeds is at least 1"),
        ({"--schedule": "linear"}, "schedule is constant"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: Any, changed: dict[str, str], said: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    words = {"--problem": "digits-mlp", "--solvers": "adam", "--lr": "0.1", "--out": "OUT"} | changed
    flat = [f"{key}={value}".replace("OWN", str(tmp_path / "own.py")) for key, value in words.items()]
    with pytest.raises(SystemExit) as ended:
        sweep.main([word.replace("OUT", str(tmp_path / "out")) for word in flat])
    assert ended.value.code in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        sweep.main(["--problem=digits-mlp", "--solvers=sgd", "--lr=0.1", "--steps=1", "-o", str(tmp_path / "file")])
    assert ended.value.code == 1
    assert "Not a directory" in capsys.readouterr().err


def test_grids() -> None:
    assert grid("1e-3:1e1:5") == (0.001, 0.01, 0.1, 1.0, 10.0)
    assert grid("0.3,1") == (0.3, 1.0)
    assert len(grid("1e-3:1e1:9")) == 9
