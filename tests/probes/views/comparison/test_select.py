"""landscape compare: the right runs, averaged as they should be, and everything left out is said."""

import math
import re

import matplotlib.image
import numpy as np
import pytest

from probes import Field, Trace, TraceSet
from probes.cli import main
from probes.errors import UserError
from probes.views.comparison.select import compare_runs, find

RATES, SEEDS = (0.02, 0.1), (0, 1, 2)


def value(rate, seed, step):
    return 10 * rate * step + seed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two rates, three seeds each, measured at steps that differ; the loss halves every 10 steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep").mkdir()
    for rate in RATES:
        for seed in SEEDS:
            config = {"optimizer": {"lr": rate}, "seed": seed}
            with Trace.create(tmp_path / f"sweep/lr{rate}-{seed}.h5", config=config, seed=seed) as trace:
                trace.declare("sharpness", {"value": Field((), "float64", "1"), "top": Field((2,), labels=("a", "b"))})
                trace.declare("loss", {"value": Field()})
                for step in range(0, 41, 5 + 5 * (seed == 1)):
                    y = value(rate, seed, step)
                    trace.record("sharpness", step, epoch=step / 10, value=y, top=[y, 2 * y])
                for step in range(0, 41, 2):
                    trace.record("loss", step, value=2 ** (-step / 10) * (1 + seed / 10))
    return tmp_path


def test_mean_and_error_over_seeds(folder):
    comparison = compare_runs(TraceSet.open("sweep"))
    assert (comparison.field, comparison.units, comparison.by) == ("sharpness.value", "1", "step")
    assert [group.label for group in comparison.groups] == ["optimizer.lr=0.02", "optimizer.lr=0.1"]
    assert comparison.grid(100).tolist() == list(range(0, 41, 5))
    for group, rate in zip(comparison.groups, RATES, strict=True):
        found = group.average(np.array([0.0, 15, 40, 41]))
        # linear in the step: interpolation is exact; the seeds 0, 1, 2 have deviation 1
        np.testing.assert_allclose(found.mean, [*(value(rate, 1, step) for step in (0, 15, 40)), math.nan])
        np.testing.assert_allclose(found.stderr[:3], 1 / math.sqrt(3))
        assert found.runs.tolist() == [3, 3, 3, 0]
    assert comparison.notes == ()


def test_other_axes(folder):
    runs = TraceSet.open("sweep")
    epochs = compare_runs(runs, by="epoch").groups[0].average(np.array([4.0]))
    assert epochs.mean == pytest.approx(value(0.02, 1, 40))
    times = compare_runs(runs, by="time")
    assert times.grid(50).max() < 10
    by_loss = compare_runs(runs, by="loss", keys=("run",))
    levels = by_loss.grid(30)
    for group, (rate, seed) in zip(by_loss.groups, [(r, s) for r in RATES for s in SEEDS], strict=True):
        start = 1 + seed / 10
        reached = levels[(levels <= start) & (levels >= start / 16)]
        steps = -10 * np.log2(reached / start)  # the loss is linear between records only, so this is near
        np.testing.assert_allclose(group.average(reached).mean, value(rate, seed, steps), atol=0.2)
        assert np.isnan(group.average(np.array([1.3, 0.01])).mean).all()


def test_fields_are_found(folder):
    runs = TraceSet.open("sweep")
    for text, name in (
        ("sharpness", "sharpness.value"),
        ("loss.value", "loss.value"),
        ("sharpness.top", "sharpness.top.a"),
        ("sharpness.top.b", "sharpness.top.b"),
    ):
        assert compare_runs(runs, text).field == name
    double = compare_runs(runs, "sharpness.top.b").groups[0].average(np.array([20.0]))
    assert double.mean == pytest.approx(2 * value(0.02, 1, 20))
    fields = {"value": Field(), "matrix": Field((2, 2)), "word": Field((), "str"), "ragged": Field((None,))}
    tables = {"sharpness": {"n": Field()}, "sharpness.train": fields, "spectrum": {"values": Field((3,))}}
    assert find("sharpness.train", tables).name == "sharpness.train.value"
    assert find("sharpness.train.matrix.1.0", tables).entry == 2
    assert find("sharpness", tables).name == "sharpness.n"
    assert find("spectrum", tables).name == "spectrum.values.0"
    for text in ("sharpness.train.word", "sharpness.train.ragged", "sharpness.train.matrix", "spectrum.values.3", "x"):
        assert find(text, tables) is None


def test_groups(folder):
    runs = TraceSet.open("sweep")
    one = compare_runs(runs.where({"optimizer.lr": 0.1}))
    assert [(group.label, len(group.names)) for group in one.groups] == [("all runs", 3)]
    by_seed = compare_runs(runs, keys=("seed",))
    assert [(group.label, len(group.names)) for group in by_seed.groups] == [
        ("seed=0", 2),
        ("seed=1", 2),
        ("seed=2", 2),
    ]
    assert any("differ in optimizer.lr" in note for note in by_seed.notes)
    with pytest.raises(UserError, match=r"--group: no run has 'lr' in its config; there are optimizer\.lr, run, seed"):
        compare_runs(runs, keys=("lr",))


def test_what_is_left_out_is_said(folder):
    (folder / "sweep/text.h5").write_text("no trace")
    with Trace.create(folder / "sweep/other.h5", config={"optimizer": {"lr": 3}}, seed=0) as trace:
        trace.declare("loss", {"value": Field()})
        trace.record("loss", 0, value=1)
    with Trace.create(folder / "sweep/nan.h5", config={"optimizer": {"lr": 0.1}}, seed=2) as trace:
        trace.declare("sharpness", {"value": Field()})
        trace.record("sharpness", 0, value=math.nan)
        trace.record("sharpness", 10, value=5)
    comparison = compare_runs(TraceSet.open("sweep"), "sharpness")
    notes = "\n".join(comparison.notes)
    assert "1 of 8 runs have no sharpness.value: other.h5" in notes
    assert "1 file cannot be read; text.h5: " in notes
    assert "not finite, and left out: 1 records" in notes
    assert "some runs have the same seed, so that the errors may be too small: optimizer.lr=0.1" in notes
    by_loss = compare_runs(TraceSet.open("sweep"), "sharpness", by="loss")
    assert any("left out, without a loss" in note and "nan.h5" in note for note in by_loss.notes)
    by_epoch = compare_runs(TraceSet.open("sweep"), "sharpness", by="epoch")
    assert any("with an epoch: nan.h5" in note for note in by_epoch.notes)


def test_runs_that_measured_nothing(tmp_path):
    for name, rows in (("a", 0), ("b", 2)):
        with Trace.create(tmp_path / f"{name}.h5", config={"lr": 0.1}, seed=rows) as trace:
            trace.declare("spectrum", {"values": Field((3,)), "square": Field((2, 2))})
            for step in range(rows):
                trace.record("spectrum", step, values=[step, 0, 0], square=[[1, 2], [3, 4]])
    for field in ("spectrum.values", "spectrum.square.1.0"):
        with pytest.raises(UserError, match=r"no run has a record of spectrum\..*landscape show says what was skipped"):
            compare_runs(TraceSet.open(tmp_path / "a.h5"), field)
        comparison = compare_runs(TraceSet.open(tmp_path), field)
        assert [group.names for group in comparison.groups] == [("b.h5",)]
        assert any("left out" in note and "a.h5" in note for note in comparison.notes)


def test_runs_without_a_config_stand_for_themselves(tmp_path):
    for name in "ab":
        with Trace.create(tmp_path / f"{name}.h5") as trace:
            trace.declare("x", {"v": Field()})
            trace.record("x", 0, v=1)
    comparison = compare_runs(TraceSet.open(tmp_path))
    assert [group.label for group in comparison.groups] == ["a.h5", "b.h5"]
    assert "no config" in comparison.notes[0]
    with pytest.raises(UserError, match=r"no run has values of x\.v with an epoch: use --by step"):
        compare_runs(TraceSet.open(tmp_path), by="epoch")
    with pytest.raises(UserError, match="no run has a loss"):
        compare_runs(TraceSet.open(tmp_path), by="loss")


@pytest.fixture
def call(folder, capsys, monkeypatch):
    def run(*words, columns="200"):
        monkeypatch.setenv("COLUMNS", columns)
        with pytest.raises(SystemExit) as stopped:
            main(["compare", *words])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run


def test_the_command_prints_a_table(call):
    status, out, err = call("sweep")
    assert (status, err) == (0, "")
    assert "optimizer.lr=0.02 (3 runs)" in out
    row = next(line for line in out.splitlines() if re.match(r" +20 ", line))
    assert row.split() == ["20", "5.0", "±", "0.6", "21.0", "±", "0.6"]
    assert "± one standard error over the runs of a column" in out
    assert "linear between records, within each run's own range" in out
    narrow = call("sweep", "--group", "run", columns="60")[1]
    assert all(len(line.rstrip()) <= 60 for line in narrow.splitlines() if "±" not in line)
    assert all(f"lr{rate}-{seed}.h5" in narrow for rate in RATES for seed in SEEDS)
    one = call("sweep/lr0.1-0.h5", "sweep/lr0.02-0.h5", "--field", "loss", "--by", "epoch")
    assert one[0] == 1
    assert "no run has values of loss.value with an epoch" in one[2]
    by_loss = call("sweep/*-0.h5", "--by", "loss")[1]
    losses = [float(line.split()[0]) for line in by_loss.splitlines() if re.match(r" +[0-9]", line)]
    assert losses == sorted(losses, reverse=True)
    assert "when a run first came down to it" in by_loss


@pytest.mark.parametrize("by", ["step", "loss"])
def test_the_command_draws(call, folder, by):
    status, out, _ = call("sweep", "--by", by, "-o", "pictures/a.png")
    assert status == 0
    assert out.splitlines()[-1] == "pictures/a.png"
    picture = matplotlib.image.imread(folder / "pictures/a.png")[..., :3]
    assert picture.shape[1] > 1000
    for colour in ("0072B2", "D55E00"):  # a line for each of the two
        target = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        assert (np.abs(picture - target).max(axis=-1) < 0.02).sum() > 500
    assert [path.name for path in (folder / "pictures").iterdir()] == ["a.png"]


def test_bad_input_is_one_line(call, folder):
    before = sorted(folder.rglob("*"))
    for words, status, text in (
        (["nowhere"], 1, "there is no file or folder nowhere"),
        (["sweep/x*.h5"], 1, "no file matches sweep/x*.h5"),
        (["sweep", "--by", "steps"], 2, "did you mean 'step'"),
        (["sweep", "--field", "sharpnes.value"], 1, "did you mean 'sharpness.value'"),
        (["sweep", "--group", "optimizer.rate"], 1, "there are optimizer.lr"),
        (["sweep", "-o", "a.pdf"], 2, "a .png file, not a.pdf"),
        (["sweep", "-o", "/proc/a/b.png"], 1, "landscape: "),
        (["sweep", "--by", "loss", "--loss", "nothing"], 1, "no run has a loss (nothing)"),
        ([], 2, "Missing argument"),
    ):
        done = call(*words)
        assert (done[0], done[2].count("\n")) == (status, 1), done
        assert text in done[2]
    assert sorted(folder.rglob("*")) == before


def test_what_is_said_of_the_products_is_said_once_or_of_whom(tmp_path):
    for name, noise, checked in (("a", 0.0, "agrees"), ("b", 0.008, "agrees"), ("c", 0.008, "not told: a kink")):
        with Trace.create(tmp_path / f"{name}.h5", config={"name": name}) as trace:
            trace.declare("trace", {"value": Field(), "noise": Field(), "checked": Field(dtype="S40")})
            for step in range(3):
                trace.record("trace", step, value=1.0, noise=noise * (step == 1), checked=checked)
    with Trace.create(tmp_path / "d.h5", config={"name": "d"}) as trace:  # of an earlier version
        trace.declare("trace", {"value": Field()})
        trace.record("trace", 0, value=1.0)
    notes = compare_runs(TraceSet.open(str(tmp_path)), "trace.value").notes
    assert [note for note in notes if "noise" in note] == ["relative noise of a product 0.008 (b.h5, c.h5)"]
    assert "second derivatives: agrees (a.h5, b.h5)" in notes
    assert "second derivatives: not told: a kink (c.h5)" in notes
    alike = compare_runs(TraceSet.open([str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]), "trace.value").notes
    assert "second derivatives: agrees" in alike
