"""Going on with a trace: rows under one name are of one operator, one set of options, one problem and one network."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from probes import Field, Trace
from probes.checkpoints.arguments import parse_probes
from probes.checkpoints.run import Request, run
from probes.checkpoints.steps import checkpoint_steps
from probes.errors import UserError

Probe = Callable[..., str]

PROBLEM = """
import torch
from torch import nn
from landscape import Objective

def tiny(scale=1.0):
    generator = torch.Generator().manual_seed(1)
    x = scale * torch.randn(20, 4, generator=generator)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    return Objective(model, nn.CrossEntropyLoss(), (x, torch.randint(0, 3, (20,), generator=generator)))
"""


def save(step: int, seed: int = 0) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        model[0].weight += step / 100
    torch.save(model.state_dict(), f"step{step}.pt")


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    """`probe(*specs, files=...)` goes on with out.h5 and returns what was said."""
    monkeypatch.chdir(tmp_path)
    Path("problem.py").write_text(PROBLEM)
    for step in (0, 100):
        save(step)

    def call(
        *specs: str,
        files: tuple[str, ...] = ("step0.pt", "step100.pt"),
        operator: str = "hessian",
        seed: int = 0,
        problem: str = "problem.py:tiny",
    ) -> str:
        said = StringIO()
        request = Request(
            checkpoint_steps(files),
            problem,
            parse_probes(specs, operator),
            Path("out.h5"),
            operator,
            seed=seed,
            resume=True,
        )
        run(request, Console(file=said, width=400))
        return said.getvalue()

    return call


def test_what_differs_is_refused_with_both_values(probe: Probe) -> None:
    probe("spectrum:k=2")
    before = Path("out.h5").read_bytes()
    for specs, operator, words in (
        (["spectrum:k=2"], "gauss-newton", ["spectrum with operator=hessian, not operator=gauss-newton"]),
        (["spectrum:k=4"], "hessian", ["spectrum with k=2, not k=4", "--probe spectrum:name="]),
        (["spectrum:k=2,parameters=2.*"], "hessian", ["parameters=None, not parameters=['2.*']"]),
    ):
        with pytest.raises(UserError) as raised:
            probe(*specs, operator=operator)
        assert all(word in str(raised.value) for word in (*words, "--overwrite", "another -o")), raised.value
    Path("other.py").write_text(PROBLEM)
    with pytest.raises(UserError, match=r"was measured on problem\.py:tiny, not on other\.py:tiny"):
        probe("spectrum:k=2", problem="other.py:tiny")
    with pytest.raises(UserError, match="has seed 0: resume it with --seed 0"):
        probe("spectrum:k=2", seed=1)
    assert Path("out.h5").read_bytes() == before


def test_another_probe_or_name_may_have_another_operator(probe: Probe) -> None:
    probe("spectrum:k=2")
    assert probe("trace", "spectrum:k=4,name=more", operator="gauss-newton") == ""
    with Trace.open("out.h5") as trace:
        assert sorted(trace) == ["loss", "more", "spectrum", "trace"]
        assert trace["trace"].settings["operator"] == "gauss-newton"


def test_a_checkpoint_that_was_replaced_is_refused(probe: Probe) -> None:
    probe("spectrum:k=2")
    save(100, seed=5)
    with pytest.raises(UserError, match=r"at step 100 on weights with hash \w{12}, those of step100.pt have"):
        probe("spectrum:k=2")
    with pytest.raises(UserError, match="step 100"):
        probe("trace")
    save(100)
    weights = torch.load("step100.pt", weights_only=True)
    torch.save({"state_dict": weights, "epoch": 3}, "step100.pt")  # another file with the same weights
    assert probe("spectrum:k=2") == ""


def test_checkpoints_that_come_later_are_kept_by_their_hashes_too(probe: Probe) -> None:
    probe("spectrum:k=2", files=("step0.pt",))
    probe("spectrum:k=2")
    with Trace.open("out.h5") as trace:
        first, second = trace["loss"]["weights"].tolist()
        assert first != second
    save(100, seed=5)
    with pytest.raises(UserError, match="at step 100 on weights"):
        probe("spectrum:k=2")


def test_another_problem_under_the_same_name_is_refused(probe: Probe) -> None:
    probe("spectrum:k=2")
    Path("problem.py").write_text(PROBLEM.replace("scale=1.0", "scale=2.0"))
    with pytest.raises(UserError, match=r"the loss at step 0 is [\d.]+ in out.h5 and [\d.]+ now: the model, the loss"):
        probe("trace")


def test_losses_that_agree_where_the_output_is_uniform_differ_in_their_gradients(probe: Probe) -> None:
    state = torch.load("step0.pt")
    torch.save({name: torch.zeros_like(w) if name.startswith("2.") else w for name, w in state.items()}, "step0.pt")
    probe("spectrum:k=2", files=("step0.pt",))
    Path("problem.py").write_text(PROBLEM.replace("Loss()", "Loss(label_smoothing=0.3)"))
    with pytest.raises(UserError, match="the norm of the gradient at step 0 is"):
        probe("spectrum:k=2")


def test_a_trace_without_hashes_is_gone_on_with_and_that_is_said(probe: Probe) -> None:
    probe("spectrum:k=2", files=("step0.pt",))
    with Trace.open("out.h5") as trace:
        loss, spectrum = trace["loss"].row(), trace["spectrum"]
        fields, settings, row = spectrum.fields, spectrum.settings, spectrum.row()
        config, seed = trace.config, trace.seed
    with Trace.create("out.h5", config=config, seed=seed, overwrite=True) as old:
        old.declare("loss", {"value": Field(), "gradient_norm": Field()})
        old.record("loss", 0, value=loss["value"], gradient_norm=loss["gradient_norm"])
        old.declare("spectrum", fields, settings=settings)
        old.record("spectrum", 0, **{name: row[name] for name in fields})
    assert "out.h5 has no hashes of its checkpoints: whether they are the same cannot be told" in probe("spectrum:k=2")
    with Trace.open("out.h5") as trace:
        assert trace["spectrum"]["step"].tolist() == trace["loss"]["step"].tolist() == [0, 100]
        np.testing.assert_array_equal(trace["spectrum"]["values"][0], row["values"])


def test_where_vectors_lie_is_said_before_the_start_and_changes_no_record(probe: Probe) -> None:
    """A trace goes on wherever the vectors of its first steps lay, and one says so that they do not lie as usual."""
    assert probe("spectrum:k=2", "density:steps=3,probes=2", files=("step0.pt",)) == ""
    said = probe("spectrum:k=2,basis=disk", "density:steps=3,probes=2,basis=host").splitlines()
    assert [line.partition(" basis ")[0] for line in said] == ["note: spectrum:", "note: density:"]
    assert said[0].endswith("KiB on disk at most")
    assert said[1].endswith("KiB in host memory at most")
    with Trace.open("out.h5") as trace:
        assert trace["spectrum"]["step"].tolist() == trace["density"]["step"].tolist() == [0, 100]


def test_equal_weights_and_prefixes_are_said(probe: Probe) -> None:
    weights = torch.load("step0.pt", weights_only=True)
    torch.save({"state_dict": {f"net.{key}": value for key, value in weights.items()}}, "step100.pt")
    said = probe("spectrum:k=2").splitlines()
    assert said == [
        "note: step100.pt: the weights are those under 'net.', which is looked through",
        "note: the checkpoints of steps 0, 100 hold the same weights",
    ]
