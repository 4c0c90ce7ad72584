"""What TensorBoard and wandb show is what the trace keeps, as their own programs read it back."""

import json
import math
import struct
import time

import numpy as np
import pytest
import torch
from torch import nn

from landscape import Objective
from probes import CurvatureTrace, Monitor, ProbeWarning, Spectrum, Trace
from probes.errors import UserError
from probes.mirrors.mirror import as_mirror
from probes.mirrors.scalars import Scalar, scalars
from probes.trace import Field
from probes.views.export import export


def measured(path, steps=3, **options):
    torch.manual_seed(0)
    model, data = nn.Linear(3, 2), (torch.randn(8, 3), torch.randint(0, 2, (8,)))
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    with Trace.create(path, config={"lr": 0.5}, seed=0) as trace:
        monitor = Monitor(objective, [Spectrum(k=2), CurvatureTrace(matvecs=4)], trace, **options)
        for step in range(steps):
            monitor(step)
            sgd.zero_grad()
            nn.functional.cross_entropy(model(data[0]), data[1]).backward()
            sgd.step()
    return Trace.open(path)


class Kept:
    """A mirror of one's own."""

    def __init__(self, fails_at=None):
        self.seen, self.fails_at = {}, fails_at

    def show(self, probe, step, numbers):
        if step == self.fails_at:
            raise ConnectionError("the server is gone")
        self.seen[probe, step] = {number.name: number for number in numbers}


def test_a_mirror_has_the_numbers_of_the_trace_with_their_errors(tmp_path):
    kept = Kept()
    trace = measured(tmp_path / "run.h5", mirror=[kept])
    assert set(kept.seen) == {(name, step) for name in ("spectrum", "trace") for step in range(3)}
    for i, step in enumerate(trace["spectrum"]["step"]):
        found = kept.seen["spectrum", step]
        for j in range(2):
            value, error = trace["spectrum"]["values"][i, j], trace["spectrum"]["residuals"][i, j]
            assert found[f"values.{j}"] == Scalar(f"values.{j}", value, value - error, value + error)
        assert "residuals.0" not in found
        assert not {"checked", "note"} & set(found)
        own = kept.seen["trace", step]["value"]
        assert own.upper - own.value == pytest.approx(trace["trace"]["stderr"][i])


def test_a_mirror_that_fails_is_left_alone_and_the_others_go_on(tmp_path):
    bad, good = Kept(fails_at=1), Kept()
    with pytest.warns(ProbeWarning, match="is not in Kept from here on: ConnectionError: the server is gone"):
        trace = measured(tmp_path / "run.h5", mirror=[bad, good])
    assert {step for _, step in bad.seen} == {0}
    assert {step for _, step in good.seen} == {0, 1, 2}
    assert len(trace["spectrum"]["step"]) == 3
    assert len(trace.events) == 1


def test_only_what_a_curve_can_be_drawn_of(tmp_path):
    fields = {
        **{"value": Field((), "float64"), "lower": Field((), "float64"), "upper": Field((), "float64")},
        **{"nodes": Field((64,), "float64"), "ragged": Field((None,), "float64"), "word": Field((), "S8")},
        **{"right": Field((), "bool"), "by": Field((2,), "float64", labels=("a", "b"))},
    }
    values = {"value": torch.tensor(2.0), "lower": 1.5, "upper": 4.0, "nodes": np.zeros(64), "ragged": [1.0]}
    found = list(scalars(values | {"word": "no", "right": True, "by": [1.0, math.inf]}, fields))
    assert found[0] == Scalar("value", 2.0, 1.5, 4.0)
    assert found[1:] == [Scalar("right", 1.0), Scalar("by.a", 1.0), Scalar("by.b", math.inf)]


def test_what_is_no_mirror_is_refused(tmp_path):
    with pytest.raises(TypeError, match="takes a SummaryWriter"):
        measured(tmp_path / "run.h5", mirror=[print])


def curves(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_reads_curves_bounds_and_pictures(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'landscape-engine[tensorboard]'")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "live") as writer:
        trace = measured(tmp_path / "run.h5", mirror=[writer])
    (exported,) = export(trace, "tensorboard")
    assert exported == tmp_path / "run-tensorboard"
    for folder in (tmp_path / "live", exported):
        events = curves(folder)
        for tag, expected in {
            "spectrum/values.1": trace["spectrum"]["values"][:, 1],
            "bounds/trace/value/upper": trace["trace"]["value"] + trace["trace"]["stderr"],
        }.items():
            found = events.Scalars(tag)
            assert [event.step for event in found] == [0, 1, 2]
            np.testing.assert_allclose([event.value for event in found], expected, rtol=1e-6)  # it keeps float32
        assert "custom_scalars__config__" in events.Tags()["tensors"]
    assert "pictures/spectrum" in events.Tags()["images"]
    with pytest.raises(UserError, match="run-tensorboard exists"):
        export(trace, "tensorboard")
    export(trace, "tensorboard", probes=["trace"], overwrite=True)
    assert not [tag for tag in curves(exported).Tags()["scalars"] if tag.startswith("spectrum")]


def records(path):
    """The messages of a run's file: a log of blocks of 32 KiB, where a message may be in several parts."""
    data, place, message = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 0x8000 - place % 0x8000
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)  # behind the check sum
        message += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield message
            message = b""


def logged(folder):
    """Step -> what was logged, read off the file that wandb would send."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found = {}
    for message in records(path):
        record = Record.FromString(message)
        if record.HasField("history"):
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found.setdefault(int(record.history.step.num), {}).update(items)
    return found


def wait_for(read, step):
    """What was logged, once it has that step: the process that writes it may go on after the run has finished."""
    deadline = time.monotonic() + 30
    while step not in (found := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_wandb_reads_curves_bounds_and_pictures(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb: pip install 'landscape-engine[wandb]'")
    trace = measured(tmp_path / "run.h5")
    (exported,) = export(trace, "wandb-offline", tmp_path / "out")
    found = wait_for(lambda: logged(exported), 2)
    for i, step in enumerate(trace["spectrum"]["step"]):
        row, value = found[int(step)], trace["spectrum"]["values"][i, 0]
        assert row["spectrum/values.0"] == pytest.approx(value, rel=1e-12)
        assert row["spectrum/values.0/lower"] == pytest.approx(value - trace["spectrum"]["residuals"][i, 0], rel=1e-12)
    assert found[2]["pictures/spectrum._type"] == "image-file"


def test_a_run_of_wandb_is_a_mirror(tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs wandb: pip install 'landscape-engine[wandb]'")
    run = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True, console="off"))
    trace = measured(tmp_path / "run.h5", mirror=[run])
    run.finish()
    found = wait_for(lambda: logged(tmp_path), 2)
    assert [found[i]["trace/value"] for i in range(3)] == pytest.approx(trace["trace"]["value"].tolist(), rel=1e-12)


def test_an_object_with_show_is_taken_as_it_is():
    kept = Kept()
    assert as_mirror(kept) is kept
