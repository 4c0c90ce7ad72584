"""Trace: what a killed process, a full disk, a removed file and a fork leave behind."""

import errno
import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest
from trace_cases import check, killed, scalars, start

from probes import Field, Trace, TraceError
from probes.trace import writer
from probes.trace.lock import Owner
from probes.trace.state import state_of


def test_kill_leaves_every_flushed_record(tmp_path):
    random.seed(0)
    runs = [(tmp_path / f"run{i}.h5", 1 if i % 2 else 7) for i in range(10)]
    for pair in zip(runs[::2], runs[1::2], strict=True):
        processes = [start(path, every) for path, every in pair]
        assert all(process.stdout.readline() for process in processes)
        time.sleep(random.uniform(0, 0.6))
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process, (path, _) in zip(processes, pair, strict=True):
            flushed = process.communicate()[0].split()
            check_killed(path, int(flushed[-1]) if flushed else 0)


def check_killed(path, flushed):
    columns = Trace.open(path)["x"].read()
    assert len(columns["step"]) > flushed
    check(columns)
    rows = len(columns["step"])
    with Trace.resume(path) as trace:
        assert len(trace["x"]) == rows
        trace.record("x", rows, v=rows, a=np.full(3, rows), r=np.full(rows % 3, rows), s=str(rows))
    check(Trace.open(path)["x"].read())
    assert Trace.open(path).periods[1]["step"] == rows - 1
    assert [p.name for p in path.parent.glob(f".{path.name}*")] == []


def test_reading_while_another_process_writes(tmp_path):
    path = tmp_path / "run.h5"
    process = start(path, 3)
    try:
        assert process.stdout.readline()
        trace = Trace.open(path)
        rows = 0
        for _ in range(30):
            columns = trace["x"].read()
            check(columns)
            assert len(columns["step"]) >= rows
            rows = len(columns["step"])
            time.sleep(0.02)
        assert rows > 10
        with pytest.raises(TraceError, match=f"written by process {process.pid}"):
            Trace.resume(path)
    finally:
        process.kill()
        process.communicate()


LIMITED = """
import resource, sys
from probes import Field, Trace, TraceError
from probes.trace.state import state_of
import probes.trace.writer as writer
if sys.argv[2] == "1":  # without the check beforehand: HDF5's own write fails
    writer.make_room = lambda descriptor, size: None
trace = Trace.create(sys.argv[1])
trace.declare("x", {"v": Field((64,))})
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for i in range(100_000):
    trace.record("x", i, v=[i] * 64)
    if i % 50 == 49:
        try:
            trace.flush()
        except TraceError as error:
            print(error, flush=True)
            break
        flushed = i
print(flushed, trace.broken, flush=True)
if sys.argv[2] == "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    trace.flush()  # there is room again
    trace.close()
print(len(trace["x"]), flush=True)
"""


@pytest.mark.parametrize("unforeseen", [0, 1])
def test_full_disk_is_an_error_and_the_process_lives_on(tmp_path, unforeseen):
    path = tmp_path / "run.h5"
    process = start(path, unforeseen, LIMITED, stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert err == ""
    message, state, rows = out.strip().split("\n")
    flushed, broken = state.split()
    assert "File too large" in message
    assert broken == str(bool(unforeseen))
    columns = Trace.open(path)["x"].read()
    steps = columns["step"]
    assert len(steps) == int(rows) == int(flushed) + (1 if unforeseen else 51)
    np.testing.assert_array_equal(columns["v"], np.repeat(np.arange(len(steps))[:, None], 64, axis=1))
    with Trace.resume(path) as trace:
        trace.record("x", len(steps), v=np.zeros(64))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("limit", [0, 1000])
def test_creating_on_a_full_disk_leaves_nothing(tmp_path, limit):
    code = """
import resource, sys
from probes import Trace
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
Trace.create(sys.argv[1])
"""
    process = start(tmp_path / "run.h5", limit, code, stderr=subprocess.PIPE)
    assert "TraceError: cannot write" in process.communicate()[1]
    assert process.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_fill_the_memory(tmp_path, monkeypatch):
    def full(descriptor, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer, "FLUSH_SECONDS", 1000.0)
    monkeypatch.setattr(writer, "_MOST_WAITING", 4096)
    with Trace.create(tmp_path / "run.h5") as trace:
        trace.declare("x", {"v": Field((64,))})
        trace.flush()
        with monkeypatch.context() as disk:
            disk.setattr(writer, "make_room", full)
            with pytest.raises(TraceError, match=r"No space left.*8 records wait"):
                for step in range(100):
                    trace.record("x", step, v=np.zeros(64))
        trace.record("x", step, v=np.zeros(64))
        assert trace["x"]["step"].tolist() == list(range(step + 1))


def test_a_removed_file_is_written_again_and_another_one_is_left_alone(tmp_path):
    path = tmp_path / "run.h5"
    trace = scalars(path, 1)
    trace.flush()
    path.unlink()
    trace.record("x", 1, v=2)
    with pytest.warns(UserWarning, match="was removed"):
        trace.flush()
    assert trace["x"]["v"].tolist() == [1, 2]
    path.unlink()
    path.write_text("mine")
    trace.record("x", 2, v=2)
    with pytest.raises(TraceError, match="replaced by another file"):
        trace.flush()
    with pytest.raises(TraceError, match="1 records are lost"):
        trace.close()
    assert path.read_text() == "mine"


def test_a_fork_can_neither_write_nor_harm(tmp_path):
    code = """
import os, sys
from probes import Field, Trace, TraceError
from probes.trace.state import state_of
trace = Trace.create(sys.argv[1])
trace.declare("x", {"v": Field()})
trace.record("x", 0, v=1)
trace.flush()
trace.record("x", 1, v=1)
child = os.fork()
if child == 0:
    try:
        trace.record("x", 2, v=1)
    except TraceError as error:
        print(error, flush=True)
    trace.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
trace.record("x", 2, v=1)
os._exit(0) if sys.argv[2] == "1" else None
"""
    process = start(tmp_path / "run.h5", 0, code)
    assert "not by a fork" in process.communicate()[0]
    assert process.returncode == 0
    # the parent did not close: its exit did
    assert Trace.open(tmp_path / "run.h5")["x"]["step"].tolist() == [0, 1, 2]


def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path):
    code = """
import os, sys, time
from probes import Trace
trace = Trace.create(sys.argv[1])
if os.fork() == 0:
    os.close(1)
    time.sleep(20)
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(20)
"""
    process = start(tmp_path / "run.h5", 0, code, start_new_session=True)
    try:
        assert process.stdout.readline()
        process.kill()
        process.communicate()
        Trace.resume(tmp_path / "run.h5").close()
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_an_exception_in_the_block_is_not_hidden(tmp_path):
    path = tmp_path / "run.h5"
    with pytest.raises(ZeroDivisionError), scalars(path, 1):
        raise ZeroDivisionError
    assert len(Trace.open(path)["x"]) == 1


def test_a_trace_that_nobody_closes_is_closed_when_it_is_garbage(tmp_path):
    trace = scalars(tmp_path / "run.h5", 1)
    del trace
    with Trace.resume(tmp_path / "run.h5") as trace:
        assert len(trace["x"]) == 1


def test_a_crashed_file_that_was_cut_short_is_refused(tmp_path):
    killed(tmp_path / "run.h5")
    data = (tmp_path / "run.h5").read_bytes()
    whole = Trace.open(tmp_path / "run.h5")
    assert whole["y"]["v"].sum() == 40 * sum(range(3000))
    refused = []
    began = time.monotonic()
    for cut in (1, 3000, 30_000, len(data) // 2, len(data) - 5000):
        path = tmp_path / f"cut{cut}.h5"
        path.write_bytes(data[:-cut])
        for attempt in (Trace.open, Trace.resume):
            with pytest.raises(TraceError, match="truncated or damaged") as caught:
                attempt(path)
            assert "\n" not in str(caught.value)
        refused.append(str(caught.value))
        assert path.read_bytes() == data[:-cut]
    assert "records of y lie beyond its end" in refused[1]
    assert time.monotonic() - began < 20  # HDF5 alone would read again and again, for ever
    with Trace.resume(tmp_path / "run.h5") as trace:
        assert len(trace["x"]) == 3000


def test_live_closed_and_crashed_writers_are_told_apart(tmp_path):
    path = tmp_path / "run.h5"
    process = start(path, 3)
    try:
        assert process.stdout.readline()
        assert state_of(path)[1] == Owner.here()._replace(process=process.pid)
    finally:
        process.kill()
        process.communicate()
    assert state_of(path) == ("crashed", None)
    with Trace.resume(path):
        assert state_of(path) == ("live", Owner.here())
    assert state_of(path) == ("closed", None)
    with pytest.raises(TraceError, match="cannot be read"):
        state_of(tmp_path / "none.h5")


def test_onlookers_do_not_stand_in_a_writers_way(tmp_path):
    path = tmp_path / "run.h5"
    Trace.create(path).close()
    code = f"""
from pathlib import Path
from probes.trace.state import state_of
print("ready", flush=True)
while True:
    state_of(Path({str(path)!r}))
"""
    process = start(path, 0, code)
    try:
        assert process.stdout.readline()
        for _ in range(100):
            Trace.resume(path).close()
    finally:
        process.kill()
        process.communicate()
