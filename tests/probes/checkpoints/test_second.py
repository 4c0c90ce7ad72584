"""The second loss of a probe of two, which the command names by a function or a file of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Landscape
from torch import nn

from landscape import Objective
from landscape.sharpness import gradient_products, relative_critical_sharpness
from probes import Trace
from probes.seeds import derive_seed

PROBLEM = """
import torch
from torch import nn

from landscape import Objective


def data(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(32, 3, generator=generator), torch.randint(0, 2, (32,), generator=generator)


def network(width=4, norm=True):
    torch.manual_seed(9)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width) if norm else nn.Identity(), nn.Linear(width, 2))


def first():
    return Objective(network().eval(), nn.CrossEntropyLoss(), data(0))


def other():
    model = network().eval()
    with torch.no_grad():
        model[0].weight.fill_(7.0)  # weights of its own, which the checkpoint's replace
        model[1].running_mean.fill_(7.0)
    return Objective(model, nn.CrossEntropyLoss(label_smoothing=0.5), data(1))


def wider():
    return Objective(network(5).eval(), nn.CrossEntropyLoss(), data(1))


def without():
    return Objective(network(norm=False).eval(), nn.CrossEntropyLoss(), data(1))


def double():
    return Objective(network().double().eval(), nn.CrossEntropyLoss(), data(1))


def frozen():
    model = network().eval()
    model[0].weight.requires_grad_(False)
    return Objective(model, nn.CrossEntropyLoss(), data(1))


def nothing():
    return None
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("two.py").write_text(PROBLEM)
    for step in (0, 1):
        torch.manual_seed(step)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        with torch.no_grad():
            model(torch.randn(8, 3))
        torch.save(model.state_dict(), f"step{step}.pt")
    return tmp_path


def the_two(step: int) -> tuple[Objective, Objective]:
    """Made by hand on one model."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    model.load_state_dict(torch.load(f"step{step}.pt"))
    sets = []
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        sets.append((torch.randn(32, 3, generator=generator), torch.randint(0, 2, (32,), generator=generator)))
    objectives = Objective(model, nn.CrossEntropyLoss(), sets[0]), nn.CrossEntropyLoss(label_smoothing=0.5)
    return objectives[0], Objective(model, objectives[1], sets[1])


def test_both_probes_measure_what_the_functions_give_on_one_model_at_every_checkpoint(landscape: Landscape) -> None:
    probes = ("--probe", "hgp:second=two.py:other,parts=4", "--probe", "relative-critical-sharpness:moves=two.py:other")
    command = ("probe", "step0.pt", "step1.pt", "--problem", "two.py:first", *probes, "-o", "out.h5")
    assert landscape(*command).status == 0
    with Trace.open("out.h5") as trace:
        assert trace["hgp"].settings["second"] == "two.py:other"
        assert trace["hgp"].settings["first"] == "objective"
        for row, step in enumerate(trace["hgp"]["step"]):
            f, other = the_two(int(step))
            generator = torch.Generator().manual_seed(derive_seed(0, "hgp", int(step)))
            by_hand = gradient_products(f, other, parts=4, generator=generator)
            assert trace["hgp"]["distance"][row] == pytest.approx(by_hand.distance, rel=1e-6)
            assert trace["hgp"]["cosine"][row] == pytest.approx(by_hand.cosine, rel=1e-5)
            relative = relative_critical_sharpness(moves=other, watched=f)
            found = trace["relative-critical-sharpness"]
            assert found["slope"][row] == pytest.approx(relative.slope, rel=1e-5)
            assert bool(found["ascent"][row]) is relative.ascent
    again = landscape(*command, "--resume")
    assert again.status == 0
    changed = landscape(*command[:5], "--probe", "hgp:second=two.py:wider,parts=4", "-o", "out.h5", "--resume")
    assert (changed.status, "second=two.py:other, not second=two.py:wider" in changed.err) == (1, True)


@pytest.mark.parametrize(
    ("probe", "status", "why"),
    [
        ("hgp", 2, "a checkpoint has none: name a loss in its place, --probe hgp:second=module:function"),
        ("relative-critical-sharpness", 2, "--probe relative-critical-sharpness:moves=module:function"),
        ("hgp:second=test", 2, "an Objective, for the command module:function"),
        ("hgp:second=two.py:first", 2, "is the --problem itself"),
        ("hgp:second=two.py:othr", 1, "did you mean"),
        ("hgp:second=two.py:nothing", 1, "returned None"),
        ("hgp:second=two.py:wider", 1, "another model than two.py:first: 0.weight is float32 (5, 3) there"),
        ("hgp:second=two.py:without", 1, "1.weight is absent there"),
        ("hgp:second=two.py:double", 1, "0.weight is float64 (4, 3) there"),
        ("hgp:second=two.py:frozen", 1, "other parameters than two.py:first, which differ in 0.weight"),
        ("hgp:second=more.txt", 2, "two.py:first takes no texts"),
        ("hgp:second=hf:causal-lm", 2, "name the file of texts instead"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_no_trace(
    landscape: Landscape, probe: str, status: int, why: str
) -> None:
    found = landscape("probe", "step0.pt", "--problem", "two.py:first", "--probe", probe, "-o", "out.h5")
    assert (found.status, why in found.err) == (status, True), found.err
    assert not Path("out.h5").exists()


def test_the_help_says_how(landscape: Landscape) -> None:
    found = landscape("probe", "--help")
    assert "second=batch|module:function" in found.out
